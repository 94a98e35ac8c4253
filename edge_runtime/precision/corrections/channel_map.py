"""Finds which channels of which tensors must be scaled alike, and what takes up their scales.

Dividing a channel of a tensor by a number changes nothing at the outputs where the constants of the
layer that makes the tensor are divided by it, and those of all that read the tensor are multiplied.
What lies between, such as ReLU or a pool, passes the scale on; a residual Add wants it equal on
both sides; a sigmoid takes none. So every channel of every tensor has a label; channels that must
be scaled alike have the same one, and label 0 means that a channel keeps its scale. The rule of
each operator is in `channel_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from edge_runtime.errors import CalibrationCacheError
from edge_runtime.precision.graphs.graph import Graph, captures, reads
from edge_runtime.tensors import Array

Labels = npt.NDArray[np.int64]
"""Of the tensor's rank, with size 1 along every axis on which the label is the same all over."""

FIXED = 0
"""The label of channels that keep their scale."""


@dataclass(frozen=True)
class Factor:
    """A constant that is scaled when channels are.

    Attributes:
        node: The node that reads the constant.
        index: Which of the node's inputs it is.
        times: Labels of the scales it is multiplied by, broadcast against the constant.
        over: Labels of the scales it is divided by.
    """

    node: NodeProto
    index: int
    times: Labels
    over: Labels


@dataclass
class ChannelMap:
    """The channels of a graph.

    Attributes:
        labels: The labels of each tensor that can be scaled.
        factors: What to scale, in the order of the nodes.
        clips: For each tensor that a Clip made: the value it is clipped at. Its channels may only
            be scaled up, and only those that stay below that value.
        size: How many labels there are; they are below it.
    """

    labels: dict[str, Labels] = field(default_factory=dict)
    factors: list[Factor] = field(default_factory=list)
    clips: dict[str, float] = field(default_factory=dict)
    size: int = 1

    def vector(self, name: str, axis: int) -> Labels | None:
        """The labels of a tensor's channels along `axis`; None if it varies along others, or not.

        Args:
            name: The tensor.
            axis: The channel axis; -1 for the last.
        """
        labels = self.labels.get(name)
        if labels is None or labels.size != labels.shape[axis]:
            return None
        return labels.reshape(-1)


class Walk:
    """What the rules of the operators share while the map is made."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.map = ChannelMap()
        self._parent: list[int] = [FIXED]
        self._uses: dict[str, int] = {}
        for node in graph.nodes:
            for name in (*node.input, *captures(node), *captures(node)):  # Twice: never its own.
                self._uses[name] = self._uses.get(name, 0) + 1
        for name in graph.outputs:
            self._uses[name] = self._uses.get(name, 0) + 1

    def fresh(self, rank: int, axis: int, size: int) -> Labels:
        """Labels of a tensor of that rank whose channels along `axis` are free."""
        first = len(self._parent)
        self._parent.extend(range(first, first + size))
        shape = [1] * rank
        shape[axis] = size
        return np.arange(first, first + size, dtype=np.int64).reshape(shape)

    def labels(self, name: str) -> Labels | None:
        """A tensor's labels; zeros where it is fixed, None where not even its rank is known."""
        labels = self.map.labels.get(name)
        if labels is not None:
            return labels
        shape = self.graph.shape(name)
        return None if shape is None else np.zeros([1] * len(shape), dtype=np.int64)

    def channels(self, name: str, axis: int, size: int) -> Labels:
        """The labels of a tensor's channels, [size]; one that varies along other axes is fixed."""
        labels = self.map.labels.get(name)
        if labels is not None and labels.size == labels.shape[axis] == size:
            return labels.reshape(-1)
        self.fix(name)
        return np.zeros(size, dtype=np.int64)

    def fix(self, name: str) -> None:
        """Makes a tensor keep its scale."""
        labels = self.map.labels.get(name)
        if labels is not None:
            self.unite(labels, np.zeros(1, dtype=np.int64))

    def is_fixed(self, labels: Labels) -> bool:
        """Whether channels keep their scale, as far as is known yet."""
        return all(self._root(label) == FIXED for label in labels.reshape(-1).tolist())

    def unite(self, a: Labels, b: Labels) -> None:
        """Makes channels be scaled alike, pair by pair."""
        for one, other in np.unique(
            np.stack([side.reshape(-1) for side in np.broadcast_arrays(a, b)], axis=1), axis=0
        ).tolist():
            first, second = sorted((self._root(one), self._root(other)))
            self._parent[second] = first  # The smaller: 0 wins.

    def constant(self, node: NodeProto, index: int, *, own: bool = False) -> Array | None:
        """The FP32 constant that is input `index`; None if it is another kind, or missing.

        Args:
            node: The node.
            index: Which of its inputs.
            own: Whether it may be nobody else's constant too.
        """
        name = node.input[index] if index < len(node.input) else ""
        if not self.graph.is_float(name) or (own and self._uses[name] > 1):
            return None
        return self.graph.constant(name)

    def factor(
        self, node: NodeProto, index: int, *, times: Labels | int = 0, over: Labels | int = 0
    ) -> None:
        """Notes that a constant is scaled."""
        self.map.factors.append(Factor(node, index, np.asarray(times), np.asarray(over)))

    def finish(self) -> ChannelMap:
        """The map, in which channels that are scaled alike have the same label."""
        roots = np.array(self._parent, dtype=np.int64)
        while (deeper := roots[roots]).tolist() != roots.tolist():
            roots = deeper
        labels = {name: roots[labels] for name, labels in self.map.labels.items()}
        factors = [
            Factor(factor.node, factor.index, roots[factor.times], roots[factor.over])
            for factor in self.map.factors
        ]
        return ChannelMap(labels, factors, self.map.clips, len(roots))

    def _root(self, label: int) -> int:
        parent = self._parent
        while parent[label] != label:
            parent[label] = label = parent[parent[label]]
        return label


def fix_all(walk: Walk, node: NodeProto) -> None:
    """What holds for operators without a rule: all that they read keeps its scale."""
    for name in reads(node):
        walk.fix(name)


def scale_vector(scales: Mapping[str, Sequence[float]], channels: ChannelMap) -> Array:
    """The scale of each label, float64 [size]; 1 where none is given.

    Raises:
        CalibrationCacheError: The scales do not fit the map.
    """
    values = np.ones(channels.size)
    given = np.zeros(channels.size, dtype=bool)
    given[FIXED] = True
    for name, vector in scales.items():
        labels, scale = channels.labels.get(name), np.asarray(vector, dtype=np.float64)
        count = 0 if labels is None else labels.size
        if labels is None or count != scale.size:
            raise CalibrationCacheError(
                f"The equalization has {scale.size} channels of tensor {name!r}, and the graph "
                f"{count or 'none'} that can be scaled: it is of another graph. Calibrate again."
            )
        flat = labels.reshape(-1)
        new = ~given[flat]
        values[flat[new]] = scale[new]
        given[flat] = True
        if not (np.isfinite(scale).all() and (scale > 0).all() and (values[flat] == scale).all()):
            raise CalibrationCacheError(
                f"The equalization of tensor {name!r} is not positive, or gives channels that must "
                "be scaled alike, or not at all, other scales. Calibrate again."
            )
    return values
