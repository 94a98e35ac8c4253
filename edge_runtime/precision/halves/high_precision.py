"""Makes half what is not INT8 in an INT8 graph, but for the nodes whose values half cannot hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from onnx import ModelProto

from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.halves.half import half_and_twin, why_full
from edge_runtime.precision.halves.half_ranges import keep_full
from edge_runtime.precision.halves.half_types import HalfType
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache


@dataclass(frozen=True)
class HighPrecision:
    """What became of the nodes around INT8.

    Attributes:
        lowered: The nodes that are half; INT8 layers among them, whose outputs are.
        full: Why a node stays FP32, by its name.
        twin: What a CPU runs instead.
        checked_on: The samples whose values were checked; 0 where some tensor was not looked at.
    """

    lowered: list[str]
    full: dict[str, str]
    twin: ModelProto
    checked_on: int


def lower_rest(
    proto: ModelProto,
    half: HalfType,
    cache: CalibrationCache,
    *,
    watched: Iterable[str],
    layers: Collection[str],
) -> HighPrecision:
    """Rewrites a graph with Q/DQ in place.

    Args:
        proto: The graph, whose scales are numbers of the half type wherever that has fitting ones.
        half: The type of what is not INT8.
        cache: The calibration, of whose values FP16 must hold all.
        watched: The tensors that calibration should have looked at. See `half_tensors`.
        layers: The layers with weights, for which there must be a reason if they are not half.
    """
    peaks = {name: bounds.observed for name, bounds in cache.ranges.items()}
    peaks.update(cache.peaks)
    graph = Graph(proto)
    full = keep_full(graph, half, peaks)
    for node in graph.nodes:
        if node.name in layers and node.name not in full and (why := why_full(graph, node, half)):
            full[node.name] = why
    lowered, twin = half_and_twin(proto, half, full)
    return HighPrecision(lowered, full, twin, cache.samples if peaks.keys() >= set(watched) else 0)
