"""How fast pictures become input tensors, beside the same in plain OpenCV and NumPy.

For each size of picture: `read_picture` beside `cv2.imread`, on a JPEG that the file system keeps
in memory, and `to_tensor` for each way to resize beside cv2.resize, cvtColor and float arithmetic
as one writes it by hand. They run in turns; a ratio is the median of the turns' ratios of time, so
that below 1 we are faster.

    python scripts/bench_preprocess.py                          # 3 sizes, 6 paths: 20 s
    python scripts/bench_preprocess.py --sizes 1920x1080 --input 640 --turns 20
    python scripts/bench_preprocess.py --json

The two do not compute the same to the last bit: `to_tensor` looks up each value in a table made in
double precision, the plain way computes in float32. How far they are apart is shown; for `crop` and
`letterbox` rounding may also move the picture by a pixel.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_runtime.vision.pictures import read_picture, to_tensor
from edge_runtime.vision.preprocess import Preprocessing

Array = Any
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GRAY = 114


@dataclass(frozen=True)
class Measured:
    """Milliseconds of one picture by both ways, medians, and how far the results are apart."""

    picture: str
    path: str
    ours: float
    plain: float
    ratio: float
    apart: float

    @property
    def per_second(self) -> float:
        return 1000 / self.ours


@dataclass(frozen=True)
class Pair:
    """Two ways to the same result."""

    name: str
    ours: Callable[[], Array]
    plain: Callable[[], Array]


def made_up(width: int, height: int) -> Array:
    """A picture with large shapes, edges and a little noise, so that it compresses as photos do."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (9, 16, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    noise = random.integers(-6, 7, (height, width, 1), np.int16)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def plain_tensor(picture: Array, side: int, resize: str) -> Array:
    """What `to_tensor` does, by hand: ImageNet's normalization, [1, 3, side, side] float32."""
    height, width = picture.shape[:2]
    if resize == "stretch":
        placed = cv2.resize(picture, (side, side))
    else:
        larger = max if resize == "crop" else min
        scale = larger(side / height, side / width)
        rows, columns = round(height * scale), round(width * scale)
        resized = cv2.resize(picture, (columns, rows))
        top, left = abs(rows - side) // 2, abs(columns - side) // 2
        if resize == "crop":
            placed = resized[top : top + side, left : left + side]
        else:
            placed = np.full((side, side, 3), GRAY, np.uint8)
            placed[top : top + rows, left : left + columns] = resized
    values = cv2.cvtColor(placed, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
    values = (values - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(values.transpose(2, 0, 1))[None]


def paths(picture: Array, file: Path, side: int) -> Iterator[Pair]:
    yield Pair("read a JPEG", lambda: read_picture(file), lambda: cv2.imread(str(file)))
    for resize in ("stretch", "letterbox", "crop"):
        how = Preprocessing(size=side, resize=resize, mean=MEAN, std=STD)
        yield Pair(
            f"{resize}, float32",
            lambda how=how: to_tensor(picture, how),
            lambda resize=resize: plain_tensor(picture, side, resize),
        )
    bytes_ = Preprocessing(size=side, scale=1.0, dtype="uint8", color="bgr", layout="nhwc")
    yield Pair(
        "stretch, uint8",
        lambda: to_tensor(picture, bytes_),
        lambda: cv2.resize(picture, (side, side))[None],
    )
    gray = Preprocessing(size=side, color="gray")
    yield Pair(
        "stretch, gray",
        lambda: to_tensor(picture, gray),
        lambda: (
            cv2.cvtColor(cv2.resize(picture, (side, side)), cv2.COLOR_BGR2GRAY)[None, None]
            / np.float32(255)
        ),
    )


def milliseconds(run: Callable[[], Array], seconds: float) -> float:
    """Of a call, the median of one turn; a turn takes `seconds`, and three calls at least."""
    times: list[int] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1e6


def measure(name: str, path: Pair, turns: int, seconds: float) -> Measured:
    apart = np.abs(path.ours().astype(np.float64) - path.plain().astype(np.float64)).max()
    ours, plain = [], []
    for turn in range(turns):
        order = ((path.ours, ours), (path.plain, plain))
        for run, times in order[:: 1 if turn % 2 == 0 else -1]:
            times.append(milliseconds(run, seconds))
    ratio = statistics.median(a / b for a, b in zip(ours, plain, strict=True))
    middle = statistics.median
    return Measured(name, path.name, middle(ours), middle(plain), ratio, float(apart))


def sizes(text: str) -> list[tuple[int, int]]:
    found = [tuple(int(side) for side in part.split("x")) for part in text.split(",")]
    if any(len(size) != 2 or min(size) < 1 for size in found):
        raise ValueError(text)
    return [(width, height) for width, height in found]


def main(arguments: Sequence[str] | None = None) -> int:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(
        description=lines[0],
        epilog="\n".join(lines[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sizes", type=sizes, default="640x480,1920x1080,3840x2160", metavar="WxH,WxH")
    add("--input", type=int, default=224, metavar="N", help="side of the network's input (224)")
    add("--turns", type=int, default=5, metavar="N", help="of each way (5)")
    add("--seconds", type=float, default=0.1, metavar="S", help="of each turn (0.1)")
    add("--threads", type=int, default=1, metavar="N", help="of OpenCV (1)")
    add("--json", action="store_true")
    args = parser.parse_args(arguments)
    before = cv2.getNumThreads()
    cv2.setNumThreads(args.threads)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for width, height in args.sizes:
            picture, file = made_up(width, height), Path(folder) / "picture.jpg"
            cv2.imwrite(str(file), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
            for path in paths(picture, file, args.input):
                found.append(measure(f"{width}x{height}", path, args.turns, args.seconds))
    cv2.setNumThreads(before)
    if args.json:
        print(
            json.dumps([{**asdict(one), "per_second": one.per_second} for one in found], indent=2)
        )
        return 0
    print(
        f"{'picture':<11}{'path':<20}{'pictures/s':>11}{'ours, ms':>10}{'plain, ms':>11}"
        f"{'ratio':>7}{'apart':>10}"
    )
    for one in found:
        print(
            f"{one.picture:<11}{one.path:<20}{one.per_second:>11.4g}{one.ours:>10.3f}"
            f"{one.plain:>11.3f}{one.ratio:>7.2f}{one.apart:>10.2g}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
