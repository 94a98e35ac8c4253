"""ONNX Runtime's profile: which of the graph's nodes each of its layers computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from edge_runtime.backends.base import LayerTime
from edge_runtime.backends.cpu import CpuRuntime, trace
from edge_runtime.backends.layer_times import layer_times
from edge_runtime.backends.onnx_graph import GraphNode, OnnxGraph, read_graph
from edge_runtime.backends.ort_profile import computed_nodes, inferences
from edge_runtime.errors import InferenceError
from tests import models
from tests.models import Net

PICTURE = {"x": np.ones((2, 16, 8, 8), np.float32)}


def timed(proto: ModelProto, *, fast: bool = True, runs: int = 2) -> list[LayerTime]:
    engine = CpuRuntime(threads=1, fast=fast).load(proto.SerializeToString())
    return engine.create_context().layer_times(PICTURE, runs=runs)


def groups(times: list[LayerTime]) -> set[frozenset[str]]:
    return {frozenset(time.nodes) for time in times if time.nodes}


def test_fused_nodes_are_found() -> None:
    found = groups(timed(models.residual()))
    assert {frozenset(("c0", "r0")), frozenset(("c1", "r1")), frozenset(("c3",))} <= found
    # The convolution before the Add does that and the Relu too.
    assert frozenset(("c2", "add", "r2")) in found


def test_a_shortcut_through_a_convolution_is_a_layer_of_its_own() -> None:
    found = groups(timed(models.shortcut()))
    assert {("c2" in nodes, "cs" in nodes) for nodes in found if nodes & {"c2", "cs"}} == {
        (True, False),
        (False, True),
    }


@pytest.mark.parametrize(
    "make", [models.conv_bn_relu, models.residual, models.shortcut, models.concat, models.pools]
)
def test_each_node_is_in_one_layer(make: Callable[[], ModelProto]) -> None:
    proto = make()
    times = timed(proto)
    placed = [name for time in times for name in time.nodes]
    # A BatchNormalization is folded into the weights before it: it is left out, not made up.
    wanted = [n.name for n in proto.graph.node if n.op_type not in ("BatchNormalization", "Relu")]
    assert sorted(set(placed)) == sorted(placed)
    assert set(wanted) <= set(placed) <= {node.name for node in proto.graph.node}


def test_products_with_a_bias_and_the_shapes_around_them_are_told_apart() -> None:
    net = Net()
    x = net.op("MatMul", net.input("x", (2, 16, 8, 8)), net.weight("w", 8, 8), name="product")
    times = timed(net.proto(net.op("Add", x, net.weight("b", 8, scale=1.0), name="bias")))
    (layer,) = (time for time in times if "product" in time.nodes)
    assert layer.nodes == ("product", "bias")


def quantized(convs: int = 1) -> ModelProto:
    """Convolutions in a row that read what is quantized; of two, the input is added to the last."""
    net = Net()
    zero, step = net.constant("zero", np.uint8(0)), net.constant("step", 0.05)
    signed = net.constant("signed", np.int8(0))

    def passed(name: str, x: str) -> str:
        q = net.op("QuantizeLinear", x, step, zero, name=f"{name}.q")
        return net.op("DequantizeLinear", q, step, zero, name=f"{name}.dq")

    x = y = passed("x", net.op("Abs", net.input("x", ("n", 16, 8, 8)), name="abs"))
    for name in ("conv", "two")[:convs]:
        levels = net.constant(f"{name}.levels", np.ones((16, 16, 3, 3), np.int8))
        weights = net.op("DequantizeLinear", levels, step, signed, name=f"{name}.w.dq")
        y = passed(f"{name}.y", net.op("Conv", y, weights, name=name, pads=[1, 1, 1, 1]))
    if convs > 1:
        y = passed("sum", net.op("Add", x, y, name="add"))
    return net.proto(net.op("Neg", y, name="end"))


def test_an_integer_layer_takes_its_quantization_in() -> None:
    (layer,) = (time for time in timed(quantized()) if "conv" in time.nodes)
    assert set(layer.nodes) == {"x.dq", "conv.w.dq", "conv", "conv.y.q"}


def test_what_is_quantized_between_two_layers_belongs_to_both() -> None:
    found = groups(timed(quantized(2)))
    assert frozenset(("x.dq", "conv.w.dq", "conv", "conv.y.q")) in found
    assert frozenset(("conv.y.dq", "two.w.dq", "two", "two.y.q")) in found
    # Each of the two that read the integers dequantizes them.
    assert frozenset(("x.dq", "two.y.dq", "add", "sum.q")) in found


def test_where_nothing_is_fused_the_weights_were_dequantized_at_loading() -> None:
    times = timed(quantized(), fast=False)
    found = groups(times)
    assert {
        frozenset((name,)) for name in ("x.q", "x.dq", "conv", "conv.y.q", "conv.y.dq")
    } <= found
    assert all("conv.w.dq" not in time.nodes for time in times)


def test_nothing_is_claimed_where_the_layers_are_not_known() -> None:
    graph = read_graph(models.residual().SerializeToString())
    assert computed_nodes(graph, OnnxGraph()) == {}
    other = read_graph(quantized().SerializeToString())
    assert not any(computed_nodes(other, graph).values())


def test_what_a_layer_without_a_known_name_quantizes_is_not_given_to_its_reader() -> None:
    node = GraphNode
    graph = OnnxGraph(
        (
            node("one", "Conv", ("x", "w"), ("a",)),
            node("q", "QuantizeLinear", ("a", "s"), ("b",)),
            node("dq", "DequantizeLinear", ("b", "s"), ("c",)),
            node("two", "Conv", ("c", "w"), ("y",)),
        ),
        {"x": "float32"},
        ("y",),
    )
    layers = (
        node("odd", "Other", ("x", "w", "s"), ("t",)),
        node("two", "Q", ("t", "w", "s"), ("y",)),
    )
    found = computed_nodes(graph, OnnxGraph(layers, {"x": "float32"}, ("y",)))
    assert found == {"odd": (), "two": ("dq", "two")}


def test_nodes_without_names_do_not_disturb() -> None:
    proto = models.residual()
    for node in proto.graph.node:
        node.name = ""
    times = timed(proto)
    assert times
    assert {name for time in times for name in time.nodes} <= {
        "c0",
        "r0",
        "c1",
        "r1",
        "c2",
        "r2",
        "add",
        "c3",
    }


def test_times_are_those_of_each_inference() -> None:
    times = timed(models.residual(), runs=4)
    assert all(len(time.milliseconds) == 4 for time in times)
    assert all(milliseconds >= 0 for time in times for milliseconds in time.milliseconds)
    assert sum(map(sum, (time.milliseconds for time in times))) > 0


def looped() -> ModelProto:
    body = helper.make_graph(
        [
            helper.make_node("Relu", ["carried"], ["out"], name="inner"),
            helper.make_node("Identity", ["go"], ["on"], name="same"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("out", TensorProto.FLOAT, None),
        ],
    )
    net = Net()
    x = net.op("Neg", net.input("x", (2, 16, 8, 8)), name="minus")
    count, go = net.constant("count", np.int64(50)), net.constant("yes", np.array(True))
    net.nodes.append(helper.make_node("Loop", [count, go, x], ["y"], name="loop", body=body))
    return net.proto("y", shapes={"y": [2, 16, 8, 8]})


def test_what_runs_inside_of_a_loop_is_the_loop_s_time() -> None:
    times = timed(looped())
    assert [time.nodes for time in times] == [("minus",), ("loop",)]
    assert [kernel.name for kernel in trace(looped().SerializeToString(), PICTURE)] == [
        "minus",
        "loop",
    ]


def test_a_trace_has_the_type_and_shape_of_every_tensor() -> None:
    (kernel,) = (k for k in trace(quantized().SerializeToString(), PICTURE) if k.name == "x.q")
    assert kernel.inputs == (("float32", (2, 16, 8, 8)), ("float32", ()), ("uint8", ()))
    assert kernel.outputs == (("uint8", (2, 16, 8, 8)),)
    (conv,) = (k for k in trace(quantized().SerializeToString(), PICTURE) if k.name == "conv")
    assert conv.inputs[1] == ("float32", (16, 16, 3, 3))


def test_inputs_that_do_not_go_together_fail_and_leave_no_file(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    net = Net()
    x, y = net.input("x", ("n", "c", "h", "w")), net.input("y", ("m",))
    proto = net.proto(net.op("Add", x, y, name="sum"))
    context = CpuRuntime(threads=1).load(proto.SerializeToString()).create_context()
    fits = {**PICTURE, "y": np.ones(8, np.float32)}
    assert context.layer_times(fits)
    with pytest.raises(InferenceError):
        context.layer_times({**PICTURE, "y": np.ones(5, np.float32)})
    assert list(folder.iterdir()) == []


def test_the_graph_is_read_again_only_where_layers_are_timed() -> None:
    data = models.residual().SerializeToString()
    reads = []

    def read() -> bytes:
        reads.append(1)
        return data

    context = CpuRuntime(threads=1).load(data, graph=read).create_context()
    context.enqueue(PICTURE)
    assert not reads
    context.layer_times(PICTURE)
    assert reads == [1]


def test_events_are_told_apart_by_inference() -> None:
    def event(cat: str, name: str, start: int, length: int, **args: object) -> dict[str, object]:
        return {"cat": cat, "name": name, "ts": start, "dur": length, "args": args}

    events = [
        event("Session", "session_initialization", 0, 50),
        event("Node", "b_kernel_time", 130, 5, op_name="Relu"),
        event("Node", "a_kernel_time", 110, 7, op_name="Conv"),
        event("Session", "model_run", 100, 50),
        event("Node", "a_fence_before", 210, 0, op_name="Conv"),
        event("Node", "a_kernel_time", 212, 9, op_name="Conv"),
        event("Session", "model_run", 200, 50),
    ]
    runs = [[(k.name, k.microseconds) for k in run] for run in inferences(events)]
    assert runs == [[("a", 7), ("b", 5)], [("a", 9)]]
    assert layer_times(runs) == [LayerTime("a", (7, 9)), LayerTime("b", (5, 0.0))]


def test_what_runs_twice_in_an_inference_counts_twice() -> None:
    assert layer_times([[("a", 1.0), ("a", 2.0)]], {"a": ("n",)}) == [
        LayerTime("a", (3.0,), ("n",))
    ]
