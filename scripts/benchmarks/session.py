"""What a `Session.run` costs over a bare `InferenceSession.run` of the same graph, on the CPU.

Both run the same bundle's graph with the same settings, in turns of a hundred calls each, so that
whatever else the machine does falls on both.

    python scripts/benchmarks/session.py                    # the digits net of tests/data
    python scripts/benchmarks/session.py NAME.edge --calls 2000
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import edge_runtime as er
from edge_runtime.backends.cpu import open_session
from edge_runtime.backends.registry import CPU_GRAPHS

DIGITS = Path(__file__).resolve().parents[2] / "tests" / "data" / "digits.onnx"
TURN = 100


def turn(run: Callable[[], object]) -> float:
    """Microseconds that a call takes, the median of one turn."""
    times = []
    for _ in range(TURN):
        start = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


def measure(path: Path, calls: int) -> None:
    bundle = er.Bundle.open(path)
    shapes = {s.name: [1 if size < 0 else size for size in s.shape] for s in bundle.inputs}
    feeds = {s.name: np.zeros(shapes[s.name], dtype=s.dtype) for s in bundle.inputs}
    present = {entry.name for entry in bundle.manifest.entries}
    bare = open_session(bundle.read(next(name for name in CPU_GRAPHS if name in present)))
    names = [spec.name for spec in bundle.outputs]
    with er.load(path, device="cpu") as session:
        ours, theirs = [], []
        for _ in range(max(calls // TURN, 1)):
            theirs.append(turn(lambda: bare.run(names, feeds)))
            ours.append(turn(lambda: session.run(feeds)))
    overhead = statistics.median(a - b for a, b in zip(ours, theirs, strict=True))
    base = statistics.median(theirs)
    print(f"InferenceSession.run   {base:10.1f} µs")
    print(f"Session.run            {statistics.median(ours):10.1f} µs")
    print(f"overhead               {overhead:10.1f} µs  {overhead / base:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--calls", type=int, default=3000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.bundle or er.build(DIGITS, output=Path(folder) / "digits.edge").path
        measure(path, args.calls)


if __name__ == "__main__":
    main()
