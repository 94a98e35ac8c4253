"""Runs the steps of the selftest one after another and packs what came of them; see selftest.sh.

Only the standard library is used: the report is written even where nothing could be installed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from facts import board_name, collect
from plan import steps
from report import pack, summary
from step import Outcome, run

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Runs what the command line says."""
    python = ROOT / ".venv" / "bin" / "python"
    names = [step.name for step in steps("tensorrt", python, Path())]
    parser = argparse.ArgumentParser(
        prog="selftest.sh",
        description="Tries everything on a Jetson, and writes one report to send back.",
        epilog=f"Steps: {', '.join(names)}.",
    )
    parser.add_argument("--device", choices=("tensorrt", "cpu"), default="tensorrt")
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="STEP")
    parser.add_argument("--skip", nargs="+", default=[], choices=names, metavar="STEP")
    parser.add_argument("--output", type=Path, default=Path(), help="folder of the report")
    parser.add_argument("--python", type=Path, default=python, help="instead of that in .venv")
    given = parser.parse_args()
    python = given.python.absolute()
    chosen = set(given.only) - set(given.skip)
    with tempfile.TemporaryDirectory(prefix="edge-runtime-selftest-") as name:
        folder = Path(name)
        (folder / "logs").mkdir()
        outcomes: list[Outcome] = []
        for step in steps(given.device, python, folder):
            print(f"{step.name:<16} ", end="", flush=True)
            try:
                outcome = run(step, folder / "logs", skip=step.name not in chosen, cwd=ROOT)
            except KeyboardInterrupt:
                outcome = Outcome(step.name, "failed: interrupted; nothing after it was run")
            print(outcome.status, flush=True)
            outcomes.append(outcome)
            if "interrupted" in outcome.status:
                break
        collect(folder / "facts", python)
        report = pack(outcomes, folder, given.output, device=given.device, board=board_name())
    print(summary(outcomes))
    print(f"Wrote {report}; please look at what is in it, and send it back.")
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
