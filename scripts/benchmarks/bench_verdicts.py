"""Whether `edge-runtime bench` with several bundles finds a slow-down that is there, and no other.

    python scripts/benchmarks/bench_verdicts.py                      # 40 minutes at most
    python scripts/benchmarks/bench_verdicts.py --tries 5 --planted 5

A bundle takes turns with itself, opened a second time, and with a copy whose every inference keeps
the CPU busy for a planted share of the time that it took. Each try opens all anew. Wanted: neither
slow-down nor speed-up of the bundle against itself, the planted one found in every try, and never
said to be surely more than it is.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import edge_runtime as er
from edge_runtime.backends import registry
from edge_runtime.bench.harness import BenchConfig
from edge_runtime.bench.interleave import Turns, interleaved
from edge_runtime.bench.protocols import protocol
from edge_runtime.bench.verdict import Comparison, Verdict, slower_than

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
open_engine = registry.open_engine


class Slow:
    """An engine, or a context of it, whose inferences take a share more of the CPU's time.

    By the wall clock, a call that waited for the CPU would have to burn what others took.
    """

    def __init__(self, inner: Any, share: float) -> None:
        self.inner, self.share = inner, share

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def create_context(self) -> Slow:
        return Slow(self.inner.create_context(), self.share)

    def enqueue(self, feeds: Any) -> None:
        self.began = time.thread_time_ns()
        self.inner.enqueue(feeds)

    def wait(self) -> Any:
        outputs = self.inner.wait()
        now = time.thread_time_ns()
        end = now + (now - self.began) * self.share
        while time.thread_time_ns() < end:
            pass
        return outputs


def attempt(old: Path, slow: Path, share: float, turns: Turns) -> list[Comparison]:
    """The bundle against itself, and the slow one against it; all three take turns."""

    def opened(bundle: Any, *args: Any, **options: Any) -> Any:
        # All are wrapped: what the wrapper costs is no slow-down.
        return Slow(
            open_engine(bundle, *args, **options), share if bundle.path.name == slow.name else 0
        )

    config = BenchConfig(protocol=protocol("trtexec10"), device="cpu", threads=1)
    with patch.object(registry, "open_engine", opened):
        return list(interleaved([old, old, slow], config, turns).comparisons)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--net", default="digits", choices=("digits", "fashion"))
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--planted", type=float, default=5.0, help="percent")
    parser.add_argument("--seconds", type=float, default=Turns().seconds, help="of a try, at most")
    args = parser.parse_args()
    turns, share = Turns(seconds=args.seconds), args.planted / 100
    kinds = ("itself", f"{args.planted:g} % more")
    counts: dict[str, Counter[Verdict]] = {kind: Counter() for kind in kinds}
    surely = 0
    with tempfile.TemporaryDirectory() as folder:
        old = er.build(DATA / f"{args.net}.onnx", output=Path(folder) / "old.edge").path
        slow = Path(folder) / "slow.edge"
        shutil.copy(old, slow)
        for number in range(1, args.tries + 1):
            begin = time.perf_counter()
            found = attempt(old, slow, share, turns)
            seconds = time.perf_counter() - begin
            for kind, comparison in zip(kinds, found, strict=True):
                row = comparison.main
                counts[kind][row.verdict] += 1
                surely += slower_than(comparison, args.planted)
                print(
                    f"{number:3} {kind:<10} {row.ratio:6.3f}  {row.low:.3f} to {row.high:.3f}  "
                    f"visible from {row.smallest:6.2%}  {comparison.rounds:5} rounds "
                    f"{seconds:5.1f} s  {row.verdict.value}",
                    flush=True,
                )
    for kind, verdicts in counts.items():
        print(f"{kind}: " + ", ".join(f"{v.value} {count}" for v, count in verdicts.items()))
    print(f"surely slower by more than was planted: {surely}")
    alone, planted = counts.values()
    kept = alone[Verdict.CANNOT_TELL] == planted[Verdict.SLOWER] == args.tries and not surely
    print("kept" if kept else "NOT KEPT")
    sys.exit(not kept)


if __name__ == "__main__":
    main()
