"""Corrects biases by the mean error that rounded weights make.

A layer that computes y = W x + b with W' in place of W errs by (W' - W) E[x] on average, a shift
that a bias takes off (Nagel et al. 2019, arXiv 1906.04721, section 4.2). Where a convolution pads
with zeros its border has another mean; there the correction is approximate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto

from edge_runtime.precision.corrections.channel_map import ChannelMap, scale_vector
from edge_runtime.precision.corrections.equalize_cost import grouped_weights
from edge_runtime.precision.graphs.constants import write_constant
from edge_runtime.precision.graphs.graph import Graph, Names, attribute
from edge_runtime.precision.graphs.placement import Placement
from edge_runtime.precision.observing.channels import ChannelStats
from edge_runtime.precision.quantized.weights import Weights
from edge_runtime.tensors import Array

_NEGLIGIBLE = 1e-4  # Of what the layer's inputs add up to, where all have the same sign.


def channel_means(
    graph: Graph,
    placement: Placement,
    channels: ChannelMap,
    stats: Mapping[str, ChannelStats],
    scales: Mapping[str, Sequence[float]],
) -> dict[str, tuple[float, ...]]:
    """The mean of each channel of the tensors that INT8 layers read, after equalization.

    Args:
        graph: The equalized graph.
        placement: What becomes INT8.
        channels: Those of this graph.
        stats: What was observed before equalization.
        scales: What `apply_scales` was given.
    """
    values = scale_vector(scales, channels)
    by_node = {node.name: node for node in graph.nodes}
    means = {}
    for weight in placement.weights:
        name = by_node[weight.node].input[0]
        seen = stats.get(name)
        if seen is not None:
            labels = channels.vector(name, seen.axis)
            scale = values[labels] if labels is not None else 1.0
            means[name] = tuple((seen.mean / scale).tolist())
    return means


def correct_bias(
    proto: ModelProto,
    placement: Placement,
    weights: Weights,
    means: Mapping[str, Sequence[float]],
) -> list[str]:
    """Corrects the biases of a prepared model, in place, before Q/DQ is written.

    Conv, ConvTranspose and Gemm get a bias where they have none. A MatMul is corrected where a
    constant is added to what it makes and nothing else reads that.

    Args:
        proto: The model for which `placement` was made, its weights still FP32.
        placement: What becomes INT8.
        weights: What its weights become.
        means: The mean of each channel of the tensors that INT8 layers read.

    Returns:
        The names of the layers whose bias was corrected.
    """
    graph, names = Graph(proto), Names(proto)
    by_node = {node.name: node for node in graph.nodes}
    corrected = []
    for entry in placement.weights:
        node = by_node[entry.node]
        weight, mean = graph.constant(entry.tensor), means.get(node.input[0])
        place = _bias_of(graph, node)
        if weight is None or mean is None or place is None:
            continue
        rounded = weights[entry.tensor, entry.axis].dequantized
        shift = _shift(node, weight, rounded, np.asarray(mean, dtype=np.float64))
        if shift is not None:
            adder, index = place
            name = adder.input[index] if len(adder.input) > index else ""
            bias = graph.constant(name) if name else None
            value = shift if bias is None else bias.astype(np.float64) + shift
            write_constant(graph, names, adder, index, value)
            corrected.append(node.name)
    return corrected


def _bias_of(graph: Graph, node: NodeProto) -> tuple[NodeProto, int] | None:
    """The input, of the layer itself or an Add behind it, that is its bias or can be."""
    if node.op_type != "MatMul":
        if node.op_type == "Gemm" and attribute(node, "beta", 1.0) == 0:
            return None
        is_given = len(node.input) > 2 and bool(node.input[2])
        return (node, 2) if not is_given or _is_constant(graph, node.input[2]) else None
    users = graph.consumers[node.output[0]]
    if len(users) != 1 or users[0].op_type != "Add" or node.output[0] in graph.outputs:
        return None
    index = 1 if users[0].input[0] == node.output[0] else 0
    name = users[0].input[index]
    value = graph.constant(name) if _is_constant(graph, name) else None
    rank = len(graph.shape(node.output[0]) or ())
    return (users[0], index) if value is not None and value.ndim <= rank else None


def _is_constant(graph: Graph, name: str) -> bool:
    return name in graph.initializers and graph.is_float(name)


def _shift(node: NodeProto, weight: Array, rounded: Array, mean: Array) -> Array | None:
    """What to add to the bias, float64 [outputs]; None if it is next to nothing."""
    exact = grouped_weights(node, weight)
    by_group = mean.reshape(exact.shape[0], -1)
    if by_group.shape[1] != exact.shape[2]:
        return None
    error = (exact - grouped_weights(node, rounded)).sum(axis=3, dtype=np.float64)
    shift: Array = np.einsum("goi,gi->go", error, by_group).reshape(-1)
    sums = np.abs(exact).sum(axis=3, dtype=np.float64)
    most = np.einsum("goi,gi->go", sums, np.abs(by_group)).reshape(-1)
    if (np.abs(shift) <= _NEGLIGIBLE * most).all():
        return None
    if node.op_type == "Gemm":
        shift = shift * float(attribute(node, "alpha", 1.0)) / float(attribute(node, "beta", 1.0))
    return shift
