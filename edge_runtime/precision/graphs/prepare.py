"""Rewrites an ONNX graph to the plain form that precision rewriting starts from.

Local functions are inlined, the operator set is raised where needed, what only depends on constants
becomes an initialiser, Identity and inference-time Dropout go, and batch normalisation and constant
scales and shifts of channels are folded into the layer before them: INT8 weights must be the
weights that the layer really has.
"""

from __future__ import annotations

import numpy as np
import onnx.inliner
import onnx.version_converter
from onnx import ModelProto, NodeProto, TensorProto

from edge_runtime.backends.cpu import open_session, run_session
from edge_runtime.errors import ModelError
from edge_runtime.model import Model, name_nodes, without_large_initializers
from edge_runtime.precision.graphs.graph import (
    Graph,
    Names,
    attribute,
    captures,
    reads,
    set_initializers,
    set_nodes,
)
from edge_runtime.tensors import Array

_FOLD_LIMIT = 2**28  # Bytes; larger constants stay as the nodes that make them.
_NUMPY_TYPES = {
    *(TensorProto.BOOL, TensorProto.STRING, TensorProto.FLOAT16, TensorProto.FLOAT),
    *(TensorProto.DOUBLE, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32),
    *(TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32),
    *(TensorProto.UINT64,),
}
"""What ONNX Runtime hands out as numpy arrays; nodes that make other types or sequences stay."""

_NOT_CONSTANT = {
    "Bernoulli",
    "DequantizeLinear",
    "Multinomial",
    "QuantizeLinear",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def prepare(model: Model, *, min_opset: int) -> ModelProto:
    """A rewritten copy of the model that computes the same.

    Args:
        model: Any checked model.
        min_opset: Operator set that the copy has at least.

    Raises:
        ModelError: The operator set cannot be raised.
    """
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    if model.opset < min_opset:
        proto = _raise_opset(proto, min_opset, model)
    _drop_declared_initializers(proto)
    _clear_repeated_dims(proto)
    name_nodes(proto)
    _fold_constants(proto)
    _drop_identities(proto)
    _fold_affine(proto)
    return proto


def _raise_opset(proto: ModelProto, opset: int, model: Model) -> ModelProto:
    large = {tensor.name for tensor in proto.graph.initializer}
    light = without_large_initializers(proto)
    large -= {tensor.name for tensor in light.graph.initializer}
    try:
        raised: ModelProto = onnx.version_converter.convert_version(light, opset)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{model.name} has operator set {model.opset}; {opset} is needed and ONNX's converter "
            f"cannot raise it: {reason} Export the model again with opset_version={opset}."
        ) from error
    raised.graph.initializer.extend(t for t in proto.graph.initializer if t.name in large)
    raised.ir_version = max(proto.ir_version, raised.ir_version)
    return raised


def _drop_declared_initializers(proto: ModelProto) -> None:
    """Initialisers that are inputs too could be overridden; a built graph's weights are fixed."""
    initializers = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in initializers]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.ir_version = max(proto.ir_version, 4)


def _clear_repeated_dims(proto: ModelProto) -> None:
    """Frees dimensions of an input that share a name, such as `?`: TensorRT takes them as equal."""
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        names = [dim.dim_param for dim in dims]
        for dim in dims:
            if dim.dim_param and names.count(dim.dim_param) > 1:
                dim.ClearField("dim_param")


def _fold_constants(proto: ModelProto) -> None:
    """Computes, in one run, every node that depends on initialisers and constants alone."""
    graph = Graph(proto)
    constant = set(graph.initializers)
    folded: list[NodeProto] = []
    for node in graph.nodes:
        if (
            node.op_type not in _NOT_CONSTANT
            and node.domain in ("", "ai.onnx")
            and graph.outputs.isdisjoint(node.output)
            and all(name in constant for name in reads(node))
        ):
            folded.append(node)
            constant.update(node.output)
    inside = {id(node) for node in folded}
    wanted = [
        name
        for node in folded
        for name in node.output
        if any(id(user) not in inside for user in graph.consumers[name])
        and graph.elem_type(name) in _NUMPY_TYPES
    ]
    if wanted:
        values = _evaluate(proto, folded, wanted)
        values = {name: value for name, value in values.items() if value.nbytes <= _FOLD_LIMIT}
        set_initializers(proto, values)
        set_nodes(proto, _live_nodes(proto, set(values)))


def _live_nodes(proto: ModelProto, constant: set[str]) -> list[NodeProto]:
    """The nodes that the outputs depend on, where the tensors in `constant` need no node."""
    live = {value.name for value in proto.graph.output}
    kept: list[NodeProto] = []
    for node in reversed(proto.graph.node):
        if any(name in live and name not in constant for name in node.output):
            kept.append(node)
            live.update(reads(node))
    return kept[::-1]


def _evaluate(proto: ModelProto, nodes: list[NodeProto], wanted: list[str]) -> dict[str, Array]:
    model = ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    model.graph.name = "constants"
    model.graph.node.extend(nodes)
    read = {name for node in nodes for name in reads(node)}
    model.graph.initializer.extend(t for t in proto.graph.initializer if t.name in read)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = open_session(model.SerializeToString())
    return dict(zip(wanted, run_session(session, wanted, {}), strict=True))


