"""Each lint: a model that it is about, and near misses that it must not take for one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest

from edge_runtime.config import ShapeRange
from edge_runtime.preflight.findings import Scope, Severity
from edge_runtime.preflight.lints import RULES, run_lints

DOMAINS = '"ai.onnx.ml" : 3, "com.microsoft" : 1, "my.domain" : 1'


def graph(text: str, opset: int = 20) -> onnx.ModelProto:
    """A model from ONNX's text form, `(inputs) => (outputs) <constants> { nodes }`."""
    header = f'<ir_version: 10, opset_import: ["" : {opset}, {DOMAINS}]>'
    return onnx.parser.parse_model(f"{header} g {text}")


@dataclass(frozen=True)
class Case:
    """A model and whom one rule must name in it.

    Attributes:
        rule: The rule.
        text: The model.
        nodes: What its findings are about, in order; none for a near miss.
        severity: Of all of them.
    """

    rule: str
    text: str
    nodes: tuple[str, ...] = ()
    severity: str = "error"
    opset: int = 20
    targets: tuple[str, ...] = ()
    profile: dict[str, ShapeRange] = field(default_factory=dict)
    scope: str = "tensorrt"


def qdq(kind: str, zero: int, name: str = "q1") -> str:
    return f"""(float[4] x) => (y) <float s = {{0.5}}, {kind} z = {{{zero}}}>
        {{ [{name}] q = QuantizeLinear(x, s, z) [d1] y = DequantizeLinear(q, s, z) }}"""


def resize(attributes: str) -> str:
    return f"""(float[1,1,4,4] x) => (y) <float[4] sc = {{1, 1, 2, 2}}>
        {{ [r] y = Resize<{attributes}>(x, , sc) }}"""


def cast(elem_type: int) -> str:
    return f"(float[4] x) => (y) {{ [c] z = Cast<to={elem_type}>(x) [d] y = Cast<to=1>(z) }}"


NORM = "<float[3] a = {1,1,1}, float[3] b = {1,1,1}, float[3] c = {1,1,1}, float[3] d = {1,1,1}>"
FIXED = {"x": ShapeRange.parse("1x8x8")}
OBLONG = {"x": ShapeRange.parse("1x8x8,1x8x16,4x16x16")}

