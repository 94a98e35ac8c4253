"""NVIDIA's refusals that name no node, or not by the name that it has in the graph."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

from edge_runtime.errors import BuildError


def refusal(rtx: Any, text: str, opset: int) -> str:
    header = f'<ir_version: 10, opset_import: ["" : {opset}]> g '
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(header + text))
    with pytest.raises(BuildError) as refused:
        rtx.create_builder([]).build(model.SerializeToString(), [])
    return "\n".join(refused.value.log)


@pytest.mark.parametrize(
    ("text", "opset", "words"),
    [
        (
            "(float[4] x) => (float8e4m3fn[4] y) { [n] t = Neg(x) [c] y = Cast<to=17>(t) }",
            21,
            "node 'c' (Cast): ",
        ),
        (
            "(float8e4m3fn[4] x) => (y) { [c] t = Cast<to=1>(x) [n] y = Neg(t) }",
            21,
            "node 'c' (Cast): ",
        ),
        (
            "(float[1,6,4] b, float[1,1,6] s) => (y)"
            " <int64[1] m = {3}> { [nms] y = NonMaxSuppression(b, s, m) }",
            20,
            "node 'nms' (NonMaxSuppression): ",
        ),
        (
            "(float[1,2,4,8] q, float[1,2,6,8] k) => (y)"
            " { [n] t = Neg(q) [attend] y = Attention(t, k, k) }",
            23,
            "node 'attend' (Attention): ",
        ),
        (
            "(float[4] d, float[2] u) => (y) <int64[2] i = {0, 1}>"
            ' { [n] t = Neg(d) [sc] y = ScatterElements<reduction="mul">(t, i, u) }',
            18,
            "node 'sc' (ScatterElements): Unsupported reduction type",
        ),
        (
            """(bool c, float[4] x) => (y) { [n] t = Neg(x) [choose] y = If(c) <
                then_branch = a () => (float[4] p) <int64[2] i = {0, 1}, float[2] u = {1, 1}>
                    { [sc] p = ScatterElements<reduction="mul">(t, i, u) },
                else_branch = b () => (float[4] q) { q = Abs(t) }> }""",
            18,
            "node 'sc' (ScatterElements)",
        ),
        ("(uint16[4] x) => (y) { y = Identity(x) }", 20, "(it is uint16)"),
    ],
    ids=["made", "taken", "numbered", "operator", "function", "branch", "type"],
)
def test_a_refusal_names_the_node(rtx: Any, text: str, opset: int, words: str) -> None:
    assert words in refusal(rtx, text, opset)


def test_the_parser_alone_names_it_too(rtx: Any) -> None:
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[2,2] x) => (float y) { y = Det(x) }'
    model = onnx.parser.parse_model(text).SerializeToString()
    (failure,) = rtx.create_builder([]).parser_failures(model)
    assert (failure.node, failure.op) == ("y", "Det")
