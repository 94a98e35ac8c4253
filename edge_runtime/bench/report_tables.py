"""Tables of a benchmark's report: percentiles, layers and a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edge_runtime.bench.bootstrap import CONFIDENCE
from edge_runtime.bench.report_charts import Unit
from edge_runtime.bench.result import MEASURED, BenchResult
from edge_runtime.bench.roofline import COMPUTE, MEMORY
from edge_runtime.bench.statistics import PERCENTILES, Summary
from edge_runtime.bench.verdict import Comparison, Ratio
from edge_runtime.errors import DataError
from edge_runtime.pages import datum, rounded, shortened, table
from edge_runtime.strict_json import Value
from edge_runtime.text import counted

STYLE = """
.strip { display: block; width: 100%; height: 22px; border-radius: 4px; margin: 0 0 8px; }
.strip rect { stroke: var(--ground); }
.memory { fill: var(--c3); } .compute { fill: var(--c2); } .unknown { fill: var(--soft); }
.meter { width: 64px; height: 10px; margin-left: 6px; vertical-align: -1px; }
.meter .back { fill: color-mix(in srgb, var(--line) 60%, transparent); }
.span { stroke: var(--c0); stroke-width: 3; } .estimate { fill: var(--c0); }
.faster { color: var(--c2); font-weight: 600; } .slower { color: var(--worst); font-weight: 600; }
"""

_MOST_LAYERS = 30

PERCENT = Unit("%", 100.0)

_BOUNDS = {MEMORY: "memory", COMPUTE: "compute", None: "unknown"}


def percentiles(result: BenchResult) -> str:
    """A column for each series that was measured, a row for each figure."""
    percents = tuple(sorted({*PERCENTILES, result.claimed.percentile}))
    found = {name: result.summary(name, percents) for name in MEASURED}
    summaries = [summary for summary in found.values() if summary is not None]
    called = result.names
    heads = [called[name] for name, summary in found.items() if summary is not None]
    figures: dict[str, Callable[[Summary], str]] = {
        "least": lambda summary: _bare(summary.min),
        "mean": lambda summary: _bare(summary.mean),
        "median": lambda summary: _bare(summary.median),
        **{f"percentile {p:g} %": _percentile(p) for p in percents},
        "largest": lambda summary: _bare(summary.max),
        "coefficient of variance": lambda summary: PERCENT.shown(summary.variation),
    }
    rows = [
        f'<tr><th scope="row" class="name">{name}</th>'
        + "".join(f"<td>{figure(summary)}</td>" for summary in summaries)
        + "</tr>"
        for name, figure in figures.items()
    ]
    parts = ("enqueue", "h2d", "compute", "d2h") if result.protocol.startswith("trtexec") else ()
    missing = [called[name] for name in parts if found[name] is None]
    note = f'<p class="soft">Not applicable: {", ".join(missing)}.</p>' if missing else ""
    caption = "In milliseconds; a percentile is a value that was measured, by trtexec's rule"
    return table(("<", *heads), rows, caption=caption) + note


def layers(rows: Sequence[Mapping[str, object]]) -> str:
    """Which layers are the time, the longest first.

    Args:
        rows: As `roofline.roofline_table` gives them, or `layers.table`: without bounds.

    Raises:
        DataError: A row is not in that form.
    """
    plain = Value([dict(row) for row in rows], "layers", DataError)
    found = sorted((_Layer(item) for item in plain.items()), key=lambda layer: -layer.median)
    total = sum(layer.median for layer in found)
    if not found or not total:
        return ""
    strip, place = [], 0.0
    for layer in found:
        wide = 100 * layer.median / total
        if wide < 0.1:
            break
        strip.append(
            f'<rect class="{layer.kind}" x="{place:.2f}%" width="{wide:.2f}%" height="22">'
            f"<title>{layer.name}: {rounded(layer.median)} ms</title></rect>"
        )
        place += wide
    kinds = [kind for kind in _BOUNDS.values() if any(layer.kind == kind for layer in found)]
    said = {"memory": "bound by memory", "compute": "bound by compute", "unknown": "not known"}
    key = "".join(
        f'<li><svg width="12" height="12" aria-hidden="true"><rect class="{kind}" width="12" '
        f'height="12"/></svg>{said[kind]}</li>'
        for kind in kinds
    )
    shown = found[:_MOST_LAYERS]
    rest = len(found) - len(shown)
    more = f'<p class="soft">{counted(rest, "more layer")} in the JSON.</p>' if rest else ""
    cells = [layer.cells(found[0].median) for layer in shown]
    # A column in which nothing is known says nothing.
    kept = [name for name in cells[0] if any(row[name] != "-" for row in cells)]
    lines = [
        f'<tr><th scope="row" class="name">{layer.name} <span>{layer.op}</span></th>'
        + "".join(f"<td>{row[name]}</td>" for name in kept)
        + "</tr>"
        for layer, row in zip(shown, cells, strict=True)
    ]
    peaks = f". The roof is that of {found[0].peaks}" if found[0].peaks else ""
    caption = (
        "Median ms of each layer in an inference, by the backend's profiler. MMACs: million "
        f"multiply-accumulates; MB: moved; op/byte: operations for each byte{peaks}"
    )
    return (
        '<svg class="strip" role="img"><title>Time by layer, the longest first</title>'
        f"<desc>{len(found)} layers; the longest is {found[0].name}.</desc>{''.join(strip)}</svg>"
        f'<ul class="key">{key}</ul>' + table(("<layer", *kept), lines, caption=caption) + more
    )


class _Layer:
    """A row of the profile; what is not known is None."""

    def __init__(self, value: Value) -> None:
        got = value.members()
        for name in ("name", "median_ms"):
            if name not in got:
                value.fail(f"lacks the key {name!r}")
        self.name = shortened(got["name"].text(r".*", "text"))
        self.median = got["median_ms"].number()
        if self.median < 0:
            got["median_ms"].fail("is below 0")

        def known(name: str) -> float | None:
            return None if name not in got or got[name].plain is None else got[name].number()

        def said(name: str) -> str:
            plain = got[name].plain if name in got else None
            return "" if plain is None else shortened(got[name].text(r".*", "text"))

        self.share, self.roof = known("share"), known("roof_share")
        self.macs, self.bytes, self.intensity = known("macs"), known("bytes"), known("intensity")
        self.op, self.type, self.peaks = said("op"), said("precision"), said("peaks")
        bound = said("bound")
        self.kind = bound if bound in (MEMORY, COMPUTE) else "unknown"

    def cells(self, longest: float) -> dict[str, str]:
        """What its row says, by the heads of the columns; `-` where it is not known."""
        wide = 100 * self.median / longest
        meter = (
            '<svg class="meter" aria-hidden="true"><rect class="back" width="100%" height="10"/>'
            f'<rect class="{self.kind}" width="{wide:.1f}%" height="10"/></svg>'
        )
        return {
            "ms": _bare(self.median),
            "share": ("" if self.share is None else PERCENT.shown(self.share)) + meter,
            "type": self.type or "-",
            "bound by": "-" if self.kind == "unknown" else self.kind,
            "of roof": "-" if self.roof is None else PERCENT.shown(self.roof),
            "MMACs": _scaled(self.macs, 1e-6),
            "MB": _scaled(self.bytes, 1e-6),
            "op/byte": _scaled(self.intensity, 1.0),
        }


def comparison(found: Comparison) -> str:
    """The verdict, what was compared, and each figure's ratio with its interval."""
    ends = [end for row in found.rows for end in (row.low, row.high, row.ratio) if end is not None]
    far = max(max(abs(end - 1) for end in ends) * 1.1, 0.01)
    rows = [
        f'<tr><th scope="row" class="name">{shortened(row.figure)}</th>'
        f"<td>{_in(row, row.old)}</td><td>{_in(row, row.new)}</td>"
        f"<td>{datum(row.ratio, f'{row.ratio:.3f}')}</td>"
        f"<td>{_interval(row)}{_whisker(row, far)}</td>"
        f'<td class="{row.verdict.value.split()[0]}">'
        f"{'too few queries' if row.low is None else row.verdict.value}</td></tr>"
        for row in found.rows
    ]
    sides = " and ".join(
        f"{shortened(side.bundle)} ({shortened(side.precision)} on {shortened(side.backend)}, "
        f"{shortened(side.created)}, {datum(side.queries, f'{side.queries:,}')} queries)"
        for side in (found.old, found.new)
    )
    notes = "".join(
        f"<li>{shortened(note, 600)}</li>" for note in (*found.differences, *found.notes)
    )
    turns = f", in turns of {counted(found.rounds, 'round')}" if found.rounds else ""
    caption = (
        f"New over old{turns}. Of ms, below one is faster; of queries per second, above. The "
        f"interval holds with {100 * CONFIDENCE:g} % confidence"
    )
    return (
        f"<p><b>{shortened(found.sentence, 600)}</b></p><p>Old and new: {sides}.</p>"
        + table(("<figure", "old", "new", "ratio", "interval", "verdict"), rows, caption=caption)
        + (f"<ul>{notes}</ul>" if notes else "")
    )