CASES = [
    Case("uint8-zero-point", qdq("uint8", 0), ("q1", "d1")),
    Case("uint8-zero-point", qdq("uint8", 128), ("q1", "d1")),
    Case("uint8-zero-point", qdq("int8", 0)),
    Case(
        "uint8-zero-point",
        "(float[4] x) => (y) <float s = {1}> { [q] y = QuantizeLinear<output_dtype=2>(x, s) }",
        ("q",),
        opset=21,
    ),
    Case("asymmetric-zero-point", qdq("int8", 5), ("q1", "d1")),
    Case("asymmetric-zero-point", qdq("int8", 0)),
    Case(
        "asymmetric-zero-point",
        """(float[2,2] x) => (y) <float[2] s = {1, 1}, int8[2] z = {0, 1}>
        { [q] y = QuantizeLinear<axis=0>(x, s, z) }""",
        ("q",),
    ),
    Case(
        "missing-zero-point",
        """(float[4] x) => (y) <float s = {1}>
        { [q] q = QuantizeLinear(x, s) [d] y = DequantizeLinear(q, s) }""",
        ("q",),
    ),
    Case(
        "missing-zero-point",
        "(float[4] x) => (y) <float s = {1}> { [q] y = QuantizeLinear<output_dtype=3>(x, s) }",
        opset=21,
    ),
    Case(
        "fed-zero-point",
        "(float[4] x, int8 z) => (y) <float s = {1}> { [q] y = QuantizeLinear(x, s, z) }",
        ("q",),
    ),
    Case(
        "int32-dequantize",
        "() => (y) <float s = {1}, int32[2] b = {1, 2}> { [bias] y = DequantizeLinear(b, s) }",
        ("bias",),
    ),
    Case(
        "int32-dequantize",
        "() => (y) <float s = {1}, int8[2] b = {1, 2}> { [w] y = DequantizeLinear(b, s) }",
    ),
    Case("int16-quantization", qdq("int16", 0), ("q1", "d1"), opset=21),
    Case("int16-quantization", qdq("int8", 0), opset=21),
    Case(
        "quantized-operator",
        "(float[4] x) => (y, s, z) { [dql] y, s, z = DynamicQuantizeLinear(x) }",
        ("dql",),
    ),
    Case(
        "quantized-operator",
        "(int8[4,4] x) => (y) { [a] y = com.microsoft.QLinearAdd(x, x) }",
        ("a",),
    ),
    Case("quantized-operator", "(float[4,4] x) => (y) { [a] y = MatMul(x, x) }"),
    Case("unsupported-operator", "(float[2,2] x) => (y) { [a] y = Det(x) }", ("a",)),
    Case("unsupported-operator", "(float[2,2] x) => (y) { y = Det(x) }", ("y",)),
    Case("unsupported-operator", "(float[2,2] x) => (y) { [a] y = my.domain.Det(x) }"),
    Case(
        "unsupported-operator",
        """(bool c, float[2,2] x) => (y) { y = If(c) <
            then_branch = t () => (float p) { [deep] p = Det(x) },
            else_branch = e () => (float q) {
                i = If(c) <then_branch = u () => (float r) { [deeper] r = Det(x) },
                           else_branch = v () => (float s) { s = ReduceSum(x) }>
                q = Identity(i)
            }
        > }""",
        ("deep", "deeper"),
    ),
    Case(
        "custom-operator",
        "(float[4] x) => (y) { [a] y = my.domain.Foo(x) }",
        ("a",),
        severity="warning",
    ),
    Case("custom-operator", "(float[4] x) => (y) { [a] y = ai.onnx.ml.Binarizer(x) }", ("a",)),
    Case("custom-operator", "(float[4] x) => (y) { [a] y = Relu(x) }"),
    Case(
        "rtx-gap",
        "(float[4] x) => (y) { [a] y = NonZero(x) }",
        ("a",),
        severity="note",
        scope="tensorrt-rtx",
    ),
    Case("rtx-gap", "(float[4] x) => (y) { [a] y = Neg(x) }"),
    Case(
        "rtx-if",
        """(bool c, float[4] x) => (y) { [i] y = If(c) <
            then_branch = t () => (float p) { p = Neg(x) },
            else_branch = e () => (float q) { q = Abs(x) }> }""",
        ("i",),
        severity="warning",
        scope="tensorrt-rtx",
    ),
    Case(
        "attention",
        "(float[1,2,4,8] q) => (y) { [a] y = Attention(q, q, q) }",
        ("a",),
        severity="warning",
        opset=23,
    ),
    Case("attention", "(float[1,2,4,8] q) => (y) { [a] y = com.microsoft.Attention(q, q, q) }"),
    Case("resize-mode", resize('coordinate_transformation_mode="half_pixel_symmetric"'), ("r",)),
    Case("resize-mode", resize('mode="linear", antialias=1'), ("r",)),
    Case("resize-mode", resize('mode="linear", coordinate_transformation_mode="align_corners"')),
    Case(
        "resize-mode",
        resize('coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode="floor"'),
        ("r",),
    ),
    Case("resize-mode", resize('coordinate_transformation_mode="tf_half_pixel_for_nn"')),
    Case(
        "resize-mode",
        """(float[1,1,4,4] x) => (y) <int64[4] sizes = {1, 1, 8, 9}>
        { [r] y = Resize<keep_aspect_ratio_policy="not_larger">(x, , , sizes) }""",
        ("r",),
    ),
    Case(
        "large-top-k",
        "(float[5000] x) => (y, i) <int64[1] k = {3841}> { [t] y, i = TopK(x, k) }",
        ("t",),
    ),
    Case(
        "large-top-k",
        "(float[5000] x) => (y, i) { k = Constant<value_ints=[3841]>() [t] y, i = TopK(x, k) }",
        ("t",),
    ),
    Case(
        "large-top-k", "(float[5000] x) => (y, i) <int64[1] k = {3840}> { [t] y, i = TopK(x, k) }"
    ),
    Case(
        "fed-constant",
        "(float[4] x, int64[1] axes) => (y) { [r] y = ReduceSum(x, axes) }",
        ("r",),
    ),
    Case(
        "fed-constant", "(float[4] x) => (y) <int64[1] axes = {0}> { [r] y = ReduceSum(x, axes) }"
    ),
    Case(
        "shape-input",
        "(float[4] x, int64[1] k) => (y, i) { [t] y, i = TopK(x, k) }",
        ("t",),
        severity="warning",
    ),
    Case(
        "shape-input",
        "(float[4] x, int64[1] k) => (y, i) { [t] y, i = TopK(x, k) }",
        profile={"k": ShapeRange.parse("1,2,3")},
    ),
    Case(
        "training-mode",
        f"""(float[1,3,2,2] x) => (y, m, v) {NORM}
        {{ [bn] y, m, v = BatchNormalization<training_mode=1>(x, a, b, c, d) }}""",
        ("bn",),
    ),
    Case(
        "training-mode",
        f"""(float[1,3,2,2] x) => (y) {NORM}
        {{ [bn] y = BatchNormalization(x, a, b, c, d) }}""",
    ),
    Case(
        "training-mode",
        "(float[4] x) => (y) <float r = {0.5}, bool t = {1}> { [d] y = Dropout(x, r, t) }",
        ("d",),
    ),
    Case(
        "training-mode",
        "(float[4] x) => (y) <float r = {0.5}, bool t = {0}> { [d] y = Dropout(x, r, t) }",
    ),
    Case("opset", "(float[4] x) => (y) { y = Relu(x) }", ("",), severity="warning", opset=8),
    Case("opset", "(float[4] x) => (y) { y = Relu(x) }", ("",), severity="note", opset=21),
    Case("opset", "(float[4] x) => (y) { y = Relu(x) }", ("",), severity="warning", opset=26),
    Case("opset", "(float[4] x) => (y) { y = Relu(x) }", opset=9),
    Case("opset", "(float[4] x) => (y) { y = Relu(x) }", opset=20),
    Case("unknown-type", "(int16[4] x) => (y) { y = Identity(x) }", ("x",)),
    Case("unknown-type", "(string[4] x) => (y) { y = Identity(x) }", ("x",)),
    Case("unknown-type", "() => (y) <uint32[1] c = {1}> { y = Identity(c) }", ("c",)),
    Case("unknown-type", cast(onnx.TensorProto.INT16), ("c",)),
    Case("unknown-type", cast(onnx.TensorProto.INT32)),
    Case("unknown-type", "(uint8[4] x) => (y) { y = Cast<to=1>(x) }"),
    Case("double", "(double[4] x) => (float[4] y) { y = Cast<to=1>(x) }", ("x",), "warning"),
    Case("double", cast(onnx.TensorProto.DOUBLE), ("c",), severity="warning"),
    Case("double", "(float[4] x) => (y) { y = Neg(x) }"),
    Case("int64", "(int64[4] x) => (int64[4] y) { y = Neg(x) }", ("x", "y"), severity="note"),
    Case("int64", "(int32[4] x) => (int32[4] y) { y = Neg(x) }"),
    Case("repeated-dimension", "(float[1,n,n] x) => (y) { y = Neg(x) }", ("x",), "warning"),
    Case("repeated-dimension", "(float[1,n,n] x) => (y) { y = Neg(x) }", ("x",), profile=OBLONG),
    Case(
        "repeated-dimension",
        "(float[1,n,n] x) => (y) { y = Neg(x) }",
        ("x",),
        severity="warning",
        profile=FIXED,
    ),
    Case("repeated-dimension", "(float[n,3,h] x, float[n,3,h] z) => (y) { y = Add(x, z) }"),
    Case("dynamic-dimension", "(float[n,3] x) => (y) { y = Neg(x) }", ("x",), severity="warning"),
    Case("dynamic-dimension", "(float[n,8,8] x) => (y) { y = Neg(x) }", profile={"x": OBLONG["x"]}),
    Case("dynamic-dimension", "(float[2,3] x) => (y) { y = Neg(x) }"),
    Case("fp8", cast(17), ("c",), targets=("sm87",)),
    Case("fp8", cast(17), ("c",), severity="warning"),
    Case("fp8", cast(17), targets=("sm89", "sm110")),
    Case("fp8", cast(10), targets=("sm87",)),
    Case("bf16", cast(16), ("c",), targets=("sm72",)),
    Case("bf16", cast(16), targets=("sm87",)),
    Case("bf16", cast(16)),
    Case(
        "turing-gemm",
        "(float[4,4] x) => (y) { [m] y = MatMul(x, x) }",
        ("m",),
        targets=("sm75", "sm86"),
        scope="tensorrt-rtx",
    ),
    Case("turing-gemm", "(float[4,4] x) => (y) { [m] y = MatMul(x, x) }", targets=("sm86",)),
    Case("turing-gemm", "(float16[4,4] x) => (y) { [m] y = MatMul(x, x) }", targets=("sm75",)),
]


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{n}-{case.rule}-{len(case.nodes)}" for n, case in enumerate(CASES)]
)
def test_it_finds_what_it_is_about_and_nothing_else(case: Case) -> None:
    model = graph(case.text, case.opset)
    findings = run_lints(model, targets=case.targets, profiles=[case.profile])
    found = [finding for finding in findings if finding.rule == case.rule]
    assert tuple(finding.node for finding in found) == case.nodes
    assert {finding.severity for finding in found} <= {Severity(case.severity)}
    assert {finding.scope for finding in found} <= {Scope(case.scope)}
    assert all(finding.message and finding.hint for finding in found)


