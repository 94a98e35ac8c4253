"""Charts of a benchmark's report, as SVG: latencies, how often and when, and values over time.

Every value drawn was measured: where there are too many, a column shows the least, the middle and
the largest of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from edge_runtime.bench.report_axes import ACROSS, HEIGHT, ROW, Frame, Scale, paths, text_at
from edge_runtime.bench.statistics import Times, percentile
from edge_runtime.pages import datum, rounded, shortened

STYLE = """
figure { margin: 0 0 16px; }
figcaption { margin: 0 0 4px; }
.plot { flex: 1 1 0 !important; min-width: 0; width: 0; padding-right: 10px; overflow: visible; }
svg .start { text-anchor: start; }
svg .end { text-anchor: end; }
svg .marked { fill: var(--text); paint-order: stroke; stroke: var(--ground); stroke-width: 3px; }
.mark { stroke: var(--worst); stroke-width: 1.5; stroke-dasharray: 5 4; }
.beyond { fill: var(--worst); }
.dots, .line { fill: none; stroke: var(--c0); stroke-width: 1.5; vector-effect: non-scaling-stroke;
  stroke-linejoin: round; }
.dots { stroke-width: 3; stroke-linecap: round; }
.measured { fill: color-mix(in srgb, var(--line) 35%, transparent); }
.hit:hover { fill: color-mix(in srgb, var(--line) 60%, transparent); }
:root { --c0: #1f6fc5; --c1: #c4482f; --c2: #1b7f4d; --c3: #8a4fbf; --c4: #946200; --c5: #00798c; }
@media screen and (prefers-color-scheme: dark) {
  :root { --c0: #6aaef5; --c1: #f0806a; --c2: #5cc98d; --c3: #c39af0; --c4: #e0ae4a;
    --c5: #4fc6d6; }
}
.s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); } .s3 { stroke: var(--c3); }
.s4 { stroke: var(--c4); } .s5 { stroke: var(--c5); } .dashed { stroke-dasharray: 6 3; }
.scale { position: absolute; opacity: 0; }
.scale + label { display: inline-block; padding: 2px 12px; border: 1px solid var(--line);
  border-radius: 6px; cursor: pointer; margin: 0 4px 8px 0; }
.scale:checked + label { background: var(--mark); border-color: var(--soft); }
.scale:focus-visible + label { outline: 2px solid var(--c0); }
#scale-log:not(:checked) ~ .log, #scale-log:checked ~ .linear { display: none; }
"""

COLOURS = 6

_BEYOND = 0.05  # What the bar of the slowest takes of the width.
_SPAN = 0.95  # Share of the queries that the linear histogram shows at least.
_TALL = 5  # Times the median, from which on a linear scale would squeeze all the others.
_DOTS = 1500  # Queries that are drawn one by one.
_COLUMNS = 240
_POINTS = 240  # Of a line.

Point = tuple[float, float]
"""Seconds or percent across, and a value."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Unit:
    """What values are shown in.

    Attributes:
        name: The unit's.
        factor: By which a value is multiplied.
        top: Where the scale ends, which then begins at 0; None fits it to the values.
    """

    name: str
    factor: float = 1.0
    top: float | None = None

    def shown(self, value: float) -> str:
        """The figure with its unit, as HTML."""
        return datum(value, f"{rounded(value * self.factor)} {self.name}")


MILLISECONDS = Unit("ms")


def histogram(latency: Times, marks: Mapping[str, float]) -> str:
    """How often each latency came, twice: on linear scales and on logarithmic ones.

    The linear one ends at Tukey's outer fence, three times the quartiles' distance above the upper
    quartile (Exploratory Data Analysis, 1977), or where 95 % of the queries are; a bar of its own
    counts what is beyond. The number of bins is Rice's, twice the cube root of the count.

    Args:
        latency: float64[n], ms, in any order; n at least 2.
        marks: Latencies to mark, by name.
    """
    ordered = np.sort(latency)
    bins = max(8, min(60, math.ceil(2 * len(ordered) ** (1 / 3))))
    quarter, upper = percentile(ordered, 25), percentile(ordered, 75)
    fence = max(upper + 3 * (upper - quarter), percentile(ordered, 100 * _SPAN))
    low, high = float(ordered[0]), float(ordered[-1])
    end = high if fence >= high else fence
    edges = np.linspace(low, max(end, low * 1.01, low + 1e-6), bins + 1)
    linear = _bars(ordered, edges, marks, log=False)
    cut = np.geomspace if low > 0 else np.linspace
    edges = cut(low, max(high, low * 1.01, low + 1e-6), bins + 1)
    logarithmic = _bars(ordered, edges, marks, log=True)
    note = (
        f'<p class="soft">The bar at the right is all that took longer, up to '
        f"{MILLISECONDS.shown(high)}: see the logarithmic scale.</p>"
        if end < high
        else ""
    )
    return (
        '<div role="group" aria-label="Scales of the histogram">'
        '<input class="scale" type="radio" name="scale" id="scale-linear" checked>'
        '<label for="scale-linear">linear</label>'
        '<input class="scale" type="radio" name="scale" id="scale-log">'
        '<label for="scale-log">logarithmic</label>'
        f'<div class="linear">{linear}{note}</div><div class="log">{logarithmic}</div></div>'
    )


