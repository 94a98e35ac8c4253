"""The page that is read, and the other pictures, which calibrate the detector."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from demo_ocr.detector import Array, input_size
from demo_ocr.fetch import PAGE, WHEELS

TRANSCRIPTION = (
    "Region-based segmentation",
    "Let us first determine markers of the coins and the",
    "background. These markers are pixels that we can label",
    "unambiguously as either object or background. Here,",
    "the markers are found at the two extreme parts of the",
    "histogram of grey values:",
    ">>> markers = np.zeros_like(coins)",
)
"""What stands on the page, by eye; the bottom line, which is cut in half, is left out."""


def read_page(cache: Path) -> Array:
    """The page, uint8[191, 384, 3] in BGR."""
    return _decode(without_chunk((cache / PAGE).read_bytes(), b"iCCP"))


def without_chunk(png: bytes, kind: bytes) -> bytes:
    """A PNG without its chunks of one kind; each is length, kind, data and CRC (PNG, section 5.3).

    The page's colour profile is faulty: libpng drops it, and says so on stderr.
    """
    kept, start = [png[:8]], 8
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")
        if png[start + 4 : start + 8] != kind:
            kept.append(png[start:end])
        start = end
    return b"".join(kept)


def _decode(png: bytes) -> Array:
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None, "its digest was checked when it was fetched"
    return picture


def write_calibration_pictures(cache: Path) -> Path:
    """Writes what the detector is calibrated on, in the sizes it sees, and returns the folder.

    Real pictures, none of them the page: handwriting and photographs, each whole and in halves.
    """
    folder = cache / "calibration"
    folder.mkdir(exist_ok=True)
    names = [name for wheel in WHEELS for name in wheel.files if name.endswith(".png")]
    for name in names:
        if name == PAGE:
            continue
        picture = _decode((cache / name).read_bytes())
        middle = picture.shape[1] // 2
        parts = {"whole": picture, "left": picture[:, :middle], "right": picture[:, middle:]}
        for part, pixels in parts.items():
            height, width = input_size(*pixels.shape[:2])
            path = folder / f"{Path(name).stem}-{part}.png"
            cv2.imwrite(str(path), cv2.resize(pixels, (width, height)))
    return folder
