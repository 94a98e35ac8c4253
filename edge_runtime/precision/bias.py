"""Corrects biases by the mean error that rounded weights make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import ModelProto

from edge_runtime.precision.channels import ChannelStats
from edge_runtime.precision.graph import Graph
from edge_runtime.precision.placement import Placement
from edge_runtime.precision.weights import Weights


def channel_means(
    graph: Graph,
    placement: Placement,
    stats: Mapping[str, ChannelStats],
    scales: Mapping[str, Sequence[float]],
) -> dict[str, tuple[float, ...]]:
    """The mean of each channel of the tensors that INT8 layers read, after equalization.

    Args:
        graph: The equalized graph.
        placement: What becomes INT8.
        stats: What was observed before equalization.
        scales: What `apply_scales` was given.
    """
    return {}


def correct_bias(
    proto: ModelProto,
    placement: Placement,
    weights: Weights,
    means: Mapping[str, Sequence[float]],
) -> list[str]:
    """Corrects the biases of a prepared model, in place, before Q/DQ is written.

    Args:
        proto: The model for which `placement` was made, its weights still FP32.
        placement: What becomes INT8.
        weights: What its weights become.
        means: The mean of each channel of the tensors that INT8 layers read.

    Returns:
        The names of the layers whose bias was corrected.
    """
    return []
