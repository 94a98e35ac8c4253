"""Writes a placement into a graph: QuantizeLinear/DequantizeLinear pairs and INT8 weights.

All is symmetric INT8 with zero point 0, the only kind that TensorRT takes: activations with one
scale a tensor, weights with one a channel, stored as INT8 with a DequantizeLinear behind them. Bias
stays FP32: TensorRT refuses the INT32 bias that other quantizers write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, helper

from edge_runtime.precision.graphs.graph import Graph, Names, set_initializers, set_nodes
from edge_runtime.precision.graphs.placement import Activation, Placement, Weight
from edge_runtime.precision.halves.half_scales import half_scale
from edge_runtime.precision.halves.half_types import HalfType
from edge_runtime.precision.quantized.weights import Weights, scale_of
from edge_runtime.tensors import Array

MIN_OPSET = 13
"""Q/DQ by channel came with operator set 13."""

_SHARE_WITHIN = 1.25
"""A tensor that is read with two ranges takes the larger for both if it is at most so much larger:
one INT8 copy is cheaper than two, for at most 2 dB of that tensor's precision."""


def quantize(
    proto: ModelProto,
    placement: Placement,
    amax: Mapping[str, float],
    weights: Weights,
    *,
    half: HalfType | None = None,
) -> None:
    """Writes Q/DQ pairs and INT8 weights into a prepared model, in place.

    Args:
        proto: The model for which `placement` was made.
        placement: What becomes INT8.
        amax: The absolute value that level 127 stands for, for each of `placement.tensors`. A
            tensor that only ever was zero, 0.0, gets the scale of 1.0.
        weights: The weights in INT8.
        half: The type of what is not INT8, if not FP32: scales are numbers of that type wherever
            it has a fitting one. What is written is FP32 all the same; see `half.to_half`.
    """
    writer = _Writer(proto, weights, half)
    by_node: dict[str, list[Activation | Weight]] = {}
    entries: list[Activation | Weight] = [*placement.activations, *placement.weights]
    for entry in entries:
        by_node.setdefault(entry.node, []).append(entry)
    ranges = _shared(placement.activations, amax)
    for node in writer.graph.nodes:
        for entry in by_node.get(node.name, ()):
            if isinstance(entry, Weight):
                node.input[entry.index] = writer.weight(entry)
            else:
                value = ranges[entry.tensor, entry.range_of]
                node.input[entry.index] = writer.activation(entry.tensor, value)
        writer.nodes.append(node)
    set_initializers(proto, writer.values)
    set_nodes(proto, writer.nodes)


def _shared(
    activations: Iterable[Activation], amax: Mapping[str, float]
) -> dict[tuple[str, str], float]:
    """The range of each (tensor, whose range); near ones of a tensor become one."""
    by_tensor: dict[str, dict[str, float]] = {}
    for entry in activations:
        by_tensor.setdefault(entry.tensor, {})[entry.range_of] = amax[entry.range_of]
    result = {}
    for tensor, ranges in by_tensor.items():
        largest = max(ranges.values())
        for range_of, value in ranges.items():
            near = largest <= value * _SHARE_WITHIN
            result[tensor, range_of] = largest if near else value
    return result


class _Writer:
    """Makes the Q/DQ nodes and their constants, one pair for each tensor and scale."""

    def __init__(self, proto: ModelProto, weights: Weights, half: HalfType | None) -> None:
        self.graph = Graph(proto)
        self._weights = weights
        self._half = half
        self.nodes: list[NodeProto] = []
        self.values: dict[str, Array] = {}
        self._names = Names(proto)
        self._done: dict[tuple[str, float | int | None], str] = {}
        self._zero = ""

    def activation(self, tensor: str, amax: float) -> str:
        """The name of `tensor` behind a Q/DQ pair of that range."""
        key = (tensor, amax)
        if key not in self._done:
            scale = self._constant(f"{tensor}.scale", self._scale(amax))
            if not self._zero:
                self._zero = self._constant("int8_zero", np.int8(0))
            levels = self._names.new(f"{tensor}.int8")
            self._done[key] = self._names.new(f"{tensor}.dequantized")
            self._add("QuantizeLinear", tensor, (tensor, scale, self._zero), levels)
            self._add("DequantizeLinear", tensor, (levels, scale, self._zero), self._done[key])
        return self._done[key]

    def weight(self, entry: Weight) -> str:
        """The name of a weight behind the DequantizeLinear of its INT8 form."""
        key = (entry.tensor, entry.axis)
        if key not in self._done:
            weight = self._weights[key]
            inputs = (
                self._constant(f"{entry.tensor}.int8", weight.levels),
                self._constant(f"{entry.tensor}.scale", weight.scale),
                self._constant(f"{entry.tensor}.zero", np.zeros(weight.scale.shape, dtype=np.int8)),
            )
            self._done[key] = self._names.new(f"{entry.tensor}.dequantized")
            self._add("DequantizeLinear", entry.tensor, inputs, self._done[key], axis=entry.axis)
        return self._done[key]

    def _scale(self, amax: float) -> Array:
        scale = scale_of(amax)
        fitting = None if self._half is None else half_scale(scale, self._half)
        return scale if fitting is None else fitting

    def _constant(self, name: str, value: Array | np.int8) -> str:
        name = self._names.new(name)
        self.values[name] = np.asarray(value)
        return name

    def _add(
        self,
        op: str,
        tensor: str,
        inputs: tuple[str, ...],
        output: str,
        *,
        axis: int | None = None,
    ) -> None:
        node = helper.make_node(op, inputs, [output], name=self._names.new(f"{tensor}.{op}"))
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self.nodes.append(node)
