"""A benchmark's result in trtexec's words, and what it adds to them."""

from __future__ import annotations

from edge_runtime.bench.result import BenchResult
from edge_runtime.bench.statistics import PERCENTILES, Summary
from edge_runtime.cli.bench_layers import layer_lines

_NOT = "not applicable"


def report(result: BenchResult) -> list[str]:
    """The lines to print, in the form of NVIDIA's trtexec: numbers have six digits, as there."""
    lines = [*_subject(result), "", "=== Performance summary ==="]
    lines.append(f"Throughput: {result.throughput:g} qps")
    if result.samples_per_query > 1:
        lines.append(
            f"Samples: {result.samples_per_second:g} per second, {result.samples_per_query} a query"
        )
    lines += _times(result)
    lines.append(f"Total Host Walltime: {result.walltime:g} s")
    compute = result.summary("compute")
    if compute is not None:
        lines.append(f"Total {result.names['compute']}: {compute.mean * compute.count / 1000:g} s")
    lines += ["", *_claim(result)]
    joules = result.telemetry.get("joules_per_query")
    if joules is not None:
        lines.append(f"Energy: {joules:g} J a query")
    if result.layers:
        lines += layer_lines(result.layers)
    if result.warnings:
        lines += ["", *(f"* {warning}" for warning in result.warnings)]
    return lines


def _subject(result: BenchResult) -> list[str]:
    subject = result.subject
    where = subject.backend + (f", {subject.cpu_mode}" if subject.cpu_mode else "")
    shapes = ", ".join(f"{name}=" + "x".join(map(str, s)) for name, s in subject.shapes.items())
    return [
        f"{subject.bundle}: {subject.precision} on {where}"
        + (f" ({subject.device})" if subject.device else ""),
        f"{result.protocol}, {shapes}: {len(result.samples)} queries after {result.warmup} to "
        "warm up",
    ]


def _times(result: BenchResult) -> list[str]:
    percentiles = sorted({*PERCENTILES, result.claimed.percentile})
    wanted = ["latency"]
    if result.protocol.startswith("trtexec"):
        wanted += ["enqueue", "h2d", "compute", "d2h"]
    elif result.protocol == "end-to-end":
        wanted += ["preprocess", "inference", "postprocess"]
    return [
        f"{result.names[series]}: {_figures(result.summary(series, percentiles))}"
        for series in wanted
    ]


def _figures(summary: Summary | None) -> str:
    if summary is None:
        return _NOT
    return (
        f"min = {summary.min:g} ms, max = {summary.max:g} ms, mean = {summary.mean:g} ms, "
        f"median = {summary.median:g} ms"
        + "".join(
            f", percentile({key:g}%) = {value:g} ms" for key, value in summary.percentiles.items()
        )
    )


def _claim(result: BenchResult) -> list[str]:
    lines = [f"Result is: {result.verdict}"] if result.verdict else []
    if result.protocol in ("offline", "server"):  # Their figures are no percentile.
        return lines
    claimed = result.claimed
    percent = f"{claimed.percentile:g}"
    if claimed.estimate is None:
        return [
            *lines,
            f"Early stopping: {claimed.queries} queries are too few to claim percentile {percent}; "
            f"{claimed.needed} are needed.",
        ]
    return [
        *lines,
        f"Early stopping: percentile {percent} is at most {claimed.estimate:g} ms with 99 % "
        f"confidence ({claimed.queries} queries, {claimed.needed} needed).",
    ]
