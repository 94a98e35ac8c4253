"""The rules of operators that move channels, or average along other axes: see `channel_rules`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from onnx import NodeProto

from edge_runtime.precision.corrections.channel_map import Labels, Walk
from edge_runtime.precision.graphs.graph import attribute
from edge_runtime.tensors import Array

_MOST_LABELS = 1 << 20  # Of a tensor; one whose channels are spread over more keeps its scale.


def shared(walk: Walk, labels: Sequence[Labels | None]) -> Labels | None:
    """The labels of tensors that are combined element by element; None if one has none."""
    known = [each for each in labels if each is not None]
    if not known or len(known) < len(labels):
        return None
    try:
        shape = np.broadcast_shapes(*(each.shape for each in known))
    except ValueError:
        return None
    for other in known[1:]:
        walk.unite(known[0], other)
    return np.broadcast_to(known[0], shape)


def _pool(walk: Walk, node: NodeProto) -> list[Labels] | None:
    labels = walk.map.labels.get(node.input[0])
    is_by_channel = labels is not None and labels.size == labels.shape[1]
    return [labels] if labels is not None and is_by_channel else None


def _resize(walk: Walk, node: NodeProto) -> list[Labels] | None:
    made = _pool(walk, node)
    shape = walk.graph.shape(node.output[0])
    mode = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if made is None or shape is None or mode == "tf_crop_and_resize":
        return None
    return made if shape[1] == made[0].size else None


def _pad(walk: Walk, node: NodeProto) -> list[Labels] | None:
    labels = walk.map.labels.get(node.input[0])
    pads = walk.graph.constant(node.input[1])
    value = walk.graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else 0
    by_axis = _axes(walk, node, 3)
    if labels is None or pads is None or value is None or by_axis is None:
        return None
    axes = by_axis or list(range(labels.ndim))
    if attribute(node, "mode", "constant") == "constant" and np.any(value):
        return None
    for axis, around in zip(axes, pads.reshape(2, -1).T, strict=True):
        if labels.shape[axis] > 1 and around.any():
            return None
    return [labels]


def _reduce(walk: Walk, node: NodeProto) -> list[Labels] | None:
    labels = walk.map.labels.get(node.input[0])
    axes = _axes(walk, node, 1)
    if labels is None or not axes or any(labels.shape[axis] > 1 for axis in axes):
        return None
    if attribute(node, "keepdims", 1):
        return [labels]
    return [np.squeeze(labels, tuple(axis % labels.ndim for axis in axes))]


def _squeeze(walk: Walk, node: NodeProto) -> list[Labels] | None:
    labels = walk.map.labels.get(node.input[0])
    axes = _axes(walk, node, 1)
    if labels is None or not axes:
        return None
    if node.op_type == "Unsqueeze":
        return [np.expand_dims(labels, tuple(axes))]
    return [np.squeeze(labels, tuple(axes))] if all(labels.shape[a] == 1 for a in axes) else None


def _axes(walk: Walk, node: NodeProto, index: int) -> list[int] | None:
    """Axes, as an attribute or an input; empty where none are given, None where they vary."""
    for entry in node.attribute:
        if entry.name == "axes":
            return list(entry.ints)
    if len(node.input) <= index or not node.input[index]:
        return []
    value = walk.graph.constant(node.input[index])
    return None if value is None else [int(axis) for axis in value.reshape(-1)]


def _transpose(walk: Walk, node: NodeProto) -> list[Labels] | None:
    labels = walk.map.labels.get(node.input[0])
    perm = next((list(entry.ints) for entry in node.attribute if entry.name == "perm"), None)
    return None if labels is None else [labels.transpose(perm)]


def _slice(walk: Walk, node: NodeProto) -> list[Labels] | None:
    labels = walk.map.labels.get(node.input[0])
    values = [walk.graph.constant(name) for name in node.input[1:] if name]
    if labels is None or any(value is None for value in values):
        return None
    starts, ends, *rest = ([int(item) for item in value] for value in values if value is not None)
    axes = rest[0] if rest else list(range(len(starts)))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    cut: list[slice] = [slice(None)] * labels.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if labels.shape[axis] > 1:
            cut[axis] = slice(start, end, step)
    return [labels[tuple(cut)]]


def _split(walk: Walk, node: NodeProto) -> list[Labels] | None:
    labels = walk.map.labels.get(node.input[0])
    if labels is None:
        return None
    axis, count = int(attribute(node, "axis", 0)), len(node.output)
    if labels.shape[axis] == 1:
        return [labels] * count
    if len(node.input) > 1 and node.input[1]:
        sizes = walk.graph.constant(node.input[1])
        if sizes is None:
            return None
    else:
        sizes = np.full(count, -(-labels.shape[axis] // count))
    return np.split(labels, np.cumsum(sizes)[:-1], axis=axis)


def _concat(walk: Walk, node: NodeProto) -> list[Labels] | None:
    parts = [walk.labels(name) for name in node.input]
    known = [part for part in parts if part is not None]
    axis = int(attribute(node, "axis", 0))
    if len(known) < len(parts):
        return None
    if all(part.shape[axis] == 1 for part in known):
        dims = {(walk.graph.shape(name) or {axis: -1})[axis] for name in node.input}
        if dims != {1}:  # Along another axis than the channels.
            made = shared(walk, known)
            return None if made is None else [made]
    shapes = [list(part.shape) for part in known]
    for name, shape in zip(node.input, shapes, strict=True):
        dims_of = walk.graph.shape(name)
        if shape[axis] == 1:
            shape[axis] = -1 if dims_of is None else dims_of[axis]
    common = [max(sizes) for sizes in zip(*shapes, strict=True)]
    if any(shape[axis] < 1 for shape in shapes):
        return None
    wide = []
    for part, shape in zip(known, shapes, strict=True):
        common[axis] = shape[axis]
        wide.append(np.broadcast_to(part, common))
    return [np.concatenate(wide, axis=axis)]


def _gather(walk: Walk, node: NodeProto) -> list[Labels] | None:
    labels = walk.map.labels.get(node.input[0])
    index_shape = walk.graph.shape(node.input[1])
    if labels is None or index_shape is None:
        return None
    axis = int(attribute(node, "axis", 0)) % labels.ndim
    if labels.shape[axis] > 1:
        indices = walk.graph.constant(node.input[1])
        return None if indices is None else [np.take(labels, indices, axis=axis)]
    shape = [*labels.shape[:axis], *[1] * len(index_shape), *labels.shape[axis + 1 :]]
    return [labels.reshape(shape)]


def _reshape(walk: Walk, node: NodeProto) -> list[Labels] | None:
    labels = walk.map.labels.get(node.input[0])
    before, after = (walk.graph.shape(name) for name in (node.input[0], node.output[0]))
    if labels is None or before is None or after is None:
        return None
    copied = 0  # Leading dimensions that are surely the same.
    if node.op_type == "Reshape":
        target = walk.graph.constant(node.input[1])
        copied = 0 if target is None or attribute(node, "allowzero", 0) else _zeros(target)
    made = regroup(labels, before, after, copied)
    return None if made is None else [made]


def _zeros(target: Array) -> int:
    """How many zeros, which copy a dimension, a reshape's target starts with."""
    is_zero = target.reshape(-1) == 0
    return len(is_zero) if is_zero.all() else int(np.argmin(is_zero))


