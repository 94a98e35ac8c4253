"""What the ways to run one INT8 bundle on this CPU cost, in time and in accuracy.

For the small nets of tests/data, whose samples are labelled, and for a net of ResNet-50's shape
with random weights: FP32, the bundle's exact graph and its fast graph, in ONNX Runtime and in
OpenVINO; and, as a warning, the exact graph with either library's own defaults, which saturate on
x86 CPUs without VNNI. All take turns in one process, three inferences each, so that whatever else
the machine does falls on all alike.

Columns: milliseconds per inference of one sample (median); the same as a share of FP32 in ONNX
Runtime (median of the ratios in each turn: below 1 is faster); share of labelled samples whose
top-1 is right; share with the top-1 of the exact graph in ONNX Runtime; SQNR of the outputs against
its outputs, in dB.

It takes two minutes, 1 GB of memory, and `pip install 'edge-runtime[build,openvino]'`; without
OpenVINO its rows are left out, and it says so.

    python scripts/benchmarks/cpu_modes.py                    # all nets, one thread for each core
    python scripts/benchmarks/cpu_modes.py --net fashion --threads 1 --turns 200
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import edge_runtime as er
from edge_runtime.backends.base import Engine
from edge_runtime.backends.registry import cpu_runtime
from edge_runtime.board import read_board
from edge_runtime.bundle import CPU_FAST_GRAPH, GRAPH
from edge_runtime.metrics import AgreementMeter

sys.path.insert(0, str(Path(__file__).parent))
from resnet50 import resnet50

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
SMALL = ("fashion", "digits")
BASE, EXACT = "FP32, ONNX Runtime", "INT8 exact, ONNX Runtime"
TURN = 3
LIBRARIES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class Task:
    """A model with samples [n, ...] of its one input, their labels and what calibrates it."""

    model: Path
    samples: np.ndarray
    labels: np.ndarray | None
    calibration: np.ndarray


def task(name: str, folder: Path) -> Task:
    if name in SMALL:
        arrays = np.load(DATA / f"{name}.npz")
        images = {key: arrays[key][:, None].astype(np.float32) / 255 for key in arrays}
        labels = arrays["labels"]
        return Task(DATA / f"{name}.onnx", images["images"], labels, images["calibration"])
    path = folder / "resnet50.onnx"
    path.write_bytes(resnet50().SerializeToString())
    samples = np.random.default_rng(0).standard_normal((16, 3, 224, 224), dtype=np.float32)
    return Task(path, samples, None, samples[:8])


def engines(given: Task, folder: Path, threads: int) -> dict[str, Engine]:
    """Every way to run the model, by what to call it."""
    spec = er.Bundle.open(
        er.build(
            given.model, output=folder / "fp32.edge", config=er.BuildConfig(backend="cpu")
        ).path
    )
    feeds = [{spec.inputs[0].name: sample[None]} for sample in given.calibration]
    config = er.BuildConfig(precision="int8", cpu_mode="fast", backend="cpu")
    int8 = er.build(given.model, config, output=folder / "int8.edge", calibration=feeds)
    made = {}
    for backend, library in LIBRARIES.items():
        if backend == "openvino" and find_spec("openvino") is None:
            print("OpenVINO is not installed: its rows are left out.")
            continue
        exact, fast = (cpu_runtime(backend, threads=threads, fast=f) for f in (False, True))
        made[f"FP32, {library}"] = exact.load(spec.read(GRAPH))
        made[f"INT8 exact, {library}"] = exact.load(int8.read(GRAPH))
        made[f"INT8 fast, {library}"] = fast.load(int8.read(CPU_FAST_GRAPH))
        made[f"INT8 exact graph, {library}'s defaults"] = fast.load(int8.read(GRAPH))
    return made


def runner(engine: Engine) -> Callable[[np.ndarray], np.ndarray]:
    """Runs one sample and returns the first output."""
    context, name, output = engine.create_context(), engine.inputs[0].name, engine.outputs[0].name

    def run(sample: np.ndarray) -> np.ndarray:
        context.enqueue({name: sample[None]})
        return context.wait()[output]

    return run


def milliseconds(
    ways: dict[str, Callable[..., np.ndarray]], given: Task, turns: int
) -> dict[str, list[float]]:
    """Of each way, the median of each turn."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):  # The first one warms up.
        for name, run in ways.items():
            taken = []
            for index in range(TURN):
                start = time.perf_counter_ns()
                run(given.samples[(turn + index) % len(given.samples)])
                taken.append((time.perf_counter_ns() - start) / 1e6)
            if turn:
                times[name].append(statistics.median(taken))
    return times


def report(name: str, given: Task, turns: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            way: runner(engine) for way, engine in engines(given, Path(folder), threads).items()
        }
    times = milliseconds(ways, given, turns)
    outputs = {way: [run(sample) for sample in given.samples] for way, run in ways.items()}
    print(f"\n{name}, {len(given.samples)} samples")
    print(f"{'':42}{'ms':>9}{'/ FP32':>9}{'top-1':>9}{'as exact':>10}{'SQNR dB':>9}")
    for way in ways:
        ratio = statistics.median(a / b for a, b in zip(times[way], times[BASE], strict=True))
        meter = AgreementMeter()
        for expected, found in zip(outputs[EXACT], outputs[way], strict=True):
            meter.add(expected, found)
        seen = meter.result()
        sqnr = "equal" if seen.equal else f"{seen.sqnr_db:.1f}"
        right = "-"
        if given.labels is not None:
            top = np.array([output.argmax() for output in outputs[way]])
            right = f"{(top == given.labels).mean():.1%}"
        print(f"{way:42}{statistics.median(times[way]):9.3f}{ratio:9.2f}", end="")
        print(f"{right:>9}{seen.top1 or 0:10.1%}{sqnr:>9}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    nets = (*SMALL, "resnet50")
    parser.add_argument("--net", nargs="+", choices=nets, default=nets)
    parser.add_argument("--threads", type=int, default=0, help="0 is one for each core")
    parser.add_argument("--turns", type=int, default=0, help="60, or 4 for resnet50")
    args = parser.parse_args()
    board = read_board()
    print(f"{board.cpu}, {board.cores} cores, {' '.join(board.features)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.net:
            turns = args.turns or (60 if name in SMALL else 4)
            report(name, task(name, Path(folder)), turns, args.threads)


if __name__ == "__main__":
    main()
