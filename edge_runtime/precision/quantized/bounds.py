"""Proves how negative the tensors of a graph can be: what stands behind a ReLU never is."""

from __future__ import annotations

from math import inf

from onnx import NodeProto, TensorProto

from edge_runtime.precision.graphs.graph import Graph, attribute

MOVES = frozenset({"Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators whose output holds values of their first input and no others."""

_LEAST: dict[str, float] = {
    **dict.fromkeys(("Abs", "Exp", "HardSigmoid", "Sigmoid", "Softmax", "Softplus", "Sqrt"), 0.0),
    **dict.fromkeys(("Cos", "Sin", "Softsign", "Tanh"), -1.0),
    "Gelu": -0.17,
    "HardSwish": -0.375,
    "Mish": -0.31,
}
"""The least value that an operator gives, whatever it reads."""

_GATED = {"Sigmoid": -0.2785, "HardSigmoid": -0.375}
"""The least value of x * gate(x): SiLU, and hard swish where the gate has its usual slope."""

_WITHIN = MOVES | {
    *("AveragePool", "DepthToSpace", "Dropout", "Expand", "Gather", "GlobalAveragePool"),
    *("GlobalMaxPool", "Identity", "ReduceMax", "ReduceMean", "ReduceMin", "Slice"),
    *("SpaceToDepth", "Split", "Tile"),
}
"""Operators whose output is nowhere below the least value of their first input, or zero."""

_FROM_INPUTS = _WITHIN | {"Add", "Clip", "Concat", "Max", "Min", "Mul", "Relu", "Resize"}

_UNSIGNED = {TensorProto.BOOL, TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32}


def op_of(node: NodeProto) -> str:
    """The operator of a node; empty where it is not ONNX's own."""
    return str(node.op_type) if node.domain in ("", "ai.onnx") else ""


def clip_limits(graph: Graph, node: NodeProto) -> tuple[float, float]:
    """Between what a Relu or Clip holds its values; infinite where it sets or tells no limit."""
    if op_of(node) == "Relu":
        return 0.0, inf
    limits = []
    for index, missing in ((1, -inf), (2, inf)):
        name = node.input[index] if len(node.input) > index else ""
        value = graph.constant(name) if name else None
        limits.append(missing if value is None else float(value.reshape(-1)[0]))
    return limits[0], limits[1]


def gate_of(graph: Graph, node: NodeProto) -> NodeProto | None:
    """The Sigmoid or HardSigmoid with which a Mul makes x * gate(x), as SiLU; None if it is none.

    Of HardSigmoid only the form of hard swish counts, which is (x + 3) / 6 between -3 and 3.
    """
    if op_of(node) != "Mul":
        return None
    for x, gated in (node.input, reversed(node.input)):
        gate = graph.producer.get(gated)
        if gate is None or op_of(gate) not in _GATED or gate.input[0] != x:
            continue
        slope, middle = (float(attribute(gate, name, 0.0)) for name in ("alpha", "beta"))
        if op_of(gate) == "Sigmoid" or (abs(slope - 1 / 6) < 1e-6 and middle == 0.5):
            return gate
    return None


def lower_bounds(graph: Graph) -> dict[str, float]:
    """A value that no element of a tensor is below, for each tensor where one can be proved."""
    bounds: dict[str, float] = {}
    for node in graph.nodes:
        low = _lower(graph, node, bounds)
        if low > -inf:
            bounds.update((name, low) for name in node.output if name)
    return bounds


def _known(graph: Graph, bounds: dict[str, float], name: str) -> float:
    value = graph.constant(name) if name and graph.is_float(name) else None
    if value is not None:
        return float(value.min()) if value.size else -inf
    return bounds.get(name, -inf)


def _lower(graph: Graph, node: NodeProto, bounds: dict[str, float]) -> float:
    op = op_of(node)
    if op in _LEAST:
        return _LEAST[op]
    if op == "Cast":
        return 0.0 if graph.elem_type(node.input[0]) in _UNSIGNED else -inf
    if op not in _FROM_INPUTS:
        return -inf
    lows = [_known(graph, bounds, name) for name in node.input]
    if op in ("Relu", "Clip"):
        return max(lows[0], clip_limits(graph, node)[0])
    if op in _WITHIN:
        return min(lows[0], 0.0)  # Padding counts as zero.
    if op in ("Concat", "Max", "Min"):
        return max(lows) if op == "Max" else min(lows)
    if op == "Add":
        return sum(lows)
    if op == "Mul":
        gate = gate_of(graph, node)
        if gate is not None and min(lows) < 0:
            return _GATED[op_of(gate)]
        return 0.0 if min(lows) >= 0 else -inf
    if op == "Resize" and attribute(node, "mode", "nearest") != "cubic":
        return min(lows[0], 0.0)
    return -inf
