"""What each node of a bundle's graph computes and moves, at the sizes of one inference.

The sizes are observed: the CPU runs the graph once, as it is written, and keeps no values. Where
the CPU runs a twin of it, the sizes are the twin's, and those of what the twin lacks follow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from edge_runtime.backends.cpu import trace
from edge_runtime.backends.onnx_graph import GraphNode, OnnxGraph, casts, read_graph, weights
from edge_runtime.backends.registry import cpu_graph
from edge_runtime.bundle import GRAPH, Bundle
from edge_runtime.config import CpuMode
from edge_runtime.tensors import Feeds

_WEIGHT = {"Conv": 1, "ConvInteger": 1, "ConvTranspose": 1, "QLinearConv": 3}
"""Which input of a convolution is its kernel."""

_SECOND = {**_WEIGHT, "Gemm": 1, "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3}
"""Operators whose sums are counted, and which input is the second factor."""

_UNCOUNTED = (
    *("Attention", "DeformConv", "Einsum", "GRU", "GroupQueryAttention", "If", "Loop", "LSTM"),
    *("MultiHeadAttention", "RNN", "RotaryEmbedding", "Scan"),
)
"""Operators that multiply and accumulate, or may, in ways that are not counted here."""

_BYTES = {
    **dict.fromkeys(("float64", "int64", "uint64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool"), 1),
}

_QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
_SHAPES = ("Shape", "Size")  # These read no values.

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8"}
"""What types are called as precisions, where that is not their own name."""

Shape = Sequence[int]


def multiply_accumulates(op: str, inputs: Sequence[Shape], output: Shape) -> int | None:
    """How often a node multiplies two numbers and adds the product to a sum.

    Args:
        op: Its operator.
        inputs: Shapes of its inputs. Kernels of Conv are [M, C/group, ...], of ConvTranspose
            [C, M/group, ...].
        output: Shape of its first output.

    Returns:
        The number; 0 for an operator that has no such sums to speak of, None for one whose sums
        are not counted.
    """
    if op in _WEIGHT:
        elements = inputs[0] if op == "ConvTranspose" else output
        return prod(elements) * prod(inputs[_WEIGHT[op]][1:])
    if op == "Gemm":  # The first matrix has M K elements, transposed or not.
        return prod(inputs[0]) * output[-1]
    if op in _SECOND:
        return prod(output) * inputs[0][-1]
    return None if op in _UNCOUNTED else 0


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of one inference.

    Attributes:
        dtype: Its element type.
        shape: Its shape.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int | None:
        """Its size; None where the type has none, such as strings."""
        size = _BYTES.get(self.dtype)
        return None if size is None else prod(self.shape) * size


@dataclass(frozen=True, slots=True)
class GroupWork:
    """What nodes that run as one compute, and move to and from the memory.

    Attributes:
        macs: Multiply-accumulates; None where some are not counted.
        weight_bytes: Size of the constants that they read; None where one is unknown.
        activation_bytes: Size of what they read of other nodes and inputs, and of what others or
            the caller read of them; None where one is unknown.
        precision: In which they multiply, such as `int8` or `fp32`: that of the wider factor as it
            comes into the group; None where they multiply nothing, or it is unknown.
    """

    macs: int | None
    weight_bytes: int | None
    activation_bytes: int | None
    precision: str | None


class GraphWork:
    """The work of a graph's nodes at the sizes of one inference.

    Args:
        graph: The graph.
        tensors: Its tensors, as far as they are known, by name.
    """

    def __init__(self, graph: OnnxGraph, tensors: Mapping[str, Tensor]) -> None:
        self.graph = graph
        self._tensors = tensors
        self._nodes = {node.label: node for node in graph.nodes}
        self._makers = {name: node for node in graph.nodes for name in node.outputs}
        self._readers: dict[str, set[str]] = {}
        varying = set(graph.inputs)
        for node in graph.nodes:
            reads = _reads(node)
            for name in reads:
                self._readers.setdefault(name, set()).add(node.label)
            if not varying.isdisjoint(reads):
                varying.update(node.outputs)
        self._varying = varying

    def is_constant(self, node: GraphNode) -> bool:
        """Whether it depends on no input of the model, so that it may be computed at loading."""
        return self._varying.isdisjoint(node.outputs)

    def operator(self, labels: Iterable[str]) -> str:
        """The operator that stands for a group: that of most sums, else the first plain one."""
        nodes = [self._nodes[label] for label in labels]
        rank = [(self._macs(node) or 0, node.op not in _QUANTIZING) for node in nodes]
        return nodes[rank.index(max(rank))].op if nodes else ""

    def of(self, labels: Sequence[str], unplaced: Collection[str] = ()) -> GroupWork:
        """The work of a group of nodes, of which what only they read stays inside.

        Args:
            labels: The group.
            unplaced: Nodes of which nobody knows in what group they run. What passes between them
                and this group may never leave it, so that its size counts as unknown.
        """
        nodes = [self._nodes[label] for label in labels]
        made = {name for node in nodes for name in node.outputs}
        read = set().union(*(_reads(node) for node in nodes if node.op not in _SHAPES)) - made
        left = {name for name in made & self._varying if self._leaves(name, set(labels))}
        passed = {n for n in read if n in self._makers and self._makers[n].label in unplaced}
        passed.update(n for n in left if not self._readers.get(n, set()).isdisjoint(unplaced))
        known = {name: size for name, size in self._tensors.items() if name not in passed}
        macs = [self._macs(node) for node in nodes]
        return GroupWork(
            macs=None if None in macs else sum(count for count in macs if count is not None),
            weight_bytes=_bytes(read - self._varying, known),
            activation_bytes=_bytes(read & self._varying | left, known),
            precision=self._precision(nodes, made, known),
        )

    def _leaves(self, name: str, group: set[str]) -> bool:
        """Whether others read what a group makes.

        Layers that read the same integers each dequantize them for themselves.
        """
        readers = self._readers.get(name, set())
        if name in self.graph.outputs:
            return True
        if self._makers[name].op == "DequantizeLinear" and readers & group:
            return False
        return not readers <= group

    def _macs(self, node: GraphNode) -> int | None:
        if node.op not in _SECOND:
            return None if node.op in _UNCOUNTED else 0
        tensors = [self._tensors.get(name) for name in (*node.inputs, node.outputs[0])]
        shapes = [tensor.shape for tensor in tensors if tensor is not None]
        if len(shapes) < len(tensors):
            return None
        return multiply_accumulates(node.op, shapes[:-1], shapes[-1])

    def _precision(
        self, nodes: Sequence[GraphNode], made: set[str], known: Mapping[str, Tensor]
    ) -> str | None:
        """Of the group's first node that multiplies and accumulates."""
        node = next((node for node in nodes if node.op in _SECOND), None)
        if node is None:
            return None
        operands = (node.inputs[0], node.inputs[_SECOND[node.op]])
        factors = [known.get(self._origin(name, made)) for name in operands]
        kinds = [tensor.dtype for tensor in factors if tensor and tensor.dtype in _BYTES]
        if len(kinds) < len(factors):
            return None
        widest = max(kinds, key=lambda kind: _BYTES[kind])
        return _PRECISIONS.get(widest, widest)

    def _origin(self, name: str, made: set[str]) -> str:
        """What a tensor is dequantized from inside of the group; else the tensor itself."""
        maker = self._makers.get(name)
        inside = maker is not None and name in made and maker.op == "DequantizeLinear"
        return maker.inputs[0] if maker is not None and inside else name


