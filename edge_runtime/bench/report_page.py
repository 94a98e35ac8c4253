"""A benchmark as one HTML page: no script, no network, any screen."""

from __future__ import annotations

import json

from edge_runtime.bench import report_charts, report_machine, report_tables
from edge_runtime.bench.report_axes import Scale
from edge_runtime.bench.report_charts import MILLISECONDS
from edge_runtime.bench.result import BenchResult
from edge_runtime.bench.verdict import Comparison
from edge_runtime.errors import DataError
from edge_runtime.files import StrPath, atomic_write
from edge_runtime.pages import datum, document, rounded, shortened, table

_STYLE = """
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 8px;
  padding: 0; margin: 12px 0; list-style: none; }
.tiles li { border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px;
  color: var(--soft); font-size: 0.85rem; }
.tiles data { display: block; color: var(--text); font-size: 1.25rem; font-weight: 600; }
.warning { background: var(--mark); border-radius: 6px; padding: 8px 12px; margin: 6px 0;
  max-width: none; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.facts th.name { width: 30%; color: var(--soft); }
"""


_UNITS = {
    "duration": "s",
    "min_duration": "s",
    "percentile": "%",
    "target_latency": "ms",
    "target_qps": "queries/s",
    "warmup": "s",
}
"""Units of a protocol's parameters; of what is not here, there is none."""


def page(result: BenchResult, *, comparison: Comparison | None = None) -> str:
    """The page. Its size does not grow with the number of queries.

    Each figure of its text is one of the result's JSON, rounded, in a `data` element with the whole
    value; the charts draw values that were measured.

    Args:
        result: What to show.
        comparison: What came out when it was compared with another.

    Raises:
        DataError: Conditions, telemetry or layers are not in the form that `Bench` writes.
    """
    subject, samples = result.subject, result.samples
    found = report_machine.readings(result)
    ends = [result.walltime, float(samples.start.max()), *(r.seconds for r in found)]
    seconds = Scale(min(0.0, *ends), max(ends))
    name = shortened(subject.bundle)
    parts = [
        f"<h1>Benchmark of {name}</h1>",
        f'<p class="soft">{_what(result)}</p>',
        _tiles(result),
        _section("Compared", "" if comparison is None else report_tables.comparison(comparison)),
        _section("Warnings", _warnings(result)),
        _section("Latency", _latency(result, seconds)),
        _section("Percentiles", report_tables.percentiles(result)),
        _section("Layers", report_tables.layers(result.layers or ())),
        _section("Telemetry", report_machine.telemetry(found, seconds, result.walltime)),
        _section("Conditions", _facts(report_machine.conditions(result))),
        _section("What was run", _facts(_subject(result))),
    ]
    style = report_charts.STYLE + report_tables.STYLE + _STYLE
    return document(f"Benchmark of {name}", "\n".join(filter(None, parts)), style=style)


def write_page(path: StrPath, result: BenchResult, *, comparison: Comparison | None = None) -> None:
    """Writes the page, all or nothing.

    Raises:
        DataError: As `page`, or the system refused.
    """
    text = page(result, comparison=comparison)
    with atomic_write(path, error=DataError) as file:
        file.write(text.encode())


def _what(result: BenchResult) -> str:
    subject = result.subject
    where = ", ".join(filter(None, (subject.backend, subject.cpu_mode, subject.device)))
    return (
        f"{shortened(subject.precision)} on {shortened(where)}, by the protocol "
        f"{shortened(result.protocol)}, {shortened(result.created)}. {_claim(result)}"
    )


def _claim(result: BenchResult) -> str:
    """What LoadGen's rules say of the run."""
    said = f"The result is {result.verdict}. " if result.verdict else ""
    claimed = result.claimed
    if result.protocol in ("offline", "server"):
        return said
    which = f"percentile {datum(claimed.percentile, f'{claimed.percentile:g}')}"
    needed = datum(claimed.needed, f"{claimed.needed:,}")
    if claimed.estimate is None:
        return f"{said}There are too few queries to claim {which}: {needed} are needed."
    return f"{said}With 99 % confidence, {which} is at most {MILLISECONDS.shown(claimed.estimate)}."