def _whisker(row: Ratio, far: float) -> str:
    """The interval around 1, which is in the middle."""

    def at(ratio: float) -> str:
        return f"{50 + 50 * (ratio - 1) / far:.1f}%"

    if row.low is None or row.high is None:
        return ""
    return (
        '<svg class="meter" aria-hidden="true"><line class="grid" x1="50%" x2="50%" y2="10"/>'
        f'<line class="span" x1="{at(row.low)}" x2="{at(row.high)}" y1="5" y2="5"/>'
        f'<circle class="estimate" cx="{at(row.ratio)}" cy="5" r="3"/></svg>'
    )


def _interval(row: Ratio) -> str:
    if row.low is None or row.high is None:
        return "-"
    return f"{datum(row.low, f'{row.low:.3f}')} to {datum(row.high, f'{row.high:.3f}')}"


def _in(row: Ratio, value: float) -> str:
    return datum(value, f"{rounded(value)} {row.unit}")


def _percentile(percent: float) -> Callable[[Summary], str]:
    return lambda summary: _bare(summary.percentiles[percent])


def _bare(milliseconds: float) -> str:
    return datum(milliseconds, rounded(milliseconds))


def _scaled(value: float | None, factor: float) -> str:
    return "-" if value is None else datum(value, rounded(value * factor))
