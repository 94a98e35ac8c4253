"""Decides which tensors of a graph become INT8, so that TensorRT fuses best and loses least.

The rules, on a prepared graph:

- Conv, ConvTranspose, Gemm and MatMul with constant weights read INT8: their activation by tensor,
  their weights by output channel. Bias stays FP32. A matrix with a side below 16 stays FP32: it
  does not fill an INT8 tile of the tensor cores, and often is the classifier, where precision
  counts.
- Q/DQ stands on what such a layer reads, never between a layer and its activation, nor before the
  residual Add that TensorRT fuses into the layer before it.
- Of that Add's two branches the one that does not come from the fused convolution is INT8 too.
- Max pools and concats that feed INT8 layers pass INT8 through: all their tensors share one scale.
- Average pools read INT8 where nothing else reads the tensor in FP32.
- A product of two activations, as in attention, stays FP32: probabilities fit 8 bits badly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches

from onnx import NodeProto

from edge_runtime.errors import ConfigError
from edge_runtime.precision.graphs.graph import Graph, attribute

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
PASS_THROUGH = ("MaxPool", "Concat")
MEANS = ("AveragePool", "GlobalAveragePool", "ReduceMean")
_MIN_SIDE = 16


@dataclass(frozen=True)
class Activation:
    """An input of a node that reads INT8.

    Attributes:
        tensor: The FP32 tensor that is quantized.
        node: Name of the node that reads it.
        index: Which of the node's inputs it is.
        range_of: The tensor whose range is used; another one where scales are shared.
    """

    tensor: str
    node: str
    index: int
    range_of: str


@dataclass(frozen=True)
class Weight:
    """A constant input of a node that becomes INT8.

    Attributes:
        tensor: The initialiser.
        node: Name of the node that reads it.
        index: Which of the node's inputs it is.
        axis: The axis of the output channels, each with a scale of its own; None for one scale.
    """

    tensor: str
    node: str
    index: int
    axis: int | None


@dataclass
class Placement:
    """What becomes INT8, and what of the layers that could does not, with the reason."""

    activations: list[Activation] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def tensors(self) -> list[str]:
        """The tensors whose ranges are needed."""
        return list(dict.fromkeys(entry.range_of for entry in self.activations))


def place(graph: Graph, *, exclude: tuple[str, ...] = ()) -> Placement:
    """Decides what becomes INT8.

    Args:
        graph: A prepared graph, in which every node has a name of its own.
        exclude: Names of nodes that stay FP32.

    Raises:
        ConfigError: A node in `exclude` does not exist.
    """
    check_names(graph, exclude)
    placement = Placement()
    layers: dict[str, NodeProto] = {}
    for node in graph.nodes:
        if node.op_type in _LAYERS:
            reason = "excluded" if node.name in exclude else _why_not(graph, node)
            if reason:
                placement.kept[node.name] = reason
            else:
                layers[node.name] = node
                placement.weights.append(Weight(node.input[1], node.name, 1, _axis(node)))
    edges = {(node.name, 0): node.input[0] for node in layers.values()}
    edges.update(_residuals(graph, layers, exclude))
    ranges = _pass_through(graph, edges, exclude)
    edges.update(_means(graph, edges, exclude))
    for (name, index), tensor in edges.items():
        range_of = ranges.get((name, index), ranges.get(tensor, tensor))
        placement.activations.append(Activation(tensor, name, index, range_of))
    return placement


def check_names(graph: Graph, names: tuple[str, ...]) -> None:
    """Raises ConfigError where a name is no node's."""
    known = [node.name for node in graph.nodes]
    for name in names:
        if name not in known:
            close = ", ".join(get_close_matches(name, known)) or ", ".join(known[:3]) + ", ..."
            raise ConfigError(f"exclude names {name!r}, which is no node of the graph ({close}).")


def _why_not(graph: Graph, node: NodeProto) -> str:
    """Why a layer cannot or should not be INT8; empty if it is."""
    if not graph.is_activation(node.input[0]):
        return "its input is not an FP32 activation"
    weight = graph.initializers.get(node.input[1])
    if weight is None:
        return "its weights are not constant"
    if not graph.is_float(weight.name):
        return "its weights are not FP32"
    if node.op_type in ("Gemm", "MatMul"):
        if len(weight.dims) != 2 or attribute(node, "transA", 0):
            return "its weights are not one matrix"
        if min(weight.dims) < _MIN_SIDE:
            return f"its matrix has a side below {_MIN_SIDE}"
    return ""