def _tiles(result: BenchResult) -> str:
    claimed = result.claimed.percentile
    summary = result.summary("latency", (claimed,))
    assert summary is not None
    count = len(result.samples)
    tiles = [
        (MILLISECONDS.shown(summary.median), "median latency"),
        (MILLISECONDS.shown(summary.percentiles[claimed]), f"latency, percentile {claimed:g}"),
        (datum(result.throughput, f"{rounded(result.throughput)} /s"), "queries per second"),
    ]
    if result.samples_per_query > 1:
        rate = result.samples_per_second
        tiles.append((datum(rate, f"{rounded(rate)} /s"), "samples per second"))
    joules = result.telemetry.get("joules_per_query")
    if isinstance(joules, float | int):
        tiles.append((datum(joules, f"{rounded(joules)} J"), "energy per query"))
    tiles.append((datum(count, f"{count:,}"), "queries measured"))
    tiles.append((datum(result.walltime, f"{rounded(result.walltime)} s"), "total host walltime"))
    return f'<ul class="tiles">{"".join(f"<li>{value}{said}</li>" for value, said in tiles)}</ul>'


def _warnings(result: BenchResult) -> str:
    return "".join(f'<p class="warning">{shortened(line, 600)}</p>' for line in result.warnings)


def _latency(result: BenchResult, seconds: Scale) -> str:
    """How often and when; nothing of a single query."""
    samples = result.samples
    if len(samples) < 2:
        return ""
    claimed = result.claimed.percentile
    summary = result.summary("latency", (90.0, claimed))
    assert summary is not None
    marks = {"median": summary.median}
    marks |= {f"{percent:g} %": value for percent, value in sorted(summary.percentiles.items())}
    chart = report_charts.histogram(samples.latency, marks)
    return chart + report_charts.timeline(samples.start, samples.latency, seconds)


def _subject(result: BenchResult) -> report_machine.Rows:
    subject = result.subject
    shapes = ", ".join(
        f"{shortened(name)} {'x'.join(map(str, shape))}" for name, shape in subject.shapes.items()
    )
    threads = None if subject.threads is None else subject.threads or "one for each core"
    rows = [
        ("Bundle", f"{shortened(subject.bundle)} <code>{shortened(subject.bundle_digest)}</code>"),
        ("Model", f"{shortened(subject.model)} <code>{shortened(subject.model_digest)}</code>"),
        ("Input shapes", shapes),
        ("Batch", datum(subject.batch, str(subject.batch))),
        ("Samples in a query", datum(result.samples_per_query, str(result.samples_per_query))),
        ("Streams", datum(subject.streams, str(subject.streams))),
        *([] if threads is None else [("CPU threads", str(threads))]),
        ("Queries to warm up", datum(result.warmup, f"{result.warmup:,}")),
        ("Protocol", shortened(result.protocol)),
    ]
    rows += [
        (f"- {shortened(name)}", f"{_setting(value)} {_UNITS.get(name, '')}".strip())
        for name, value in result.parameters.items()
    ]
    rows.append(("edge_runtime", shortened(result.version)))
    return rows


def _setting(value: object) -> str:
    """A parameter's value, which is any JSON."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float | int):
        return datum(value, f"{value:g}")
    return shortened(value if isinstance(value, str) else json.dumps(value))


def _facts(rows: report_machine.Rows) -> str:
    if not rows:
        return ""
    lines = [
        f'<tr><th scope="row" class="name">{name}</th><td>{value}</td></tr>' for name, value in rows
    ]
    return f'<div class="facts">{table((), lines)}</div>'


def _section(title: str, content: str) -> str:
    """A part of the page; nothing without content."""
    return f"<section><h2>{title}</h2>\n{content}</section>" if content else ""
