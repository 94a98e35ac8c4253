"""How many pictures a second go from a file to a decoded result, with one thread and with more.

Each thread takes the next picture, reads it, makes it a tensor, runs the session and decodes the
outputs; the session has a context for each thread. The numbers of threads take turns, so that
whatever else the machine does falls on all of them; speed-ups are over one thread in the same turn.

    python scripts/bench_pipeline.py NAME.edge pictures/                 # 1, 2 and 4 threads: 20 s
    python scripts/bench_pipeline.py NAME.edge pictures/ --threads 1,2,3,4 --turns 5
    python scripts/bench_pipeline.py NAME.edge                           # pictures made up
    python scripts/bench_pipeline.py NAME.edge --preprocess size=224,resize=crop --json

A stage's time is what a picture spends in it, in the mean; with more threads than cores, waiting
for a core is part of it. The session's inferences use one CPU thread each (--inference-threads).
`edge-runtime bench --protocol end-to-end` measures the latency of one picture after the other.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_runtime.bench.end_to_end import Decode, decoder
from edge_runtime.bundle import Bundle
from edge_runtime.data.images import ImageFolder
from edge_runtime.errors import ConfigError, EdgeRuntimeError
from edge_runtime.session import Session, load
from edge_runtime.vision.pictures import read_picture, to_tensor
from edge_runtime.vision.preprocess import Preprocessing

STAGES = ("read", "preprocess", "infer", "decode")
MADE_UP = 16


@dataclass(frozen=True)
class Pipeline:
    """What each thread does with a picture."""

    session: Session
    files: Sequence[Path]
    preprocessing: Preprocessing
    decode: Decode

    def run(self, file: Path) -> tuple[int, ...]:
        """Takes a picture from its file to its result; nanoseconds of each stage."""
        moments = [time.perf_counter_ns()]
        picture = read_picture(file)
        moments.append(time.perf_counter_ns())
        tensor = to_tensor(picture, self.preprocessing)
        moments.append(time.perf_counter_ns())
        outputs = self.session.run({self.session.inputs[0].name: tensor})
        moments.append(time.perf_counter_ns())
        self.decode(outputs)
        moments.append(time.perf_counter_ns())
        return tuple(b - a for a, b in itertools.pairwise(moments))


@dataclass(frozen=True)
class Turn:
    """One measurement: pictures per second, and milliseconds of a picture in each stage."""

    per_second: float
    stages: tuple[float, ...]


def measure(pipeline: Pipeline, threads: int, seconds: float) -> Turn:
    """Runs as many threads for about `seconds`; each ends with the picture that it is at.

    Raises:
        Exception: What the first thread to fail has raised.
    """
    ticket = itertools.count()
    spent: list[tuple[int, ...]] = []
    failed = threading.Event()

    def work() -> None:
        try:
            while not failed.is_set():
                spent.append(pipeline.run(pipeline.files[next(ticket) % len(pipeline.files)]))
                if time.perf_counter() >= end:
                    return
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        end = start + seconds
        for future in [pool.submit(work) for _ in range(threads)]:
            future.result()
        taken = time.perf_counter() - start
    stages = tuple(statistics.fmean(times) / 1e6 for times in zip(*spent, strict=True))
    return Turn(len(spent) / taken, stages)


def write_pictures(folder: Path) -> None:
    """Photos as far as their size and compression go: 1280x720, quality 90."""
    random = np.random.default_rng(0)
    for index in range(MADE_UP):
        coarse = random.integers(0, 256, (9, 16, 3), np.uint8)
        smooth = cv2.resize(coarse, (1280, 720), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{index:02}.jpg"), smooth, [cv2.IMWRITE_JPEG_QUALITY, 90])


def preprocessing_of(bundle: Bundle, text: str | None) -> Preprocessing:
    if text is not None:
        return Preprocessing.from_text(text)
    declared = bundle.manifest.preprocessing
    if declared is None:
        raise ConfigError(
            f"{bundle.path} does not say how a picture becomes its input: give --preprocess."
        )
    return Preprocessing.from_json(declared)


def run_all(args: argparse.Namespace, pictures: Path) -> dict[int, list[Turn]]:
    bundle = Bundle.open(args.bundle)
    how = preprocessing_of(bundle, args.preprocess)
    if len(bundle.inputs) != 1:
        raise ConfigError(f"{bundle.path} has {len(bundle.inputs)} inputs; a picture is one.")
    files = ImageFolder(pictures, how).files
    turns: dict[int, list[Turn]] = {count: [] for count in args.threads}
    with load(
        bundle,
        device=args.device,
        contexts=max(args.threads),
        threads=args.inference_threads,
        cpu_mode=args.cpu_mode,
    ) as session:
        pipeline = Pipeline(session, files, how, decoder(args.decode))
        measure(pipeline, max(args.threads), args.seconds / 4)  # Warms up.
        for number in range(args.turns):
            for count in args.threads[:: 1 if number % 2 == 0 else -1]:
                turns[count].append(measure(pipeline, count, args.seconds))
    return turns


def report(turns: dict[int, list[Turn]]) -> list[dict[str, object]]:
    """A row for each number of threads: medians over the turns."""
    rows: list[dict[str, object]] = []
    first = turns[min(turns)]
    for count, found in turns.items():
        ratios = [one.per_second / base.per_second for one, base in zip(found, first, strict=True)]
        middle = [
            statistics.median(times) for times in zip(*(t.stages for t in found), strict=True)
        ]
        rows.append(
            {
                "threads": count,
                "per_second": statistics.median(one.per_second for one in found),
                "speed_up": statistics.median(ratios),
                "stages_ms": dict(zip(STAGES, middle, strict=True)),
                "turns": [asdict(one) for one in found],
            }
        )
    return rows


def counts(text: str) -> list[int]:
    found = sorted({int(part) for part in text.split(",")})
    if found[0] < 1:
        raise ValueError(text)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(
        description=lines[0],
        epilog="\n".join(lines[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("bundle", type=Path)
    add("pictures", type=Path, nargs="?", help="a folder of pictures; else some are made up")
    add("--threads", type=counts, default="1,2,4", metavar="N,N")
    add("--turns", type=int, default=3, metavar="N", help="of each number of threads (3)")
    add("--seconds", type=float, default=2.0, metavar="S", help="of each turn (2)")
    add("--preprocess", metavar="SETTINGS", help="how a picture becomes the input; else as built")
    add("--decode", default="top1", metavar="HOW", help="as `edge-runtime bench --decode` (top1)")
    add("--device", default="cpu", help="as `edge-runtime bench --device` (cpu)")
    add("--cpu-mode", choices=("exact", "fast"), default="exact")
    add("--inference-threads", type=int, default=1, metavar="N", help="of one inference (1)")
    add("--json", action="store_true")
    args = parser.parse_args(arguments)
    try:
        if args.pictures is not None:
            turns = run_all(args, args.pictures)
        else:
            with tempfile.TemporaryDirectory() as folder:
                write_pictures(Path(folder))
                turns = run_all(args, Path(folder))
    except EdgeRuntimeError as error:
        print(f"scripts/bench_pipeline.py: {error}", file=sys.stderr)
        return 1
    rows = report(turns)
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    heads = "".join(f"{stage + ', ms':>16}" for stage in STAGES)
    print(f"{'threads':<8}{'pictures/s':>11}{'speed-up':>10}{heads}")
    for row in rows:
        stages = row["stages_ms"]
        assert isinstance(stages, dict)
        times = "".join(f"{stages[stage]:>16.3f}" for stage in STAGES)
        print(f"{row['threads']:<8}{row['per_second']:>11.4g}{row['speed_up']:>10.2f}{times}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
