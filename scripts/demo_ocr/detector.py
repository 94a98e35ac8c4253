"""From a picture to the detector's input, and from its probability map to boxes around words.

The detector is a DB network (Liao et al. 2020, "Real-time Scene Text Detection with Differentiable
Binarization", arXiv 1911.08947): for each pixel it gives the probability of lying in the shrunk
core of a piece of text. The settings are those that PP-OCRv4 was published with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Network = Callable[[Array], Array]
"""One input array to one output array."""

SHORT_SIDE = 448
MULTIPLE = 32
PIXEL_THRESHOLD = 0.3
BOX_THRESHOLD = 0.6
UNCLIP_RATIO = 1.6
SMALLEST_SIDE = 3


@dataclass(frozen=True)
class Box:
    """A rectangle around a piece of text, at any angle.

    Attributes:
        corners: float32[4, 2], x and y in pixels of the picture: top left, top right, bottom
            right, bottom left as the text is read.
        score: Mean probability of text inside, 0 to 1.
    """

    corners: Array
    score: float


def input_size(height: int, width: int) -> tuple[int, int]:
    """The height and width the detector sees: short side at least 448, multiples of 32."""
    scale = max(1.0, SHORT_SIDE / min(height, width))
    rounded = [max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in (height, width)]
    return rounded[0], rounded[1]


def prepare(picture: Array) -> Array:
    """uint8[h, w, 3] in BGR to float32[1, 3, H, W] in -1..1."""
    height, width = input_size(*picture.shape[:2])
    resized = cv2.resize(picture, (width, height)).astype(np.float32)
    return np.ascontiguousarray((resized / 127.5 - 1).transpose(2, 0, 1)[None])


def detect(network: Network, picture: Array) -> list[Box]:
    """The boxes around the text in a picture, uint8[h, w, 3] in BGR, in no particular order."""
    probability = network(prepare(picture))[0, 0].astype(np.float32)
    limit = np.array(picture.shape[1::-1], np.float32)
    to_picture = limit / np.array(probability.shape[::-1], np.float32)
    return [
        replace(box, corners=np.clip(box.corners * to_picture, 0, limit))
        for box in boxes_of(probability)
    ]


def boxes_of(probability: Array) -> list[Box]:
    """The boxes in a probability map, float32[h, w], in the map's own pixels."""
    core = np.where(probability > PIXEL_THRESHOLD, 1, 0).astype(np.uint8)
    # Closes one-pixel gaps, which would cut a word in two.
    closed = cv2.dilate(core, np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(closed, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    boxes = []
    for contour in contours:
        center, size, angle = cv2.minAreaRect(contour)
        if min(size) < SMALLEST_SIDE:
            continue
        # The contour, not its rectangle: a rectangle around a curved line is half background.
        score = box_score(probability, contour[:, 0])
        if score >= BOX_THRESHOLD:
            grown = cv2.boxPoints((center, unclip(*size), angle))
            boxes.append(Box(ordered_corners(grown), score))
    return boxes


def unclip(width: float, height: float) -> tuple[float, float]:
    """The size of a text's box, given that of its shrunk core.

    DB shrinks and grows polygons by the distance area * ratio / perimeter (arXiv 1911.08947,
    section 3.5). A rectangle grown by d on every side is a rectangle again, 2 d longer each way.
    """
    if width + height == 0:
        return 0.0, 0.0
    distance = width * height * UNCLIP_RATIO / (2 * (width + height))
    return width + 2 * distance, height + 2 * distance


def box_score(probability: Array, polygon: Array) -> float:
    """The mean of a map, float32[h, w], inside and on a polygon, [n, 2] in x and y."""
    height, width = probability.shape
    left, top = np.clip(np.floor(polygon.min(axis=0)), 0, (width - 1, height - 1)).astype(int)
    right, bottom = np.clip(np.ceil(polygon.max(axis=0)), 0, (width - 1, height - 1)).astype(int)
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    cv2.fillPoly(mask, [(polygon - (left, top)).astype(np.int32)], 1)
    return float(cv2.mean(probability[top : bottom + 1, left : right + 1], mask)[0])


def ordered_corners(corners: Array) -> Array:
    """Four corners, float[4, 2], as top left, top right, bottom right, bottom left."""
    by_x = corners[np.argsort(corners[:, 0], kind="stable")]
    top_left, bottom_left = sorted(by_x[:2], key=lambda point: float(point[1]))
    top_right, bottom_right = sorted(by_x[2:], key=lambda point: float(point[1]))
    return np.array([top_left, top_right, bottom_right, bottom_left], np.float32)
