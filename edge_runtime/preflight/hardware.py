"""Lints for GPU architectures that lack a type; which ones matter, `GraphView.targets` says."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from edge_runtime.backends.tensorrt.compat import target_number
from edge_runtime.preflight.findings import Scope, Severity
from edge_runtime.preflight.graph import GraphView, Node
from edge_runtime.preflight.rule import Hit, Rule, at

_FP8 = TensorProto.FLOAT8E4M3FN
_FIRST_FP8 = 89
_FIRST_BF16 = 80
_TURING = "sm75"
_GEMMS = ("Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN")


def fp8(view: GraphView) -> Iterator[Hit]:
    """FP8 before Ada.

    TensorRT-RTX 1.7 for sm75, sm80 and sm86: "Cannot compile for target(s) sm86, because the model
    contains HW-specific datatypes: fp8_e4m3". It builds for sm89 and sm120, and without a target,
    where the plan says that it runs on sm80 and sm86 too.
    """
    node = _first(view, _FP8)
    if node is None:
        return
    old = [target for target in view.targets if target_number(target) < _FIRST_FP8]
    if old:
        yield at(node, f"The model computes in FP8, which {', '.join(old)} cannot.")
    elif not view.targets:
        yield at(
            node,
            f"The model computes in FP8, which needs sm{_FIRST_FP8} or newer: Thor has it, Orin "
            "(sm87) has not.",
            Severity.WARNING,
        )


def bf16(view: GraphView) -> Iterator[Hit]:
    """BF16 before Ampere; TensorRT-RTX 1.7 for sm75: "HW-specific datatypes: b16"."""
    old = [target for target in view.targets if target_number(target) < _FIRST_BF16]
    node = _first(view, TensorProto.BFLOAT16) if old else None
    if node is not None:
        yield at(node, f"The model computes in BF16, which {', '.join(old)} cannot.")


def turing_gemm(view: GraphView) -> Iterator[Hit]:
    """FP32 matrix products on Turing, in Q/DQ too.

    TensorRT-RTX 1.7 for sm75: "Cannot compile operation 'fc' for Turing (SM75): FP32 GEMM is not
    supported". FP16 builds.
    """
    if _TURING not in view.targets:
        return
    for node in view.nodes:
        if node.op in _GEMMS and node.input(0).elem_type == TensorProto.FLOAT:
            yield at(node, f"TensorRT-RTX has no FP32 matrix product for {_TURING}.")


def _first(view: GraphView, elem_type: int) -> Node | None:
    """The first node that reads, gives or names this type."""
    for node in view.nodes:
        values = [node.input(index) for index in range(len(node.proto.input))]
        values += [node.output(index) for index in range(len(node.proto.output))]
        named = (node.attribute("to"), node.attribute("output_dtype"))
        if elem_type in named or any(value.elem_type == elem_type for value in values):
            return node
    return None


RULES = (
    Rule("fp8", Severity.ERROR, fp8, "Use INT8 or FP16 there."),
    Rule("bf16", Severity.ERROR, bf16, "Use FP16 there."),
    Rule(
        "turing-gemm",
        Severity.ERROR,
        turing_gemm,
        "Build with --precision fp16, or leave the target out.",
        Scope.RTX,
    ),
)
