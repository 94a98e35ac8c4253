"""Scales unequal channels alike, which changes what INT8 loses and not what the graph computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import ModelProto

from edge_runtime.precision.channels import ChannelStats
from edge_runtime.precision.graph import Graph
from edge_runtime.precision.placement import Placement


def choose_scales(
    graph: Graph, placement: Placement, stats: Mapping[str, ChannelStats]
) -> dict[str, tuple[float, ...]]:
    """What each channel of a tensor should be divided by, for the tensors where that helps."""
    return {}


def apply_scales(proto: ModelProto, scales: Mapping[str, Sequence[float]]) -> None:
    """Divides the channels of tensors, in place: their producers' weights by it, readers' times it.

    Raises:
        CalibrationCacheError: A tensor is not there, has another number of channels, or cannot be
            scaled: the scales are of another graph.
    """
