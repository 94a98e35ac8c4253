"""Look-ups in an ONNX graph, and names for what is added to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from edge_runtime.model import infer_shapes, without_large_initializers
from edge_runtime.tensors import Array


class Graph:
    """The main graph of a model with its producers, consumers, initialisers and types.

    It describes the model as it was when this was made; whoever changes nodes makes another.

    Attributes:
        proto: The model.
        nodes: The nodes in topological order.
        initializers: Initialiser by name.
        producer: The node that makes a tensor.
        consumers: The nodes that read a tensor, those included whose subgraphs read it.
        outputs: Names of the graph's outputs.
    """

    def __init__(self, proto: ModelProto) -> None:
        self.proto = proto
        graph = proto.graph
        self.nodes: list[NodeProto] = list(graph.node)
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.consumers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(reads(node)):
                self.consumers[name].append(node)
        self._types: dict[str, tuple[int, tuple[int, ...] | None]] | None = None

    def elem_type(self, name: str) -> int:
        """ONNX's element type of a tensor; 0 where nobody knows."""
        return self._value_types().get(name, (0, None))[0]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape, -1 for a dynamic dimension; None where even the rank is not known."""
        return self._value_types().get(name, (0, None))[1]

    def constant(self, name: str) -> Array | None:
        """The value of an initialiser as a numpy array; None if the tensor is not one."""
        tensor = self.initializers.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def is_activation(self, name: str) -> bool:
        """Whether a tensor is an FP32 value that depends on the inputs."""
        return bool(name) and name not in self.initializers and self.is_float(name)

    def is_float(self, name: str) -> bool:
        """Whether a tensor is FP32."""
        return self.elem_type(name) == TensorProto.FLOAT

    def _value_types(self) -> dict[str, tuple[int, tuple[int, ...] | None]]:
        if self._types is None:
            graph = infer_shapes(without_large_initializers(self.proto)).graph
            self._types = {
                tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer
            }
            for value in (*graph.input, *graph.value_info, *graph.output):
                kind = value.type.tensor_type
                shape = None
                if kind.HasField("shape"):
                    shape = tuple(
                        d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim
                    )
                self._types[value.name] = (kind.elem_type, shape)
        return self._types


class Names:
    """Hands out tensor and node names that are not taken yet."""

    def __init__(self, proto: ModelProto) -> None:
        self._taken = {value.name for value in proto.graph.input}
        self._taken.update(tensor.name for tensor in proto.graph.initializer)
        for graph in subgraphs(proto.graph):
            for node in graph.node:
                self._taken.update((node.name, *node.output))

    def new(self, wanted: str) -> str:
        """`wanted`, or `wanted_2`, `wanted_3` ... where it is taken."""
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name


def subgraphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph itself and every subgraph of its control flow nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from subgraphs(attribute.g)


def reads(node: NodeProto) -> Iterator[str]:
    """Every tensor that a node reads: its inputs, and what its subgraphs take from outside."""
    yield from filter(None, node.input)
    yield from captures(node)


def captures(node: NodeProto) -> Iterator[str]:
    """The tensors that a control flow node's subgraphs take from outside."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            graph = attribute.g
            inside = {value.name for value in graph.input}
            inside.update(tensor.name for tensor in graph.initializer)
            for inner in graph.node:
                yield from (name for name in reads(inner) if name not in inside)
                inside.update(inner.output)
            yield from (value.name for value in graph.output if value.name not in inside)


def attribute(node: NodeProto, name: str, default: int | float | str) -> int | float | str:
    """A scalar attribute of a node."""
    for entry in node.attribute:
        if entry.name == name:
            if entry.type == AttributeProto.STRING:
                return str(entry.s.decode())
            return int(entry.i) if entry.type == AttributeProto.INT else float(entry.f)
    return default


def set_initializers(proto: ModelProto, values: dict[str, Array]) -> None:
    """Adds initialisers, or replaces those of the same names."""
    added = [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in values.items()]
    # An ascontiguousarray of a scalar has one dimension; a scalar must stay one.
    for tensor, array in zip(added, values.values(), strict=True):
        del tensor.dims[:]
        tensor.dims.extend(array.shape)
    _drop(proto.graph.initializer, values)
    proto.graph.initializer.extend(added)


def set_nodes(proto: ModelProto, nodes: Iterable[NodeProto]) -> None:
    """Replaces the nodes, and drops the initialisers that nothing reads any more."""
    nodes = list(nodes)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    read = {name for node in proto.graph.node for name in reads(node)}
    read.update(value.name for value in proto.graph.output)
    unread = {tensor.name for tensor in proto.graph.initializer} - read
    if unread:
        _drop(proto.graph.initializer, unread)
        _drop(proto.graph.input, unread)


def _drop(named: Any, names: Container[str]) -> None:
    """Drops the entries of these names, one by one.

    To fill the field anew would copy all weights, and protobuf frees the old ones with the model.
    """
    for index in reversed(range(len(named))):
        if named[index].name in names:
            del named[index]
