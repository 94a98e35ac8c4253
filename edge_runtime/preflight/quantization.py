"""Lints for quantized models: TensorRT takes symmetric int8 Q/DQ and little else."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from edge_runtime.preflight.findings import Severity
from edge_runtime.preflight.graph import GraphView, Node, type_name
from edge_runtime.preflight.rule import Hit, Rule, at

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_INT16 = (TensorProto.INT16, TensorProto.UINT16)
_OPERATORS = {
    "ConvInteger",
    "DynamicQuantizeLinear",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QAttention",
    "QGemm",
}
_SYMMETRIC = (
    "Quantize symmetrically to int8, zero points 0 (ONNX Runtime: QInt8, ActivationSymmetric "
)
_SYMMETRIC += (
    "and WeightSymmetric), or give the FP32 model to `edge-runtime build --precision int8`."
)


def uint8_zero_point(view: GraphView) -> Iterator[Hit]:
    """uint8 Q/DQ.

    The parser of TensorRT-RTX 1.7 warns "UINT8 zero_point only on DLA ... Defaulting to INT8" and
    keeps the scale, so that all above half the range is clipped: 24 dB instead of 36 dB on a digits
    network. A zero point of 128 it refuses: "Non-zero zero point is not supported".
    """
    for node in _nodes(view):
        if TensorProto.UINT8 not in _types(node):
            continue
        zero_point = node.array(2)
        if zero_point is not None and zero_point.any():
            yield at(node, "The zero point is uint8 and not 0, which TensorRT refuses.")
        else:
            yield at(
                node,
                "This quantizes to uint8, which TensorRT reads as int8 with the same scale: values "
                "above half the range are clipped and results are wrong without any error.",
            )


def asymmetric_zero_point(view: GraphView) -> Iterator[Hit]:
    """Zero points other than 0.

    TensorRT-RTX 1.7's parser: "Non-zero zero point is not supported"; its builder, if the parser is
    told to let them pass, "zero_point whose coefficients aren't all zeros".
    """
    for node in _nodes(view):
        zero_point = node.array(2)
        if node.input(2).elem_type == TensorProto.UINT8 or zero_point is None:
            continue
        if zero_point.any():
            yield at(node, "The zero point is not 0; TensorRT quantizes symmetrically only.")


def missing_zero_point(view: GraphView) -> Iterator[Hit]:
    """A QuantizeLinear that does not say its type.

    ONNX then means uint8 (QuantizeLinear-10: "Default is uint8"); TensorRT-RTX 1.7 builds int8.
    """
    for node in _nodes(view):
        untyped = not node.input_name(2) and not node.attribute("output_dtype", 0)
        if node.op == "QuantizeLinear" and untyped:
            yield at(
                node,
                "There is no zero point, which means uint8 in ONNX but int8 in TensorRT: the "
                "results would differ.",
            )


def fed_zero_point(view: GraphView) -> Iterator[Hit]:
    """A zero point that is known at run time only.

    TensorRT-RTX 1.7's builder: "has `zero_point` which is not an initializer".
    """
    for node in _nodes(view):
        if node.input(2).fed:
            yield at(
                node, f"The zero point {node.input_name(2)!r} is an input; it must be a constant."
            )


def int32_dequantize(view: GraphView) -> Iterator[Hit]:
    """A bias that is dequantized from int32, as ONNX Runtime's quantizer writes by default.

    TensorRT-RTX 1.7's parser: "input has type Int32 but must have type FP8, FP4, Int4, Int8, or
    UInt8".
    """
    for node in _nodes(view):
        if node.op == "DequantizeLinear" and node.input(0).elem_type == TensorProto.INT32:
            yield at(
                node, "This dequantizes int32, likely a bias; TensorRT takes biases as floats."
            )


def int16(view: GraphView) -> Iterator[Hit]:
    """16-bit Q/DQ; TensorRT-RTX 1.7's parser: "Found unsupported datatype (5)"."""
    for node in _nodes(view):
        found = [elem_type for elem_type in _types(node) if elem_type in _INT16]
        if found:
            yield at(node, f"This quantizes to {type_name(found[0])}, which TensorRT has not.")


def quantized_operator(view: GraphView) -> Iterator[Hit]:
    """Operators that compute on integers (QOperator); the parser says UNSUPPORTED_NODE to each."""
    for node in view.nodes:
        if node.op in _OPERATORS or node.op.startswith("QLinear"):
            yield at(node, f"TensorRT has no {node.op}; it reads quantization from Q/DQ nodes.")


def _nodes(view: GraphView) -> Iterator[Node]:
    return (node for node in view.nodes if node.op in _QDQ)


def _types(node: Node) -> tuple[int, ...]:
    """The integer types that a Q/DQ node names: its zero point's, its output's and its input's."""
    named = node.attribute("output_dtype", 0) if node.op == "QuantizeLinear" else 0
    read = node.input(0).elem_type if node.op == "DequantizeLinear" else 0
    return (node.input(2).elem_type, named if isinstance(named, int) else 0, read)


RULES = (
    Rule("uint8-zero-point", Severity.ERROR, uint8_zero_point, _SYMMETRIC),
    Rule("asymmetric-zero-point", Severity.ERROR, asymmetric_zero_point, _SYMMETRIC),
    Rule(
        "missing-zero-point",
        Severity.ERROR,
        missing_zero_point,
        "Give the node an int8 zero point of 0.",
    ),
    Rule("fed-zero-point", Severity.ERROR, fed_zero_point, "Make it an initializer of zeros."),
    Rule(
        "int32-dequantize",
        Severity.ERROR,
        int32_dequantize,
        "Keep the bias in floating point (ONNX Runtime: extra_options QuantizeBias=False).",
    ),
    Rule("int16-quantization", Severity.ERROR, int16, _SYMMETRIC),
    Rule(
        "quantized-operator",
        Severity.ERROR,
        quantized_operator,
        "Quantize in the Q/DQ form (ONNX Runtime: QuantFormat.QDQ, static), or give the FP32 model "
        "to `edge-runtime build --precision int8`.",
    ),
)
