"""Prepared graphs compute what the model does, with nothing between its layers and INT8."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from edge_runtime.errors import ModelError
from edge_runtime.model import model_from_proto
from edge_runtime.precision.graphs import prepare as module
from edge_runtime.precision.graphs.prepare import prepare
from tests import models
from tests.models import NETS, PICTURE, Net


def prepared(proto: ModelProto, min_opset: int = 13) -> ModelProto:
    """The prepared form, which is valid ONNX."""
    result = prepare(models.model(proto), min_opset=min_opset)
    onnx.checker.check_model(result, full_check=True)
    return result


def assert_same(proto: ModelProto, other: ModelProto) -> None:
    """Both compute the same outputs, to what rounding in another order may change."""
    reference = ModelProto()
    reference.CopyFrom(proto)
    for node in reference.graph.node:
        node.ClearField("name")  # ONNX Runtime refuses names that occur twice.
    for seed in (1, 2):
        inputs = models.feeds(proto, seed, batch=3)
        expected, found = models.run(reference, inputs), models.run(other, inputs)
        assert list(expected) == list(found)
        for name, array in expected.items():
            assert array.dtype == found[name].dtype
            scale = float(np.abs(array).max()) or 1.0
            np.testing.assert_allclose(found[name], array, rtol=0, atol=2e-6 * scale, err_msg=name)


def kinds(proto: ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize("min_opset", [0, 13, 22])
@pytest.mark.parametrize("name", NETS)
def test_a_prepared_graph_computes_the_same(name: str, min_opset: int) -> None:
    proto = NETS[name]()
    result = prepared(proto, min_opset)
    assert_same(proto, result)
    assert result.opset_import[0].version == max(min_opset, proto.opset_import[0].version)
    names = [node.name for node in result.graph.node]
    assert len({*names, ""}) == len(names) + 1  # Each has one of its own.
    weights = {tensor.name for tensor in result.graph.initializer}
    assert not weights & {value.name for value in result.graph.input}
    assert not result.functions


def test_the_model_itself_stays_as_it_is() -> None:
    for make in NETS.values():
        model = models.model(make())
        before = model.proto.SerializeToString(deterministic=True)
        prepare(model, min_opset=22)
        assert model.proto.SerializeToString(deterministic=True) == before


# Folding into layers.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv_bn_relu", ["Conv", "Relu"] * 2 + ["GlobalAveragePool", "Flatten", "Gemm"]),
        ("transposed", ["ConvTranspose", "Relu", "ConvTranspose"]),
        ("dense", ["Gemm", "Relu", "Gemm", "Relu", "MatMul", "Add"]),
        ("one_dimension", ["Conv", "Relu", "Conv"]),
        ("scaled", ["Conv", "Relu", "Conv", "Add"]),
        ("identities", ["Conv", "Relu", "Conv", "Identity"]),
        ("optional_inputs", ["Conv", "Clip", "Conv", "Resize", "Conv"]),
        ("functions", ["Conv", "Relu", "Conv", "Relu", "Conv"]),
        ("shared_weights", ["Conv", "Relu"] * 2 + ["Conv"]),
        ("constant_nodes", ["Conv", "Shape", "Slice", "Concat", "Reshape", "Gemm"]),
        ("branches", ["Conv", "Relu", "Identity", "ReduceMax", "Greater", "If", "Conv", "Add"]),
    ],
)
def test_what_can_be_folded_is(name: str, expected: list[str]) -> None:
    assert kinds(prepared(NETS[name]())) == expected


def test_dropouts_of_old_operator_sets_go_too() -> None:
    proto = NETS["opset_11"]()
    assert "Dropout" in kinds(proto)
    for min_opset in (0, 13, 22):
        assert "Dropout" not in kinds(prepared(proto, min_opset))


def test_a_dropout_that_is_told_to_drop_stays() -> None:
    net = Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    ratio, training = net.constant("p", 0.5), net.constant("training", np.array(True))
    proto = net.proto(net.op("Relu", net.op("Dropout", x, ratio, training, name="drop")))
    assert "Dropout" in kinds(prepared(proto))


def test_folding_spares_the_other_readers_of_a_weight() -> None:
    proto = NETS["shared_weights"]()
    result = prepared(proto)
    read = {node.name: node.input[1] for node in result.graph.node if node.op_type == "Conv"}
    assert read["c2"] == read["c3"] == "c1.w" != read["c1"]
    weights = {tensor.name: tensor.raw_data for tensor in result.graph.initializer}
    assert weights["c1.w"] == proto.graph.initializer[0].raw_data


def between(*, output: bool = False, reader: bool = False, branch: bool = False) -> ModelProto:
    """Convolution and normalisation, with something that looks in between."""
    net = Net()
    a = net.conv("c1", net.input("x", PICTURE), (16, 16))
    y = net.batch_norm("bn", a, 16)
    if reader:
        y = net.op("Add", y, net.op("Sigmoid", a, name="look"), name="y")
    if branch:
        value = helper.make_tensor_value_info("v", TensorProto.FLOAT, None)
        inner = helper.make_graph([helper.make_node("Neg", [a], ["v"])], "inner", [], [value])
        top = net.op("ReduceMax", y, name="top", keepdims=0)
        condition = net.op("Greater", top, net.constant("zero", 0.0), name="condition")
        z = net.op("If", condition, name="if", then_branch=inner, else_branch=inner)
        y = net.op("Add", y, z, name="y")
    shapes = {name: list(PICTURE) for name in (y, a)}
    return net.proto(y, *[a] if output else [], shapes=shapes)


@pytest.mark.parametrize("what", ["output", "reader", "branch"])
def test_a_layer_whose_own_output_is_read_is_not_changed(what: str) -> None:
    proto = between(**{what: True})
    result = prepared(proto)
    assert "BatchNormalization" in kinds(result)
    assert_same(proto, result)


def test_a_normalisation_that_learns_is_not_folded() -> None:
    net = Net(opset=14)
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    y = net.batch_norm("bn", x, 16, training_mode=1)
    net.nodes[-1].output.extend(["mean", "variance"])
    proto = net.proto(y, shapes={y: list(PICTURE)})
    result = prepared(proto)
    assert "BatchNormalization" in kinds(result)
    assert_same(proto, result)


def test_statistics_that_do_not_fit_each_other_are_left_to_the_backend() -> None:
    proto = NETS["dense"]()
    for tensor in proto.graph.initializer:
        if tensor.name == "bn1.m":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(5, np.float32), "bn1.m"))
    result = prepare(models.model(proto), min_opset=13)
    assert kinds(result).count("BatchNormalization") == 1


# Constants.


def test_constants_are_computed_once() -> None:
    result = prepared(NETS["constant_nodes"]())
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in result.graph.initializer}
    layer = models.node(result, "c1")
    assert weights[layer.input[1]].shape == (16, 16, 1, 1)
    assert not {"w", "third"} & weights.keys()  # What went into it is gone.


def test_a_constant_that_is_an_output_stays_one() -> None:
    net = Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    two = net.op("Add", net.constant("one", 1.0), "one", name="two")
    four = net.op("Add", two, two, name="four")
    proto = net.proto(x, four)
    proto.graph.output.append(helper.make_tensor_value_info("one", TensorProto.FLOAT, []))
    assert_same(proto, prepared(proto))


def test_constants_that_are_too_large_to_store_stay_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_FOLD_LIMIT", 1000)
    proto = NETS["constant_nodes"]()
    result = prepared(proto)
    assert "Mul" in kinds(result)
    assert_same(proto, result)


def test_random_numbers_are_not_constants() -> None:
    net = Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    noise = net.op("RandomNormal", name="noise", shape=[16, 1, 1], seed=1.0)
    noise = net.op("Mul", noise, net.constant("tenth", 0.1), name="less")
    assert "RandomNormal" in kinds(prepared(net.proto(net.op("Mul", x, noise, name="y"))))


def sequences(net: Net, x: str) -> str:
    """Multiplies by one part of a constant that was split, whose number is not constant."""
    parts = net.op("SplitToSequence", net.weight("k", 4, 16, 1, 1), name="parts", axis=0)
    four = net.constant("four", np.array(4))
    which = net.op("Mod", net.op("Size", x, name="size"), four, name="which")
    return net.op("Mul", x, net.op("SequenceAt", parts, which, name="part"), name="y")


def half_numbers(net: Net, x: str) -> str:
    """Casts to the type of a constant that numpy has no type for."""
    like = net.op("Cast", net.constant("k", 1.5), name="like", to=TensorProto.BFLOAT16)
    short = net.op("CastLike", x, like, name="short")
    return net.op("Cast", short, name="y", to=TensorProto.FLOAT)


@pytest.mark.parametrize("make", [sequences, half_numbers])
def test_constants_that_numpy_cannot_hold_stay_nodes(make: object) -> None:
    net = Net()
    y = make(net, net.conv("c1", net.input("x", PICTURE), (16, 16)))  # type: ignore[operator]
    proto = net.proto(y, shapes={"y": list(PICTURE)})
    assert_same(proto, prepared(proto))


# Names, operator sets, control flow.


def test_a_nodes_own_name_is_its_own() -> None:
    proto = NETS["unnamed"]()
    before = [node.name for node in proto.graph.node]
    after = [node.name for node in prepared(proto).graph.node]
    times = Counter(before)
    for old, new in zip(before, after, strict=True):
        if old and times[old] == 1:
            assert new == old
    assert after[0] == "same"  # The first of two keeps it.


def test_an_operator_set_that_cannot_be_raised_is_refused() -> None:
    net = Net()
    net.op("Gelu", net.input("x", PICTURE), name="gelu", domain="com.microsoft")
    proto = net.proto("gelu", shapes={"gelu": list(PICTURE)})
    proto.opset_import[0].CopyFrom(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ModelError) as caught:
        prepare(model_from_proto(proto, name="net.onnx"), min_opset=13)
    assert "net.onnx" in str(caught.value)
    assert "opset_version=13" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_branch_captures_keeps_its_name() -> None:
    result = prepared(NETS["branches"]())
    inside = models.node(result, "if").attribute[1].g.node[0]
    made = {name for node in result.graph.node for name in node.output}
    assert {*inside.input} <= made | {tensor.name for tensor in result.graph.initializer}


# Any chain of layers and what can be folded into them.

CHANNELS = 4
STEPS = st.sampled_from(
    [
        *("Conv", "ConvTranspose", "BatchNormalization", "Identity", "Dropout", "Relu", "Join"),
        *("Mul", "Add", "Output"),
    ]
)
SHAPES = st.sampled_from(
    [
        *((), (1,), (4,), (1, 1), (4, 1), (4, 1, 1), (1, 4, 1), (1, 1, 4), (1, 4, 1, 1)),
        *((1, 1, 4, 1), (1, 1, 1, 4), (1, 1, 4, 4), (4, 1, 4), (1, 1, 1, 1)),
    ]
)


@st.composite
def chains(draw: st.DrawFn) -> ModelProto:
    """Layers of 4 channels on 4x4 pictures, so that an axis is easily taken for another."""
    net = Net(seed=draw(st.integers(0, 99)))
    made = [net.input("x", ("n", CHANNELS, CHANNELS, CHANNELS))]
    outputs = []
    for index, step in enumerate(draw(st.lists(STEPS, min_size=1, max_size=9))):
        name, x = f"{step}{index}", made[-1]
        if step == "Conv":
            x = net.conv(name, x, (CHANNELS, CHANNELS))
        elif step == "ConvTranspose":
            weight = net.weight(f"{name}.w", CHANNELS, CHANNELS // 2, 1, 1)
            x = net.op(step, x, weight, name=name, group=2)
        elif step == "BatchNormalization":
            x = net.batch_norm(name, x, CHANNELS)
        elif step == "Join":
            x = net.op("Add", x, draw(st.sampled_from(made)), name=name)
        elif step in ("Mul", "Add"):
            pair = [x, net.weight(f"{name}.k", *draw(SHAPES), scale=0.7)]
            x = net.op(step, *(pair if draw(st.booleans()) else pair[::-1]), name=name)
        elif step == "Output":
            outputs.append(x)
            continue
        else:
            x = net.op(step, x, name=name)
        made.append(x)
    return net.proto(*dict.fromkeys([*outputs, made[-1]]))


@settings(max_examples=150)
@given(chains())
def test_any_chain_computes_the_same(proto: ModelProto) -> None:
    if not proto.graph.node or proto.graph.output[0].name == "x":
        return
    assert_same(proto, prepared(proto))
