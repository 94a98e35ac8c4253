"""Writes a layer as products of matrices: the rows that its weights multiply, taken from its input.

A Conv's rows are the patches under its kernel (im2col), a ConvTranspose's those of its input with
zeros between the values, under the flipped kernel. Each group of channels is a product of its own:
outputs [groups, rows, channels] = rows [groups, rows, columns] @ matrix [groups, channels, columns]
transposed, before bias and Gemm's alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
from onnx import NodeProto

from edge_runtime.precision.graphs.graph import attribute
from edge_runtime.tensors import Array


class LayerRows(Protocol):
    """How to read a layer as products of matrices."""

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """Groups, channels of each and columns."""

    def matrix(self, weight: Array) -> Array:
        """The layer's weights, or their levels, as [groups, channels, columns]."""

    def weight(self, matrix: Array) -> Array:
        """The inverse of `matrix`."""

    def rows(self, values: Array, count: int, random: np.random.Generator) -> Array:
        """At most `count` rows of what the layer reads.

        Args:
            values: One sample of the layer's input, FP32; it stays as it is.
            count: The most rows to take.
            random: Where in each stretch of the sample a row is taken.

        Returns:
            A new array, float32 [groups, rows, columns].
        """


def layer_rows(node: NodeProto, weight_shape: Sequence[int]) -> LayerRows | None:
    """How a Conv, ConvTranspose, Gemm or MatMul with constant weights is read.

    None for a ConvTranspose that says how large its output is and not its padding.
    """
    shape = tuple(weight_shape)
    if node.op_type in ("Gemm", "MatMul"):
        return _Dense(shape, bool(node.op_type == "Gemm" and attribute(node, "transB", 0)))
    spatial = len(shape) - 2
    auto_pad = str(attribute(node, "auto_pad", "NOTSET"))
    is_transposed = node.op_type == "ConvTranspose"
    if is_transposed and (_ints(node, "output_shape", ()) or auto_pad.startswith("SAME")):
        return None
    return _Windows(
        shape=shape,
        groups=int(attribute(node, "group", 1)),
        strides=_ints(node, "strides", (1,) * spatial),
        dilations=_ints(node, "dilations", (1,) * spatial),
        pads=_ints(node, "pads", (0,) * 2 * spatial),
        auto_pad=auto_pad,
        is_transposed=is_transposed,
        output_padding=_ints(node, "output_padding", (0,) * spatial),
    )


@dataclass(frozen=True)
class _Dense:
    """A Gemm or MatMul: its input's last axis are the columns."""

    shape: tuple[int, ...]
    is_transposed: bool

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        channels, columns = self.shape if self.is_transposed else self.shape[::-1]
        return 1, channels, columns

    def matrix(self, weight: Array) -> Array:
        return (weight if self.is_transposed else weight.T)[None]

    def weight(self, matrix: Array) -> Array:
        return np.ascontiguousarray(matrix[0] if self.is_transposed else matrix[0].T)

    def rows(self, values: Array, count: int, random: np.random.Generator) -> Array:
        rows = values.reshape(-1, values.shape[-1])
        return np.asarray(rows[_spread(len(rows), count, random)][None], dtype=np.float32)


