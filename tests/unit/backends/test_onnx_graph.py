"""What is read of a graph without `onnx` is what `onnx` reads; what is no model does no harm."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from edge_runtime.backends.onnx_graph import (
    OnnxGraph,
    casts,
    first_refused,
    read_graph,
    weights,
    with_versions,
)
from edge_runtime.config import BuildConfig
from edge_runtime.precision.rewrite import rewrite
from tests import models
from tests.models import NETS, Net

NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}


def chain(nodes: int) -> ModelProto:
    net = Net()
    x = net.input("x", (1,))
    for i in range(nodes):
        x = net.op("Neg", x, name=f"n{i}")
    return net.proto(x)


@pytest.mark.parametrize("name", NETS)
def test_nodes_are_those_that_onnx_reads(name: str) -> None:
    proto = NETS[name]()
    graph = read_graph(proto.SerializeToString())
    assert [(n.name, n.op, n.inputs, n.outputs) for n in graph.nodes] == [
        (n.name, n.op_type, tuple(filter(None, n.input)), tuple(filter(None, n.output)))
        for n in proto.graph.node
    ]
    assert list(graph.inputs) == [value.name for value in proto.graph.input]


def test_nodes_of_branches_come_after_the_one_that_they_are_in() -> None:
    graph = read_graph(NETS["branches"]().SerializeToString())
    outer = next(node for node in graph.nodes if node.inner)
    walked = [node.label for node in graph.walk()]
    start = walked.index(outer.label)
    inner = [node.label for node in outer.inner]
    assert walked[start + 1 : start + 1 + len(inner)] == inner
    assert len(walked) > len(graph.nodes)


def test_a_node_without_a_name_is_called_by_its_output() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (y) { y = Neg(x) }'
    (node,) = read_graph(onnx.parser.parse_model(text).SerializeToString()).nodes
    assert str(node) == "'y' (Neg)"


@pytest.mark.parametrize("number", TensorProto.DataType.values()[1:])
def test_every_type_of_onnx_has_its_name(number: int) -> None:
    value = helper.make_tensor_value_info("x", number, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", [value], [value]))
    name = TensorProto.DataType.Name(number)
    assert read_graph(model.SerializeToString()).inputs == {"x": NAMES.get(name, name.lower())}


@given(st.binary(max_size=60))
def test_what_is_no_model_has_no_nodes_or_some_and_raises_nothing(data: bytes) -> None:
    read_graph(data)
    read_graph(b"\x3a" + bytes([len(data)]) + data)  # As a graph in a model.


@given(st.integers(0, 10_000))
def test_a_model_that_is_cut_off_has_no_nodes(length: int) -> None:
    proto = NETS["branches"]()
    proto.ClearField("opset_import")  # Now the graph comes last.
    whole = proto.SerializeToString()
    assert read_graph(whole).nodes
    assert read_graph(whole[: length % len(whole)]) == OnnxGraph()


def test_a_number_without_end_is_not_read_to_its_end() -> None:
    assert read_graph(b"\xff" * 2**20) == OnnxGraph()


def encoded(number: int, data: bytes) -> bytes:
    """A field of protobuf."""
    size = bytes([len(data) & 127 | 128, len(data) >> 7 & 127 | 128, len(data) >> 14])
    return bytes([number << 3 | 2]) + size + data


def test_subgraphs_without_end_do_no_harm() -> None:
    graph = b""
    for _ in range(2000):  # A node with an attribute that is a graph with a node ...
        graph = encoded(1, encoded(5, encoded(6, graph)))
    (node,) = read_graph(encoded(7, graph)).nodes
    assert len(node.inner) == 1


@pytest.mark.parametrize("culprit", [0, 1, 6, 12])
def test_the_first_node_that_is_refused_is_found_in_few_steps(culprit: int) -> None:
    steps = []

    def reason(data: bytes) -> str | None:
        graph = onnx.load_from_string(data).graph
        steps.append(len(graph.node))
        assert [o.name for o in graph.output] == [n.output[0] for n in graph.node]
        refused = any(n.name in (f"n{culprit}", "n12") for n in graph.node)
        return f"not {graph.node[-1].name}" if refused else None

    node, why = first_refused(chain(13).SerializeToString(), reason)
    assert (node.name, node.op, why) == (f"n{culprit}", "Neg", f"not n{culprit}")
    assert len(steps) <= 6


@pytest.mark.parametrize("reason", ["the graph is no good", None])
def test_what_no_node_is_the_reason_for_has_none(reason: str | None) -> None:
    with pytest.raises(LookupError):
        first_refused(chain(3).SerializeToString(), lambda _: reason)
    with pytest.raises(LookupError):
        first_refused(b"hello", lambda _: reason)


def test_versions_are_changed_and_nothing_else() -> None:
    proto = NETS["branches"]()
    proto.opset_import.add(domain="mine", version=3)
    found = onnx.load_from_string(with_versions(proto.SerializeToString(), ir=9, opset=300))
    proto.ir_version = 9
    proto.opset_import[0].version = 300
    assert found == proto
    assert onnx.load_from_string(with_versions(proto.SerializeToString())) == proto


@pytest.mark.parametrize("model", sorted(NETS))
def test_weights_and_casts_are_those_that_onnx_reads(model: str) -> None:
    graph = rewrite(models.model(NETS[model]()), BuildConfig(precision="fp16")).graph
    proto = onnx.load_from_string(graph)
    names = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
    names |= {TensorProto.INT64: "int64", TensorProto.BOOL: "bool"}
    assert weights(graph) == {
        w.name: (names[w.data_type], tuple(w.dims)) for w in proto.graph.initializer
    }
    assert casts(graph) == {
        node.output[0]: names[node.attribute[0].i]
        for node in proto.graph.node
        if node.op_type == "Cast"
    }


def test_packed_dimensions_are_read() -> None:
    name, dimensions = b"\x42\x01w", b"\x0a\x03\x02\xac\x02"  # 2 and 300, in one field.
    tensor = dimensions + b"\x10\x01" + name
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    assert weights(b"\x3a" + bytes([len(graph)]) + graph) == {"w": ("float32", (2, 300))}