def timeline(start: Times, latency: Times, seconds: Scale) -> str:
    """Each query's latency when it started.

    Args:
        start: float64[n], seconds.
        latency: float64[n], ms.
        seconds: From left to right.
    """
    middle, high = float(np.median(latency)), float(np.max(latency))
    low = float(np.min(latency))
    log = low > 0 and high > _TALL * middle
    scale = Scale(low * 0.9, high * 1.1, log=True) if log else Scale(0.0, high * 1.08 or 1.0)
    across, down = seconds.all_at(start) * ACROSS, HEIGHT * (1 - scale.all_at(latency))
    if len(start) <= _DOTS:
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in zip(across, down, strict=True))
        shapes, how = f'<path class="dots" d="{dots}"/>', "A dot is a query."
    else:
        shapes = _columns(across, down)
        how = (
            f"{len(start):,} queries are too many to draw one by one. A column is those that "
            "started together: a bar from the fastest to percentile 90, a line at the middle one, "
            "and a dot at the slowest."
        )
    kind = ", on a logarithmic scale" if log else ""
    title = f"Latency in ms{kind}, by the second in which a query started"
    frame = Frame(title, how, scale, seconds, "s")
    worst = int(np.argmax(latency))
    place = frame.x(float(start[worst]))
    label = text_at(f"{rounded(high)} ms", place, frame.y(high) + ROW - 4, "marked", 5)
    return frame.draw(paths(shapes) + label, how)


def lines(
    title: str, series: Mapping[str, Sequence[Point]], unit: Unit, seconds: Scale, walltime: float
) -> str:
    """Values over time, a line for each name; what was not known at a moment leaves a gap.

    Args:
        title: What they are.
        series: Seconds and value; NaN for one that is not known. Each name has one that is.
        unit: That of the values.
        seconds: From left to right.
        walltime: Up to which second queries were measured, from 0 on.
    """
    known = {
        name: [value for _, value in points if not math.isnan(value)]
        for name, points in series.items()
    }
    frame = Frame(
        f"{title}, {unit.name}",
        f"{', '.join(series)}; the shaded part is what was measured.",
        Scale(0.0, 1.05 * unit.top)
        if unit.top
        else _around([value * unit.factor for values in known.values() for value in values]),
        seconds,
        "s",
    )
    begin, end = frame.x(0), frame.x(walltime)
    measured = (
        f'<rect class="measured" x="{begin:.2f}%" y="0" width="{end - begin:.2f}%" '
        f'height="{HEIGHT}"/>'
    )
    drawn, keys = [], []
    for index, (name, points) in enumerate(series.items()):
        dashed = " dashed" if index // COLOURS % 2 else ""
        kind = f"line s{index % COLOURS}{dashed}"
        drawn.append(f'<path class="{kind}" d="{_path(_thinned(points), frame, unit.factor)}"/>')
        low, high = min(known[name]), max(known[name])
        span = unit.shown(low) + (f" to {unit.shown(high)}" if high > low else "")
        keys.append(
            f'<li><svg width="24" height="12" aria-hidden="true"><path class="{kind}" d="M0 6h24"/>'
            f"</svg>{shortened(name)}: {span}</li>"
        )
    return frame.draw(measured + paths("".join(drawn))) + f'<ul class="key">{"".join(keys)}</ul>'


def _around(values: Sequence[float]) -> Scale:
    """From end to end of the values with some room; from 0 on where they come near it."""
    low, high = min(values), max(values)
    room = max((high - low) * 0.08, abs(high) * 0.02, 0.01)
    return Scale(0.0 if 0 <= low <= high / 2 else low - room, high + room)