def test_every_lint_has_a_case() -> None:
    cases = {case.rule for case in CASES if case.nodes}
    assert {rule.name for rule in RULES} - cases == {"infinite-weight"}  # No text form; see below.


@pytest.mark.parametrize(("value", "found"), [(np.inf, ["w"]), (-np.inf, ["w"]), (65504.0, [])])
def test_infinite_fp16_weights(value: float, found: list[str]) -> None:
    model = graph("(float16[2] x) => (y) { y = Add(x, w) }")
    weight = onnx.numpy_helper.from_array(np.array([1, value], np.float16), "w")
    model.graph.initializer.append(weight)
    hits = [f for f in run_lints(model) if f.rule == "infinite-weight"]
    assert [finding.node for finding in hits] == found


def test_a_clean_model_has_no_findings() -> None:
    text = """(float[1,3,8,8] x) => (y) <float s = {1}, int8 z = {0}, float[1,3,1,1] w = {1,2,3}>
    { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Conv(d, w) }"""
    assert run_lints(graph(text), targets=("sm87",)) == ()


def test_a_function_of_the_model_itself_is_no_custom_operator_but_is_looked_into() -> None:
    model = graph("(float[2,2] x) => (y) { y = my.domain.Mine(x) }")
    text = '<domain: "my.domain", opset_import: ["" : 20]> Mine (a) => (b) { [inside] b = Det(a) }'
    model.functions.append(onnx.parser.parse_function(text))
    assert [(f.rule, f.node) for f in run_lints(model)] == [("unsupported-operator", "inside")]


