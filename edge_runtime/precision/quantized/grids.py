"""Chooses the uint8 grids on which the fast CPU form of a graph computes.

ONNX Runtime computes a convolution on INT8 only where its output is quantized too. Calibration
gives the ranges of what INT8 layers read, not of what they write. Where those differ, a range
follows from what reads the tensor: the values beyond it make no difference there.

- Behind a ReLU or clip, what lies beyond its limits or beyond the range of its output is cut off.
- Pools, reshapes and concats hand values on as they are.
- Of a sum in [c, d] with another tensor in [a, b], a term counts between c - b and d - a.
- x * sigmoid(x) and hard swish in [c, d] need x up to d + 0.28, down to where they vanish.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np
from onnx import NodeProto

from edge_runtime.precision.graphs.graph import Graph, attribute, captures
from edge_runtime.precision.graphs.placement import Activation, Placement, Weight
from edge_runtime.precision.quantized.bounds import MOVES, clip_limits, gate_of, lower_bounds, op_of

TOP = 255
"""The largest level of an activation; the least is 0."""

_DENSE = ("Gemm", "MatMul")
_CLAMPS = ("Relu", "Clip")
_POOLS = ("AveragePool", "GlobalAveragePool")
_DEAD = {"Sigmoid": 8.0, "HardSigmoid": 3.0, "HardSwish": 3.0}
"""Below minus this, x * gate(x) is as good as zero: within 0.003, or exactly."""
_OVERSHOOT = 0.28  # x * gate(x) is above x - this, for positive x.


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that 8 bits of an activation stand for: (level - zero) * scale.

    Attributes:
        scale: float32, above 0.
        zero: The level of zero, which every grid holds exactly; 0 where nothing is negative.
    """

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> Grid:
        """The finest grid from `low`, at most 0, to `high`, at least 0."""
        if high <= low:
            high = 1.0
        exact = -low * TOP / (high - low)  # The level of zero, were it no whole number.
        levels = (int(exact), int(exact) + 1)
        choices = {min(max(level, int(low < 0)), TOP - int(high > 0)) for level in levels}
        zero = min(choices, key=lambda level: (_scale(low, high, level), -level))
        return cls(_scale(low, high, zero), zero)

    @property
    def low(self) -> float:
        """The value of level 0."""
        return -self.zero * self.scale

    @property
    def high(self) -> float:
        """The value of level 255."""
        return (TOP - self.zero) * self.scale


@dataclass
class Grids:
    """What of a graph computes on 8 bits.

    Attributes:
        grids: The grid of each tensor that is quantized.
        shared: Those of them that every node reads quantized; of the others INT8 layers only do.
        clamps: Names of the Relu and Clip nodes that the grid of their output does the work of.
        layers: The weights that become INT8; what reads no or writes no 8 bits stays FP32.
    """

    grids: dict[str, Grid] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    clamps: set[str] = field(default_factory=set)
    layers: list[Weight] = field(default_factory=list)


def choose_grids(graph: Graph, placement: Placement, amax: Mapping[str, float]) -> Grids:
    """Chooses the grids for a prepared graph.

    Args:
        graph: The graph.
        placement: What becomes INT8 for a GPU; nothing else does here.
        amax: The range of each of `placement.tensors`.
    """
    return _Chooser(graph, placement, amax).choose()


