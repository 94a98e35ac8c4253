"""Fashion-MNIST, all 10,000 test pictures, and the plain net of tests/data."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

from accuracy.prepare.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "small_nets"))
from data import fashion

ROOT = Path(__file__).resolve().parents[3]

NET = "fashion"
CALIBRATION, GUARD = 256, 500
BATCH = 250


def as_input(pictures: np.ndarray) -> np.ndarray:
    """uint8 [n, h, w] to float32 [n, 1, h, w] in 0..1."""
    return pictures[:, None].astype(np.float32) / np.float32(255)


def prepare(store: Store, downloads: Path, net: str = NET) -> None:
    del downloads  # data.py has a cache of its own.
    x, y, pictures, labels = fashion()
    shutil.copyfile(ROOT / "tests" / "data" / f"{net}.onnx", store.model)
    order = np.random.default_rng(3).permutation(len(x))
    for index in order[:CALIBRATION]:
        store.calibration({"image": as_input(x[index][None])})
    for index in order[CALIBRATION : CALIBRATION + GUARD]:
        store.guard({"image": as_input(x[index][None])}, [int(y[index])])
    for start in range(0, len(pictures), BATCH):
        store.test({"image": as_input(pictures[start : start + BATCH])})
    store.truth = {"labels": [[int(label)] for label in labels]}
    store.about = (
        f"Debian's dataset-fashion-mnist: {len(pictures)} test pictures; "
        f"calibrated on {CALIBRATION} of the training pictures"
    )