def _drop_identities(proto: ModelProto) -> None:
    """Drops nodes that pass their input on, but for those that name an output or are captured."""
    graph = Graph(proto)
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.nodes:
        captured = {name for user in graph.consumers[node.output[0]] for name in captures(user)}
        if (
            _passes_on(graph, node)
            and not any(graph.consumers[name] for name in node.output[1:])
            and graph.outputs.isdisjoint(node.output)
            and node.output[0] not in captured
        ):
            renamed[node.output[0]] = renamed.get(node.input[0], node.input[0])
        else:
            for index, name in enumerate(node.input):
                node.input[index] = renamed.get(name, name)
            kept.append(node)
    if renamed:
        set_nodes(proto, kept)


def _passes_on(graph: Graph, node: NodeProto) -> bool:
    """Whether a node is an Identity, or a Dropout that is told, or left, not to drop anything."""
    if node.op_type != "Dropout":
        return node.op_type == "Identity"
    training = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else False
    return training is not None and not np.any(training)


def _fold_affine(proto: ModelProto) -> None:
    """Folds what scales and shifts a layer's channels by constants into the layer."""
    graph, names = Graph(proto), Names(proto)
    values: dict[str, Array] = {}
    folded: set[int] = set()
    for node in graph.nodes:
        affine = _affine(graph, node)
        if affine is None:
            continue
        source, factor, offset = affine
        layer = graph.producer.get(source)
        if layer is None or len(graph.consumers[source]) > 1 or source in graph.outputs:
            continue
        if _scale_layer(_Weights(graph, names, values), layer, factor, offset):
            layer.output[0] = node.output[0]
            graph.producer[node.output[0]] = layer
            folded.add(id(node))
    if folded:
        set_initializers(proto, values)
        set_nodes(proto, [node for node in graph.nodes if id(node) not in folded])


def _affine(graph: Graph, node: NodeProto) -> tuple[str, Array, Array] | None:
    """What `node` scales and shifts, by which constants a channel; None if it does not."""
    if node.op_type == "BatchNormalization":
        constants = [graph.constant(name) for name in node.input[1:]]
        if len([name for name in node.output if name]) > 1 or attribute(node, "training_mode", 0):
            return None
        shapes = {None if value is None else value.shape for value in constants}
        if None in shapes or len(shapes) > 1:
            return None
        gamma, beta, mean, variance = (np.asarray(v, dtype=np.float64) for v in constants)
        factor = gamma / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
        return node.input[0], factor, beta - mean * factor
    if node.op_type in ("Add", "Mul"):
        for source, other in (node.input, node.input[::-1]):
            value = graph.constant(other)
            rank = len(graph.shape(source) or ())
            # Only what varies along the channel axis alone, such as [C, 1, 1] beside [N, C, H, W].
            if value is not None and value.ndim <= rank and rank > 2:
                shape = (1,) * (rank - value.ndim) + value.shape
                if value.size == shape[1]:
                    constant = value.reshape(-1).astype(np.float64)
                    one, zero = np.ones_like(constant), np.zeros_like(constant)
                    is_add = node.op_type == "Add"
                    return (source, one, constant) if is_add else (source, constant, zero)
    return None


class _Weights:
    """A layer's constants, those included that earlier folding made."""

    def __init__(self, graph: Graph, names: Names, values: dict[str, Array]) -> None:
        self._graph, self._names, self._values = graph, names, values

    def get(self, name: str) -> Array | None:
        value = self._values.get(name)
        return self._graph.constant(name) if value is None else value

    def add(self, name: str, value: Array) -> str:
        name = self._names.new(name)
        self._values[name] = value.astype(np.float32)
        return name


def _scale_layer(weights: _Weights, layer: NodeProto, factor: Array, offset: Array) -> bool:
    """Makes a layer compute factor * (what it did) + offset a channel, if its weights allow."""
    if layer.op_type not in ("Conv", "ConvTranspose", "Gemm"):
        return False
    weight = weights.get(layer.input[1])
    bias = weights.get(layer.input[2]) if len(layer.input) > 2 and layer.input[2] else np.zeros(1)
    if weight is None or bias is None or weight.dtype != np.float32:
        return False
    channels = _output_channels(layer, weight)
    if factor.size not in (1, channels):
        return False
    factor, offset = np.broadcast_to(factor, channels), np.broadcast_to(offset, channels)
    scaled = weight.astype(np.float64)
    if layer.op_type == "Conv":
        scaled *= factor.reshape(-1, *[1] * (weight.ndim - 1))
    elif layer.op_type == "ConvTranspose":  # [C, M / groups, ...]; each group of C has its own M.
        groups = int(attribute(layer, "group", 1))
        by_group = scaled.reshape(groups, -1, *weight.shape[1:])
        by_group *= factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        scaled = by_group.reshape(weight.shape)
    else:
        scaled *= factor[:, None] if attribute(layer, "transB", 0) else factor
        bias = float(attribute(layer, "beta", 1.0)) * bias.astype(np.float64)
        for entry in layer.attribute:
            if entry.name == "beta":
                entry.f = 1.0
    if not (factor == 1).all():
        layer.input[1] = weights.add(f"{layer.name}.weight", scaled)
    bias_name = weights.add(f"{layer.name}.bias", bias * factor + offset)
    del layer.input[2:]
    layer.input.append(bias_name)
    return True


def _output_channels(layer: NodeProto, weight: Array) -> int:
    if layer.op_type == "ConvTranspose":
        return int(weight.shape[1] * attribute(layer, "group", 1))
    if layer.op_type == "Gemm" and not attribute(layer, "transB", 0):
        return int(weight.shape[1])
    return int(weight.shape[0])
