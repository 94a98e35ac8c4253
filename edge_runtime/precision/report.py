"""What became of each node of a model: the precision that was asked and the one it carries.

What a node carries is read from the graph that was written, not from what was meant to be written.
A layer that carries less than was asked, and nobody said why, is refused: no downgrade is silent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from onnx import ModelProto, TensorProto

from edge_runtime.config import BuildConfig, Precision
from edge_runtime.errors import BuildError
from edge_runtime.precision.graphs.carried import PRODUCTS, carried
from edge_runtime.precision.graphs.graph import Graph, captures, reads

_WITH_WEIGHTS = PRODUCTS | {"DeformConv", "Einsum", "GRU", "LSTM", "RNN"}
_NOT_LISTED = ("QuantizeLinear", "DequantizeLinear", "Cast")


@dataclass(frozen=True)
class Intent:
    """What a graph was written to be.

    Attributes:
        weights: The layers with weights, by name: how many values each has. See `count_weights`.
        kept: Why a node is not of the precision that was asked, by its name.
        full: Why a node computes in FP32 where the rest of an INT8 graph is half, by its name.
        lowered: The nodes that are to be half.
    """

    weights: Mapping[str, int]
    kept: Mapping[str, str] = field(default_factory=dict)
    full: Mapping[str, str] = field(default_factory=dict)
    lowered: Collection[str] = ()


def count_weights(graph: Graph) -> dict[str, int]:
    """The layers that hold weights, before they are rewritten: how many values each has."""
    counts = {}
    for node in graph.nodes:
        is_layer = node.op_type in _WITH_WEIGHTS or node.domain not in ("", "ai.onnx")
        if is_layer or any(captures(node)):
            count = sum(_values(graph, name) for name in set(reads(node)))
            if count:
                counts[node.name] = count
    return counts


def report_of(config: BuildConfig, proto: ModelProto, intent: Intent) -> dict[str, Any]:
    """What each node of a written graph carries, and why where it is not what was asked.

    Raises:
        BuildError: A layer is missing, or carries less than was asked without a reason.
    """
    graph = Graph(proto)
    carries = {node.name: carried(graph, node) for node in graph.nodes}
    _check(config, carries, intent)
    asked = config.precision.value
    as_asked = [name for name in intent.weights if carries[name] == asked]
    return {
        "asked": asked,
        "high_precision": _rest(config).value,
        "nodes": [
            {"name": node.name, "op": node.op_type, "precision": carries[node.name]}
            for node in graph.nodes
            if node.op_type not in _NOT_LISTED
        ],
        "kept": dict(sorted(intent.kept.items())),
        "kept_full": dict(sorted(intent.full.items())),
        "weighted_layers": {
            "count": len(intent.weights),
            "as_asked": len(as_asked),
            "values": sum(intent.weights.values()),
            "values_as_asked": sum(intent.weights[name] for name in as_asked),
        },
    }


def _rest(config: BuildConfig) -> Precision:
    """What a node is that is not INT8."""
    is_int8 = config.precision is Precision.INT8
    return config.rest if is_int8 else config.precision


def _check(config: BuildConfig, carries: Mapping[str, str], intent: Intent) -> None:
    rest = _rest(config)
    lost: dict[str, str] = {}
    for name in dict.fromkeys((*intent.weights, *intent.lowered)):
        found = carries.get(name, "nothing")
        is_int8 = config.precision is Precision.INT8 and name in intent.weights
        wanted = config.precision if is_int8 and name not in intent.kept else rest
        has_reason = wanted is rest and (
            name in intent.full or (name in intent.kept and not is_int8)
        )
        if found not in (wanted.value, "int8") and wanted is not Precision.FP32 and not has_reason:
            lost[name] = f"{name} ({wanted.value} was asked, it carries {found})"
        elif found == "nothing":
            lost[name] = f"{name} (it is not there)"
    if lost:
        raise BuildError(
            "The graph that was written is not what was asked: "
            f"{', '.join(list(lost.values())[:3])}"
            f"{f' and {len(lost) - 3} more' if len(lost) > 3 else ''}. No reason is known, so this "
            "is a fault of edge_runtime; leave these nodes out with --exclude, or choose fp32."
        )


def _values(graph: Graph, name: str) -> int:
    """How many values a matrix or kernel of weights has; 0 for what is none."""
    maker = graph.producer.get(name)
    if maker is not None and maker.op_type == "DequantizeLinear":
        name = maker.input[0]
    tensor = graph.initializers.get(name)
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8)
    if tensor is None or len(tensor.dims) < 2 or tensor.data_type not in kinds:
        return 0
    return prod(tensor.dims)
