"""Observes each channel of a tensor over samples: its largest value, mean and mean square."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from edge_runtime.data import Samples
from edge_runtime.data.samples import spread
from edge_runtime.precision.corrections.channel_map import ChannelMap
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import Placement
from edge_runtime.tensors import Array, Feeds

_MOST = 32
_FEWEST = 8
_INPUT_VALUES = 1 << 21  # Of all samples together: 16 pictures of 3 x 224 x 224 are about that.
_SQUARES_BELOW = 1e15  # Sums of squares of larger values could exceed FP32.


@dataclass(frozen=True)
class ChannelStats:
    """What was seen of the channels of a tensor.

    Attributes:
        axis: The channel axis: 1 for what a Conv reads, the last for what a Gemm or MatMul reads.
        amax: float64 [channels], the largest absolute value of each.
        runner_up: float64 [channels]: of the largest absolute value of each sample, the second
            largest. Far below `amax`, it says that other samples may exceed `amax` as far.
        top: float64 [channels], the largest value of each.
        mean: float64 [channels].
        mean_square: float64 [channels].
        nonzero: float64 [channels], the share of values other than 0, which INT8 holds exactly.
    """

    axis: int
    amax: Array
    runner_up: Array
    top: Array
    mean: Array
    mean_square: Array
    nonzero: Array


def channel_counters(
    graph: Graph, placement: Placement, channels: ChannelMap
) -> dict[str, ChannelCounter]:
    """What counts the channels of the tensors that INT8 layers read, or that can be scaled.

    Args:
        graph: A prepared graph.
        placement: What becomes INT8.
        channels: Those of this graph.
    """
    by_node = {node.name: node for node in graph.nodes}
    found: dict[str, ChannelCounter] = {}
    for weight in placement.weights:
        node = by_node[weight.node]
        is_conv = node.op_type in ("Conv", "ConvTranspose")
        found.setdefault(node.input[0], ChannelCounter(1 if is_conv else -1))
    for name in [*channels.clips, *placement.tensors]:
        labels = channels.labels.get(name)
        if labels is not None and labels.any() and labels.size == max(labels.shape):
            found.setdefault(name, ChannelCounter(int(np.argmax(labels.shape))))
    return found


def channel_places(samples: Samples, *, skip: Container[int] = ()) -> list[int]:
    """Indices of the samples to count channels on, evenly spread: 32 at most, 8 of large ones.

    Args:
        samples: All samples.
        skip: Indices of samples that are left out.
    """
    first: Feeds = next(iter(samples), {})
    values = sum(prod(array.shape) for array in first.values())
    limit = min(max(_INPUT_VALUES // max(values, 1), _FEWEST), _MOST)
    left = [index for index in range(len(samples)) if index not in skip]
    return [left[place] for place in spread(len(left), limit)]


def channel_stats(counters: Mapping[str, ChannelCounter]) -> dict[str, ChannelStats]:
    """What was seen of each tensor, in the order of the graph.

    A tensor without any values, or whose number of channels differs between samples, is left out.
    """
    found = {name: counter.stats() for name, counter in counters.items()}
    return {name: stats for name, stats in found.items() if stats is not None}


def dead_channels(stats: Mapping[str, ChannelStats]) -> dict[str, list[int]]:
    """The channels of each tensor that were zero throughout; tensors without any are left out."""
    dead = {name: np.flatnonzero(seen.amax == 0).tolist() for name, seen in stats.items()}
    return {name: channels for name, channels in dead.items() if channels}


def constant_channels(stats: Mapping[str, ChannelStats]) -> dict[str, list[int]]:
    """The channels of each tensor that had one value throughout, other than zero."""
    found = {}
    for name, seen in stats.items():
        spread = seen.mean_square - seen.mean**2
        flat = (seen.amax > 0) & (seen.amax <= np.abs(seen.mean) * (1 + 1e-6))
        channels = np.flatnonzero(flat & (spread <= 1e-6 * seen.mean_square)).tolist()
        if channels:
            found[name] = channels
    return found


class ChannelCounter:
    """Counts the channels of one tensor along an axis; -1 is the last."""

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._count = 0
        self._bounds: Array | None = None  # Top, amax and the second largest, by channel.
        self._sums: Array | None = None  # Of values, squares and nonzeros.
        self._differs = False

    def add(self, values: Array) -> None:
        """Counts an FP32 array, which stays as it is.

        Raises:
            ValueError: A value is infinite or NaN.
        """
        if values.size == 0 or self._differs or values.ndim < 2:
            return
        self._axis %= values.ndim
        channels = values.shape[self._axis]
        before, after = prod(values.shape[: self._axis]), prod(values.shape[self._axis + 1 :])
        blocks = np.ascontiguousarray(values).reshape(before, channels, after)
        bounds, sums = _moments(blocks, values.shape[0] if self._axis else 1)
        if self._sums is not None and self._sums.shape != sums.shape:
            self._differs = True
            return
        self._sums = sums if self._sums is None else self._sums + sums
        self._count += before * after
        top, amax, second = bounds
        if self._bounds is not None:
            top = np.maximum(top, self._bounds[0])
            second = np.maximum(
                np.minimum(amax, self._bounds[1]), np.maximum(second, self._bounds[2])
            )
            amax = np.maximum(amax, self._bounds[1])
        self._bounds = np.stack([top, amax, second])

    def stats(self) -> ChannelStats | None:
        """What was seen; None if nothing was."""
        if self._bounds is None or self._sums is None or self._differs:
            return None
        top, amax, second = self._bounds
        mean, mean_square, nonzero = self._sums / self._count
        return ChannelStats(self._axis, amax, second, top, mean, mean_square, nonzero)


def _moments(blocks: Array, items: int) -> tuple[Array, Array]:
    """What to keep of [before, channels, after], where `before` starts with `items` samples.

    Returns:
        For each channel the largest value, the largest absolute one and that of the second sample,
        float64 [3, channels]; the sums of values, squares and nonzeros, float64 [3, channels].

    Raises:
        ValueError: A value is infinite or NaN.
    """
    before, channels, after = blocks.shape
    shape, axis, kept = ((before, channels), 0, "c") if after == 1 else ((-1, after), 1, "r")
    high, low = blocks.max(axis=2), blocks.min(axis=2)
    if not (np.isfinite(high).all() and np.isfinite(low).all()):  # A NaN is in both.
        raise ValueError("a value is infinite or NaN")
    most = np.maximum(high, -low).astype(np.float64)
    by_item = np.sort(most.reshape(items, -1, channels).max(axis=1), axis=0)
    second = by_item[-2] if items > 1 else np.zeros(channels)
    rows = blocks.reshape(shape)
    if by_item[-1].max() > _SQUARES_BELOW:
        rows = rows.astype(np.float64)
    squares = np.einsum(f"rc,rc->{kept}", rows, rows)
    parts = (rows.sum(axis), squares, np.count_nonzero(rows != 0, axis))
    sums = [part.astype(np.float64).reshape(-1, channels).sum(axis=0) for part in parts]
    top = high.max(axis=0).astype(np.float64)
    return np.stack([top, by_item[-1], second]), np.stack(sums)