def regroup(
    labels: Labels, before: Sequence[int], after: Sequence[int], copied: int
) -> Labels | None:
    """The labels of a reshaped tensor; None where dynamic dimensions hide what became of them.

    Args:
        labels: Those of the tensor before.
        before: Its shape, -1 for a dynamic dimension.
        after: The shape that it gets.
        copied: How many leading dimensions are known to be copied.
    """
    known = [prod(size for size in shape if size >= 0) for shape in (before, after)]
    one_dynamic = [list(shape).count(-1) == 1 for shape in (before, after)]
    same_dynamic = all(one_dynamic) and known[0] == known[1]

    def is_same(a: int, b: int) -> bool:
        return a == b and (a >= 0 or same_dynamic)

    most = min(len(before), len(after))
    head = min(copied, most)
    while head < most and is_same(before[head], after[head]):
        head += 1
    tail = 0
    while tail < most - head and is_same(before[-1 - tail], after[-1 - tail]):
        tail += 1
    inner, outer = before[head : len(before) - tail], after[head : len(after) - tail]
    first, middle = labels.shape[:head], labels.shape[head : len(before) - tail]
    last = labels.shape[len(before) - tail :]
    if prod(middle) == 1:
        return labels.reshape([*first, *[1] * len(outer), *last])
    if min((*inner, *outer)) < 0 or prod((*first, *inner, *last)) > _MOST_LABELS:
        return None
    wide = np.broadcast_to(labels, [*first, *inner, *last]).reshape([*first, *outer, *last])
    for axis in range(head, head + len(outer)):
        start = wide.take([0], axis=axis)
        wide = start if (wide == start).all() else wide
    return wide


_Rule = Callable[[Walk, NodeProto], "Sequence[Labels] | None"]
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_REDUCE = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
SHAPE_RULES: dict[str, _Rule] = {
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(_REDUCE, _reduce),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _squeeze),
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
    "Resize": _resize,
    "Pad": _pad,
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Gather": _gather,
}
