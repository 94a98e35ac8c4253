"""Reads from a written graph which precision each of its layers carries."""

from __future__ import annotations

from onnx import NodeProto, TensorProto

from edge_runtime.precision.graphs.graph import Graph

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose INT8 form TensorRT has."""

INTEGER = "integer"
"""What a node carries that reads and makes no floating point numbers."""

_FLOATS: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
}


def carried(graph: Graph, node: NodeProto) -> str:
    """The precision that a node of a graph carries, by the types of its tensors.

    Returns:
        `int8` for a layer that `reads_int8`; else the type of its floating point outputs, or of its
        inputs if it makes none: `fp32`, `fp16`, `bf16` or `fp64`, the widest if they differ;
        `integer` where there are none, and `unknown` where nobody knows the types.
    """
    if reads_int8(graph, node):
        return "int8"
    some_unknown = False
    for names in (node.output, node.input):
        types = {graph.elem_type(name) for name in names if name}
        floats = {_FLOATS[kind] for kind in types if kind in _FLOATS}
        if floats:
            return max(floats, key=lambda name: (name[-2:], name))
        some_unknown |= 0 in types
    return "unknown" if some_unknown else INTEGER


def reads_int8(graph: Graph, node: NodeProto) -> bool:
    """Whether a layer multiplies INT8 by INT8: both its activation and its weights are such."""
    return node.op_type in PRODUCTS and all(is_int8(graph, name) for name in node.input[:2])


def is_int8(graph: Graph, name: str) -> bool:
    """Whether a tensor is INT8 behind a DequantizeLinear."""
    maker = graph.producer.get(name)
    return (
        maker is not None
        and maker.op_type == "DequantizeLinear"
        and graph.elem_type(maker.input[0]) == TensorProto.INT8
    )


def operator_set(graph: Graph) -> int:
    """The version of ONNX's own operators that a graph uses."""
    opsets = graph.proto.opset_import
    return next(int(o.version) for o in opsets if o.domain in ("", "ai.onnx"))
