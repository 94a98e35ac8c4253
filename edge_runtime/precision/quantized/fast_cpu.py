"""Writes the form of an INT8 model that CPUs run fast: 8-bit activations and 7-bit weights.

Without dot-product instructions, an x86 CPU multiplies unsigned by signed bytes and adds the
products in pairs, in 16 bits: 2 * 255 * 63 fits into these, and 2 * 255 * 127 would saturate. So
activations are uint8, with all 8 bits above zero where nothing is negative, and weights lie within
-63 and 63. Biases are INT32, and Q/DQ stands wherever ONNX Runtime needs it to compute on integers;
see `grids`. TensorRT takes none of that, and never gets to see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, helper

from edge_runtime.precision.corrections.bias import correct_bias
from edge_runtime.precision.graphs.graph import Graph, Names, set_initializers, set_nodes
from edge_runtime.precision.graphs.placement import Placement, Weight
from edge_runtime.precision.quantized.grids import Grid, Grids, choose_grids
from edge_runtime.precision.quantized.weights import (
    QuantizedWeight,
    Weights,
    along,
    quantize_weights,
)
from edge_runtime.tensors import Array

WEIGHT_LEVELS = 63
"""The largest level of a weight: 7 bits."""

_MOST_BIAS = 2**30  # Half of INT32: the other half is for the sum of products.


def fast_form(
    proto: ModelProto,
    placement: Placement,
    amax: Mapping[str, float],
    means: Mapping[str, Sequence[float]],
) -> bytes:
    """The serialised graph that the CPU runs in the mode `fast`.

    Args:
        proto: The prepared, equalized FP32 model; it is not changed.
        placement: What becomes INT8 for a GPU; of these layers, those whose output has no range
            that is known, and transposed convolutions, stay FP32.
        amax: The range of each of `placement.tensors`.
        means: The mean of each channel of the tensors that INT8 layers read; see `bias`.

    Raises:
        ModelError: A weight is NaN or infinite.
    """
    copy = ModelProto()
    copy.CopyFrom(proto)
    found = choose_grids(Graph(copy), placement, amax)
    own = Placement(placement.activations, found.layers, placement.kept)
    weights = quantize_weights(Graph(copy), own, levels=WEIGHT_LEVELS)
    correct_bias(copy, own, weights, means)
    _Writer(copy, found, weights).write()
    data: bytes = copy.SerializeToString(deterministic=True)
    return data


class _Writer:
    """Writes Q/DQ into a graph: behind what makes a tensor, and before the layers' constants."""

    def __init__(self, proto: ModelProto, found: Grids, weights: Weights) -> None:
        self._proto = proto
        self._graph = Graph(proto)
        self._found = found
        self._layers = {entry.node: entry for entry in found.layers}
        self._weights = weights
        self._names = Names(proto)
        self._nodes: list[NodeProto] = []
        self._values: dict[str, Array] = {}
        self._dequantized: dict[str, str] = {}
        self._written: list[tuple[QuantizedWeight, str]] = []

    def write(self) -> None:
        """Rewrites the model in place."""
        for value in self._proto.graph.input:
            self._quantize(value.name, value.name)
        for node in self._graph.nodes:
            if node.name in self._found.clamps:
                self._quantize(node.output[0], node.input[0])
                continue
            layer = self._layers.get(node.name)
            if layer is not None:
                self._layer(node, layer, self._found.grids[node.input[0]])
            for index, name in enumerate(node.input):
                if name in self._found.shared or (layer is not None and index == 0):
                    node.input[index] = self._dequantized[name]
            self._nodes.append(node)
            for name in node.output:
                self._quantize(name, name)
        set_initializers(self._proto, self._values)
        set_nodes(self._proto, self._nodes)

    def _quantize(self, tensor: str, source: str) -> None:
        """Adds the Q/DQ pair of a tensor, which reads `source`, if the tensor has a grid."""
        grid = self._found.grids.get(tensor)
        if grid is None:
            return
        scale = self._constant(f"{tensor}.scale", np.asarray(grid.scale, np.float32))
        zero = self._constant(f"{tensor}.zero", np.asarray(grid.zero, np.uint8))
        levels = self._names.new(f"{tensor}.uint8")
        self._add("QuantizeLinear", tensor, (source, scale, zero), levels)
        self._dequantized[tensor] = self._dequantize(tensor, (levels, scale, zero))

    def _layer(self, node: NodeProto, entry: Weight, grid: Grid) -> None:
        """Makes the weight of a layer INT8, and its bias INT32 in units of their product."""
        weight = self._weights[entry.tensor, entry.axis]
        bias = self._graph.constant(node.input[2]) if len(node.input) > 2 else None
        if bias is not None:
            weight = _fit(weight, bias, grid)
            units = (np.float32(grid.scale) * weight.scale).astype(np.float32)
            inputs = (
                self._constant(f"{node.input[2]}.int32", np.rint(bias / units).astype(np.int32)),
                self._constant(f"{node.input[2]}.scale", units),
            )
            node.input[2] = self._dequantize(node.input[2], inputs, axis=0)
        node.input[entry.index] = self._weight(entry, weight)

    def _weight(self, entry: Weight, weight: QuantizedWeight) -> str:
        """The name of a weight behind its DequantizeLinear, which layers that share it share."""
        for known, name in self._written:
            if known is weight:
                return name
        inputs = (
            self._constant(f"{entry.tensor}.int8", weight.levels),
            self._constant(f"{entry.tensor}.scale", weight.scale),
            self._constant(f"{entry.tensor}.zero", np.zeros(weight.scale.shape, np.int8)),
        )
        name = self._dequantize(entry.tensor, inputs, axis=entry.axis)
        self._written.append((weight, name))
        return name

    def _constant(self, name: str, value: Array) -> str:
        name = self._names.new(name)
        self._values[name] = value
        return name

    def _dequantize(self, tensor: str, inputs: Sequence[str], *, axis: int | None = None) -> str:
        output = self._names.new(f"{tensor}.dequantized")
        self._add("DequantizeLinear", tensor, inputs, output, axis=axis)
        return output

    def _add(
        self, op: str, tensor: str, inputs: Sequence[str], output: str, *, axis: int | None = None
    ) -> None:
        node = helper.make_node(op, inputs, [output], name=self._names.new(f"{tensor}.{op}"))
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self._nodes.append(node)


def _fit(weight: QuantizedWeight, bias: Array, grid: Grid) -> QuantizedWeight:
    """The weight with larger scales where else the bias, in units of the product, overflows."""
    assert weight.axis is not None, "only transposed convolutions have one scale"
    least = (np.abs(bias.astype(np.float64)) / (_MOST_BIAS * grid.scale)).astype(np.float32)
    if (weight.scale >= least).all():
        return weight
    scale = np.maximum(weight.scale, least)
    smaller = (weight.scale / scale).reshape(along(weight.levels.ndim, weight.axis))
    return QuantizedWeight(np.rint(weight.levels * smaller).astype(np.int8), scale, weight.axis)
