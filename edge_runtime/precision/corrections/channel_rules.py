"""The rules by which operators pass on, take up or refuse the scales of channels.

A rule gives the labels of a node's outputs, or None: then all that the node reads keeps its scale,
and so does what it makes. See `channel_map`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx import NodeProto

from edge_runtime.precision.corrections.channel_map import ChannelMap, Labels, Walk, fix_all
from edge_runtime.precision.corrections.channel_shapes import SHAPE_RULES, shared
from edge_runtime.precision.graphs.graph import Graph, attribute
from edge_runtime.tensors import Array

_NO_LIMIT = 1e30  # Exporters write the largest float, or one near it, for "not clipped".


def map_channels(graph: Graph) -> ChannelMap:
    """Labels the channels of a prepared graph."""
    walk = Walk(graph)
    for node in graph.nodes:
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        outputs = rule(walk, node) if rule and _plain(graph, node) else None
        if outputs is None:
            fix_all(walk, node)
        else:
            walk.map.labels.update(zip(node.output, outputs, strict=False))
    for name in graph.outputs:
        walk.fix(name)
    return walk.finish()


def _plain(graph: Graph, node: NodeProto) -> bool:
    """Whether a node makes FP32 and nothing reads outputs beyond those that rules know."""
    extra = [] if node.op_type == "Split" else node.output[1:]
    return graph.is_float(node.output[0]) and not any(
        name in graph.outputs or graph.consumers[name] for name in extra if name
    )


def _conv(walk: Walk, node: NodeProto) -> list[Labels] | None:
    weight = walk.constant(node, 1, own=True)
    if weight is None or not _has_bias(walk, node, 2):
        return None
    groups, spatial = int(attribute(node, "group", 1)), [1] * (weight.ndim - 2)
    if node.op_type == "ConvTranspose":
        if groups > 1:  # Its INT8 weights have one scale in all: no channel is scaled for free.
            return None
        source = walk.channels(node.input[0], 1, weight.shape[0])
        made = walk.fresh(weight.ndim, 1, weight.shape[1])
        walk.factor(node, 1, times=source.reshape(-1, 1, *spatial), over=made)
    else:
        outputs, inputs = weight.shape[:2]
        source = walk.channels(node.input[0], 1, groups * inputs)
        made = walk.fresh(weight.ndim, 1, outputs)
        by_output = source.reshape(groups, inputs)
        if groups > 1:  # Else all outputs read the same, which broadcasting says in less memory.
            by_output = by_output.repeat(outputs // groups, axis=0)
        over = made.reshape(-1, 1, *spatial)
        walk.factor(node, 1, times=by_output.reshape(*by_output.shape, *spatial), over=over)
    if len(node.input) > 2 and node.input[2]:
        walk.factor(node, 2, over=made.reshape(-1))
    return [made]


def _gemm(walk: Walk, node: NodeProto) -> list[Labels] | None:
    weight = walk.constant(node, 1, own=True)
    if weight is None or attribute(node, "transA", 0) or not _has_bias(walk, node, 2):
        return None
    transposed = bool(attribute(node, "transB", 0))
    inputs, outputs = weight.shape[::-1] if transposed else weight.shape
    source, made = walk.channels(node.input[0], 1, inputs), walk.fresh(2, 1, outputs)
    if transposed:
        walk.factor(node, 1, times=source, over=made.reshape(-1, 1))
    else:
        walk.factor(node, 1, times=source.reshape(-1, 1), over=made)
    if len(node.input) > 2 and node.input[2]:
        walk.factor(node, 2, over=made.reshape(-1))
    return [made]


def _matmul(walk: Walk, node: NodeProto) -> list[Labels] | None:
    weight = walk.constant(node, 1, own=True)
    known = walk.labels(node.input[0])
    if weight is None or weight.ndim != 2 or known is None or known.ndim < 2:
        return None
    source = walk.channels(node.input[0], -1, weight.shape[0])
    made = walk.fresh(known.ndim, -1, weight.shape[1])
    walk.factor(node, 1, times=source.reshape(-1, 1), over=made.reshape(1, -1))
    return [made]


def _has_bias(walk: Walk, node: NodeProto, index: int) -> bool:
    """Whether a bias can be scaled: it is a constant, or there is none."""
    is_given = len(node.input) > index and node.input[index]
    return not is_given or walk.constant(node, index) is not None


def _batch_norm(walk: Walk, node: NodeProto) -> list[Labels] | None:
    constants = [walk.constant(node, index) for index in range(1, 5)]
    known = walk.labels(node.input[0])
    if any(value is None for value in constants) or known is None or known.ndim < 2:
        return None
    assert constants[0] is not None
    source = walk.channels(node.input[0], 1, constants[0].size)
    made = walk.fresh(known.ndim, 1, constants[0].size)
    walk.factor(node, 1, times=source, over=made.reshape(-1))  # The variance stays as it is.
    walk.factor(node, 2, over=made.reshape(-1))
    walk.factor(node, 3, over=source)
    return [made]


def _normalization(walk: Walk, node: NodeProto) -> list[Labels] | None:
    """LayerNormalization over the last axis, and InstanceNormalization."""
    scale, known = walk.constant(node, 1), walk.labels(node.input[0])
    if scale is None or scale.ndim != 1 or known is None or not _has_bias(walk, node, 2):
        return None
    axis = 1
    if node.op_type == "LayerNormalization":
        axis = known.ndim - 1
        if int(attribute(node, "axis", -1)) not in (-1, axis):
            return None
    walk.fix(node.input[0])
    made = walk.fresh(known.ndim, axis, scale.size)
    for index in range(1, len(node.input)):
        walk.factor(node, index, over=made.reshape(-1))
    return [made]


def _same(walk: Walk, node: NodeProto) -> list[Labels] | None:
    """Operators that compute k * f(x) for k * x, k > 0, element by element."""
    labels = walk.map.labels.get(node.input[0])
    if labels is None or (node.op_type == "PRelu" and walk.constant(node, 1) is None):
        return None
    return [labels]


def _clip(walk: Walk, node: NodeProto) -> list[Labels] | None:
    labels = walk.map.labels.get(node.input[0])
    bounds = [walk.constant(node, index) for index in (1, 2)]
    given = [len(node.input) > index and bool(node.input[index]) for index in (1, 2)]
    if labels is None or any(g and b is None for g, b in zip(given, bounds, strict=True)):
        return None
    lower, upper = (None if bound is None else float(bound.reshape(-1)[0]) for bound in bounds)
    if lower is not None and lower != 0 and lower > -_NO_LIMIT:
        return None
    if upper is not None and upper < _NO_LIMIT:
        if upper <= 0:
            return None
        walk.map.clips[node.output[0]] = upper
    return [labels]


def _add(walk: Walk, node: NodeProto) -> list[Labels] | None:
    """Sums, maxima and minima: all that is not constant has one scale."""
    constants = [walk.constant(node, index) for index in range(len(node.input))]
    varying = [n for n, value in zip(node.input, constants, strict=True) if value is None]
    labels = [walk.map.labels.get(name) for name in varying]
    made = shared(walk, labels)
    if made is None or any(value is not None and value.ndim > made.ndim for value in constants):
        return None
    for index, value in enumerate(constants):
        if value is not None:
            walk.factor(node, index, over=made)
    return [made]


def _mul(walk: Walk, node: NodeProto) -> list[Labels] | None:
    """Products and quotients. Of two activations the gate, or divisor, keeps its scale."""
    is_div = node.op_type == "Div"
    for index in (1,) if is_div else (1, 0):
        constant = walk.constant(node, index)
        if constant is not None:
            return _mul_constant(walk, node, index, constant)
    a, b = (walk.labels(name) for name in node.input)
    if a is None or b is None or walk.constant(node, 0) is not None:
        return None
    passed, gate = a, node.input[1]
    if not is_div and walk.is_fixed(a):
        passed, gate = b, node.input[0]
    walk.fix(gate)
    return [passed.reshape([1] * (max(a.ndim, b.ndim) - passed.ndim) + list(passed.shape))]


def _mul_constant(walk: Walk, node: NodeProto, index: int, constant: Array) -> list[Labels] | None:
    """One that differs by channel takes up both scales; any other passes the scale on."""
    labels = walk.labels(node.input[1 - index])
    if labels is None or constant.ndim > labels.ndim:
        return None
    shape = [1] * (labels.ndim - constant.ndim) + list(constant.shape)
    varying = [axis for axis, size in enumerate(shape) if size > 1]
    if len(varying) != 1 or labels.size not in (1, labels.shape[varying[0]]):
        return [labels]
    made = walk.fresh(labels.ndim, varying[0], constant.size)
    if node.op_type == "Div":
        walk.factor(node, index, times=made, over=labels)
    else:
        walk.factor(node, index, times=labels, over=made)
    return [made]


_Rule = Callable[[Walk, NodeProto], "Sequence[Labels] | None"]
_RULES: dict[str, _Rule] = {
    **SHAPE_RULES,
    **dict.fromkeys(("Conv", "ConvTranspose"), _conv),
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization"), _normalization),
    **dict.fromkeys(("Relu", "LeakyRelu", "PRelu", "Abs", "Neg", "Identity", "Dropout"), _same),
    "Clip": _clip,
    **dict.fromkeys(("Add", "Sub", "Sum", "Max", "Min"), _add),
    **dict.fromkeys(("Mul", "Div"), _mul),
}
