"""Rewrites an FP32 graph to FP16 or BF16, and writes the twin that a CPU runs in its stead.

Inputs and outputs keep FP32. A node becomes half precision where ONNX's own schema of the operator
takes the type; nodes that must not (their values would overflow, or their weights lose too much)
stay FP32 between casts.

ONNX Runtime has few FP16 and no BF16 kernels for the CPU. Given the half graph it would compute
whole stretches in FP32 and drop the casts between, so that what overflows on the GPU looks fine on
the CPU. The twin computes each half node in FP32 and rounds its output to the half type and back:
the values between nodes are those of the half graph.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx.defs
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge_runtime.config import Precision
from edge_runtime.precision.graph import (
    Graph,
    Names,
    attribute,
    captures,
    set_nodes,
)
from edge_runtime.tensors import Array


@dataclass(frozen=True)
class HalfType:
    """A half precision type.

    Attributes:
        elem_type: ONNX's number of the element type.
        dtype: numpy's type of it.
        label: Its name in ONNX's schemas.
        min_opset: The first operator set whose convolutions take it.
        max: The largest finite value.
        min_normal: The smallest value that has the full precision; below it digits are lost.
        refused: Operators that take it by ONNX's schema, but that TensorRT-RTX does not build.
    """

    elem_type: int
    dtype: np.dtype[np.generic]
    label: str
    min_opset: int
    max: float
    min_normal: float
    refused: frozenset[str] = frozenset()


HALF_TYPES = {
    Precision.FP16: HalfType(
        TensorProto.FLOAT16, np.dtype(np.float16), "tensor(float16)", 13, 65504.0, 2.0**-14
    ),
    Precision.BF16: HalfType(
        TensorProto.BFLOAT16,
        np.dtype(ml_dtypes.bfloat16),
        "tensor(bfloat16)",
        22,
        3.38e38,
        2.0**-126,
        frozenset({"ConvTranspose"}),
    ),
}


def to_half(proto: ModelProto, half: HalfType, keep: Collection[str], *, twin: bool) -> list[str]:
    """Rewrites a prepared model in place.

    Args:
        proto: The model; its operator set must be at least `half.min_opset`.
        half: The type that tensors become.
        keep: Names of nodes that stay FP32.
        twin: Whether to write the CPU's twin instead of the half graph itself.

    Returns:
        The names of the nodes that are half.
    """
    writer = _Writer(proto, half, twin=twin)
    lowered = []
    for node in writer.graph.nodes:
        inputs, outputs = half_places(writer.graph, node, half)
        if node.name in keep or not outputs:
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
    refused = half.refused | {"QuantizeLinear", "DequantizeLinear"}
    if node.domain not in ("", "ai.onnx") or node.op_type in refused:
        return set(), set()
    if any(entry.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for entry in node.attribute):
        return set(), set()
    if not all(graph.elem_type(name) for name in (*node.input, *node.output) if name):
        return set(), set()
    opset = next(o.version for o in graph.proto.opset_import if o.domain in ("", "ai.onnx"))
    schema = onnx.defs.get_schema(node.op_type, opset)
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
        for index, name in enumerate(node.input):
            if index in inputs:
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
        self._full.update(name for index, name in enumerate(node.output) if index not in outputs)
        if node.op_type == "Cast" and not self._twin:
            for entry in node.attribute:
                if entry.name == "to" and 0 in outputs:
                    entry.i = self._half.elem_type

    def finish(self) -> None:
        """Casts the outputs back and puts the nodes into the model."""
        for value in self._proto.graph.output:
            self._need_full(value.name)
        self._proto.graph.initializer.extend(self._added)
        del self._proto.graph.value_info[:]
        set_nodes(self._proto, self._nodes)

    def _need_full(self, name: str) -> None:
        if name and name not in self._full and name in self._half_names:
            self._cast(self._half_names[name], name, TensorProto.FLOAT)
            self._full.add(name)

    def _need_half(self, name: str) -> str:
        if name not in self._half_names:
            constant = self.graph.constant(name)
            if constant is not None:
                self._half_names[name] = self._half_constant(name, constant)
            elif self._twin:
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
