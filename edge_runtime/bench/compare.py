"""Compares two benchmark results: ratios with intervals, and a verdict."""

from __future__ import annotations

import numpy as np

from edge_runtime.bench.bootstrap import Blocks, mean_error, of_runs, percentile_error
from edge_runtime.bench.comparable import check_comparable, remarks
from edge_runtime.bench.result import BenchResult
from edge_runtime.bench.statistics import PERCENTILES, Times, early_stopping, summarize
from edge_runtime.bench.verdict import THROUGHPUT, Comparison, Ratio, Side
from edge_runtime.errors import DataError

LEAST = 8
"""Queries of a run from which there is an interval."""


def compare(old: BenchResult, new: BenchResult, *, force: bool = False) -> Comparison:
    """Compares two runs that were made one after the other.

    The intervals know how much each run varied in itself. They cannot know what differs from one
    run to the next, such as other load on the machine: for small differences take turns, as
    `interleaved` does.

    Args:
        old: What is compared with.
        new: What is judged.
        force: Compare results that were measured differently; the comparison says how.

    Raises:
        ConfigError: They were measured differently.
        DataError: A run has too few queries, a figure is 0, or conditions are damaged.
    """
    apart = check_comparable(old, new, force=force)
    for result in (old, new):
        if len(result.samples) < LEAST:
            raise DataError(
                f"{result.subject.bundle} of {result.created} has {len(result.samples)} queries, "
                f"and {LEAST} are the least to compare: measure longer."
            )
    latencies = [Blocks.equal(result.samples.latency) for result in (old, new)]
    rows = []
    for name, percent, values in figures(old, new):
        if enough(old, new, percent):
            errors = [percentile_error(series, percent) for series in latencies]
            rows.append(Ratio.of(name, "ms", values, of_runs(*values, errors)))
        else:
            rows.append(unsure(name, values))
    rates = old.throughput, new.throughput
    errors = [mean_error(Blocks.equal(gaps(result))) for result in (old, new)]
    rows.append(Ratio.of(THROUGHPUT, "qps", rates, of_runs(*rates, errors)))
    return Comparison(
        protocol=old.protocol,
        figure=main_figure(old),
        rounds=None,
        old=side(old),
        new=side(new),
        rows=tuple(rows),
        differences=tuple(apart),
        notes=tuple(remarks(old, new)),
    )


def main_figure(result: BenchResult) -> str:
    """The figure that a verdict goes by: MLPerf's of its scenarios, else the median.

    That is the percentile claimed in single-stream, multi-stream and server, and the throughput
    offline.
    """
    if result.protocol == "offline":
        return THROUGHPUT
    if result.protocol in ("single-stream", "multi-stream", "server"):
        return _name(result.claimed.percentile)
    return "median"


def figures(old: BenchResult, new: BenchResult) -> list[tuple[str, float, tuple[float, float]]]:
    """Name, percentile and both values of each figure of the latency, the median first.

    Raises:
        DataError: One is 0.
    """
    percents = sorted({*PERCENTILES, old.claimed.percentile, new.claimed.percentile} - {50.0})
    both = [summarize(result.samples.latency, percents) for result in (old, new)]
    first, second = both
    found = [("median", 50.0, (first.median, second.median))]
    found += [(_name(p), p, (first.percentiles[p], second.percentiles[p])) for p in percents]
    for name, _, values in found:
        if not all(values):
            raise DataError(f"The {name} of the latency is 0 ms: there is no ratio to it.")
    return found


def enough(old: BenchResult, new: BenchResult, percent: float) -> bool:
    """Whether both have queries enough for a percentile, by LoadGen's rule; the median always."""
    if percent == 50:
        return True
    return all(early_stopping(side.samples.latency, percent).enough for side in (old, new))


def unsure(name: str, values: tuple[float, float]) -> Ratio:
    """A latency's ratio of which nothing more can be said."""
    return Ratio(name, "ms", *values, values[1] / values[0], None, None, None)


def gaps(result: BenchResult) -> Times:
    """float64[n], seconds from the start of each query to that of the next, or to the end.

    Their mean is one by the throughput.
    """
    start = result.samples.start
    end = max(result.walltime, float(start[-1]))
    found: Times = np.diff(np.append(start, end))
    return found


def side(result: BenchResult) -> Side:
    """What a comparison says of a result."""
    subject = result.subject
    return Side(
        bundle=subject.bundle,
        bundle_digest=subject.bundle_digest,
        precision=subject.precision,
        backend=subject.backend,
        device=subject.device,
        created=result.created,
        queries=len(result.samples),
    )


def _name(percent: float) -> str:
    return "median" if percent == 50 else f"percentile({percent:g}%)"
