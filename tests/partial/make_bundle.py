"""Builds the INT8 bundle that the tests beside this run; needs the extra `build`.

python tests/partial/make_bundle.py OUTPUT.edge
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import edge_runtime

DATA = Path(__file__).resolve().parent.parent / "data"

if __name__ == "__main__":
    pictures = np.load(DATA / "digits.npz")["calibration"][:, None].astype("float32") / 255
    edge_runtime.build(
        DATA / "digits.onnx",
        edge_runtime.BuildConfig(precision="int8", backend="cpu"),
        output=sys.argv[1],
        calibration=[{"image": picture[None]} for picture in pictures],
    )
