"""Draws the SQNR of layers in the graph's order, as SVG that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, TypeVar

from edge_runtime.text import printable

if TYPE_CHECKING:
    from edge_runtime.accuracy.sensitivity import (
        LayerSensitivity,
        Sensitivity,
        TensorSensitivity,
    )

_Row = TypeVar("_Row", "LayerSensitivity", "TensorSensitivity")

_TOP, _HEIGHT, _BOTTOM = 18, 240, 22  # Pixels: above, of and below the field.
_AXIS = 44  # Width of the scale at the left.
_WIDTH = 920  # What the columns share if they are many.
_MIN_COLUMN, _MAX_COLUMN = 9, 40
_NUMBER = 28  # What a number below the columns takes.
_STEP = 10  # dB from one line to the next.
_SPAN = 80  # dB from the top to the bottom at most: what is below adds nothing to see.
_RANKED = 5
"""Layers whose rank stands on their bars."""


def level(noise: float) -> str:
    """A noise as SQNR: `42.4 dB`, `exact` without any, `no signal` where it is without bound."""
    value = decibels(noise)
    if math.isinf(value):
        return "exact" if value > 0 else "no signal"
    return f"{value:.1f} dB"


def decibels(noise: float) -> float:
    """The SQNR of a noise, -10 log10(noise); infinite where one of the two is zero."""
    if noise in (0.0, math.inf):
        return math.inf if noise == 0.0 else -math.inf
    return -10 * math.log10(noise)


def worst_first(rows: Sequence[_Row]) -> list[_Row]:
    """The rows by their noise at the outputs; those alike in the graph's order."""
    return sorted(rows, key=lambda row: -row.output_noise)


def chart(result: Sensitivity) -> tuple[str, str]:
    """The scale at the left and the field with a column for each layer, as two SVG elements.

    The field may be wider than the page, which then scrolls it beside the scale. A bar is the noise
    at the outputs, the taller the worse; a dot is that at the layer's own output. A column leads to
    `#layer-N`, where N is the layer's number from 1.
    """
    noises = [n for row in result.layers for n in (row.output_noise, row.local_noise)]
    scale = _Scale([*noises, result.total_noise])
    column = min(max(_WIDTH // len(result.layers), _MIN_COLUMN), _MAX_COLUMN)
    width = column * len(result.layers) + column
    ranks = {row.name: rank for rank, row in enumerate(worst_first(result.layers)[:_RANKED], 1)}
    lines = "".join(
        f'<line class="grid" x1="0" x2="{width}" y1="{y}" y2="{y}"/>' for y, _ in scale.ticks
    )
    total = scale.y(result.total_noise)
    every = next(step for step in (1, 2, 5) if step * column >= _NUMBER)
    columns = "".join(
        _column(row, number, ranks.get(row.name), scale, column, named=number % every == 0)
        for number, row in enumerate(result.layers, 1)
    )
    field = (
        f'<svg class="field" width="{width}" height="{_TOP + _HEIGHT + _BOTTOM}" role="group" '
        f'aria-label="SQNR of {len(result.layers)} layers, in the graph&#39;s order">'
        f'{lines}<line class="total" x1="0" x2="{width}" y1="{total}" y2="{total}">'
        f"<title>all layers in INT8: {level(result.total_noise)}</title></line>{columns}</svg>"
    )
    labels = "".join(f'<text x="{_AXIS - 6}" y="{y + 4}">{text}</text>' for y, text in scale.ticks)
    axis = (
        f'<svg class="axis" width="{_AXIS}" height="{_TOP + _HEIGHT + _BOTTOM}" '
        f'aria-hidden="true">{labels}<text x="{_AXIS - 6}" y="{_TOP + _HEIGHT + 18}">no.</text>'
        "</svg>"
    )
    return axis, field


def describe(row: LayerSensitivity) -> str:
    """All of a layer's figures in one text of several lines, not escaped."""
    return (
        f"{row.name} ({row.op})\noutputs: {level(row.output_noise)}\n"
        f"own output: {level(row.local_noise)}\nfrom weights: {level(row.weight_noise)}\n"
        f"from inputs: {level(row.input_noise)}"
    )


class _Scale:
    """Where a noise is in the field: the lowest SQNR at the top."""

    def __init__(self, noises: Sequence[float]) -> None:
        levels = [value for value in map(decibels, noises) if math.isfinite(value)]
        low, high = min(levels, default=0.0), max(levels, default=_STEP)
        self._low = math.floor(low / _STEP) * _STEP
        highest = max(math.ceil(high / _STEP) * _STEP, self._low + _STEP)
        self._high = min(highest, self._low + _SPAN)
        lines = range(self._low, self._high + 1, _STEP)
        self.ticks = [
            (self._at(value), f"{value} dB" if value == self._low else str(value))
            for value in lines
        ]

    def y(self, noise: float) -> float:
        """The pixel, from the top; what is off the field is at its edge."""
        return self._at(decibels(noise))

    def _at(self, value: float) -> float:
        inside = min(max(value, self._low), self._high)
        return round(_TOP + (inside - self._low) / (self._high - self._low) * _HEIGHT, 1)


def _column(
    row: LayerSensitivity, number: int, rank: int | None, scale: _Scale, width: int, *, named: bool
) -> str:
    bottom = _TOP + _HEIGHT
    left, middle = number * width - width / 2, number * width
    top, dot = scale.y(row.output_noise), scale.y(row.local_noise)
    bar = max(width - 4, 4)
    kind = "bar" if rank is None else "bar worst"
    marks = [
        f'<rect class="hit" x="{left:g}" y="{_TOP}" width="{width}" height="{_HEIGHT}"/>',
        f'<rect class="{kind}" x="{middle - bar / 2:g}" y="{top}" width="{bar}" '
        f'height="{round(bottom - top, 1)}"/>',
        f'<circle class="dot" cx="{middle}" cy="{dot}" r="3"/>',
    ]
    if rank is not None:
        marks.append(f'<text class="rank" x="{middle}" y="{top - 5:g}">{rank}</text>')
    if named:
        marks.append(f'<text class="number" x="{middle}" y="{bottom + 18}">{number}</text>')
    title = escape(printable(describe(row)))
    return f'<a href="#layer-{number}"><title>{number}: {title}</title>{"".join(marks)}</a>'
