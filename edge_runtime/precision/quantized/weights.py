"""Rounds FP32 weights to symmetric INT8, one scale a tensor or one for each output channel.

What a convolution reads hardly changes from one place under its kernel to the next. So the errors
of a kernel's weights should cancel each other, rather than each be least: of those that add to the
excess, the ones nearest to the middle between two levels take the other (the step over kernels of
SQuant, Guo et al. 2022, arXiv 2202.07471). Nothing but the weights is needed for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias

import numpy as np

from edge_runtime.errors import ModelError
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import Placement, Weight
from edge_runtime.precision.halves.half_scales import half_scale
from edge_runtime.precision.halves.half_types import HalfType
from edge_runtime.precision.ranging.ranges import LEVELS
from edge_runtime.tensors import Array

_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)

_KERNELS = 1 << 14  # To balance at a time, so that what is computed of them stays in the cache.

_DEAD = 2.0**-24
"""A channel so much smaller than the largest of its tensor is dead, as batch normalisation leaves
some: half precision need not hold it well."""


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight in INT8.

    Attributes:
        levels: int8, of the weight's shape.
        scale: float32, a scalar or one for each index along `axis`.
        axis: The axis of the output channels; None for one scale.
    """

    levels: Array
    scale: Array
    axis: int | None

    @property
    def dequantized(self) -> Array:
        """The float32 values that the levels stand for, of the weight's shape."""
        scale: Array = self.scale
        if self.axis is not None:
            scale = scale.reshape(along(self.levels.ndim, self.axis))
        values: Array = self.levels.astype(np.float32) * scale
        return values


WeightKey: TypeAlias = tuple[str, "int | None"]
"""An initialiser and the axis of its scales: two layers may read one with different axes."""

Weights: TypeAlias = Mapping[WeightKey, QuantizedWeight]


def quantize_weights(
    graph: Graph, placement: Placement, *, levels: int = LEVELS, half: HalfType | None = None
) -> dict[WeightKey, QuantizedWeight]:
    """Rounds every weight of a placement; those of a Conv's kernel so that their errors cancel.

    Args:
        graph: The graph for which `placement` was made.
        placement: What becomes INT8.
        levels: The largest level: 127, or 63 for 7 bits.
        half: The type of what is not INT8, if not FP32: scales are numbers of that type, but for
            those of a weight that has channels too small for it.

    Raises:
        ModelError: A weight is NaN or infinite.
    """
    operators = {node.name: node.op_type for node in graph.nodes}
    rounded = {}
    for entry in placement.weights:
        weight = finite_weight(graph, entry)
        found = quantize_weight(weight, entry.axis, levels=levels, half=half)
        if operators[entry.node] == "Conv" and prod(weight.shape[2:]) > 1:
            found = balance_kernels(weight, found, levels=levels)
        rounded[entry.tensor, entry.axis] = found
    return rounded


def finite_weight(graph: Graph, entry: Weight) -> Array:
    """The FP32 values of a weight.

    Raises:
        ModelError: One is NaN or infinite.
    """
    weight = graph.constant(entry.tensor)
    assert weight is not None, entry
    if not np.isfinite(weight).all():
        raise ModelError(
            f"The weights {entry.tensor!r} of node {entry.node!r} hold NaN or infinity, "
            "which INT8 cannot. Export the model again, or exclude the node."
        )
    return weight


def quantize_weight(
    weight: Array, axis: int | None, *, levels: int = LEVELS, half: HalfType | None = None
) -> QuantizedWeight:
    """Rounds an FP32 array to its nearest levels.

    The scale is the largest absolute value / `levels`, where all is zero 1 / `levels`. With `half`
    it is near that, a number of the type, if `half_scale` finds one for each channel.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis) if axis is not None else None
    amax = np.abs(weight).max(axis=others)
    scale = scale_of(amax, levels=levels)
    if half is not None:
        dead = float(amax.max()) / levels * _DEAD
        fitting = half_scale(scale, half, levels=levels, negligible=dead)
        scale = scale if fitting is None else fitting
    shaped = scale.reshape(along(weight.ndim, axis)) if axis is not None else scale
    rounded = np.clip(np.rint(weight / shaped), -levels, levels).astype(np.int8)
    return QuantizedWeight(rounded, scale, axis)


def balance_kernels(
    weight: Array, rounded: QuantizedWeight, *, levels: int = LEVELS
) -> QuantizedWeight:
    """Moves levels by one, where needed, so that the errors of each kernel sum up to half a step.

    Args:
        weight: The FP32 weights of a Conv, [outputs, inputs, *kernel].
        rounded: They at their nearest levels, with a scale for each output.
        levels: The largest level.

    Returns:
        Weights with the same scales.
    """
    kernel, count = prod(weight.shape[2:]), weight.shape[1]
    flat = rounded.levels.reshape(-1, kernel).copy()
    given = weight.reshape(-1, kernel)
    scales = rounded.scale.repeat(count)
    for start in range(0, len(flat), _KERNELS):
        part = slice(start, start + _KERNELS)
        # Weight by weight of many kernels: rows are as short as a kernel, and slow to add up.
        found = np.ascontiguousarray(flat[part].T)
        _balance(found, found - given[part].T / scales[part], levels)
        flat[part] = found.T
    return replace(rounded, levels=flat.reshape(weight.shape))


def _balance(found: Array, errors: Array, levels: int) -> None:
    """Moves int8 levels [kernel, kernels] in place; `errors`, float32, are theirs and change too.

    Where no level can move any further, a sum stays as it is.
    """
    left = np.flatnonzero(np.abs(errors.sum(axis=0)) > 0.5)
    while left.size:  # A move changes a sum by 1: as many rounds as the largest has steps.
        some = errors[:, left]
        excess = np.where(some.sum(axis=0) > 0, 1, -1).astype(np.int8)
        some *= excess
        some[found[:, left] * excess <= -levels] = 0
        place = some.argmax(axis=0)
        can = some[place, np.arange(left.size)] > 0
        left, place, excess = left[can], place[can], excess[can]
        found[place, left] -= excess
        errors[place, left] -= excess
        left = left[np.abs(errors[:, left].sum(axis=0)) > 0.5]


def scale_of(amax: Array | float, *, levels: int = LEVELS) -> Array:
    """The float32 scale of a range; a range of zero counts as one of 1.0."""
    bound = np.asarray(amax, dtype=np.float64)
    scale = np.where(bound > 0, bound, 1.0) / levels
    return np.maximum(scale, _SMALLEST_SCALE).astype(np.float32)


def along(rank: int, axis: int) -> list[int]:
    """The shape in which a vector along `axis` is broadcast over `rank` dimensions."""
    shape = [1] * rank
    shape[axis] = -1
    return shape
