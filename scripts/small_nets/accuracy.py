"""Accuracy of the small nets in each precision and calibration method, on their whole test sets.

Calibration uses the 64 pictures of tests/data, the test sets are complete: 500 digits (needs
`pip install scikit-learn`) and 10,000 pictures of Fashion-MNIST, whose Debian package of 31 MB the
script fetches without root. All runs on the CPU in exact mode. Two minutes on two cores.

    python scripts/small_nets/accuracy.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import edge_runtime as er
from edge_runtime.config import CalibrationConfig
from edge_runtime.metrics import AgreementMeter

sys.path.insert(0, str(Path(__file__).parent))
from data import digits, fashion

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
BUILDS = {
    "int8 mse": er.BuildConfig(precision="int8", backend="cpu"),
    **{
        f"int8 {method}": er.BuildConfig(
            precision="int8", calibration=CalibrationConfig(method), backend="cpu"
        )
        for method in ("max", "percentile", "entropy")
    },
    "fp16": er.BuildConfig(precision="fp16", backend="cpu"),
    "bf16": er.BuildConfig(precision="bf16", backend="cpu"),
}


def as_input(pictures: np.ndarray) -> np.ndarray:
    """uint8 [n, h, w] to float32 [n, 1, h, w] in 0..1."""
    return pictures[:, None].astype(np.float32) / np.float32(255)


def logits(path: Path, pictures: np.ndarray) -> np.ndarray:
    with er.load(path, device="cpu") as session:
        parts = np.array_split(pictures, max(len(pictures) // 250, 1))
        return np.concatenate([session.run({"image": as_input(p)})["logits"] for p in parts])


def main() -> None:
    print(f"{'net':10}{'build':18}{'top-1':>8}{'change':>9}{'SQNR dB':>9}{'same top-1':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for name, load in (("digits", digits), ("fashion", fashion)):
            _, _, pictures, labels = load()
            calibration = np.load(DATA / f"{name}.npz")["calibration"]
            feeds = [{"image": as_input(picture[None])} for picture in calibration]
            output = Path(folder) / f"{name}.edge"
            er.build(DATA / f"{name}.onnx", er.BuildConfig(backend="cpu"), output=output)
            reference = logits(output, pictures)
            base = float((reference.argmax(1) == labels).mean())
            print(f"{name:10}{'fp32':18}{base:8.2%}")
            for build, config in BUILDS.items():
                er.build(DATA / f"{name}.onnx", config, calibration=feeds, output=output)
                found = logits(output, pictures)
                meter = AgreementMeter()
                meter.add(reference, found)
                result = meter.result()
                top1 = float((found.argmax(1) == labels).mean())
                print(f"{name:10}{build:18}{top1:8.2%}{100 * (top1 - base):+9.2f}", end="")
                print(f"{result.sqnr_db:9.1f}{result.top1:12.2%}", flush=True)


if __name__ == "__main__":
    main()
