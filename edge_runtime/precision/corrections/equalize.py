"""Scales unequal channels alike, which changes what INT8 loses and not what the graph computes.

INT8 has one step for all channels of an activation: a channel that is 20 times weaker than the
strongest keeps 4 bits less. Dividing every channel by a number of its own, in the layer that makes
it, and multiplying the weights of the layers that read it, makes channels alike (Nagel et al. 2019,
arXiv 1906.04721), at the cost of weights that differ more. What is best for both is between the
channels' own ranges and the inverse of their weights (Xiao et al. 2022, arXiv 2211.10438); of that
family the scales are taken whose predicted error is least, where it is clearly less than without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto

from edge_runtime.errors import CalibrationCacheError
from edge_runtime.precision.corrections.channel_map import FIXED, ChannelMap, Factor, scale_vector
from edge_runtime.precision.corrections.channel_rules import map_channels
from edge_runtime.precision.corrections.equalize_cost import Reading, expected, readings
from edge_runtime.precision.graphs.constants import write_constant
from edge_runtime.precision.graphs.graph import Graph, Names
from edge_runtime.precision.graphs.placement import Placement
from edge_runtime.precision.observing.channels import ChannelStats
from edge_runtime.tensors import Array

_ENOUGH = 1 / 3
"""Scales are used where the predicted error falls to that share. On trained nets whose channels are
as their training left them smaller gains are not seen at the outputs."""

_ENOUGH_CLIPPED = 0.25  # Where a Clip could come to clip what it did not: more is at stake.
_MARGIN = 4.0  # Of a Clip's channels: what is expected of them is to stay below a fourth of it.
_COMMON = 0.95  # Share of a tensor's channels whose unsteadiness all of them are taken to have.
_POWERS = np.linspace(0.0, 1.0, 9)
_SHIFTS = (0.25, 0.5, 0.75, 0.9, 1.0)
_WEAKEST = 2.0**-10  # Of a tensor's strongest channel; weaker ones are not scaled up further.


def choose_scales(
    graph: Graph,
    placement: Placement,
    channels: ChannelMap,
    stats: Mapping[str, ChannelStats],
) -> dict[str, tuple[float, ...]]:
    """What each channel of a tensor should be divided by, for the tensors where that helps.

    Channels behind a Clip, such as ReLU6, are only scaled up, and only if samples that exceed what
    was seen 4 times over still stay below the limit: what calibration saw is clipped as before.

    Args:
        graph: A prepared graph.
        placement: What becomes INT8.
        channels: Those of this graph.
        stats: What was seen of them.

    Returns:
        For `apply_scales`: of the tensors that must be scaled together, the first.
    """
    lowest, highest = _bounds(channels, stats)
    scales = np.ones(channels.size)
    for group in _groups(readings(graph, placement, channels, stats), channels.size):
        labels, best = _best(group, lowest, highest)
        scales[labels] = best
    return _by_tensor(channels, scales)


def apply_scales(proto: ModelProto, scales: Mapping[str, Sequence[float]]) -> None:
    """Divides the channels of tensors, in place: their producers' weights by it, readers' times it.

    All outputs stay as they are but for FP32 rounding, and for what a Clip clips that has channels
    scaled up; see `choose_scales`. Tensors and initialisers keep their names.

    Args:
        proto: A prepared model.
        scales: For each tensor what its channels are divided by; tensors that must be scaled with
            it follow.

    Raises:
        CalibrationCacheError: A tensor is not there, has another number of channels, or cannot be
            scaled: the scales are of another graph.
    """
    if not scales:
        return
    graph, names = Graph(proto), Names(proto)
    channels = map_channels(graph)
    values = scale_vector(scales, channels)
    for name in channels.clips:
        if (values[channels.labels[name]] > 1).any():
            raise CalibrationCacheError(
                f"The equalization scales channels of {name!r} down, which would change what is "
                "clipped there. Calibrate again."
            )
    for factor in channels.factors:
        _scale(graph, names, factor, values)


def divisors(channels: ChannelMap, scales: Mapping[str, Sequence[float]]) -> dict[str, Array]:
    """What `apply_scales` divides each tensor by, broadcast against it; those of 1 are left out."""
    if not scales:
        return {}
    values = scale_vector(scales, channels)
    found = {name: values[labels] for name, labels in channels.labels.items()}
    return {name: scale for name, scale in found.items() if (scale != 1).any()}


def _bounds(channels: ChannelMap, stats: Mapping[str, ChannelStats]) -> tuple[Array, Array]:
    """The least and the largest scale of each label."""
    lowest, highest = np.zeros(channels.size), np.full(channels.size, np.inf)
    lowest[FIXED] = highest[FIXED] = 1.0
    for name, limit in channels.clips.items():
        labels, seen = channels.labels[name].reshape(-1), stats.get(name)
        least = np.ones(labels.size)
        if seen is not None and seen.amax.size == labels.size and seen.amax.any():
            live = seen.amax > 0
            reach = expected(seen)
            common = np.quantile(reach[live] / seen.amax[live], _COMMON)
            reach = np.maximum(reach, seen.amax * common)
            least[live] = np.minimum(reach[live] * _MARGIN / limit, 1.0)
        np.maximum.at(lowest, labels, least)
        highest[labels] = np.minimum(highest[labels], 1.0)
    return np.minimum(lowest, highest), highest


def _groups(found: Sequence[Reading], size: int) -> list[list[Reading]]:
    """Readings whose labels hang together, label 0 apart."""
    parent = list(range(size))

    def root(label: int) -> int:
        while parent[label] != label:
            parent[label] = label = parent[parent[label]]
        return label

    for reading in found:
        free = [label for label in np.unique(reading.labels).tolist() if label != FIXED]
        for label in free[1:]:
            parent[root(label)] = root(free[0])
    groups: dict[int, list[Reading]] = {}
    for reading in found:
        groups.setdefault(root(int(reading.labels.max())), []).append(reading)
    return list(groups.values())


def _best(group: Sequence[Reading], lowest: Array, highest: Array) -> tuple[Array, Array]:
    """The labels of a group and their scales: all 1 where nothing helps clearly."""
    labels, places = np.unique(np.concatenate([r.labels for r in group]), return_inverse=True)
    parts = np.split(places, np.cumsum([reading.labels.size for reading in group])[:-1])
    low, high = lowest[labels], highest[labels]
    reach, weight = np.zeros(labels.size), np.zeros(labels.size)
    for reading, part in zip(group, parts, strict=True):
        np.maximum.at(reach, part, reading.amax / max(reading.amax.max(), 1e-30))
        np.maximum.at(weight, part, reading.weight / max(reading.weight.max(), 1e-30))

    def error(scales: Array) -> float:
        return sum(reading.error(scales[part]) for reading, part in zip(group, parts, strict=True))

    best = np.ones(labels.size)
    if not reach.any():
        return labels, best
    is_free = bool((low == 0).all() and np.isinf(high).all())
    unscaled = least = error(best)
    for candidate in _candidates(reach, weight, is_free=is_free):
        scales = np.clip(candidate, low, high)
        found = error(scales)
        if found < least:
            best, least = scales, found
    enough = _ENOUGH_CLIPPED if ((low < 1) & (high == 1)).any() else _ENOUGH
    return labels, best if least < enough * unscaled else np.ones(labels.size)


def _candidates(reach: Array, weight: Array, *, is_free: bool) -> list[Array]:
    """Scales between the channels' ranges and the inverse of their weights.

    Args:
        reach: float64 [channels], each one's range, of the largest one's.
        weight: float64 [channels], how large the weights are that read it, of the largest ones.
        is_free: Whether no channel is bounded; then a factor common to all makes no difference.
    """
    live = reach > 0
    reach, weight = np.maximum(reach, _WEAKEST), np.maximum(weight, _WEAKEST)
    found = []
    for power in _POWERS:
        family = reach**power / weight ** (1 - power)
        family[~live] = np.median(family[live])  # Nothing is known of these.
        middle = np.exp(np.log(family).mean())
        shifts = [middle] if is_free else [1.0, *np.quantile(family, _SHIFTS)]
        found += [family / shift for shift in shifts]
    return found


def _by_tensor(channels: ChannelMap, scales: Array) -> dict[str, tuple[float, ...]]:
    """The scales other than 1, each with the first tensor that has it."""
    left = set(np.flatnonzero(scales != 1).tolist())
    found = {}
    for name, labels in channels.labels.items():
        flat = labels.reshape(-1)
        if not left.isdisjoint(flat.tolist()):
            left.difference_update(flat.tolist())
            found[name] = tuple(scales[flat].tolist())
    return found


def _scale(graph: Graph, names: Names, factor: Factor, values: Array) -> None:
    times: Array = values[factor.times] / values[factor.over]
    if (times == 1).all():
        return
    constant = graph.constant(factor.node.input[factor.index])
    assert constant is not None, factor
    while times.ndim > max(constant.ndim, 1) and times.shape[0] == 1:
        times = times[0]
    write_constant(graph, names, factor.node, factor.index, constant * times)
