"""Cuts a graph into pieces that run one after the other: some nodes alone, and what is between.

A piece is a model of its own, which ONNX Runtime runs on the arrays that other pieces made. Its
model is built at its first run, when the types of those arrays are known, and pieces that differ in
the names of tensors alone, or in constants that are fed, share one session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto
from onnx.helper import make_tensor_type_proto, make_value_info, np_dtype_to_tensor_dtype

from edge_runtime.backends.cpu import CpuSession, open_session, run_session
from edge_runtime.config import digest
from edge_runtime.errors import ModelError
from edge_runtime.precision.graphs.graph import Graph, reads
from edge_runtime.precision.quantized.weights import QuantizedWeight
from edge_runtime.tensors import Array

Constant = Array | QuantizedWeight


class Sessions:
    """The sessions of a graph's pieces; equal models have one."""

    def __init__(self, proto: ModelProto) -> None:
        """Takes the versions, not the nodes, of `proto`."""
        self._frame = ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
        self._frame.graph.name = "piece"
        self._open: dict[str, CpuSession] = {}

    def frame(self) -> ModelProto:
        """A model without nodes."""
        model = ModelProto()
        model.CopyFrom(self._frame)
        return model

    def get(self, model: ModelProto) -> CpuSession:
        """The session of a model."""
        data: bytes = model.SerializeToString(deterministic=True)
        key = digest(data)
        if key not in self._open:
            self._open[key] = open_session(data, threads=1, lean=True)
        return self._open[key]


