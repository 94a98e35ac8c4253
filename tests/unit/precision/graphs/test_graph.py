"""Look-ups in a graph, where control flow reads what its inputs do not list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edge_runtime.precision.graphs.graph import (
    Graph,
    Names,
    attribute,
    captures,
    reads,
    set_initializers,
    set_nodes,
    subgraphs,
)
from tests import models
from tests.models import NETS, PICTURE, Net


def nested() -> ModelProto:
    """An If in an If: the inner one reads `x`, `inner`, `shared`, and gives `deep` and `x` back."""
    net = Net()
    x = net.input("x", PICTURE)
    net.constant("shared", 2.0)
    condition = net.op(
        "Greater", net.op("ReduceMax", x, name="top", keepdims=0), "shared", name="c"
    )
    values = {
        n: helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "deep", "y")
    }
    deep = helper.make_graph(
        [
            helper.make_node("Mul", ["inner", "own"], ["local"]),
            helper.make_node("Add", ["local", "shared"], ["deep"]),
        ],
        "deep",
        [],
        [values["deep"]],
        [numpy_helper.from_array(np.float32(3), "own")],
    )
    back = helper.make_graph([], "back", [], [values["x"]])
    outer = helper.make_graph(
        [
            helper.make_node("Neg", ["x"], ["inner"]),
            helper.make_node("If", ["c"], ["y"], then_branch=deep, else_branch=back),
        ],
        "outer",
        [],
        [values["y"]],
    )
    y = net.op("If", condition, name="if", then_branch=outer, else_branch=outer)
    return net.proto(y, shapes={"if": list(PICTURE)})


def test_captures_are_what_every_depth_reads_from_outside() -> None:
    node = models.node(nested(), "if")
    assert set(captures(node)) == {"x", "c", "shared"}
    assert set(reads(node)) == {"x", "c", "shared"}
    body = node.attribute[0].g
    assert set(captures(body.node[1])) == {"inner", "shared", "x"}
    assert set(captures(body.node[0])) == set()


def test_a_loops_own_variables_are_not_captured() -> None:
    assert set(captures(models.node(NETS["loop"](), "loop"))) == {"r1"}


def test_consumers_count_captures_and_each_node_once() -> None:
    graph = Graph(nested())
    assert [node.name for node in graph.consumers["x"]] == ["top", "if"]
    assert [node.name for node in graph.consumers["shared"]] == ["c", "if"]
    net = Net()
    twice = net.proto(net.op("Mul", net.input("x", PICTURE), "x", name="square"))
    assert len(Graph(twice).consumers["x"]) == 1


def test_inputs_that_are_left_out_are_nobodys() -> None:
    graph = Graph(NETS["optional_inputs"]())
    assert "" not in graph.producer
    assert "" not in graph.consumers
    assert "" not in set(reads(models.node(graph.proto, "clip")))


def test_types_and_shapes_are_known() -> None:
    graph = Graph(NETS["constant_nodes"]())
    assert graph.shape("x") == (-1, 16, 8, 8)
    assert graph.shape("c1") == (-1, 16, 8, 8)
    assert graph.elem_type("batch") == TensorProto.INT64
    assert graph.shape("fc.w") == (1024, 16)  # A large initialiser.
    assert graph.elem_type("nowhere") == 0
    assert graph.shape("nowhere") is None
    assert graph.is_activation("c1")
    assert not any(graph.is_activation(name) for name in ("fc.w", "batch", "", "nowhere"))
    assert graph.is_float("fc.w")


def test_a_shape_may_have_no_dimension_or_be_unknown() -> None:
    graph = Graph(nested())
    assert graph.shape("top") == ()
    assert graph.shape("shared") == ()


def test_constants_are_initialisers_only() -> None:
    graph = Graph(NETS["constant_nodes"]())
    assert graph.constant("fc.w").shape == (1024, 16)
    assert graph.constant("third") is None  # A Constant node; preparing folds it.


def test_every_subgraph_is_found() -> None:
    names = [graph.name for graph in subgraphs(nested().graph)]
    assert sorted(names) == sorted(["net", *["outer", "deep", "back"] * 2])


def test_attributes_have_defaults() -> None:
    node = helper.make_node("Gemm", ["a"], ["b"], transB=1, alpha=0.5, mode="x")
    assert attribute(node, "transB", 0) == 1
    assert attribute(node, "alpha", 1.0) == 0.5
    assert attribute(node, "mode", "") == "x"
    assert attribute(node, "beta", 1.5) == 1.5


@given(st.lists(st.sampled_from(["x", "c1", "c1.w", "r0", "free", "free_2"]), max_size=20))
def test_new_names_are_new(wanted: list[str]) -> None:
    proto = NETS["residual"]()
    names = Names(proto)
    taken = {node.name for node in proto.graph.node}
    taken |= {name for node in proto.graph.node for name in (*node.input, *node.output)}
    given_out = [names.new(name) for name in wanted]
    assert len({*given_out} | taken) == len(given_out) + len(taken)
    assert all(new.startswith(old) for old, new in zip(wanted, given_out, strict=True))


def test_names_inside_branches_are_taken_too() -> None:
    names = Names(nested())
    assert names.new("local") == "local_2"
    assert names.new("inner") == "inner_2"
    assert names.new("local") == "local_3"


@pytest.mark.parametrize("value", [np.float32(3), np.ones((1, 1), np.int8), np.zeros((0, 2))])
def test_initialisers_keep_their_shape_and_type(value: np.ndarray) -> None:
    proto = NETS["residual"]()
    count = len(proto.graph.initializer)
    set_initializers(proto, {"new": np.asarray(value), "c1.b": np.asarray(value)})
    stored = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    assert len(proto.graph.initializer) == count + 1
    for name in ("new", "c1.b"):
        assert stored[name].dtype == value.dtype
        assert stored[name].shape == value.shape


def test_initialisers_that_nothing_reads_go_with_their_nodes() -> None:
    proto = NETS["residual"]()
    set_nodes(proto, [node for node in proto.graph.node if node.name != "c3"])
    names = {tensor.name for tensor in proto.graph.initializer}
    assert not {"c3.w", "c3.b"} & names
    assert {"c2.w", "c2.b"} <= names
    # What only a branch reads, and what is an output, stays.
    proto = nested()
    proto.graph.output.append(helper.make_tensor_value_info("kept", TensorProto.FLOAT, []))
    set_initializers(proto, {"kept": np.float32(1), "unread": np.float32(1)})
    set_nodes(proto, list(proto.graph.node))
    assert {tensor.name for tensor in proto.graph.initializer} == {"shared", "kept"}
