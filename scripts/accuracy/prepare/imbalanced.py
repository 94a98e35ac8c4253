"""scikit-learn's digits, and the net of tests/data with imbalanced channels."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx

from accuracy.prepare.channels import SPREAD, imbalance
from accuracy.prepare.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "small_nets"))
from data import digits

ROOT = Path(__file__).resolve().parents[3]

BATCH = 100
CALIBRATION, GUARD = 256, 300


def prepare(store: Store, downloads: Path) -> None:
    del downloads  # The digits come with scikit-learn.
    x, y, pictures, labels = digits()
    model = onnx.load(ROOT / "tests" / "data" / "digits.onnx")
    count = imbalance(model)
    onnx.save(model, store.model)
    order = np.random.default_rng(3).permutation(len(x))
    for index in order[:CALIBRATION]:
        store.calibration({"image": _as_input(x[index][None])})
    for index in order[CALIBRATION : CALIBRATION + GUARD]:
        store.guard({"image": _as_input(x[index][None])}, [int(y[index])])
    for start in range(0, len(pictures), BATCH):
        store.test({"image": _as_input(pictures[start : start + BATCH])})
    store.truth = {"labels": [[int(label)] for label in labels]}
    store.about = (
        f"scikit-learn's digits: {len(pictures)} test pictures; the net of tests/data with the "
        f"channels of {count} tensors scaled by 1/{SPREAD:g} to {SPREAD:g}; "
        f"calibrated on {CALIBRATION} training pictures"
    )


def _as_input(pictures: np.ndarray) -> np.ndarray:
    return pictures[:, None].astype(np.float32) / np.float32(255)