class _Chooser:
    def __init__(self, graph: Graph, placement: Placement, amax: Mapping[str, float]) -> None:
        self._graph = graph
        self._weights = {entry.node: entry for entry in placement.weights}
        self._kept = placement.kept.keys()
        self._bounds = lower_bounds(graph)
        self._captured = {name for node in graph.nodes for name in captures(node)}
        self._ranges = {
            tensor: (min(max(-bound, self._bounds.get(tensor, -inf)), 0.0), bound)
            for tensor, bound in _known_ranges(placement.activations, amax).items()
        }
        self._found = Grids()
        self._need: dict[str, tuple[float, float] | None] = {}
        for node in reversed(graph.nodes):  # What reads a tensor stands behind what makes it.
            for name in node.output:
                self._need[name] = self._needed(name)

    def choose(self) -> Grids:
        for node in self._graph.nodes:
            entry = self._weights.get(node.name)
            if entry is not None and not self._has_plain_bias(node):
                continue
            if entry is not None and node.op_type in _DENSE:
                self._read(node)
                self._found.layers.append(entry)
            elif entry is not None and node.op_type == "Conv":
                if self._write(node):
                    self._read(node)
                    self._found.layers.append(entry)
            elif self._passes(node):
                self._write(node)
        return self._found

    def _has_plain_bias(self, layer: NodeProto) -> bool:
        """Whether a layer adds nothing, or a constant for each channel, to its product."""
        if any(attribute(layer, name, 1.0) != 1.0 for name in ("alpha", "beta")):
            return False
        bias = layer.input[2] if len(layer.input) > 2 else ""
        tensor = self._graph.initializers.get(bias)
        axis = self._weights[layer.name].axis
        if axis is None:
            return False  # A transposed convolution, for which there is no kernel.
        channels = self._graph.initializers[layer.input[1]].dims[axis]
        return not bias or (tensor is not None and list(tensor.dims) == [channels])

    def _read(self, layer: NodeProto) -> None:
        """Quantizes what a layer reads, for this layer if it is not for all."""
        tensor = layer.input[0]
        if tensor not in self._found.grids:
            self._found.grids[tensor] = Grid.of(*self._ranges[tensor])

    def _passes(self, node: NodeProto) -> bool:
        """Whether a node that is no layer reads 8 bits alone, and ONNX Runtime has it in 8 bits."""
        op = op_of(node)
        tensors = node.input if op in ("Add", "Concat") else node.input[:1]
        known = op in MOVES or op in _POOLS or op in ("Add", "Concat")
        return known and all(name in self._found.shared for name in tensors)

    def _write(self, node: NodeProto) -> bool:
        """Quantizes what a node, or the Relu behind it, writes, if the range is known."""
        output = node.output[0]
        if op_of(node) in MOVES:
            if not self._is_free(output):
                return False
            return self._share(output, self._found.grids[node.input[0]])
        clamp = self._clamp_of(output)
        if clamp is not None:
            need = self._need[clamp.output[0]]
            limits = clip_limits(self._graph, clamp)
            if need is not None and limits[0] == 0.0:
                self._found.clamps.add(clamp.name)
                return self._share(clamp.output[0], Grid.of(0.0, min(need[1], limits[1])))
        need = self._need[output]
        return need is not None and self._share(output, Grid.of(*need))

    def _share(self, tensor: str, grid: Grid) -> bool:
        self._found.grids[tensor] = grid
        self._found.shared.add(tensor)
        return True

    def _clamp_of(self, tensor: str) -> NodeProto | None:
        """The Relu or Clip that alone reads a tensor."""
        readers = self._graph.consumers[tensor]
        if len(readers) != 1 or tensor in self._graph.outputs or tensor in self._captured:
            return None
        return readers[0] if op_of(readers[0]) in _CLAMPS else None

    def _is_free(self, tensor: str) -> bool:
        """Whether nobody wants the tensor in FP32: no output, subgraph or layer that is kept."""
        return (
            tensor not in self._graph.outputs
            and tensor not in self._captured
            and not any(reader.name in self._kept for reader in self._graph.consumers[tensor])
        )

    def _needed(self, tensor: str) -> tuple[float, float] | None:
        """Between what the values of a tensor count; None where that is not known."""
        if not self._is_free(tensor) or not self._graph.is_float(tensor):
            return None
        if tensor in self._ranges:
            return self._ranges[tensor]
        low, high = 0.0, 0.0
        for reader in self._graph.consumers[tensor]:
            need = self._needed_by(reader, tensor)
            if need is None:
                return None
            low, high = min(low, need[0]), max(high, need[1])
        return (max(low, min(self._bounds.get(tensor, -inf), 0.0)), high) if high > low else None

    def _needed_by(self, reader: NodeProto, tensor: str) -> tuple[float, float] | None:
        op = op_of(reader)
        if op in _DEAD:
            product = self._gated(reader) if op != "HardSwish" else reader
            need = self._need[product.output[0]] if product is not None else None
            return None if need is None else (-_DEAD[op], need[1] + _OVERSHOOT)
        gate = gate_of(self._graph, reader)
        if gate is not None:
            return self._needed_by(gate, tensor) if gate.input[0] == tensor else None
        need = self._need[reader.output[0]] if reader.output else None
        if need is None:
            return None
        if op in _CLAMPS:
            low, high = clip_limits(self._graph, reader)
            return max(need[0], min(low, 0.0)), min(need[1], max(high, 0.0))
        if op in MOVES or op == "Concat":
            return need
        if op == "Add" and len(set(reader.input)) == 2:
            other = next(name for name in reader.input if name != tensor)
            if other in self._ranges:
                low, high = self._ranges[other]
                return min(need[0] - high, 0.0), max(need[1] - low, 0.0)
        return None

    def _gated(self, gate: NodeProto) -> NodeProto | None:
        """The Mul that alone reads a gate and makes x * gate(x) of it."""
        readers = self._graph.consumers[gate.output[0]]
        if len(readers) == 1 and gate_of(self._graph, readers[0]) is gate:
            return readers[0]
        return None


def _scale(low: float, high: float, zero: int) -> float:
    """The least float32 scale with which a grid of that zero reaches both ends."""
    above = high / (TOP - zero) if high > 0 else 0.0
    below = -low / zero if low < 0 else 0.0
    return float(np.float32(max(above, below, float(np.finfo(np.float32).tiny))))


def _known_ranges(activations: list[Activation], amax: Mapping[str, float]) -> dict[str, float]:
    """The calibrated range of each tensor that is read as INT8: its own, else one it shares."""
    ranges: dict[str, float] = {}
    for entry in activations:
        ranges[entry.tensor] = max(ranges.get(entry.tensor, 0.0), amax[entry.range_of])
    return {tensor: amax.get(tensor, bound) for tensor, bound in ranges.items()}
