"""Rewrites an FP32 graph to FP16 or BF16, and writes the twin that a CPU runs in its stead.

Inputs and outputs keep FP32. A node becomes half precision where ONNX's own schema of the operator
takes the type; nodes that must not (their values would overflow, or their weights lose too much)
stay FP32 between casts.

A graph with Q/DQ keeps them: QuantizeLinear reads half or FP32, as its tensor is, and whoever reads
a DequantizeLinear has one of its own type, so that no cast comes between it and its INT8 values.

ONNX Runtime has few FP16 and no BF16 kernels for the CPU. Given the half graph it would compute
whole stretches in FP32 and drop the casts between, so that what overflows on the GPU looks fine on
the CPU. The twin computes each half node in FP32 and rounds its output to the half type and back:
the values between nodes are those of the half graph. INT8 layers of the twin multiply their
dequantized values as they are: TensorRT multiplies the levels, and no half value is ever made.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx.defs
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge_runtime.precision.graphs.carried import operator_set, reads_int8
from edge_runtime.precision.graphs.graph import (
    Graph,
    Names,
    attribute,
    captures,
    set_nodes,
)
from edge_runtime.precision.halves.half_scales import holds_scale
from edge_runtime.precision.halves.half_types import HalfType
from edge_runtime.tensors import Array

_QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear"})


def half_and_twin(
    proto: ModelProto, half: HalfType, keep: Collection[str]
) -> tuple[list[str], ModelProto]:
    """Rewrites a prepared model in place, and a copy of it as the CPU's twin.

    Returns:
        The names of the nodes that are half, and the twin.
    """
    twin = ModelProto()
    twin.CopyFrom(proto)
    to_half(twin, half, keep, twin=True)
    return to_half(proto, half, keep, twin=False), twin


def to_half(proto: ModelProto, half: HalfType, keep: Collection[str], *, twin: bool) -> list[str]:
    """Rewrites a prepared model in place.

    Args:
        proto: The model; its operator set must be at least `half.min_opset`.
        half: The type that tensors become.
        keep: Names of nodes that stay FP32.
        twin: Whether to write the CPU's twin instead of the half graph itself.

    Returns:
        The names of the nodes that are half, those of Q/DQ not among them.
    """
    writer = _Writer(proto, half, twin=twin)
    lowered = []
    for node in writer.graph.nodes:
        inputs, outputs = half_places(writer.graph, node, half)
        if node.op_type in _QUANTIZING and node.name not in keep:
            writer.quantization(node)
        elif node.name in keep or not outputs:
            writer.keep(node)
        else:
            writer.lower(node, inputs, outputs)
            lowered.append(node.name)
    writer.finish()
    return lowered


def half_places(graph: Graph, node: NodeProto, half: HalfType) -> tuple[set[int], set[int]]:
    """Which FP32 inputs and outputs of a node the operator's schema takes as `half`, by index.

    The outputs are empty where the node cannot be half: its operator does not take the type, it has
    subgraphs, it is of a custom domain, it quantizes, or the type of one of its tensors is unknown.
    """
    refused = half.refused | _QUANTIZING
    if node.domain not in ("", "ai.onnx") or node.op_type in refused:
        return set(), set()
    if any(entry.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for entry in node.attribute):
        return set(), set()
    if not all(graph.elem_type(name) for name in (*node.input, *node.output) if name):
        return set(), set()
    schema = onnx.defs.get_schema(node.op_type, operator_set(graph))
    takes = {c.type_param_str: half.label in c.allowed_type_strs for c in schema.type_constraints}
    bound: set[str] = set()
    inputs = set()
    for index, name in enumerate(node.input):
        kind = schema.inputs[min(index, len(schema.inputs) - 1)].type_str
        if name and graph.is_float(name) and takes.get(kind):
            inputs.add(index)
            bound.add(kind)
    if node.op_type == "Cast" and attribute(node, "to", 0) == TensorProto.FLOAT:
        bound.add(schema.outputs[0].type_str)
    outputs = {
        index
        for index, name in enumerate(node.output)
        if name
        and graph.is_float(name)
        and schema.outputs[min(index, len(schema.outputs) - 1)].type_str in bound
    }
    return inputs, outputs


def why_full(graph: Graph, node: NodeProto, half: HalfType) -> str:
    """Why a node cannot be half, whatever its values are; empty if it can."""
    if half_places(graph, node, half)[1]:
        return ""
    if node.domain not in ("", "ai.onnx"):
        return f"{node.op_type} of {node.domain} is no operator of ONNX"
    if any(captures(node)):
        return "its branches compute in FP32"
    if not all(graph.elem_type(name) for name in (*node.input, *node.output) if name):
        return "the type of one of its tensors is not known"
    return f"{node.op_type} has no form of that type"


class _Writer:
    """Writes nodes in order; a name of the FP32 graph goes on meaning the FP32 value."""

    def __init__(self, proto: ModelProto, half: HalfType, *, twin: bool) -> None:
        self.graph = Graph(proto)
        self._proto = proto
        self._half = half
        self._twin = twin
        self._names = Names(proto)
        self._nodes: list[NodeProto] = []
        self._added: list[TensorProto] = []
        self._half_names: dict[str, str] = {}  # FP32 name -> name of its half value.
        self._made_half: set[str] = set()  # FP32 names of what half nodes made.
        self._waiting: dict[str, NodeProto] = {}  # Makes it in the type that a reader wants.
        self._dequantized: set[str] = set()  # Of these, those that are made in half or FP32.
        made = {name for node in self.graph.nodes for name in node.output}
        self._full = {value.name for value in proto.graph.input} | set(self.graph.initializers)
        self._full |= {name for name in made if name and not self.graph.is_float(name)}

    def keep(self, node: NodeProto) -> None:
        """Writes a node that reads and makes FP32."""
        for name in (*node.input, *captures(node)):
            self._need_full(name)
        self._nodes.append(node)
        self._full.update(node.output)

    def lower(self, node: NodeProto, inputs: set[int], outputs: set[int]) -> None:
        """Writes a node that reads and makes half values at these places."""
        is_int8 = reads_int8(self.graph, node) and self._waiting.keys() >= set(node.input[:2])
        for index, name in enumerate(node.input):
            if index in inputs and not (self._twin and is_int8 and index < 2):
                node.input[index] = self._need_half(name)
            else:
                self._need_full(name)
        self._nodes.append(node)
        for index in sorted(outputs):
            name = node.output[index]
            if self._twin:
                node.output[index] = self._names.new(f"{name}.exact")
                self._round(node.output[index], name)
                self._half_names[name] = name
                self._full.add(name)
            else:
                node.output[index] = self._new_half(name)
                self._made_half.add(name)
        self._full.update(name for index, name in enumerate(node.output) if index not in outputs)
        if node.op_type == "Cast" and not self._twin:
            for entry in node.attribute:
                if entry.name == "to" and 0 in outputs:
                    entry.i = self._half.elem_type

    def quantization(self, node: NodeProto) -> None:
        """Writes a QuantizeLinear; remembers a DequantizeLinear until somebody reads it."""
        fits = holds_scale(self.graph, node, self._half)
        if fits and node.op_type == "DequantizeLinear":
            self._waiting[node.output[0]] = node
        else:
            if fits and node.input[0] in self._made_half:
                node.input[0], node.input[1] = map(self._need_half, node.input[:2])
            self.keep(node)

    def finish(self) -> None:
        """Casts the outputs back and puts the nodes into the model."""
        for value in self._proto.graph.output:
            self._need_full(value.name)
        self._proto.graph.initializer.extend(self._added)
        del self._proto.graph.value_info[:]
        set_nodes(self._proto, self._nodes)

    def _dequantize(self, name: str, scale: str, output: str) -> None:
        node = NodeProto()
        node.CopyFrom(self._waiting[name])
        if name in self._dequantized:
            node.name = self._names.new(node.name)
        node.input[1], node.output[0] = scale, output
        self._nodes.append(node)
        self._dequantized.add(name)

    def _need_full(self, name: str) -> None:
        if not name or name in self._full:
            return
        if name in self._waiting:
            self._dequantize(name, self._waiting[name].input[1], name)
            self._full.add(name)
        elif name in self._half_names:
            self._cast(self._half_names[name], name, TensorProto.FLOAT)
            self._full.add(name)

    def _need_half(self, name: str) -> str:
        if name not in self._half_names:
            constant = self.graph.constant(name)
            if constant is not None:
                self._half_names[name] = self._half_constant(name, constant)
            elif name in self._waiting and not self._twin:
                scale = self._need_half(self._waiting[name].input[1])
                self._dequantize(name, scale, self._new_half(name))
            elif self._twin:
                self._need_full(name)
                rounded = self._names.new(f"{name}.rounded")
                self._half_names[name] = rounded
                self._round(name, rounded)
            else:
                self._cast(name, self._new_half(name), self._half.elem_type)
        return self._half_names[name]

    def _half_constant(self, name: str, value: Array) -> str:
        stored = self._names.new(f"{name}.half")
        self._added.append(numpy_helper.from_array(value.astype(self._half.dtype), stored))
        if not self._twin:
            return stored
        rounded = self._names.new(f"{name}.rounded")
        self._cast(stored, rounded, TensorProto.FLOAT)
        return rounded

    def _new_half(self, name: str) -> str:
        self._half_names[name] = self._names.new(f"{name}.half")
        return self._half_names[name]

    def _round(self, source: str, target: str) -> None:
        """FP32 to FP32, rounded to what the half type can hold."""
        stored = self._names.new(f"{target}.half")
        self._cast(source, stored, self._half.elem_type)
        self._cast(stored, target, TensorProto.FLOAT)

    def _cast(self, source: str, target: str, elem_type: int) -> None:
        name = self._names.new(f"{target}.Cast")
        self._nodes.append(helper.make_node("Cast", [source], [target], name=name, to=elem_type))
