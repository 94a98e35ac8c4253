"""Channels that cannot be scaled where they are made are scaled in front of the matrices."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edge_runtime.config import BuildConfig, CalibrationConfig
from edge_runtime.data import open_samples
from edge_runtime.precision.calibration import calibrate_model
from edge_runtime.precision.corrections.multipliers import add_multipliers
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import place
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.quantization import quantize_model
from tests import models
from tests.models import NETS

WIDTH = 32


def post_norm_block(strongest: float) -> ModelProto:
    """A transformer's feed-forward block; a few channels of its norm are `strongest` times others.

    The norm is read by two matrices, and by a residual Add in front of the next norm, so that its
    channels keep their scale; so do those of the Gelu.
    """
    random = np.random.default_rng(0)
    gain = np.ones(WIDTH, np.float32)
    gain[:2] = strongest
    values = {
        "gain": gain,
        "shift": np.zeros(WIDTH, np.float32),
        "ones": np.ones(WIDTH, np.float32),
        "w1": random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / gain[:, None],
        "w2": random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / gain[:, None],
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain", "shift"], ["norm"], name="n1"),
        helper.make_node("MatMul", ["norm", "w1"], ["a"], name="m1"),
        helper.make_node("MatMul", ["norm", "w2"], ["b"], name="m2"),
        helper.make_node("Mul", ["a", "b"], ["ab"], name="product"),
        helper.make_node("Add", ["ab", "norm"], ["sum"], name="residual"),
        helper.make_node("LayerNormalization", ["sum", "ones", "shift"], ["y"], name="n2"),
    ]
    shape = ["n", 10, WIDTH]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def feeds_of(proto: ModelProto, count: int = 24) -> list[dict[str, np.ndarray]]:
    del proto
    random = np.random.default_rng(1)
    return [{"x": random.standard_normal((1, 10, WIDTH)).astype(np.float32)} for _ in range(count)]


def built(strongest: float, **settings: object) -> tuple[ModelProto, ModelProto, float]:
    """The FP32 net, its INT8 form and the form's SQNR in dB on other samples."""
    proto = post_norm_block(strongest)
    model = models.model(proto)
    config = BuildConfig(
        precision="int8",
        backend="cpu",
        high_precision="fp32",
        exclude=settings.pop("exclude", ()),
        calibration=CalibrationConfig(**settings),
    )
    cache = calibrate_model(model, config, open_samples(feeds_of(proto), model.inputs))
    graph = onnx.load_from_string(quantize_model(model, config, cache).graph)
    noise = power = 0.0
    for feeds in feeds_of(proto, 40)[24:]:
        expected, found = (models.run(net, feeds)["y"] for net in (proto, graph))
        noise += float(((expected - found) ** 2).sum())
        power += float((expected**2).sum())
    return proto, graph, 10 * np.log10(power / noise)


def test_unequal_channels_of_a_norm_are_scaled_for_the_matrices() -> None:
    _, _, without = built(60.0, equalize=False)
    _, graph, level = built(60.0)
    assert level > without + 8
    products = [node for node in graph.graph.node if node.input[0] == "norm"]
    assert sorted(node.op_type for node in products) == ["Mul"]  # One for both matrices.
    readers = [node for node in graph.graph.node if products[0].output[0] in node.input]
    assert [node.op_type for node in readers] == ["QuantizeLinear"]
    residual = next(node for node in graph.graph.node if node.name == "residual")
    assert "norm" in residual.input


def test_nothing_is_left_where_channels_are_equal() -> None:
    proto, graph, _ = built(1.0)
    assert sum(node.op_type == "Mul" for node in graph.graph.node) == 1
    names = {tensor.name for tensor in graph.graph.initializer}
    assert not any("scaled" in name for name in names), names
    assert {node.name for node in proto.graph.node} <= {node.name for node in graph.graph.node}


@pytest.mark.parametrize("exclude", [("m1",), ("m2",)])
def test_an_excluded_matrix_computes_what_it_did(exclude: tuple[str, ...]) -> None:
    _, _, both = built(60.0)
    _, _, level = built(60.0, exclude=exclude)
    assert level > both


@pytest.mark.parametrize("name", NETS)
def test_products_with_ones_change_nothing(name: str) -> None:
    proto = NETS[name]()
    prepared = prepare(models.model(proto), min_opset=13)
    placement = place(Graph(prepared))
    feeds = models.feeds(proto)
    before, tensors = models.run(prepared, feeds), list(placement.tensors)
    products = add_multipliers(prepared, placement)
    for output, value in models.run(prepared, feeds).items():
        np.testing.assert_array_equal(value, before[output])
    assert [products.get(tensor, tensor) for tensor in placement.tensors] == tensors
    onnx.checker.check_model(prepared)


def test_only_what_is_asked_for_is_added() -> None:
    prepared = prepare(models.model(post_norm_block(1.0)), min_opset=13)
    assert add_multipliers(prepared, place(Graph(prepared)), only=()) == {}
    assert add_multipliers(prepared, place(Graph(prepared)), only={"other"}) == {}
    found = add_multipliers(prepared, place(Graph(prepared)), only={"norm.scaled"})
    assert found == {"norm.scaled": "norm"}
