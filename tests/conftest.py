"""What every test may use: the committed nets with their labelled pictures, and the repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"

# No deadline: the outcome of a test must not depend on how busy the machine is.
settings.register_profile("house", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("house")


@dataclass(frozen=True)
class Net:
    """A committed net: float32 `image` [batch, 1, side, side] in 0..1 to `logits` [batch, 10].

    Attributes:
        model: Path of the ONNX file.
        images: uint8 [300, side, side], held out from training.
        labels: uint8 [300], the class of each image.
        calibration: uint8 [64, side, side], from the training set.
    """

    model: Path
    images: np.ndarray
    labels: np.ndarray
    calibration: np.ndarray

    @staticmethod
    def as_input(pictures: np.ndarray) -> np.ndarray:
        """uint8 [n, side, side] to what the net takes, float32 [n, 1, side, side]."""
        return pictures[:, None].astype("float32") / 255


def _load(name: str) -> Net:
    import numpy as np

    with np.load(DATA / f"{name}.npz") as arrays:
        return Net(DATA / f"{name}.onnx", arrays["images"], arrays["labels"], arrays["calibration"])


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def digits() -> Net:
    """The digits net, 16x16."""
    return _load("digits")


@pytest.fixture(scope="session")
def fashion() -> Net:
    """The Fashion-MNIST net, 28x28."""
    return _load("fashion")
