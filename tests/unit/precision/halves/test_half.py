"""Half precision graphs, and their twins for the CPU, against numpy's own half precision."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edge_runtime.config import Precision
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.graphs.validate import validate
from edge_runtime.precision.halves.half import half_places, to_half
from edge_runtime.precision.halves.half_types import HALF_TYPES
from tests import models
from tests.models import NETS, PICTURE, Net

FP16, BF16 = HALF_TYPES[Precision.FP16], HALF_TYPES[Precision.BF16]
DTYPES = {FP16.label: np.float16, BF16.label: ml_dtypes.bfloat16}
PRECISIONS = [FP16, BF16]
FLOORS = {FP16.label: 50.0, BF16.label: 30.0}  # dB; a rounding to FP16 has 75, one to BF16 57.


def halves(proto: ModelProto, half: object, *keep: str) -> tuple[ModelProto, ModelProto, list[str]]:
    """The half graph, its twin, and which nodes are half; valid for everybody who reads them."""
    graphs = []
    lowered: list[list[str]] = []
    for twin in (False, True):
        graph = prepare(models.model(proto), min_opset=half.min_opset)
        lowered.append(to_half(graph, half, keep, twin=twin))
        validate(graph, "net.onnx")
        onnx.checker.check_model(graph, full_check=True)
        graphs.append(graph)
    assert lowered[0] == lowered[1]
    return graphs[0], graphs[1], lowered[0]


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    noise = ((reference.astype(np.float64) - other) ** 2).sum()
    return float(10 * np.log10((reference.astype(np.float64) ** 2).sum() / max(noise, 1e-30)))


def elem_types(proto: ModelProto) -> dict[str, int]:
    graph = Graph(proto)
    return {n: graph.elem_type(n) for node in proto.graph.node for n in (*node.input, *node.output)}


@pytest.mark.parametrize("half", PRECISIONS, ids=["fp16", "bf16"])
@pytest.mark.parametrize("name", NETS)
def test_every_net_is_written_so_that_everybody_reads_it(name: str, half: object) -> None:
    proto = NETS[name]()
    graph, twin, lowered = halves(proto, half)
    assert lowered
    inputs = models.feeds(proto)
    reference = ModelProto()
    reference.CopyFrom(proto)
    for node in reference.graph.node:
        node.ClearField("name")
    expected, found = models.run(reference, inputs), models.run(twin, inputs)
    for output, array in expected.items():
        assert found[output].dtype == array.dtype == np.float32
        assert sqnr(array, found[output]) > FLOORS[half.label], output
    if half is FP16:  # ONNX Runtime has no kernels for BF16.
        for output, array in models.run(graph, inputs).items():
            assert sqnr(expected[output], array) > FLOORS[half.label], output
    for one in (graph, twin):
        values = [*one.graph.input, *one.graph.output]
        assert {v.type.tensor_type.elem_type for v in values} == {TensorProto.FLOAT}
        assert [v.name for v in one.graph.output] == [v.name for v in proto.graph.output]


def test_nodes_that_can_be_half_are() -> None:
    graph, _, lowered = halves(NETS["residual"](), FP16)
    assert lowered == ["c0", "r0", "c1", "r1", "c2", "add", "r2", "c3"]
    types = elem_types(graph)
    for name in lowered:
        node = models.node(graph, name)
        assert {types[tensor] for tensor in (*node.input, *node.output)} == {TensorProto.FLOAT16}
    casts = [node for node in graph.graph.node if node.op_type == "Cast"]
    assert casts[0].input[0] == "x"
    assert [node.output[0] for node in casts] == [models.node(graph, "c0").input[0], "c3"]
    stored = {t.name: t.data_type for t in graph.graph.initializer}
    assert set(stored.values()) == {TensorProto.FLOAT16}  # Half the bytes.


def test_a_node_that_is_kept_computes_in_fp32_between_casts() -> None:
    graph, _, lowered = halves(NETS["residual"](), FP16, "c2")
    assert "c2" not in lowered
    types = elem_types(graph)
    node = models.node(graph, "c2")
    assert {types[tensor] for tensor in (*node.input, *node.output)} == {TensorProto.FLOAT}
    add = models.node(graph, "add")
    assert {types[tensor] for tensor in (*add.input, *add.output)} == {TensorProto.FLOAT16}


# The twin, step by step.


def round_to(half: object, array: np.ndarray) -> np.ndarray:
    return array.astype(DTYPES[half.label]).astype(np.float32)


def test_a_cast_is_made_once_for_all_who_read_it() -> None:
    graph, _, _ = halves(NETS["attention"](), FP16)
    casts = [node.input[0] for node in graph.graph.node if node.op_type == "Cast"]
    assert casts.count("x") == 1


@settings(max_examples=40)
@pytest.mark.parametrize("half", PRECISIONS, ids=["fp16", "bf16"])
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-4, 1.0, 300.0]))
def test_the_twin_rounds_after_every_node(half: object, seed: int, size: float) -> None:
    net = Net(seed=seed % 1000)
    x = net.input("x", ("n", 8))
    w = net.weight("w", 8)
    y = net.op("Mul", x, w, name="a")
    y = net.op("Add", y, net.weight("b", 8), name="b2")
    y = net.op("Mul", y, y, name="c")
    y = net.op("Sub", y, x, name="d")
    y = net.op("Div", y, net.constant("three", 3.0), name="e")
    proto = net.proto(net.op("Relu", y, name="f"), "c")
    _, twin, _ = halves(proto, half)
    inputs = (np.random.default_rng(seed).standard_normal((4, 8)) * size).astype(np.float32)
    values = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}

    def r(array: np.ndarray) -> np.ndarray:
        return round_to(half, array)

    with np.errstate(over="ignore", invalid="ignore"):
        v = r(inputs)
        a = r(v * r(values["w"]))
        b = r(a + r(values["b"]))
        c = r(b * b)
        d = r(c - v)
        f = np.maximum(r(d / r(values["three"])), 0)
    found = models.run(twin, {"x": inputs})
    np.testing.assert_array_equal(found["c"], c)
    np.testing.assert_array_equal(found["f"], f)


@pytest.mark.parametrize("half", PRECISIONS, ids=["fp16", "bf16"])
def test_the_twin_rounds_weights_and_what_a_layer_adds_up(half: object) -> None:
    proto = NETS["dense"]()
    _, twin, _ = halves(proto, half)
    plain = prepare(models.model(proto), min_opset=half.min_opset)
    values = {
        t.name: round_to(half, numpy_helper.to_array(t)).astype(np.float64)
        for t in plain.graph.initializer
    }
    g1, g2, m = (models.node(plain, name) for name in ("g1", "g2", "m"))
    x = round_to(half, models.feeds(proto)["x"]).astype(np.float64)
    y = round_to(half, 0.5 * (x @ values[g1.input[1]]) + values[g1.input[2]])
    y = np.maximum(y, 0).astype(np.float64)
    y = round_to(half, y @ values[g2.input[1]].T + values[g2.input[2]])
    y = np.maximum(y, 0).astype(np.float64)
    y = round_to(half, y @ values[m.input[1]])
    y = round_to(half, y.astype(np.float64) + values["m.b"])
    found = models.run(twin, models.feeds(proto))["add"]
    # Sums of products in another order may fall to the other side of a rounding, seldom.
    assert (found == y).mean() > 0.9
    np.testing.assert_allclose(found, y, rtol=float(ml_dtypes.finfo(DTYPES[half.label]).eps) * 8)


def square() -> ModelProto:
    net = Net()
    x = net.input("x", ("n", 4))
    y = net.op("Mul", x, x, name="square")
    return net.proto(net.op("Mul", y, net.constant("small", 1e-3), name="y"))


def test_what_overflows_on_the_gpu_overflows_in_the_twin() -> None:
    inputs = {"x": np.array([[1, 100, 255, 300]], np.float32)}
    _, twin, _ = halves(square(), FP16)
    found = models.run(twin, inputs)["y"]
    assert np.isfinite(found[0, :3]).all()
    assert np.isinf(found[0, 3])
    _, twin, _ = halves(square(), FP16, "square")
    # The casts around the kept node still hold FP16 in what is read behind it.
    assert np.isinf(models.run(twin, inputs)["y"][0, 3])
    _, twin, lowered = halves(square(), FP16, "square", "y")
    assert lowered == []
    np.testing.assert_allclose(models.run(twin, inputs)["y"][0], [1e-3, 10, 65.025, 90], rtol=1e-6)
    _, twin, _ = halves(square(), BF16)
    assert models.run(twin, inputs)["y"][0, 3] == pytest.approx(90, rel=0.02)


def test_infinity_in_a_constant_is_infinity() -> None:
    net = Net()
    x = net.input("x", ("n", 3))
    y = net.op("Add", x, net.constant("mask", [0, -np.inf, 0]), name="y")
    _, twin, _ = halves(net.proto(net.op("Softmax", y, name="soft")), FP16)
    np.testing.assert_array_equal(
        models.run(twin, {"x": np.zeros((1, 3), np.float32)})["soft"], [[0.5, 0, 0.5]]
    )


# Where half precision cannot go.


def places(proto: ModelProto, name: str, half: object = FP16) -> tuple[set[int], set[int]]:
    graph = Graph(prepare(models.model(proto), min_opset=half.min_opset))
    return half_places(graph, models.node(graph.proto, name), half)


def build(kind: str, *inputs: str, make: Callable[[Net], None], **attributes: object) -> ModelProto:
    net = Net(opset=18)
    net.input("x", PICTURE)
    make(net)
    y = net.op(kind, *inputs, name="y", **attributes)
    net.op("Cast", y, name="out", to=TensorProto.FLOAT)
    return net.proto("out", shapes={"out": [None] * 4})


def test_sizes_and_scales_stay_what_they_are() -> None:
    def scales(net: Net) -> None:
        net.constant("scales", [1, 1, 2, 2])

    assert places(build("Resize", "x", "", "scales", make=scales), "y") == ({0}, {0})


def test_integers_stay_integers() -> None:
    def indices(net: Net) -> None:
        net.constant("indices", np.array([0, 2]))

    assert places(build("Gather", "x", "indices", make=indices, axis=1), "y") == ({0}, {0})
    graph, twin, lowered = halves(build("ArgMax", "x", make=lambda net: None, axis=1), FP16)
    assert lowered == ["out"]  # ArgMax's output is no half, so it may as well read FP32.
    assert models.node(graph, "y").input[0] == "x"
    inputs = {"x": models.feeds(twin)["x"]}
    np.testing.assert_array_equal(
        models.run(graph, inputs)["out"], inputs["x"].argmax(1, keepdims=True)
    )


def test_a_cast_to_fp32_becomes_one_to_half() -> None:
    net = Net()
    x = net.op(
        "Cast", net.input("x", ("n", 4), TensorProto.INT64), name="cast", to=TensorProto.FLOAT
    )
    proto = net.proto(net.op("Mul", x, net.constant("half", 0.5), name="y"))
    graph, twin, _ = halves(proto, FP16)
    assert elem_types(graph)[models.node(graph, "cast").output[0]] == TensorProto.FLOAT16
    inputs = {"x": np.array([[1, 2049, -3, 4096]])}  # 2049 is not an FP16 number.
    np.testing.assert_array_equal(models.run(twin, inputs)["y"], [[0.5, 1024, -1.5, 2048]])
    # Why there is a twin: given the half graph, ONNX Runtime skips that very rounding.
    assert models.run(graph, inputs)["y"][0, 1] == 1024.5


def test_bf16_leaves_out_what_tensorrt_rtx_does_not_build() -> None:
    assert places(NETS["transposed"](), "t1", FP16) == ({0, 1, 2}, {0})
    assert places(NETS["transposed"](), "t1", BF16) == (set(), set())


def test_control_flow_and_quantization_stay_fp32() -> None:
    assert places(NETS["branches"](), "if") == (set(), set())
    assert places(NETS["loop"](), "loop") == (set(), set())


def test_a_node_beside_one_of_unknown_type_stays_fp32() -> None:
    net = Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    x = net.op("Gelu", x, name="gelu", domain="com.microsoft")
    proto = net.proto(net.conv("c2", x, (16, 16)), shapes={"c2": list(PICTURE)})
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    graph, twin, lowered = halves(proto, FP16)
    assert lowered == ["c1"]
    inputs = models.feeds(proto)
    for one in (graph, twin):
        assert sqnr(models.run(proto, inputs)["c2"], models.run(one, inputs)["c2"]) > 50


def test_an_output_inside_the_graph_is_fp32_and_its_readers_half() -> None:
    graph, _, lowered = halves(NETS["several_outputs"](), FP16)
    assert lowered == ["c1", "bn", "r1", "sum", "c2"]
    types = elem_types(graph)
    assert types[models.node(graph, "bn").input[0]] == TensorProto.FLOAT16
    assert [value.name for value in graph.graph.output] == ["c1", "r1", "c2"]