def _bars(ordered: Times, edges: Times, marks: Mapping[str, float], *, log: bool) -> str:
    counts, _ = np.histogram(ordered, edges)
    beyond = len(ordered) - int(counts.sum())
    most = max(int(counts.max()), beyond)
    low, high = rounded(float(ordered[0])), rounded(float(ordered[-1]))
    frame = Frame(
        f"Queries by latency in ms, {'logarithmic' if log else 'linear'} scales",
        f"{len(ordered)} queries from {low} to {high} ms, in {len(counts)} bins.",
        Scale(0.5, most * 1.1, log=True) if log else Scale(0, most * 1.05),
        Scale(float(edges[0]), float(edges[-1]), log and edges[0] > 0),
        "ms",
        top=ROW * len(marks),
        part=1 - _BEYOND if beyond else 1.0,
    )
    shapes = []
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        said = f"{rounded(float(left))} to {rounded(float(right))} ms"
        span = frame.x(float(left)), frame.x(float(right))
        shapes.append(_bar(frame, span, int(count), said))
    if beyond:
        said = f"above {rounded(float(edges[-1]))} ms"
        shapes.append(_bar(frame, (100 * frame.part + 1, 100.0), beyond, said, "bar beyond"))
    for row, (name, value) in enumerate(marks.items()):
        place = frame.x(value) if value <= edges[-1] else 100 * frame.part + 3
        shapes.append(
            f'<line class="mark" x1="{place:.2f}%" x2="{place:.2f}%" y1="{ROW * row + 4}" '
            f'y2="{HEIGHT}"/>'
        )
        shapes.append(
            text_at(f"{name} {rounded(value)} ms", place, ROW * (row + 1) - 3, "marked", 5)
        )
    return frame.draw("".join(shapes))


def _bar(frame: Frame, span: Point, count: int, said: str, kind: str = "bar") -> str:
    left, right = span
    bottom = frame.top + frame.height
    top = frame.y(count) if count else float(bottom)
    gap = min(0.1, (right - left) / 4)
    queries = "1 query" if count == 1 else f"{count:,} queries"
    return (
        f"<g><title>{said}: {queries}</title>"
        f'<rect class="hit" x="{left:.2f}%" y="{frame.top}" width="{right - left:.2f}%" '
        f'height="{frame.height}"/>'
        f'<rect class="{kind}" x="{left + gap:.2f}%" y="{top:.1f}" '
        f'width="{right - left - 2 * gap:.2f}%" height="{bottom - top:.1f}"/></g>'
    )


def _columns(across: Times, down: Times) -> str:
    """Of each column a bar, its middle and its slowest: the uppermost, at the least pixel."""
    width = ACROSS / _COLUMNS
    place = np.minimum((across / width).astype(int), _COLUMNS - 1)
    order = np.argsort(place, kind="stable")
    columns, first = np.unique(place[order], return_index=True)
    bars, middle, slowest = [], [], []
    for column, mine in zip(columns, np.split(down[order], first[1:]), strict=True):
        x, rising = column * width, -np.sort(-mine)
        bottom, most = float(rising[0]), percentile(rising, 90)
        top = min(most, bottom - 1)
        bars.append(f"M{x:.1f} {top:.1f}h{width:.1f}V{bottom:.1f}h-{width:.1f}z")
        middle.append(f"{x + width / 2:.1f} {percentile(rising, 50):.1f}")
        slowest.append(f"M{x + width / 2:.1f} {rising[-1]:.1f}h0")
    return (
        f'<path class="bar" d="{"".join(bars)}"/>'
        f'<path class="dots" d="{"".join(slowest)}"/>'
        f'<path class="line s1" d="M{"L".join(middle)}"/>'
    )


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """At most about `_POINTS` of them: of each stretch the lowest and the highest, with gaps."""
    if len(points) <= _POINTS:
        return points
    kept: list[Point] = []
    for stretch in _cut(points, _POINTS // 2):
        known = [point for point in stretch if not math.isnan(point[1])]
        if known:
            ends = {min(known, key=lambda p: p[1]), max(known, key=lambda p: p[1])}
            kept.extend(sorted(ends))
        if len(known) < len(stretch):
            kept.append(next(point for point in stretch if math.isnan(point[1])))
    return kept


def _cut(items: Sequence[_Item], parts: int) -> Iterable[Sequence[_Item]]:
    size = math.ceil(len(items) / parts)
    return (items[i : i + size] for i in range(0, len(items), size))


def _path(points: Sequence[Point], frame: Frame, factor: float) -> str:
    pieces, joined = [], False
    for second, value in points:
        if math.isnan(value):
            joined = False
            continue
        x, y = frame.across.at(second) * ACROSS, frame.y(value * factor)
        pieces.append(f"{'L' if joined else 'M'}{x:.1f} {y:.1f}")
        joined = True
    return "".join(pieces)
