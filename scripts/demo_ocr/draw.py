"""The page with its boxes beside the text that was read in them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np

from demo_ocr.detector import Array
from demo_ocr.recogniser import upright

_SCALE = 3
_GREEN, _BLACK, _WHITE = (60, 160, 0), (0, 0, 0), 255
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def annotate(picture: Array, boxes: Sequence[Array], texts: Sequence[str]) -> Array:
    """Draws the page, three times its size, and below it the texts where they stand on the page.

    Args:
        picture: uint8[h, w, 3] in BGR; it is not changed.
        boxes: Corners by box, float32[4, 2] in x and y.
        texts: What was read in each box. OpenCV's font has ASCII only; the rest shows as `?`.

    Returns:
        uint8[6h, 3w, 3] in BGR.
    """
    page = cv2.resize(picture, None, fx=_SCALE, fy=_SCALE, interpolation=cv2.INTER_CUBIC)
    text_page = np.full_like(page, _WHITE)
    for corners, text in zip(boxes, texts, strict=True):
        outline = np.round(corners * _SCALE).astype(np.int32)
        for canvas in (page, text_page):
            cv2.polylines(canvas, [outline], True, _GREEN, 2, cv2.LINE_AA)
        _write(text_page, text, corners * _SCALE)
    return np.concatenate([page, text_page])


def _write(canvas: Array, text: str, corners: Array) -> None:
    """Writes a text into its box, as large as fits and at the box's angle."""
    plain = unicodedata.normalize("NFKC", text).encode("ascii", "replace").decode()
    width, height = (int(np.hypot(*(corners[i] - corners[0]))) + 1 for i in (1, 3))
    (text_width, text_height), _ = cv2.getTextSize(plain, _FONT, 1.0, 2)
    size = min(0.9 * width / max(text_width, 1), 0.6 * height / max(text_height, 1))
    strip = np.full((height, width, 3), _WHITE, np.uint8)
    start = (int(0.02 * width), int(0.75 * height))
    cv2.putText(strip, plain, start, _FONT, size, _BLACK, 2, cv2.LINE_AA)
    to_box = cv2.getPerspectiveTransform(upright(width, height), corners)
    # Onto white around it, and the darker of the two: boxes of neighbouring lines overlap.
    placed = cv2.warpPerspective(
        strip, to_box, canvas.shape[1::-1], borderValue=(_WHITE, _WHITE, _WHITE)
    )
    np.minimum(canvas, placed, out=canvas)
