"""Changes constants of a graph, each for the one node that reads it there."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, numpy_helper

from edge_runtime.precision.graphs.graph import Graph, Names
from edge_runtime.tensors import Array


def write_constant(graph: Graph, names: Names, node: NodeProto, index: int, value: Array) -> None:
    """Gives input `index` of a node another FP32 constant, in place of the one it has, if any.

    It keeps its name where nobody else reads it, so that what is known by that name stays known.
    """
    while len(node.input) <= index:
        node.input.append("")
    name = node.input[index]
    constant = np.ascontiguousarray(value, dtype=np.float32).reshape(value.shape)
    others = [*(other for user in graph.consumers[name] for other in user.input), *graph.outputs]
    if name and others.count(name) == 1:
        graph.initializers[name].CopyFrom(numpy_helper.from_array(constant, name))
        return
    name = names.new(name or f"{node.name}.{'bias' if index == 2 else index}")
    node.input[index] = name
    graph.proto.graph.initializer.append(numpy_helper.from_array(constant, name))
