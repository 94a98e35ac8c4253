"""Lines of TensorRT's log are given the nodes that they are about.

The lines are TensorRT-RTX 1.7.1.116's, and those of TensorRT 8.5 to 10.13 in public reports.
"""

from __future__ import annotations

from typing import Any

import onnx
import pytest

from edge_runtime.backends.base import PlanKey
from edge_runtime.backends.onnx_graph import GraphNode, OnnxGraph
from edge_runtime.backends.tensorrt.builder import TensorRTBuilder
from edge_runtime.backends.tensorrt.explain import explain, locate
from edge_runtime.backends.tensorrt.parse import ParserFailure
from edge_runtime.errors import BuildError
from tests.unit.backends.tensorrt.modules import module

BRANCHES = (
    GraphNode("left", "Split", ("798",), ("q",)),
    GraphNode("right", "Split", ("m",), ("r",)),
    GraphNode("only", "Abs", ("r",), ("s",)),
)
GRAPH = OnnxGraph(
    nodes=(
        GraphNode("/net/conv/Conv", "Conv", ("input", "onnx::Conv_7"), ("/net/c_output_0",)),
        GraphNode("scores", "Relu", ("/net/c_output_0",), ("t",)),
        GraphNode("Mul_16", "Mul", ("t", "w"), ("m",)),
        GraphNode("Mul", "Mul", ("m", "w"), ("n",)),
        GraphNode("", "Neg", ("n",), ("798",)),
        GraphNode("choice", "If", ("flag",), ("p",), inner=BRANCHES),
        GraphNode("output", "Attention", ("p",), ("output",)),
    ),
    inputs={"input": "float32", "odd": "int16", "flag": "bool"},
)
CONV, RELU, ATTENTION = "'/net/conv/Conv' (Conv)", "'scores' (Relu)", "'output' (Attention)"
MUL, MUL_16 = "'Mul' (Mul)", "'Mul_16' (Mul)"
NO_TACTIC = "Error Code 10: Internal Error (Could not find any implementation for node "


def about(line: str, graph: OnnxGraph = GRAPH) -> str:
    """What is said before the line, which itself stays as it is."""
    said = explain(line, graph)
    assert said.endswith(line)
    return said.removesuffix(line).removesuffix(": ")


@pytest.mark.parametrize(
    ("line", "nodes"),
    [
        (NO_TACTIC + "/net/conv/Conv.)", f"node {CONV}"),
        ("Cannot compile operation 'scores' for Turing (SM75)", f"node {RELU}"),
        ("Layer scores failed", f"node {RELU}"),
        ("while building [ONNX Layer: scores]", f"node {RELU}"),
        ("Assertion failed. scores_2 has no runners that implement it In x.cpp", f"node {RELU}"),
        ("(Tensor output has datatype FP8 but is not produced by INoLayer.)", f"node {ATTENTION}"),
        ("Tensor /net/c_output_0 is bad", f"node {CONV}"),
        ("Tensor /net/c_output_0 is not consumed by ILayer", f"node {RELU}"),
        ("Tensor input has datatype FP8 but is not consumed by IDequantizeLayer", f"node {CONV}"),
        ("importing initializer: w", f"nodes {MUL_16}, {MUL}"),
        (NO_TACTIC + "node_of_798.)", "node '798' (Neg)"),
    ],
)
def test_a_layer_or_tensor_names_its_node(line: str, nodes: str) -> None:
    assert about(line) == nodes


def test_a_number_that_was_added_is_told_from_one_of_the_graphs() -> None:
    assert about("layer Mul_16 is bad") == f"node {MUL_16}"
    assert about("layer Mul_17 is bad") == f"node {MUL}"


@pytest.mark.parametrize(
    ("layer", "nodes"),
    [
        ("/net/conv/Conv + PWN(PWN(Mul_16), Mul_17)", f"nodes {CONV}, {MUL_16}"),
        ("{ForeignNode[/net/conv/Conv...output]}", f"nodes {CONV} to {ATTENTION}"),
        ("{ForeignNode[onnx::Conv_7...scores]}", f"nodes {CONV} to {RELU}"),
        (
            "{ForeignNode[onnx::Conv_7 + (Unnamed Layer* 1) [Shuffle].../net/c + Mul_16]}",
            f"nodes {CONV} to {MUL_16}",
        ),
        (
            "{ForeignNode[(Unnamed Layer* 2176) [Shuffle]...Mul_16]}",
            f"node {MUL_16} and those fused with it",
        ),
        ("{ForeignNode[(Unnamed Layer* 1) [Shuffle]...(Unnamed Layer* 9) [Shuffle]]}", ""),
    ],
)
def test_fused_nodes_are_named_by_the_first_and_the_last_or_each(layer: str, nodes: str) -> None:
    assert about(f"{NO_TACTIC}{layer}.)") == nodes


