"""The nodes of a serialised ONNX model, read without `onnx`, which a device does not have.

Reads no more than names of the protobuf: https://protobuf.dev/programming-guides/encoding, with the
field numbers of ONNX's `onnx.proto3`. Weights are stepped over, so that a large model costs little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

_TYPES = (
    *("undefined", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string"),
    *("bool", "float16", "float64", "uint32", "uint64", "complex64", "complex128", "bfloat16"),
    *("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "uint4", "int4"),
    *("float4e2m1", "float8e8m0", "uint2", "int2", "float6e2m3", "float6e3m2"),
)
"""By their number in `TensorProto.DataType`."""

_MODEL_IR, _MODEL_GRAPH, _MODEL_OPSET = 1, 7, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT = 1, 3
_ATTRIBUTE_GRAPHS = (6, 11)
_TENSOR_DIMS, _TENSOR_DATA_TYPE, _TENSOR_NAME = 1, 2, 8
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_TYPE = 1, 2, 1, 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEEPEST = 50  # Subgraphs in subgraphs; protobuf itself refuses some more.


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node.

    Attributes:
        name: Its name; empty if it has none.
        op: Its operator.
        inputs: Names of its inputs; empty ones are left out.
        outputs: Names of its outputs; empty ones are left out.
        inner: The nodes of its own subgraphs, as those of If and Loop, in order.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    inner: tuple[GraphNode, ...] = ()

    @property
    def label(self) -> str:
        """What to call it: by its name, or the first output where it has none."""
        return self.name or next(iter(self.outputs), "")

    def __str__(self) -> str:
        return f"{self.label!r} ({self.op})"


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """The main graph of a model.

    Attributes:
        nodes: Its nodes, in order.
        inputs: The element type of each input, by name; as numpy calls it where it has it.
        outputs: Names of its outputs, in order.
    """

    nodes: tuple[GraphNode, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()

    def walk(self) -> Iterator[GraphNode]:
        """All nodes, those of subgraphs after the one that they are in."""
        stack = list(reversed(self.nodes))
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.inner))


def read_graph(model: bytes) -> OnnxGraph:
    """The graph of a serialised model; an empty one where these bytes are none."""
    try:
        graphs = _messages(memoryview(model), _MODEL_GRAPH)
        nodes = [node for graph in graphs for node in _nodes(graph)]
        inputs = [_input(value) for graph in graphs for value in _messages(graph, _GRAPH_INPUT)]
        outputs = [value for graph in graphs for value in _messages(graph, _GRAPH_OUTPUT)]
    except (IndexError, ValueError):
        return OnnxGraph()
    names = tuple(_text(value, _VALUE_NAME) for value in outputs)
    return OnnxGraph(tuple(nodes), dict(inputs), names)


def weights(model: bytes) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Element type and shape of each initializer of the main graph, by name.

    Args:
        model: A serialised model that `read_graph` reads.
    """
    tensors = (
        tensor
        for graph in _messages(memoryview(model), _MODEL_GRAPH)
        for tensor in _messages(graph, _GRAPH_INITIALIZER)
    )
    return {
        _text(tensor, _TENSOR_NAME): (_type(tensor, _TENSOR_DATA_TYPE), tuple(_sizes(tensor)))
        for tensor in tensors
    }


def casts(model: bytes) -> dict[str, str]:
    """The element type that each Cast of the main graph makes, by its output.

    Args:
        model: A serialised model that `read_graph` reads.
    """
    return {
        _text(node, _NODE_OUTPUT): _type(attribute, _ATTRIBUTE_INT)
        for graph in _messages(memoryview(model), _MODEL_GRAPH)
        for node in _messages(graph, _GRAPH_NODE)
        if _text(node, _NODE_OP) == "Cast"
        for attribute in _messages(node, _NODE_ATTRIBUTE)
        if _text(attribute, _ATTRIBUTE_NAME) == "to"
    }


def _sizes(tensor: memoryview) -> Iterator[int]:
    """The dimensions, which may be packed into one field or have one each."""
    for number, value, _ in _fields(tensor):
        if number != _TENSOR_DIMS:
            continue
        if isinstance(value, int):
            yield value
            continue
        position = 0
        while position < len(value):
            size, position = _varint(value, position)
            yield size


def _type(message: memoryview, field_number: int) -> str:
    """The name of an element type that a field gives by its number."""
    number = max(_numbers(message, field_number), default=0)
    return _TYPES[number] if number < len(_TYPES) else f"of type {number}"


def first_refused(model: bytes, reason: Callable[[bytes], str | None]) -> tuple[GraphNode, str]:
    """The first node without which, and without all that follow it, a library takes the model.

    Nodes are in an order in which each follows those that it needs, so the first ones are a graph,
    however many. The model is loaded as often as its number of nodes can be halved.

    Args:
        model: A serialised model.
        reason: Loads a model. Returns why it is refused, or None if it is taken.

    Returns:
        The node, and why the part that ends with it is refused.

    Raises:
        LookupError: There is none: the model is taken as a whole, or refused without any node.
    """
    nodes = read_graph(model).nodes
    taken, refused = 0, len(nodes)
    why = reason(_first(model, refused)) if nodes else None
    if why is None or reason(_first(model, 0)) == why:  # A graph without nodes is refused as such.
        raise LookupError("no node is the reason")
    while refused - taken > 1:
        middle = (taken + refused) // 2
        found = reason(_first(model, middle))
        if found is None:
            taken = middle
        else:
            refused, why = middle, found
    return nodes[refused - 1], why


