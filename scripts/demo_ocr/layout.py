"""The order in which a reader takes the boxes of a page."""

from __future__ import annotations

from collections.abc import Sequence

from demo_ocr.detector import Array


def reading_order(boxes: Sequence[Array]) -> list[int]:
    """Indices of the boxes from top to bottom, and from left to right within a row.

    A box joins the row above it if its middle lies higher than the lower edge of the row's last box
    minus a quarter of that box's height, so that a slightly tilted row stays together.

    Args:
        boxes: Corners, each float[4, 2] in x and y, top left first and clockwise.
    """
    middles = [float(corners[:, 1].mean()) for corners in boxes]
    heights = [float(corners[2:, 1].mean() - corners[:2, 1].mean()) for corners in boxes]
    rows: list[list[int]] = []
    for index in sorted(range(len(boxes)), key=middles.__getitem__):
        if rows:
            last = rows[-1][-1]
            if middles[index] - middles[last] < heights[last] / 4:
                rows[-1].append(index)
                continue
        rows.append([index])
    return [i for row in rows for i in sorted(row, key=lambda i: float(boxes[i][:, 0].min()))]