def test_of_an_operator_without_a_name_all_nodes_are_candidates() -> None:
    line = "CHECK failed. {} operation was not supported by a dedicated kernel."
    assert about(line.format("Attention")) == f"node {ATTENTION}"
    inner = "'left' (Split), 'right' (Split)"
    assert about(line.format("Split")) == f"one of the nodes {inner}"
    assert about(line.format("Softmax")) == ""


def test_many_candidates_are_not_all_listed() -> None:
    graph = OnnxGraph(tuple(GraphNode(f"n{i}", "Relu") for i in range(14)))
    said = about("a Relu layer", graph)
    assert said.startswith("one of the nodes 'n0' (Relu), 'n1' (Relu)")
    assert said.endswith("'n9' (Relu) and 4 more")


@pytest.mark.parametrize(
    "line",
    [
        "Error Code 2: OutOfMemory (Requested size was 798 bytes.)",
        "the input or output of the choice scores only in words",
        "In validateQuantized at /_src/optimizer/api/network.cpp:284",
        "",
    ],
)
def test_ordinary_words_and_numbers_are_no_names(line: str) -> None:
    assert explain(line, GRAPH) == line
    assert explain(line, OnnxGraph()) == line


# The parser's own errors.


def test_a_node_without_a_name_is_named_by_its_place() -> None:
    failure = ParserFailure("", "Neg", "why", index=4)
    assert str(locate(failure, GRAPH)) == "node '798' (Neg): why"
    named = ParserFailure("n1", "Neg", "why", index=4)
    assert locate(named, GRAPH) == named


def test_a_node_in_a_branch_is_found_by_its_operator() -> None:
    only = ParserFailure("", "Abs", "why", index=5)
    assert str(locate(only, GRAPH)) == "node 'only' (Abs) in 'choice' (If): why"
    said = str(locate(ParserFailure("", "Split", "why", index=5), GRAPH))
    assert said.startswith("a node (Split) in 'choice' (If): why (it is one of the nodes 'left' (")
    assert "'right' (Split)" in said


def test_a_place_that_does_not_fit_the_graph_is_left_as_it_is() -> None:
    for failure in (
        ParserFailure("", "Tan", "why", index=5),
        ParserFailure("", "Neg", "why", index=99),
        ParserFailure("", "Neg", "why", index=4, path=("f1 (Function)",)),
    ):
        assert locate(failure, GRAPH) == failure
        assert locate(failure, OnnxGraph()) == failure


def test_an_error_about_no_node_is_traced_by_the_function_that_found_it() -> None:
    failure = ParserFailure("", "", "Unsupported type", function="importRelu")
    assert str(locate(failure, GRAPH)) == "node 'scores' (Relu): Unsupported type"
    several = str(locate(ParserFailure("", "", "why", function="importMul"), GRAPH))
    assert several == f"a node (Mul): why (it is one of the nodes {MUL_16}, {MUL})"
    other = ParserFailure("", "", "why", function="importModel")
    assert locate(other, GRAPH) == other


def test_the_type_of_a_refused_input_is_said() -> None:
    failure = ParserFailure("odd", "", "Failed to convert the type.", function="importInput")
    assert str(locate(failure, GRAPH)) == "input 'odd': Failed to convert the type (it is int16)"


@pytest.mark.parametrize("version", ["10.3.0", "rtx-1.7.1.116"])
def test_a_refused_build_says_so(version: str) -> None:
    trt: Any = module(version)
    trt.options.fail_build = f"{NO_TACTIC}c1 + PWN(r1).)"
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[1] x) => (float[1] y)'
    model = onnx.parser.parse_model(text + "{ [c1] t = Neg(x) [r1] y = Relu(t) }")
    key = PlanKey(
        "tensorrt" if trt.__name__ == "tensorrt" else "tensorrt-rtx",
        trt.__version__,
        ("sm86",),
        "linux-x86_64",
    )
    with pytest.raises(BuildError) as refusal:
        TensorRTBuilder(trt, key).build(model.SerializeToString(), [])
    assert refusal.value.log[-1].startswith("nodes 'c1' (Neg), 'r1' (Relu): ")
