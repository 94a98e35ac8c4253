"""A view of a model for the lints: all nodes, subgraphs too, and what is known of their inputs."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from edge_runtime.config import OptimizationProfile, ShapeRange
from edge_runtime.model import infer_shapes, without_large_initializers
from edge_runtime.tensors import Array

DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a tensor by its name.

    Attributes:
        elem_type: A `TensorProto.DataType`; 0 where unknown.
        constant: Its value, if it is an initialiser or a Constant node's output.
        fed: Whether the caller of the model feeds it.
    """

    elem_type: int = TensorProto.UNDEFINED
    constant: TensorProto | None = None
    fed: bool = False


Names = ChainMap[str, Value]


@dataclass(frozen=True, slots=True)
class Node:
    """A node and the names that it can see."""

    proto: NodeProto
    names: Names

    @property
    def op(self) -> str:
        """The operator."""
        return self.proto.op_type

    @property
    def domain(self) -> str:
        """The operator set; empty for ONNX's own."""
        return "" if self.proto.domain in DEFAULT_DOMAINS else self.proto.domain

    @property
    def label(self) -> str:
        """The node's name, or its first output where it has none."""
        return self.proto.name or next(iter(self.proto.output), "")

    def attribute(self, name: str, default: object = None) -> object:
        """The value of an attribute; strings as `str`."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value: object = helper.get_attribute_value(attribute)
                return value.decode(errors="replace") if isinstance(value, bytes) else value
        return default

    def input_name(self, index: int) -> str:
        """The name of an input; empty where it is left out."""
        return self.proto.input[index] if index < len(self.proto.input) else ""

    def input(self, index: int) -> Value:
        """What is known of an input."""
        return self.names.get(self.input_name(index), Value())

    def output(self, index: int) -> Value:
        """What is known of an output."""
        names = self.proto.output
        return self.names.get(names[index], Value()) if index < len(names) else Value()

    def array(self, index: int) -> Array | None:
        """The value of a constant input."""
        constant = self.input(index).constant
        return None if constant is None else to_array(constant)


class GraphView:
    """A valid model, its nodes listed once, and what it is to be built for.

    Attributes:
        proto: The model.
        targets: GPU architectures, such as `sm86`; may be empty.
        profiles: The shape ranges that are known so far, by input, of each profile.
        nodes: Every node in the model's order, each followed by those of its subgraphs; then those
            of the model's local functions.
        fed: The inputs that a caller feeds, in order.
        constants: Every initialiser, and the value of every Constant node, by name.
    """

    def __init__(
        self,
        proto: ModelProto,
        targets: Sequence[str] = (),
        profiles: Sequence[OptimizationProfile] = (),
    ) -> None:
        self.proto = proto
        self.targets = tuple(targets)
        self.profiles = tuple(profiles)
        inferred = infer_shapes(without_large_initializers(proto)).graph
        weights = {tensor.name: tensor for tensor in proto.graph.initializer}
        self.fed: tuple[ValueInfoProto, ...] = tuple(
            value for value in proto.graph.input if value.name not in weights
        )
        self.constants: list[TensorProto] = []
        names = _names(inferred, ChainMap())
        for tensor in weights.values():
            names[tensor.name] = Value(tensor.data_type, tensor)
            self.constants.append(tensor)
        for value in self.fed:
            names[value.name] = Value(value.type.tensor_type.elem_type, fed=True)
        self.nodes: tuple[Node, ...] = (
            *self._walk(inferred.node, names),
            *(node for function in proto.functions for node in self._function(function)),
        )

    @property
    def opset(self) -> int:
        """Version of ONNX's own operator set."""
        versions = (o.version for o in self.proto.opset_import if o.domain in DEFAULT_DOMAINS)
        return max(versions, default=0)

    def ranges(self, name: str) -> list[ShapeRange]:
        """What is known of an input's shape, or of its values where these decide a shape."""
        return [profile[name] for profile in self.profiles if name in profile]

    def has_range(self, name: str) -> bool:
        """Whether every profile has a range for this input."""
        return len(self.ranges(name)) == max(1, len(self.profiles))

    def has_function(self, node: Node) -> bool:
        """Whether the model itself defines the node's operator."""
        return any(
            function.name == node.op and function.domain == node.proto.domain
            for function in self.proto.functions
        )

    def _function(self, function: FunctionProto) -> Iterator[Node]:
        return self._walk(function.node, ChainMap())

    def _walk(self, nodes: Sequence[NodeProto], names: Names) -> Iterator[Node]:
        for node in nodes:
            if node.op_type == "Constant" and node.domain in DEFAULT_DOMAINS:
                self._add_constant(node, names)
            yield Node(node, names)
            for attribute in node.attribute:
                for graph in _subgraphs(attribute):
                    inner = _names(graph, names.new_child())
                    for tensor in graph.initializer:
                        inner[tensor.name] = Value(tensor.data_type, tensor)
                        self.constants.append(tensor)
                    yield from self._walk(graph.node, inner)

    def _add_constant(self, node: NodeProto, names: Names) -> None:
        for attribute in node.attribute:
            if attribute.name == "value":
                tensor = TensorProto()
                tensor.CopyFrom(attribute.t)
                tensor.name = node.output[0]
            elif attribute.name in ("value_float", "value_floats"):
                values = np.array(helper.get_attribute_value(attribute), np.float32)
                tensor = numpy_helper.from_array(values, node.output[0])
            elif attribute.name in ("value_int", "value_ints"):
                values = np.array(helper.get_attribute_value(attribute), np.int64)
                tensor = numpy_helper.from_array(values, node.output[0])
            else:  # Sparse tensors and strings, which TensorRT has not.
                continue
            names[node.output[0]] = Value(tensor.data_type, tensor)
            self.constants.append(tensor)


def to_array(tensor: TensorProto) -> Array:
    """The tensor as a numpy array, which is the tensor's own memory where it can be."""
    return numpy_helper.to_array(tensor)


def type_name(elem_type: int) -> str:
    """ONNX's name of an element type, such as `UINT8`."""
    return str(TensorProto.DataType.Name(elem_type))


def _names(graph: GraphProto, names: Names) -> Names:
    """Adds to `names` the types that `graph` declares or that were inferred for it."""
    for value in (*graph.value_info, *graph.input, *graph.output):
        names[value.name] = Value(value.type.tensor_type.elem_type)
    return names


def _subgraphs(attribute: AttributeProto) -> Sequence[GraphProto]:
    if attribute.type == AttributeProto.GRAPH:
        return [attribute.g]
    return list(attribute.graphs)