def with_versions(model: bytes, *, ir: int | None = None, opset: int | None = None) -> bytes:
    """The model, declared to be of another IR version or version of ONNX's operator set."""
    parts: list[bytes | memoryview] = []
    for number, value, encoded in _fields(memoryview(model)):
        if number == _MODEL_IR and ir is not None:
            parts.append(_encode(_MODEL_IR, ir))
        elif number == _MODEL_OPSET and opset is not None and _is_onnx(value):
            last = _encode(_OPSET_VERSION, opset)  # Of a field given twice, the last one counts.
            parts.append(_encode(_MODEL_OPSET, bytes(value) + last))
        else:
            parts.append(encoded)
    return b"".join(parts)


def _is_onnx(opset: int | memoryview) -> bool:
    return isinstance(opset, memoryview) and _text(opset, _OPSET_DOMAIN) in ("", "ai.onnx")


def _first(model: bytes, count: int) -> bytes:
    """The model with no more than its first nodes, all of whose outputs are the graph's."""
    return b"".join(
        _encode(_MODEL_GRAPH, _first_nodes(value, count))
        if number == _MODEL_GRAPH and isinstance(value, memoryview)
        else encoded
        for number, value, encoded in _fields(memoryview(model))
    )


def _first_nodes(graph: memoryview, count: int) -> bytes:
    parts: list[bytes | memoryview] = []
    outputs: list[str] = []
    for number, value, encoded in _fields(graph):
        if number == _GRAPH_NODE and isinstance(value, memoryview):
            count -= 1
            if count < 0:
                continue
            outputs += filter(None, _texts(value, _NODE_OUTPUT))
        if number != _GRAPH_OUTPUT:
            parts.append(encoded)
    values = (_encode(_VALUE_NAME, name.encode()) for name in outputs)
    return b"".join([*parts, *(_encode(_GRAPH_OUTPUT, value) for value in values)])


def _nodes(graph: memoryview, depth: int = 0) -> Iterator[GraphNode]:
    for node in _messages(graph, _GRAPH_NODE):
        inner: list[GraphNode] = []
        for attribute in _messages(node, _NODE_ATTRIBUTE) if depth < _DEEPEST else ():
            for number in _ATTRIBUTE_GRAPHS:
                for subgraph in _messages(attribute, number):
                    inner += _nodes(subgraph, depth + 1)
        yield GraphNode(
            name=_text(node, _NODE_NAME),
            op=_text(node, _NODE_OP),
            inputs=tuple(filter(None, _texts(node, _NODE_INPUT))),
            outputs=tuple(filter(None, _texts(node, _NODE_OUTPUT))),
            inner=tuple(inner),
        )


def _input(value: memoryview) -> tuple[str, str]:
    """Its name and element type; what is no tensor, as a sequence, has the type undefined."""
    kinds = (t for k in _messages(value, _VALUE_TYPE) for t in _messages(k, _TYPE_TENSOR))
    name = next((_type(tensor, _TENSOR_TYPE) for tensor in kinds), _TYPES[0])
    return _text(value, _VALUE_NAME), name


def _text(message: memoryview, number: int) -> str:
    """A field of text; the last of that number is the one that counts."""
    return next(reversed(_texts(message, number)), "")


def _texts(message: memoryview, number: int) -> list[str]:
    return [bytes(value).decode(errors="replace") for value in _messages(message, number)]


def _messages(message: memoryview, number: int) -> list[memoryview]:
    fields = _fields(message)
    return [part for found, part, _ in fields if found == number and isinstance(part, memoryview)]


def _numbers(message: memoryview, number: int) -> list[int]:
    fields = _fields(message)
    return [value for found, value, _ in fields if found == number and isinstance(value, int)]


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview, memoryview]]:
    """Number, value and encoding of each field; the value is a number, or bytes.

    Raises:
        ValueError: These bytes are no message.
        IndexError: They are cut off.
    """
    position = 0
    while position < len(message):
        start = position
        tag, position = _varint(message, position)
        kind = tag & 7
        value: int | memoryview
        if kind == _VARINT:
            value, position = _varint(message, position)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
            if kind == _BYTES:
                size, position = _varint(message, position)
            if size is None or position + size > len(message):
                raise ValueError("no field of protobuf")
            value = message[position : position + size]
            position += size
        yield tag >> 3, value, message[start:position]


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """A number in base 128, lowest digits first, and where the next field begins."""
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
        shift += 7
        if shift > 63:
            raise ValueError("no number of protobuf")


def _encode(number: int, value: int | bytes) -> bytes:
    """A field."""
    if isinstance(value, int):
        return _digits(number << 3 | _VARINT) + _digits(value)
    return _digits(number << 3 | _BYTES) + _digits(len(value)) + value


def _digits(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)
