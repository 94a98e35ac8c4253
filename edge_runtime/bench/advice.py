"""What makes a result's figures less than they look: trtexec's warnings, and too few queries."""

from __future__ import annotations

from edge_runtime.bench.protocols import Protocol, Scenario, Trtexec
from edge_runtime.bench.result import Samples
from edge_runtime.bench.statistics import early_stopping, summarize

_ENQUEUE_BOUND = 0.8
"""trtexec's: the share of the compute time from which enqueueing may be what takes the time."""


def warnings(protocol: Protocol, samples: Samples) -> list[str]:
    """The warnings about a result, a sentence or two each.

    Those of trtexec are about a GPU and come at its limits: the median enqueue time is more than
    0.8 of the median compute time; the median of a copy is no less than that; the compute time
    varies by more than `Trtexec.unstable`. The last is said on a CPU as well. Source:
    NVIDIA/TensorRT, samples/common/sampleReporting.cpp, `printEpilog`.
    """
    found = []
    if isinstance(protocol, Trtexec):
        found += _bound(protocol, samples)
        found += _unstable(protocol, samples)
    if not isinstance(protocol, Scenario):  # Of these, `scenarios.validity` says it.
        found += _too_few(protocol, samples)
    return found


def _bound(protocol: Trtexec, samples: Samples) -> list[str]:
    if samples.compute_start is None or samples.enqueue is None or samples.compute is None:
        return []  # A CPU: the call is all there is.
    found = []
    compute = summarize(samples.compute).median
    if summarize(samples.enqueue).median > _ENQUEUE_BOUND * compute:
        hint = "" if protocol.cuda_graph else " CUDA graphs (--cuda-graph) may raise it."
        found.append(
            "Throughput may be bound by Enqueue Time rather than GPU Compute, and the GPU may be "
            f"under-utilized.{hint}"
        )
    for times, way in (
        (samples.h2d, "host-to-device transfers for the inputs"),
        (samples.d2h, "device-to-host transfers for the outputs"),
    ):
        if times is not None and summarize(times).median >= compute:
            found.append(
                f"Throughput may be bound by {way} rather than GPU Compute, and the GPU may be "
                "under-utilized. --no-transfers leaves them out."
            )
    return found


def _unstable(protocol: Trtexec, samples: Samples) -> list[str]:
    if samples.compute is None:
        return []
    variation = summarize(samples.compute).variation
    if variation <= protocol.unstable:
        return []
    on_gpu = samples.compute_start is not None
    what = "GPU Compute Time" if on_gpu else "Compute Time"
    advice = (
        "Lock the clocks (on a Jetson: nvpmodel for the power mode, then jetson_clocks), or wait "
        "with a busy core (--spin)."
        if on_gpu
        else "Let nothing else run, and set the CPU's clock governor to performance."
    )
    return [f"{what} is unstable, with coefficient of variance = {100 * variation:.4g}%. {advice}"]


def _too_few(protocol: Protocol, samples: Samples) -> list[str]:
    claimed = early_stopping(samples.latency, protocol.percentile)
    if claimed.enough:
        return []
    return [
        f"{claimed.queries} queries are too few for the percentile {claimed.percentile:g}: "
        f"{claimed.needed} are the least by LoadGen's early-stopping rule. Measure longer."
    ]
