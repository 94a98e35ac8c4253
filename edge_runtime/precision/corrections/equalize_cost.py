"""Predicts what INT8 loses where a tensor is read, for any scales of the tensor's channels.

With x' = x / s and W' = W * s, symmetric INT8 adds to output o, in units of its own power P[o],

    activations:  (max_i amax[i] / s[i])^2 * sum_i s[i]^2 * n[i] * sum_k W[o,i,k]^2 / P[o]
    weights:      max_ik (W[o,i,k] s[i])^2 * K * sum_i E[x[i]^2] / s[i]^2 / P[o]

both times 1 / (12 * 127^2): the variance of rounding to steps of amax / 127. K is the number of
values of the kernel, n[i] the share of values other than zero, which is held exactly. Errors are
taken as independent, and P as sum_ik W[o,i,k]^2 E[x[i]^2].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edge_runtime.precision.corrections.channel_map import ChannelMap, Labels
from edge_runtime.precision.graphs.graph import Graph, attribute
from edge_runtime.precision.graphs.heap import release_memory
from edge_runtime.precision.graphs.placement import MEANS, Placement
from edge_runtime.precision.observing.channels import ChannelStats
from edge_runtime.tensors import Array

_LARGE = 1 << 20  # Bytes of a layer's weights.
_ROWS = 128  # Outputs to predict for at a time.
_RAREST = 16.0  # The most by which a channel is taken to exceed what was seen.


@dataclass(frozen=True)
class Reading:
    """An INT8 tensor and what reads it.

    Attributes:
        tensor: The tensor.
        labels: int64 [channels], of its channels.
        amax: float64 [channels], the range to expect.
        power: float64 [channels], the mean square.
        squares: float64 [channels], n[i] * sum_ok W[o,i,k]^2 / P[o] / outputs.
        peaks: float16 [groups, outputs / groups, channels / groups], max_k |W[o,i,k]| * (K / P[o]
            / outputs)^0.5, of the largest of them: half of the weights' own memory, and all layers'
            are there at once. None where what reads it has no weights.
        peak: The largest of these.
    """

    tensor: str
    labels: Labels
    amax: Array
    power: Array
    squares: Array
    peaks: Array | None
    peak: float = 1.0

    def error(self, scales: Array) -> float:
        """The predicted error for float64 [channels] scales, over that of an output's power."""
        error = float((self.amax / scales).max() ** 2 * (self.squares * scales**2).sum())
        if self.peaks is not None:
            groups = self.peaks.shape[0]
            by_group = scales.reshape(groups, 1, -1)
            times = by_group.astype(np.float32)
            parts = range(0, self.peaks.shape[1], _ROWS)  # A copy of all would take much memory.
            found = [(self.peaks[:, row : row + _ROWS] * times).max(axis=2) for row in parts]
            peaks = np.concatenate(found, axis=1).astype(np.float64)
            spread = (self.power.reshape(groups, -1) / by_group[:, 0] ** 2).sum(axis=1)
            error += float(((peaks**2).sum(axis=1) * spread).sum()) * self.peak**2
        return error

    @property
    def weight(self) -> Array:
        """float64 [channels]: how large each channel's weights are beside their outputs' power."""
        if self.peaks is None:
            return np.sqrt(self.squares)
        squares = np.square(self.peaks, dtype=np.float64).sum(axis=1)
        weight: Array = self.peak * np.sqrt(squares).reshape(-1)
        return weight


def expected(seen: ChannelStats) -> Array:
    """The range to expect of each channel, float64: other samples exceed it once in a while.

    The largest value may be exceeded as far as it itself exceeds the other samples': hardly at all
    where a channel is a matter of contrast, manifold where it stands for some rare object.
    """
    live = np.where(seen.amax > 0, seen.amax, 1.0)
    result: Array = seen.amax * live / np.maximum(seen.runner_up, live / _RAREST)
    return result


def readings(
    graph: Graph, placement: Placement, channels: ChannelMap, stats: Mapping[str, ChannelStats]
) -> list[Reading]:
    """Every place where a tensor that can be scaled is read as INT8."""
    by_node = {node.name: node for node in graph.nodes}
    found = []
    for weight in placement.weights:
        node = by_node[weight.node]
        value = graph.constant(weight.tensor)
        assert value is not None, weight
        reading = _layer(node, value, channels, stats)
        if value.nbytes > _LARGE:  # Else what was freed of one layer stays beside the next one's.
            del value
            release_memory()
        if reading is not None:
            found.append(reading)
    for entry in placement.activations:
        if by_node[entry.node].op_type in ("Add", *MEANS):
            reading = _sum(entry.tensor, channels, stats)
            if reading is not None:
                found.append(reading)
    return found


def _seen(
    tensor: str, axis: int, channels: ChannelMap, stats: Mapping[str, ChannelStats]
) -> tuple[Labels, ChannelStats] | None:
    labels, seen = channels.vector(tensor, axis), stats.get(tensor)
    if labels is None or not labels.any() or seen is None or seen.amax.size != labels.size:
        return None
    return labels, seen


def _layer(
    node: NodeProto, weight: Array, channels: ChannelMap, stats: Mapping[str, ChannelStats]
) -> Reading | None:
    is_conv = node.op_type in ("Conv", "ConvTranspose")
    known = _seen(node.input[0], 1 if is_conv else -1, channels, stats)
    if known is None:
        return None
    labels, seen = known
    by_output = grouped_weights(node, weight)
    groups, kernel = by_output.shape[0], by_output.shape[3]
    squares = np.einsum("goik,goik->goi", by_output, by_output).astype(np.float64)
    power = seen.mean_square.reshape(groups, -1)
    outputs = np.einsum("goi,gi->go", squares, power)
    live = outputs > 0
    per_output = np.where(live, 1 / np.where(live, outputs, 1), 0) / max(int(live.sum()), 1)
    peaks = np.abs(by_output).max(axis=3) * np.sqrt(kernel * per_output)[:, :, None]
    squares = np.einsum("goi,go->gi", squares, per_output).reshape(-1) * seen.nonzero
    peak = float(peaks.max()) or 1.0
    peaks = (peaks / peak).astype(np.float16)
    return Reading(node.input[0], labels, expected(seen), seen.mean_square, squares, peaks, peak)


def _sum(tensor: str, channels: ChannelMap, stats: Mapping[str, ChannelStats]) -> Reading | None:
    """What an Add or an average reads: each channel's error counts beside the channel's power."""
    labels = channels.labels.get(tensor)
    axis = int(np.argmax(labels.shape)) if labels is not None else 0
    known = _seen(tensor, axis, channels, stats)
    if known is None:
        return None
    live = known[1].mean_square > 0
    power = np.where(live, known[1].mean_square, 1)
    squares = np.where(live, known[1].nonzero / power, 0) / max(int(live.sum()), 1)
    return Reading(tensor, known[0], expected(known[1]), known[1].mean_square, squares, None)


def grouped_weights(node: NodeProto, weight: Array) -> Array:
    """A layer's weights as [groups, outputs / groups, inputs / groups, kernel]."""
    if node.op_type == "Conv":
        groups = int(attribute(node, "group", 1))
        return weight.reshape(groups, -1, weight.shape[1], int(np.prod(weight.shape[2:])))
    if node.op_type == "ConvTranspose":
        groups = int(attribute(node, "group", 1))
        by_group = weight.reshape(groups, -1, weight.shape[1], int(np.prod(weight.shape[2:])))
        return by_group.swapaxes(1, 2)
    transposed = node.op_type == "Gemm" and attribute(node, "transB", 0)
    return (weight if transposed else weight.T)[None, :, :, None]
