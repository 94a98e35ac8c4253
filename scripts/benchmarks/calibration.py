"""Time and memory of calibrating a ResNet-50, beside ONNX Runtime's own streaming calibrator.

Each figure comes from a process of its own, which calibrates random pictures of 224x224 one by
one. ONNX Runtime's calibrators are fed one picture a `collect_data` call, their streaming form:
MinMax is the cheapest, Percentile and Entropy keep histograms as edge_runtime does.
`quantize_static` is left out: with histograms it holds all activations of all samples (11.5 GB for
100).

    python scripts/benchmarks/calibration.py                      # 100 samples, two minutes
    python scripts/benchmarks/calibration.py --samples 10 1000    # is memory flat?
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parent))
from resnet50 import resnet50

PEERS = ("MinMax", "Percentile", "Entropy")


class Pictures:
    """Random pictures, made when asked for; the same ones each time."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        random = np.random.default_rng(0)
        for _ in range(self._count):
            yield {"x": random.standard_normal((1, 3, 224, 224), dtype=np.float32)}


def ours(model: Path, pictures: Pictures) -> None:
    import edge_runtime as er

    er.calibrate(model, pictures)


def onnxruntimes(model: Path, pictures: Pictures, method: str) -> None:
    from onnxruntime.quantization import calibrate

    class One(calibrate.CalibrationDataReader):
        def __init__(self, feeds: dict[str, np.ndarray]) -> None:
            self._feeds = [feeds]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self._feeds.pop() if self._feeds else None

    calibrator = calibrate.create_calibrator(
        str(model),
        augmented_model_path=str(model.with_name(f"augmented_{method}.onnx")),
        calibrate_method=getattr(calibrate.CalibrationMethod, method),
    )
    for feeds in pictures:
        calibrator.collect_data(One(feeds))
    calibrator.compute_data()


def child(model: Path, who: str, samples: int) -> None:
    start = time.perf_counter()
    if who == "edge_runtime":
        ours(model, Pictures(samples))
    else:
        onnxruntimes(model, Pictures(samples), who)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_mib": peak}))


def measure(script: str, model: Path, who: str, samples: int) -> dict[str, float]:
    """What a script's own `--child` prints, in a process of its own."""
    command = [sys.executable, script, "--child", who, "--model", str(model)]
    done = subprocess.run(
        [*command, "--samples", str(samples)], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[100])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=["MinMax", "Entropy"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.model, args.child, args.samples[0])
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "resnet50.onnx"
        onnx.save(resnet50(), model)
        print(
            f"{'samples':>7}  {'calibrator':24}{'seconds':>9}{'peak MiB':>10}  ours / its seconds"
        )
        for samples in args.samples:
            result = measure(__file__, model, "edge_runtime", samples)
            print(f"{samples:7}  {'edge_runtime, mse':24}", end="")
            print(f"{result['seconds']:9.1f}{result['peak_mib']:10.0f}", flush=True)
            for peer in args.peers:
                other = measure(__file__, model, peer, samples)
                ratio = result["seconds"] / other["seconds"]
                print(f"{samples:7}  {'ONNX Runtime ' + peer:24}{other['seconds']:9.1f}", end="")
                print(f"{other['peak_mib']:10.0f}  {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
