"""The precision of a layer is read from the graph that was written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edge_runtime.precision.graphs.carried import carried, operator_set, reads_int8
from edge_runtime.precision.graphs.graph import Graph

NETS = {
    "int8": """(float[1,2,4,4] x) => (float[1,2,4,4] y)
        <float s = {0.5}, int8 z = {0}, int8[2,2,1,1] w = {1,2,3,4}>
        { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
          v = DequantizeLinear(w, s, z) [node] y = Conv(d, v) }""",
    "fp32": """(float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w = {1,2,3,4}>
        { [node] y = Conv(x, w) }""",
    "fp32 weights": """(float[1,2,4,4] x) => (float[1,2,4,4] y)
        <float s = {0.5}, int8 z = {0}, float[2,2,1,1] w = {1,2,3,4}>
        { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) [node] y = Conv(d, w) }""",
    "fp32 activation": """(float[1,2,4,4] x) => (float[1,2,4,4] y)
        <float s = {0.5}, int8 z = {0}, int8[2,2,1,1] w = {1,2,3,4}>
        { v = DequantizeLinear(w, s, z) [node] y = Conv(x, v) }""",
    "fp32 uint8": """(float[1,2,4,4] x) => (float[1,2,4,4] y)
        <float s = {0.5}, uint8 z = {0}, int8[2,2,1,1] w = {1,2,3,4}>
        { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
          v = DequantizeLinear(w, s) [node] y = Conv(d, v) }""",
    "fp32 cast between": """(float[1,2,4,4] x) => (float[1,2,4,4] y)
        <float s = {0.5}, int8 z = {0}, int8[2,2,1,1] w = {1,2,3,4}>
        { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) c = Cast<to=1>(d)
          v = DequantizeLinear(w, s, z) [node] y = Conv(c, v) }""",
    "fp32 pool": """(float[1,2,4,4] x) => (float[1,2,4,4] y) <float s = {0.5}, int8 z = {0}>
        { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) [node] y = Relu(d) }""",
    "fp16": """(float16[2] x) => (float16[2] y) { [node] y = Relu(x) }""",
    "bf16": """(bfloat16[2] x) => (bfloat16[2] y) { [node] y = Add(x, x) }""",
    "fp16 resize": """(float16[1,1,2,2] x) => (float16[1,1,4,4] y) <float[4] by = {1,1,2,2}>
        { [node] y = Resize(x, , by) }""",
    "fp16 compare": """(float16[2] x) => (bool[2] y) { [node] y = Greater(x, x) }""",
    "fp32 cast": """(float16[2] x) => (float[2] y) { [node] y = Cast<to=1>(x) }""",
    "integer": """(int64[2] x) => (int64[2] y) { [node] y = Add(x, x) }""",
    "unknown": """(int64[2] x) => (float[2] y) { [node] t = other.Make(x) y = Cast<to=1>(t) }""",
}


def graph(name: str, opset: int = 20) -> Graph:
    header = f'<ir_version: 10, opset_import: ["" : {opset}, "other" : 1]>'
    return Graph(onnx.parser.parse_model(f"{header} g {NETS[name]}"))


@pytest.mark.parametrize("name", NETS)
def test_a_node_carries_what_its_tensors_say(name: str) -> None:
    found = graph(name)
    node = next(node for node in found.nodes if node.name == "node")
    assert carried(found, node) == name.split()[0]
    assert reads_int8(found, node) == (name == "int8")


def test_the_operator_set_is_onnx_own() -> None:
    assert operator_set(graph("fp32", 17)) == 17


def test_half_dequantized_values_are_int8() -> None:
    text = NETS["int8"].replace("float", "float16").replace("0.5", str(np.float16(0.5).view("i2")))
    found = Graph(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> g {text}'))
    assert carried(found, found.nodes[-1]) == "int8"
