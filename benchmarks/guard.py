"""Whether the package has become slower since the last release, as ratios against peers.

    python benchmarks/guard.py              # compare with baseline.json; two minutes
    python benchmarks/guard.py --update     # at a release: keep these ratios as the baseline

A ratio is the least time of ours by the least time of the peer, in the same run, so that it moves
little from machine to machine. It may be half as large again as the baseline's. What is above is
measured again, twice at most, and its least ratio counts: a slow-down is there each time. Exit code
1 if one stays. It needs the dependency group `bench`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "baseline.json"
TOLERANCE = 0.5
TRIES = 3

Ratios = dict[str, float]


def measure(names: Sequence[str] = ()) -> Ratios:
    """Runs the benchmarks, or those of these names, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pytest", str(HERE), "-q", "-p", "no:cacheprovider"]
        command += ["--timeout=600", "--benchmark-quiet", f"--benchmark-json={report}"]
        if names:
            command += ["-k", " or ".join(names)]
        subprocess.run(command, cwd=HERE.parent, check=True, stdout=sys.stderr)
        return ratios(json.loads(report.read_text(encoding="utf-8")))


def ratios(report: dict[str, Any]) -> Ratios:
    """The ratio of each pair in what pytest-benchmark has written."""
    least: dict[str, dict[str, float]] = {}
    for found in report["benchmarks"]:
        least.setdefault(found["group"], {})[found["extra_info"]["side"]] = found["stats"]["min"]
    return {name: sides["ours"] / sides["peer"] for name, sides in sorted(least.items())}


def slower(found: Ratios, baseline: Ratios) -> list[str]:
    """Those whose ratio is above what is tolerated."""
    return [name for name in baseline if found[name] > baseline[name] * (1 + TOLERANCE)]


def check(found: Ratios, baseline: Ratios) -> None:
    """Both must have the same benchmarks: one that is gone guards nothing."""
    if found.keys() != baseline.keys():
        apart = ", ".join(sorted(found.keys() ^ baseline.keys()))
        sys.exit(f"{BASELINE.name} and the benchmarks that ran differ in {apart}; see --update.")


def main() -> None:
    """Compares, or keeps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--update", action="store_true", help="keep these ratios as the baseline")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    args = parser.parse_args()
    if args.update:
        from edge_runtime.version import __version__

        kept = {name: round(ratio, 3) for name, ratio in measure().items()}
        plain = {"version": __version__, "tolerance": TOLERANCE, "ratios": kept}
        args.baseline.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
        print(f"Wrote {args.baseline}")
        return
    kept = json.loads(args.baseline.read_text(encoding="utf-8"))
    baseline: Ratios = kept["ratios"]
    found = measure()
    check(found, baseline)
    for _ in range(TRIES - 1):
        again = slower(found, baseline)
        if again:
            found |= {name: min(found[name], ratio) for name, ratio in measure(again).items()}
    wrong = slower(found, baseline)
    print(f"{'ours / peer':28}{kept['version']:>10}{'now':>10}")
    for name, ratio in found.items():
        verdict = f"  slower by more than {TOLERANCE:.0%}" if name in wrong else ""
        print(f"{name:28}{baseline[name]:10.3f}{ratio:10.3f}{verdict}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