def _bytes(names: Iterable[str], tensors: Mapping[str, Tensor]) -> int | None:
    sizes = [tensors[name].bytes if name in tensors else None for name in names]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def graph_work(bundle: Bundle, feeds: Feeds, *, plan: bool, cpu_mode: CpuMode) -> GraphWork:
    """The work of the nodes of what runs.

    Args:
        bundle: The bundle.
        feeds: The inputs of the inference, as numpy arrays.
        plan: Whether a plan runs, which is built of the bundle's main graph.
        cpu_mode: Else, in which mode a CPU runs.

    Raises:
        BundleError: The bundle is damaged or was replaced.
        InferenceError: The graph cannot run on these inputs.
    """
    runs = cpu_graph(bundle, CpuMode.EXACT if plan else cpu_mode)
    data = bundle.read(runs)
    graph = read_graph(data)
    tensors: dict[str, Tensor] = {}
    kernels = {kernel.name: kernel for kernel in trace(data, feeds)}
    for node in graph.nodes:
        kernel = kernels.get(node.name) if node.name else None
        if kernel is None:
            continue
        for names, sizes in ((node.inputs, kernel.inputs), (node.outputs, kernel.outputs)):
            if len(names) == len(sizes):  # What is no tensor, such as a sequence, is left out.
                tensors.update((n, Tensor(*size)) for n, size in zip(names, sizes, strict=True))
    if not plan or runs == GRAPH:
        return GraphWork(graph, tensors)
    main = bundle.read(GRAPH)
    graph = read_graph(main)
    return GraphWork(graph, _with_own(graph, main, tensors))


def _with_own(graph: OnnxGraph, data: bytes, twin: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a graph, of whose twin these are; what both have is of one type and shape."""
    own = {name: Tensor(dtype, shape) for name, (dtype, shape) in weights(data).items()}
    found = {**twin, **own}
    made = casts(data)
    for node in graph.nodes:
        if node.op not in ("Cast", *_QUANTIZING) or node.outputs[0] in found:
            continue
        # A number has the type of the zero point, or once dequantized, of the scale.
        kind = {"QuantizeLinear": 2, "DequantizeLinear": 1}.get(node.op)
        source = found.get(node.inputs[0])
        like = found.get(node.inputs[kind]) if kind and kind < len(node.inputs) else None
        dtype = like.dtype if like else made.get(node.outputs[0])
        if source is not None and dtype is not None:
            found[node.outputs[0]] = Tensor(dtype, source.shape)
    return found


def _reads(node: GraphNode) -> set[str]:
    """What it and the nodes inside of it read."""
    return {*node.inputs, *(name for inner in node.inner for name in _reads(inner))}