@dataclass(frozen=True)
class _Windows:
    """A Conv or ConvTranspose over any number of axes."""

    shape: tuple[int, ...]
    groups: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str
    is_transposed: bool
    output_padding: tuple[int, ...]

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        groups = self.groups
        if self.is_transposed:
            return groups, self.shape[1], self.shape[0] // groups * prod(self._kernel)
        return groups, self.shape[0] // groups, prod(self.shape[1:])

    @property
    def _kernel(self) -> tuple[int, ...]:
        return self.shape[2:]

    def matrix(self, weight: Array) -> Array:
        if not self.is_transposed:
            return weight.reshape(self.groups, self.shape[0] // self.groups, -1)
        flipped = np.flip(weight, tuple(range(2, weight.ndim)))
        split = flipped.reshape(self.groups, -1, *self.shape[1:])
        return np.swapaxes(split, 1, 2).reshape(self.groups, self.shape[1], -1)

    def weight(self, matrix: Array) -> Array:
        if not self.is_transposed:
            return matrix.reshape(self.shape)
        split = matrix.reshape(self.groups, self.shape[1], -1, *self._kernel)
        weight = np.swapaxes(split, 1, 2).reshape(self.shape)
        return np.ascontiguousarray(np.flip(weight, tuple(range(2, weight.ndim))))

    def rows(self, values: Array, count: int, random: np.random.Generator) -> Array:
        padded, steps = self._padded(values)
        reach = [(k - 1) * d for k, d in zip(self._kernel, self.dilations, strict=True)]
        sizes = [
            (size - far - 1) // step + 1
            for size, far, step in zip(padded.shape[2:], reach, steps, strict=True)
        ]
        chosen = _spread(values.shape[0] * prod(sizes), count, random)
        sample, *places = np.unravel_index(chosen, (values.shape[0], *sizes))
        rank = padded.ndim
        index = [_along(sample, 0, rank), _along(np.arange(padded.shape[1]), 1, rank)]
        for axis, (place, step, k, gap) in enumerate(
            zip(places, steps, self._kernel, self.dilations, strict=True), 2
        ):
            index.append(_along(place * step, 0, rank) + _along(np.arange(k) * gap, axis, rank))
        rows = padded[tuple(index)]  # [rows, channels, *kernel]
        return np.ascontiguousarray(
            np.swapaxes(rows.reshape(len(chosen), self.groups, -1), 0, 1), dtype=np.float32
        )

    def _padded(self, values: Array) -> tuple[Array, tuple[int, ...]]:
        """The input with its padding, and the step from one row's window to the next."""
        spatial = len(self._kernel)
        before, after = list(self.pads[:spatial]), list(self.pads[spatial:])
        steps = self.strides
        if self.is_transposed:
            stretched = [(n - 1) * s + 1 for n, s in zip(values.shape[2:], steps, strict=True)]
            apart = np.zeros((*values.shape[:2], *stretched), dtype=np.float32)
            apart[(slice(None), slice(None), *(slice(None, None, s) for s in steps))] = values
            reach = [(k - 1) * d for k, d in zip(self._kernel, self.dilations, strict=True)]
            before = [far - pad for far, pad in zip(reach, before, strict=True)]
            after = [
                far - pad + extra
                for far, pad, extra in zip(reach, after, self.output_padding, strict=True)
            ]
            values, steps = apart, (1,) * spatial
        elif self.auto_pad.startswith("SAME"):
            before, after = self._same(values.shape[2:])
        inside = tuple(
            slice(max(-first, 0), size - max(-last, 0))
            for first, last, size in zip(before, after, values.shape[2:], strict=True)
        )
        widths = [(max(a, 0), max(b, 0)) for a, b in zip(before, after, strict=True)]
        return np.pad(values[(slice(None), slice(None), *inside)], [(0, 0), (0, 0), *widths]), steps

    def _same(self, sizes: Sequence[int]) -> tuple[list[int], list[int]]:
        """The padding that makes the output as large as the input, divided by the stride."""
        before, after = [], []
        for size, k, step, gap in zip(
            sizes, self._kernel, self.strides, self.dilations, strict=True
        ):
            total = max((-(-size // step) - 1) * step + (k - 1) * gap + 1 - size, 0)
            less, more = total // 2, total - total // 2
            upper = self.auto_pad == "SAME_UPPER"
            before.append(less if upper else more)
            after.append(more if upper else less)
        return before, after


def _spread(total: int, count: int, random: np.random.Generator) -> Array:
    """At most `count` of `total` places, one in each of as many equal stretches.

    Where in the stretch is random: equal steps might all fall into one column of a picture.
    """
    if total <= count:
        return np.arange(total)
    places = (np.arange(count) + random.random(count)) * (total / count)
    return np.minimum(places.astype(np.intp), total - 1)


def _along(values: Array, axis: int, rank: int) -> Array:
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def _ints(node: NodeProto, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """A list attribute of a node; empty means the default too."""
    return next((tuple(a.ints) for a in node.attribute if a.name == name and a.ints), default)
