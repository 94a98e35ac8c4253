"""A model cut at its INT8 layers, which run in FP32 or in the form that a build gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edge_runtime.config import BuildConfig
from edge_runtime.model import Model
from edge_runtime.precision.corrections.bias import correct_bias
from edge_runtime.precision.graphs.graph import Graph, attribute
from edge_runtime.precision.graphs.placement import Placement
from edge_runtime.precision.halves.half_types import HALF_TYPES
from edge_runtime.precision.observing.pieces import Constant, Piece, Sessions, cut
from edge_runtime.precision.quantization import prepare_calibrated
from edge_runtime.precision.quantized.int8 import quantize
from edge_runtime.precision.quantized.weights import QuantizedWeight, quantize_weights
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from edge_runtime.tensors import Array


@dataclass(frozen=True)
class Edge:
    """A tensor that a layer reads in INT8.

    Attributes:
        tensor: The FP32 tensor.
        scale: float32 scalar, the step between two levels.
    """

    tensor: str
    scale: Array


@dataclass(frozen=True)
class Layer:
    """A node that reads INT8, with the Add of its bias if that is a node of its own.

    Attributes:
        name: The node.
        op: Its operator.
        index: Its place in the graph's order.
        has_weights: Whether its weights are INT8: not those of a residual Add or a pool.
        edges: What it reads in INT8, by the name that the INT8 form has for it.
        fp32: The layer as it is.
        int8: The layer with the weights and the bias of the INT8 graph; reads the names of `edges`.
    """

    name: str
    op: str
    index: int
    has_weights: bool
    edges: Mapping[str, Edge]
    fp32: Piece
    int8: Piece

    def run(self, values: Mapping[str, Array], *, inputs: bool, weights: bool) -> dict[str, Array]:
        """Computes the layer's outputs.

        Args:
            values: The FP32 tensors that it reads.
            inputs: Whether to quantize them.
            weights: Whether the weights are those of the INT8 graph.

        Raises:
            InferenceError: The layer cannot combine the sizes that it was given.
        """
        read = {
            port: fake_quantize(values[edge.tensor], edge.scale) if inputs else values[edge.tensor]
            for port, edge in self.edges.items()
        }
        if weights:
            return self.int8.run({**values, **read})
        return self.fp32.run(
            {**values, **{edge.tensor: read[port] for port, edge in self.edges.items()}}
        )


@dataclass(frozen=True)
class Replay:
    """A model in pieces.

    Attributes:
        pieces: All pieces, in an order in which each finds what it reads.
        layers: The INT8 layers, by their places among the pieces.
        inputs: The graph's inputs.
        outputs: Those of the graph's outputs that depend on the inputs.
        indices: The place in the graph's order of the node that makes a tensor.
    """

    pieces: Sequence[Piece]
    layers: Mapping[int, Layer]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    indices: Mapping[str, int]


def open_replay(model: Model, config: BuildConfig, cache: CalibrationCache) -> Replay:
    """Cuts a model at what a build makes INT8. Weights are rounded as at default effort.

    Args:
        model: The FP32 model.
        config: The settings of the INT8 build.
        cache: The calibration of this very model.

    Raises:
        CalibrationCacheError: The cache is another model's, or lacks tensors.
        ModelError: Nothing in the model can be INT8.
    """
    proto, placement = prepare_calibrated(model, config, cache)
    graph = Graph(proto)
    alone = _alone(graph, placement)
    nodes = [(node[0].name, node[0].op_type) for node in alone]
    indices = {node.name: index for index, node in enumerate(graph.nodes)}
    makers = {name: indices[node.name] for name, node in graph.producer.items()}
    sessions = Sessions(proto)
    pieces, places = cut(graph, alone, sessions)
    # From here on the graph becomes INT8 in place: a second copy of all weights would be large.
    half = HALF_TYPES.get(config.rest)
    weights = quantize_weights(graph, placement, half=half)
    del graph, alone
    correct_bias(proto, placement, weights, cache.means)
    amax = {name: bounds.amax for name, bounds in cache.ranges.items()}
    quantize(proto, placement, amax, weights, half=half)
    int8 = Graph(proto)
    weighted = {entry.node for entry in placement.weights}
    layers = {}
    for (name, op), at in zip(nodes, places, strict=True):
        form, edges = _int8_form(int8, pieces[at], sessions)
        layers[at] = Layer(name, op, indices[name], name in weighted, edges, pieces[at], form)
    return Replay(
        pieces,
        layers,
        tuple(value.name for value in proto.graph.input),
        tuple(value.name for value in proto.graph.output if value.name in makers),
        makers,
    )


def fake_quantize(values: Array, scale: Array) -> Array:
    """What values become between QuantizeLinear and DequantizeLinear to INT8, zero point 0.

    Source: ONNX operators QuantizeLinear (rounds half to even, saturates) and DequantizeLinear.
    """
    levels: Array = np.empty_like(values)
    with np.errstate(over="ignore"):  # Infinity saturates as it should.
        np.divide(values, scale, out=levels)
    np.rint(levels, out=levels)
    np.clip(levels, -128, 127, out=levels)
    np.multiply(levels, scale, out=levels)
    return levels


def _alone(graph: Graph, placement: Placement) -> list[list[NodeProto]]:
    """The nodes that read INT8; a MatMul's with the Add of its bias."""
    names = {entry.node for entry in placement.activations}
    names.update(entry.node for entry in placement.weights)
    found = []
    for node in (node for node in graph.nodes if node.name in names):
        users = graph.consumers[node.output[0]]
        if node.op_type == "MatMul" and len(users) == 1 and node.output[0] not in graph.outputs:
            (user,) = users
            if user.op_type == "Add" and any(name in graph.initializers for name in user.input):
                found.append([node, user])
                continue
        found.append([node])
    return found


def _int8_form(graph: Graph, layer: Piece, sessions: Sessions) -> tuple[Piece, dict[str, Edge]]:
    """A layer as it stands in the INT8 graph, whose FP32 tensors keep their names."""
    nodes: dict[str, NodeProto] = {}
    edges: dict[str, Edge] = {}
    fed: dict[str, Constant] = {}
    waiting = list(layer.makes)
    while waiting:
        name = waiting.pop()
        maker = graph.producer.get(name)
        if name not in layer.makes and (name in layer.reads or maker is None):
            value = graph.constant(name)
            if value is not None and value.dtype == np.float32:
                fed[name] = value
        elif maker is not None and maker.op_type == "DequantizeLinear":
            source = graph.producer.get(maker.input[0])
            scale = graph.constant(maker.input[1])
            levels = graph.constant(maker.input[0])
            assert scale is not None, maker
            if levels is not None:
                axis = int(attribute(maker, "axis", 1)) if scale.ndim else None
                fed[name] = QuantizedWeight(levels, scale, axis)
            else:
                assert source is not None, maker
                edges[name] = Edge(source.input[0], scale)
        elif maker is not None:
            nodes[maker.name] = maker
            waiting.extend(filter(None, maker.input))
    ordered = [node for node in graph.nodes if node.name in nodes]
    return Piece(sessions, ordered, layer.makes, fixed=graph.initializers, fed=fed), edges