def _axis(node: NodeProto) -> int | None:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attribute(node, "group", 1) == 1 else None
    return 0 if node.op_type == "Gemm" and attribute(node, "transB", 0) else 1


def _residuals(
    graph: Graph, layers: dict[str, NodeProto], exclude: tuple[str, ...]
) -> Iterator[tuple[tuple[str, int], str]]:
    """The branch of each residual Add that is not the convolution that TensorRT fuses it into."""
    depth: dict[str, int] = {}
    for node in graph.nodes:
        below = max((depth.get(name, 0) for name in node.input), default=0)
        depth.update(dict.fromkeys(node.output, below + 1))
    for node in graph.nodes:
        if node.op_type != "Add" or node.name in exclude or len(set(node.input)) != 2:
            continue
        if not all(graph.is_activation(name) for name in node.input):
            continue
        fused = [index for index, name in enumerate(node.input) if _is_fused(graph, layers, name)]
        if fused:
            main = max(fused, key=lambda index: depth[node.input[index]])
            yield (node.name, 1 - main), node.input[1 - main]


def _is_fused(graph: Graph, layers: dict[str, NodeProto], tensor: str) -> bool:
    producer = graph.producer.get(tensor)
    return (
        producer is not None
        and producer.name in layers
        and producer.op_type in ("Conv", "ConvTranspose")
        and len(graph.consumers[tensor]) == 1
        and tensor not in graph.outputs
    )


def _pass_through(
    graph: Graph, edges: dict[tuple[str, int], str], exclude: tuple[str, ...]
) -> dict[object, str]:
    """Adds the inputs of pools and concats whose output is read as INT8, from the end to the start.

    Returns:
        The tensor whose range is used, by tensor or by (node, input), where it is another one. A
        concat's output holds all its inputs' values; a max pool's input all its output's. Where
        all that read a pool or concat use one range, as a concat behind it does, so does it.
    """
    ranges: dict[object, str] = {}
    readers: dict[str, list[tuple[str, int]]] = {}
    for place, tensor in edges.items():
        readers.setdefault(tensor, []).append(place)
    for node in reversed(graph.nodes):
        output = node.output[0]
        if (
            node.op_type not in PASS_THROUGH
            or output not in readers
            or node.name in exclude
            or not all(graph.is_activation(name) for name in node.input)
        ):
            continue
        used = {ranges.get(place, output) for place in readers[output]}
        range_of = used.pop() if len(used) == 1 else output
        if node.op_type == "MaxPool" and range_of == output:
            ranges[output] = range_of = node.input[0]
        for index, name in enumerate(node.input):
            edges[node.name, index] = name
            ranges[node.name, index] = range_of
            readers.setdefault(name, []).append((node.name, index))
    return ranges


def _means(
    graph: Graph, edges: dict[tuple[str, int], str], exclude: tuple[str, ...]
) -> Iterator[tuple[tuple[str, int], str]]:
    """Average pools whose input nothing reads in FP32."""
    for node in graph.nodes:
        if node.op_type not in MEANS or node.name in exclude:
            continue
        if graph.is_activation(node.input[0]):
            users = graph.consumers[node.input[0]]
            others = [user for user in users if user.op_type not in MEANS]
            reads_int8 = all(
                edges.get((user.name, index)) == name
                for user in others
                for index, name in enumerate(user.input)
                if name == node.input[0]
            )
            if reads_int8 and node.input[0] not in graph.outputs and _is_spatial(graph, node):
                yield (node.name, 0), node.input[0]


def _is_spatial(graph: Graph, node: NodeProto) -> bool:
    """Whether a mean is over the picture's height and width, as a pool's is."""
    if node.op_type != "ReduceMean":
        return True
    axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
    if axes is None and len(node.input) > 1:
        value = graph.constant(node.input[1])
        axes = None if value is None else value.reshape(-1).tolist()
    shape = graph.shape(node.input[0])
    if axes is None or shape is None or len(shape) != 4:
        return False
    return sorted(axis % 4 for axis in axes) == [2, 3]
