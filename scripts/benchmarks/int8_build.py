"""Time and memory of building ResNet-50 in INT8, beside the cheapest of ONNX Runtime's quantizers.

Each figure comes from a process of its own, from the ONNX file to the finished file, on the same
random pictures of 224x224. `edge_runtime` builds a bundle at its default settings, which includes
the comparison with the FP32 model; ONNX Runtime's `quantize_static` takes the largest values
(MinMax) and writes an ONNX file.

    python scripts/benchmarks/int8_build.py                       # 100 samples, a minute
    python scripts/benchmarks/int8_build.py --method auto --samples 20
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parent))
from calibration import Pictures, measure
from resnet50 import resnet50

PEER = "quantize_static MinMax"


def ours(model: Path, pictures: Pictures, method: str) -> None:
    import edge_runtime as er
    from edge_runtime.config import CalibrationConfig

    ranges = CalibrationConfig(method=method)
    config = er.BuildConfig(precision="int8", calibration=ranges, backend="cpu")
    er.build(model, config, output=model.with_suffix(".edge"), calibration=pictures)


def quantize_static(model: Path, pictures: Pictures) -> None:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    quantization.quantize_static(
        str(model),
        str(model.with_name("quantized.onnx")),
        Reader(),
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )


def peak_mib() -> float:
    """Of this process alone: `ru_maxrss` counts what started it as well."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def child(model: Path, who: str, samples: int) -> None:
    start = time.perf_counter()
    if who == PEER:
        quantize_static(model, Pictures(samples))
    else:
        ours(model, Pictures(samples), who)
    seconds = time.perf_counter() - start
    peak = peak_mib()
    print(json.dumps({"seconds": seconds, "cpu": time.process_time(), "peak_mib": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--method", default="mse")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.model, args.child, args.samples)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "resnet50.onnx"
        onnx.save(resnet50(), model)
        found = {}
        for who in (args.method, PEER):
            found[who] = measure(__file__, model, who, args.samples)
            label = f"ONNX Runtime, {who}" if who == PEER else f"edge_runtime, {who}"
            print(f"{label:40}{found[who]['seconds']:7.1f} s{found[who]['cpu']:7.1f} CPU s", end="")
            print(f"{found[who]['peak_mib']:8.0f} MiB", flush=True)
        ratios = (found[args.method][what] / found[PEER][what] for what in ("seconds", "cpu"))
        print("build / quantize_static: {:.2f} in time, {:.2f} in CPU time".format(*ratios))


if __name__ == "__main__":
    main()