def test_sibling_branches_may_use_one_name_for_different_things() -> None:
    text = """(bool c, float[4] x) => (y) <float s = {1}> { y = If(c) <
        then_branch = t () => (float p) <int8 z = {0}>
            { q = QuantizeLinear(x, s, z) [good] p = DequantizeLinear(q, s, z) },
        else_branch = e () => (float r) <int8 z = {7}>
            { q = QuantizeLinear(x, s, z) [bad] r = DequantizeLinear(q, s, z) }> }"""
    found = [f.node for f in run_lints(graph(text)) if f.rule == "asymmetric-zero-point"]
    assert found == ["q", "bad"]


def test_large_weights_are_known_too() -> None:
    model = graph("(float[5000,2] x) => (y) { [q] y = QuantizeLinear<axis=0>(x, s, z) }")
    scale = onnx.numpy_helper.from_array(np.ones(5000, np.float32), "s")
    zero = onnx.numpy_helper.from_array(np.eye(1, 5000, 4999, np.int8)[0], "z")
    model.graph.initializer.extend([scale, zero])
    assert [(f.rule, f.node) for f in run_lints(model)] == [("asymmetric-zero-point", "q")]


def test_an_initializer_that_is_an_input_too_is_no_input() -> None:
    text = "(float[4] x, int64[1] axes) => (y) { y = ReduceSum(x, axes) }"
    model = graph(text)
    assert "fed-constant" in {f.rule for f in run_lints(model)}
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "axes"))
    assert run_lints(model) == ()
