"""A benchmark's result in trtexec's words, and what it adds to them."""

from __future__ import annotations

from edge_runtime.bench.result import BenchResult
from edge_runtime.bench.statistics import PERCENTILES, Summary
from edge_runtime.cli.bench_layers import layer_lines

_NOT = "not applicable"
_SCENARIOS = ("single-stream", "multi-stream", "offline", "server")


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
        name = "Total GPU Compute Time" if _on_gpu(result) else "Total Compute Time"
        lines.append(f"{name}: {compute.mean * compute.count / 1000:g} s")
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
    gpu = "GPU Compute Time" if _on_gpu(result) else "Compute Time"
    names = {
        "latency": "Latency",
        "enqueue": "Enqueue Time",
        "h2d": "H2D Latency",
        "compute": gpu,
        "d2h": "D2H Latency",
    }
    if result.protocol == "end-to-end":
        names = {
            "latency": "Latency",
            "preprocess": "Preprocessing",
            "inference": "Inference",
            "postprocess": "Decoding",
        }
    elif not result.protocol.startswith("trtexec"):
        names = {"latency": "Latency"}
    return [
        f"{name}: {_figures(result.summary(series, percentiles))}" for series, name in names.items()
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
    lines = []
    if result.protocol in _SCENARIOS:
        invalid = any(warning.startswith("INVALID") for warning in result.warnings)
        lines.append(f"Result is: {'INVALID' if invalid else 'VALID'}")
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


def _on_gpu(result: BenchResult) -> bool:
    return result.samples.compute_start is not None