class Piece:
    """Nodes that run in one go.

    Attributes:
        reads: The tensors that must be fed.
        makes: The tensors that come out.
    """

    def __init__(
        self,
        sessions: Sessions,
        nodes: Sequence[NodeProto],
        makes: Iterable[str],
        *,
        fixed: Mapping[str, TensorProto],
        fed: Mapping[str, Constant] | None = None,
    ) -> None:
        """Copies nodes and constants.

        Args:
            sessions: Where to find a session.
            nodes: The nodes, in topological order.
            makes: Which of the tensors that they make are asked for.
            fixed: Initialisers that become part of the model, where the nodes read them.
            fed: Constants that are fed at each run instead; kept as they are.
        """
        made = {name for node in nodes for name in node.output}
        read = dict.fromkeys(name for node in nodes for name in reads(node) if name not in made)
        self._sessions = sessions
        self._fed = {name: fed[name] for name in read if name in fed} if fed else {}
        self._fixed = [fixed[name] for name in read if name in fixed and name not in self._fed]
        held = {tensor.name for tensor in self._fixed}
        self._ports = [name for name in read if name not in held]
        self._nodes = [_bare(node) for node in nodes]
        self._session: CpuSession | None = None
        self._feeds: list[str] = []
        self._outputs: list[str] = []
        self.reads = tuple(name for name in self._ports if name not in self._fed)
        self.makes = tuple(makes)

    def run(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Computes `makes` from the arrays of `reads`; other values are not looked at.

        Raises:
            InferenceError: A node cannot combine the sizes that it was given.
            ModelError: What comes out is no array, but a sequence.
        """
        arrays = [
            _array(self._fed[name]) if name in self._fed else values[name] for name in self._ports
        ]
        if self._session is None:
            self._session = self._build([array.dtype for array in arrays])
        made = run_session(
            self._session, self._outputs, dict(zip(self._feeds, arrays, strict=True))
        )
        for name, array in zip(self.makes, made, strict=True):
            if not isinstance(array, np.ndarray):
                raise ModelError(
                    f"Tensor {name!r} is a {type(array).__name__}, no array, and an INT8 layer is "
                    "computed between its making and its use: the graph cannot be cut there."
                )
        return dict(zip(self.makes, made, strict=True))

    def _build(self, types: Sequence[np.dtype[np.generic]]) -> CpuSession:
        model = self._sessions.frame()
        rename = self._renamed()
        self._feeds = [rename.get(name, name) for name in self._ports]
        self._outputs = [rename.get(name, name) for name in self.makes]
        for name, dtype in zip(self._feeds, types, strict=True):
            kind = make_tensor_type_proto(np_dtype_to_tensor_dtype(dtype), None)
            model.graph.input.append(make_value_info(name, kind))
        for name in self._outputs:
            model.graph.output.add(name=name)
        for tensor in self._fixed:
            model.graph.initializer.add().CopyFrom(tensor)
            model.graph.initializer[-1].name = rename.get(tensor.name, tensor.name)
        for node in self._nodes:
            model.graph.node.add().CopyFrom(node)
            for names in (model.graph.node[-1].input, model.graph.node[-1].output):
                for index, name in enumerate(names):
                    names[index] = rename.get(name, name)
        self._nodes, self._fixed = [], []
        return self._sessions.get(model)

    def _renamed(self) -> dict[str, str]:
        """Names that depend on nothing but the order; none where a subgraph could hold them too."""
        for node in self._nodes:
            if any(entry.type == AttributeProto.GRAPH for entry in node.attribute):
                return {}
        names = [*self._ports, *(tensor.name for tensor in self._fixed)]
        names.extend(name for node in self._nodes for name in node.output if name)
        return {name: f"t{index}" for index, name in enumerate(dict.fromkeys(names))}


def _bare(node: NodeProto) -> NodeProto:
    """A copy without name and notes, so that equal pieces are equal models."""
    copy = NodeProto(op_type=node.op_type, domain=node.domain)
    copy.input.extend(node.input)
    copy.output.extend(node.output)
    for entry in node.attribute:
        copy.attribute.add().CopyFrom(entry)
    return copy


def _array(constant: Constant) -> Array:
    return constant.dequantized if isinstance(constant, QuantizedWeight) else constant


def cut(
    graph: Graph, alone: Sequence[Sequence[NodeProto]], sessions: Sessions
) -> tuple[list[Piece], list[int]]:
    """Cuts a graph into pieces, in an order in which each finds what it reads.

    What no output depends on is left out, but for the nodes that stand alone.

    Args:
        graph: The graph, which is read and copied.
        alone: Nodes that become pieces of their own: each one node, or several that follow each
            other with nothing between; in topological order. Their FP32 constants are fed.
        sessions: Where the pieces find their sessions.

    Returns:
        The pieces, and the places among them of those in `alone`.
    """
    groups: list[Sequence[NodeProto]] = []
    done: set[int] = set()
    for nodes in alone:
        done.update(id(node) for node in nodes)
        groups.append(_before(graph, [name for node in nodes for name in reads(node)], done))
        groups.append(nodes)
    groups.append(_before(graph, graph.outputs, done))
    groups = [nodes for nodes in groups if nodes]
    heads = {id(nodes[0]): place for place, nodes in enumerate(groups)}
    places = [heads[id(nodes[0])] for nodes in alone]
    return _pieces(graph, groups, set(places), sessions), places


def _before(graph: Graph, names: Iterable[str], done: set[int]) -> list[NodeProto]:
    """The nodes that must run before `names` are there, in the graph's order; `done` grows."""
    found: set[int] = set()
    waiting = list(names)
    while waiting:
        node = graph.producer.get(waiting.pop())
        if node is not None and id(node) not in done:
            done.add(id(node))
            found.add(id(node))
            waiting.extend(reads(node))
    return [node for node in graph.nodes if id(node) in found]


def _pieces(
    graph: Graph, groups: Sequence[Sequence[NodeProto]], alone: set[int], sessions: Sessions
) -> list[Piece]:
    readers: dict[str, set[int]] = {}
    for index, nodes in enumerate(groups):
        for name in (name for node in nodes for name in reads(node)):
            readers.setdefault(name, set()).add(index)
    constants: dict[str, Array] = {}
    pieces = []
    for index, nodes in enumerate(groups):
        made = [name for node in nodes for name in node.output if name]
        makes = [
            name for name in made if name in graph.outputs or readers.get(name, set()) - {index}
        ]
        if index in alone:
            for name in (name for node in nodes for name in node.input if name not in constants):
                value = graph.constant(name)
                if value is not None and value.dtype == np.float32:
                    constants[name] = value
        fed = constants if index in alone else {}
        pieces.append(Piece(sessions, nodes, makes or made[-1:], fixed=graph.initializers, fed=fed))
    return pieces
