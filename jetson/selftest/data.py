"""Writes the pictures of tests/data as the digits net takes them: calibration.npz and test.npz."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[2] / "tests" / "data" / "digits.npz"


def main(folder: Path) -> None:
    """Writes both files into `folder`."""
    with np.load(DATA) as arrays:
        for name, pictures in (("calibration", "calibration"), ("test", "images")):
            image = arrays[pictures][:, None].astype(np.float32) / 255
            np.savez(folder / f"{name}.npz", image=image)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
