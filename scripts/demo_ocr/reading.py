"""Reads a page: detector, reading order, crops, recogniser."""

from __future__ import annotations

from dataclasses import dataclass

from demo_ocr.detector import Array, Network, detect
from demo_ocr.layout import reading_order
from demo_ocr.recogniser import crop, recognise


@dataclass(frozen=True)
class Reader:
    """A detector and a recogniser, and the characters that the recogniser's classes stand for."""

    detector: Network
    recogniser: Network
    alphabet: tuple[str, ...]

    def read(self, picture: Array) -> Reading:
        """Reads a picture, uint8[h, w, 3] in BGR."""
        found = [box.corners for box in detect(self.detector, picture)]
        boxes = [found[index] for index in reading_order(found)]
        return Reading(boxes, self.read_boxes(picture, boxes))

    def read_boxes(self, picture: Array, boxes: list[Array]) -> list[str]:
        """The text in each box; boxes as in `Reading`."""
        crops = [crop(picture, corners) for corners in boxes]
        return [text.text for text in recognise(self.recogniser, crops, self.alphabet)]


@dataclass(frozen=True)
class Reading:
    """What was read on a page.

    Attributes:
        boxes: Corners of each box in reading order, float32[4, 2], x and y in the page's pixels.
        lines: The text in each.
    """

    boxes: list[Array]
    lines: list[str]
