"""The rules that every graph in a bundle keeps, or TensorRT would refuse or misread it.

TensorRT reads a uint8 zero point as int8 and then clips at half the range, with no more than a
warning; it refuses other zero points than 0 and the INT32 bias of other quantizers.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from edge_runtime.errors import ModelError
from edge_runtime.model import without_large_initializers
from edge_runtime.precision.graphs.graph import Graph, subgraphs

_ZERO_POINTS = {TensorProto.INT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT4}


def validate(proto: ModelProto, name: str) -> None:
    """Checks a graph before it goes into a bundle.

    Args:
        proto: The graph, all weights inline.
        name: What messages call the model.

    Raises:
        ModelError: Names the node that breaks a rule, and how to export the model without it.
    """
    graph = Graph(proto)
    for node in (node for inner in subgraphs(proto.graph) for node in inner.node):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        reason = _broken_rule(graph, list(node.input))
        if reason:
            raise ModelError(
                f"{name}: node {node.name!r} ({node.op_type}) {reason}. Start from the FP32 model "
                "and let `edge-runtime build --precision int8` quantize it, or quantize it "
                "symmetrically to int8, without bias."
            )
    try:
        onnx.checker.check_model(without_large_initializers(proto))
    except onnx.checker.ValidationError as error:
        raise AssertionError(f"the rewritten graph of {name} is not valid ONNX: {error}") from error


def _broken_rule(graph: Graph, inputs: list[str]) -> str:
    if graph.elem_type(inputs[0]) == TensorProto.INT32:
        return "dequantizes INT32, which TensorRT refuses"
    scale = graph.constant(inputs[1])
    if scale is not None and not (np.isfinite(scale).all() and (scale > 0).all()):
        return "has a scale that is not positive and finite"
    if len(inputs) < 3 or not inputs[2]:
        has_own_type = graph.elem_type(inputs[0]) in _ZERO_POINTS
        return "" if has_own_type else "has no zero point, which makes it uint8"
    zero = graph.initializers.get(inputs[2])
    if zero is None:
        return "has a zero point that is not constant"
    if zero.data_type not in _ZERO_POINTS:
        return f"has a {TensorProto.DataType.Name(zero.data_type)} zero point; it must be INT8"
    value = graph.constant(inputs[2])
    if value is not None and value.astype(np.float32).any():
        return "has a zero point other than 0"
    return ""
