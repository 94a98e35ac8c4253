"""What `import edge_runtime` and `edge-runtime --help` cost over a bare start of Python.

python scripts/benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python": ["-c", "pass"],
    "import edge_runtime": ["-c", "import edge_runtime"],
    "import click": ["-c", "import click"],
    "edge-runtime --help": ["-m", "edge_runtime", "--help"],
}
ROUNDS = 15


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            times[name].append((time.perf_counter() - start) * 1000)
    base = statistics.median(times["python"])
    print(f"{'':22}{'median ms':>10}{'over python':>13}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:22}{median:10.0f}{median - base:13.0f}")


if __name__ == "__main__":
    main()
