"""A net of ResNet-50's shape with random weights and pictures: for time and memory only."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx

from accuracy.prepare.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from resnet50 import resnet50

CALIBRATION = 100


def prepare(store: Store, downloads: Path) -> None:
    del downloads  # Nothing is fetched.
    onnx.save(resnet50(), store.model)
    random = np.random.default_rng(0)
    for _ in range(CALIBRATION):
        store.calibration({"x": random.standard_normal((1, 3, 224, 224), dtype=np.float32)})
    store.about = f"random weights, calibrated on {CALIBRATION} random pictures"
