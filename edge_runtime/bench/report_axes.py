"""The frame of a chart, as SVG that fits any width: places across are percentages.

Text keeps its size, since nothing is scaled but paths, and those only across.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_runtime.bench.statistics import Times
from edge_runtime.pages import plain_text

HEIGHT = 180
"""Pixels of a chart's field."""

ROW = 15
"""Pixels of a line of text."""

ACROSS = 1000
"""Units of a path from left to right."""

_LEFT = 46  # Pixels: the scale at the left.
_BOTTOM = 20


@dataclass(frozen=True)
class Scale:
    """Where a value is between two ends, 0 to 1; logarithmic if so wanted, then above 0."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place; a value off the ends is at the nearer one."""
        return float(self.all_at(np.array(value)))

    def all_at(self, values: Times) -> Times:
        """The same of any number of them, float64 of any shape."""
        inside = np.clip(values, self.low, self.high)
        if self.log:
            found: Times = np.log(inside / self.low) / math.log(self.high / self.low)
        else:
            found = (inside - self.low) / (self.high - self.low)
        return found

    def ticks(self, most: int = 7) -> list[float]:
        """Round values from end to end."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found: list[float] = []
            for digits in ((1, 2, 5), (1, 3), (1,)):
                found = [float(f"{digit}e{power}") for power in powers for digit in digits]
                found = [value for value in found if self.low <= value <= self.high]
                if len(found) <= most:
                    break
            if len(found) >= 2:
                return found[:: math.ceil(len(found) / most)]
        step = _round_step((self.high - self.low) / most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def paths(shapes: str) -> str:
    """Paths, stretched across to the field's width.

    Args:
        shapes: `path` elements, `ACROSS` wide and `HEIGHT` high.
    """
    return (
        f'<svg width="100%" height="{HEIGHT}" viewBox="0 0 {ACROSS} {HEIGHT}" '
        f'preserveAspectRatio="none">{shapes}</svg>'
    )


@dataclass(frozen=True)
class Frame:
    """What is around a chart's field.

    Attributes:
        title: What it shows, with the unit of what is upward.
        description: The same for one who cannot see it.
        up: From the bottom to the top.
        across: From left to right.
        unit: That of what is across.
        top: Pixels above the field that are not its own.
        part: The share of the width that `across` takes.
    """

    title: str
    description: str
    up: Scale
    across: Scale
    unit: str
    top: int = 0
    part: float = 1.0

    @property
    def height(self) -> int:
        """Pixels of the field."""
        return HEIGHT - self.top

    def x(self, value: float) -> float:
        """A place across, in percent."""
        return 100 * self.part * self.across.at(value)

    def y(self, value: float) -> float:
        """A place upward, in pixels from the top."""
        return self.top + self.height * (1 - self.up.at(value))

    def draw(self, field: str, note: str = "") -> str:
        """The figure, with lines and values along both scales.

        Args:
            field: What is in it, as SVG.
            note: What to say below it, as HTML.
        """
        levels = [(value, self.y(value)) for value in self.up.ticks(5)]
        grid = "".join(
            f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>' for _, y in levels
        )
        labels = "".join(
            f'<text x="{_LEFT - 6}" y="{min(max(y + 4, 10), HEIGHT):.1f}">{value:,g}</text>'
            for value, y in levels
        )
        ticks = self.across.ticks()
        below = "".join(
            text_at(f"{value:,g}", self.x(value), HEIGHT + 15, "tick") for value in ticks
        )
        whole, title = HEIGHT + _BOTTOM, plain_text(self.title)
        said = f'<p class="soft">{note}</p>' if note else ""
        return (
            f'<figure><figcaption class="soft">{title}</figcaption>'
            f'<div class="chart"><svg class="axis" width="{_LEFT}" height="{whole}" '
            f'aria-hidden="true">{labels}<text x="{_LEFT - 6}" y="{HEIGHT + 15}">{self.unit}</text>'
            f'</svg><svg class="plot" height="{whole}" role="img"><title>{title}</title>'
            f"<desc>{plain_text(self.description)}</desc>{grid}{field}{below}</svg></div>"
            f"{said}</figure>"
        )


def text_at(text: str, place: float, y: float, kind: str, shift: int = 0) -> str:
    """Text at a percentage, beside it where it would leave the field."""
    side = " start" if place < 12 else " end" if place > 88 else ""
    if shift and not side:
        side = " start" if place < 50 else " end"
    move = f' dx="{shift if side == " start" else -shift}"' if shift else ""
    return (
        f'<text class="{kind}{side}" x="{place:.2f}%"{move} y="{y:.1f}">{plain_text(text)}</text>'
    )


def _round_step(least: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(s * power for s in (1, 2, 5, 10) if s * power >= least * (1 - 1e-9))
