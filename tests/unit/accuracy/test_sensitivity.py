"""What each layer and tensor costs, against graphs in which it alone is quantized."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from edge_runtime.accuracy.sensitivity import Sensitivity, measure_sensitivity
from edge_runtime.config import BuildConfig, canonical_json
from edge_runtime.data import Samples, open_samples
from edge_runtime.errors import CalibrationCacheError, DataError, ModelError
from edge_runtime.model import Model
from edge_runtime.precision.calibration import calibrate_model
from edge_runtime.precision.corrections.bias import correct_bias
from edge_runtime.precision.corrections.equalize import apply_scales
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import Placement
from edge_runtime.precision.observing.replay import fake_quantize
from edge_runtime.precision.quantization import prepare_int8, quantize_model
from edge_runtime.precision.quantized.int8 import quantize
from edge_runtime.precision.quantized.weights import quantize_weights
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from tests import models
from tests.models import NETS, PICTURE, Net

CONFIG = BuildConfig(precision="int8")


Measured = tuple[Model, CalibrationCache, Samples, Sensitivity]


def samples(model: Model, count: int = 3) -> Samples:
    """Samples of different sizes, where the model takes them."""
    feeds = [models.feeds(model.proto, seed, batch=1 + seed) for seed in range(count)]
    return open_samples(feeds, model.inputs)


def measured(
    proto: ModelProto, feeds: list[dict[str, np.ndarray]] | None = None, **settings: object
) -> Measured:
    model = models.model(proto)
    config = BuildConfig(precision="int8", **settings)
    given = samples(model) if feeds is None else open_samples(feeds, model.inputs)
    cache = calibrate_model(model, config, given)
    return model, cache, given, measure_sensitivity(model, config, cache, given)


def noise(reference: ModelProto, other: ModelProto, given: Samples) -> float:
    """The largest noise of an output of two whole graphs."""
    pairs = [(models.run(reference, feeds), models.run(other, feeds)) for feeds in given]
    shares = []
    for name in pairs[0][0]:
        error = sum(((a[name].astype("f8") - b[name]) ** 2).sum() for a, b in pairs)
        shares.append(error / sum((a[name].astype("f8") ** 2).sum() for a, _ in pairs))
    return max(shares)


def prepared(model: Model, cache: CalibrationCache) -> tuple[ModelProto, Placement]:
    proto, placement = prepare_int8(model, CONFIG)
    apply_scales(proto, cache.equalization)
    return proto, placement


def only(model: Model, cache: CalibrationCache, *, node: str = "", tensor: str = "") -> ModelProto:
    """The graph with one layer, or the readers of one tensor, in INT8."""
    proto, placement = prepared(model, cache)
    amax = {name: bounds.amax for name, bounds in cache.ranges.items()}
    chosen = Placement(
        [a for a in placement.activations if node == a.node or tensor == a.tensor],
        [w for w in placement.weights if w.node == node],
    )
    weights = quantize_weights(Graph(proto), chosen)
    correct_bias(proto, chosen, weights, cache.means)
    quantize(proto, chosen, amax, weights)
    return proto


@pytest.mark.parametrize("name", NETS)
def test_every_net_as_if_each_layer_alone_were_int8(name: str) -> None:
    model, cache, given, result = measured(NETS[name]())
    proto, placement = prepared(model, cache)
    assert [layer.name for layer in result.layers] == [
        node.name for node in proto.graph.node if node.name in {w.node for w in placement.weights}
    ]
    assert {tensor.name for tensor in result.tensors} == {a.tensor for a in placement.activations}
    assert result.samples == 3
    for layer in result.layers:
        node = proto.graph.node[layer.index]
        assert (node.name, node.op_type) == (layer.name, layer.op)
        alone = noise(proto, only(model, cache, node=layer.name), given)
        assert layer.output_noise == pytest.approx(alone, rel=1e-3, abs=1e-12)
        assert 0 < layer.weight_noise < layer.local_noise * 1.5
    for tensor in result.tensors:
        assert tensor.index < 0 or tensor.name in proto.graph.node[tensor.index].output
        alone = noise(proto, only(model, cache, tensor=tensor.name), given)
        assert tensor.output_noise == pytest.approx(alone, rel=1e-3, abs=1e-12)
    whole = ModelProto.FromString(quantize_model(model, CONFIG, cache).graph)
    assert result.total_noise == pytest.approx(noise(proto, whole, given), rel=1e-3)
    assert json.loads(canonical_json(result.to_json())) == result.to_json()


def labels(*more: str) -> ModelProto:
    """A convolution, of whose output the largest channel is asked, and more outputs."""
    net = Net()
    net.op("ArgMax", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="label", axis=1)
    shapes = {"label": ["n", 1, 8, 8], "c1": ["n", 16, 8, 8]}
    proto = net.proto("label", *more, shapes=shapes)
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return proto


def test_labels_count_by_the_share_that_differs() -> None:
    model, cache, given, result = measured(labels())
    proto, _ = prepared(model, cache)
    alone = only(model, cache, node="c1")
    pairs = [(models.run(proto, f)["label"], models.run(alone, f)["label"]) for f in given]
    expected = sum((a != b).sum() for a, b in pairs) / sum(a.size for a, _ in pairs)
    assert 0 < expected < 0.2
    assert result.layers[0].output_noise == pytest.approx(expected)
    assert result.total_noise == pytest.approx(expected)


def test_labels_do_not_count_beside_outputs_of_floats() -> None:
    model, cache, given, result = measured(labels("c1"))
    proto, _ = prepared(model, cache)
    pairs = [
        (models.run(proto, f)["c1"], models.run(only(model, cache, node="c1"), f)["c1"])
        for f in given
    ]
    error = sum(((a.astype("f8") - b) ** 2).sum() for a, b in pairs)
    signal = sum((a.astype("f8") ** 2).sum() for a, _ in pairs)
    assert result.total_noise == pytest.approx(error / signal, rel=1e-3)


def test_an_output_that_is_always_zero_does_not_count() -> None:
    net = Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    zero = net.op("Relu", net.op("Neg", net.op("Abs", x)), name="zero")
    result = measured(net.proto(zero, x))[3]
    assert result.total_noise == pytest.approx(measured(net.proto(x))[3].total_noise)
    with pytest.raises(DataError, match="zero"):
        measured(net.proto(zero))


def test_what_fp32_cannot_compute_is_named() -> None:
    net = Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    with pytest.raises(DataError, match=r"'log' .*sample 1"):
        measured(net.proto(net.op("Log", x, name="log")))


def test_a_layer_that_makes_infinity_is_the_worst_and_null_in_json() -> None:
    net = Net()
    x = net.op(
        "MatMul",
        net.input("x", ("n", 16)),
        net.constant("w", np.eye(16, dtype=np.float32)),
        name="m1",
    )
    net.op("Reciprocal", x, name="y")
    feed = np.full((2, 16), 1e-4, np.float32)
    feed[0, 0] = 1
    result = measured(net.proto("y"), [{"x": feed}])[3]
    assert result.layers[0].output_noise == result.total_noise == math.inf
    assert result.layers[0].local_noise < 1e-3
    plain = json.loads(canonical_json(result.to_json()))
    assert plain["layers"][0]["output_noise"] is None
    assert plain["total_noise"] is None


def test_outputs_of_another_number_of_rows_are_noise_as_a_whole() -> None:
    net = Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    many = net.op("Greater", x, net.constant("most", 0.02), name="many")
    proto = net.proto(net.op("NonZero", many, name="rows"), shapes={"rows": [4, "k"]})
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    model, cache, given, result = measured(proto)
    whole, other = prepared(model, cache)[0], only(model, cache, node="c1")
    pairs = [(models.run(whole, f)["rows"], models.run(other, f)["rows"]) for f in given]
    assert any(a.shape != b.shape for a, b in pairs)
    wrong = [max(a.size, b.size) if a.shape != b.shape else (a != b).sum() for a, b in pairs]
    expected = sum(wrong) / sum(a.size for a, _ in pairs)
    assert result.layers[0].output_noise == pytest.approx(expected)


def test_what_a_layer_does_not_reach_costs_nothing() -> None:
    net = Net()
    x = net.input("x", PICTURE)
    a, b = net.conv("c1", x, (16, 16)), net.conv("c2", x, (16, 16))
    both = net.op("Equal", a, a, name="same")
    c = net.op("Where", both, b, a, name="y")
    first, second = measured(net.proto(c))[3].layers
    assert (first.name, first.output_noise) == ("c1", 0.0)
    assert first.local_noise > 0
    assert second.output_noise > 0


def test_sequences_are_cut_around_but_not_through() -> None:
    net = Net()
    x = net.input("x", PICTURE)
    pair = net.op("SequenceConstruct", x, x, name="pair")
    y = net.conv("c1", net.op("Relu", x), (16, 16))
    late = net.op("SequenceAt", pair, net.constant("at", np.array(1)), name="late")
    net.op("Add", y, late, name="y")
    shapes = {"y": ["n", 16, 8, 8]}
    assert measured(net.proto("y", shapes=shapes))[3].layers[0].output_noise > 0
    early = net.op("SequenceAt", pair, "at", name="early")
    net.nodes[1:] = [net.nodes.pop(), *net.nodes[1:]]
    net.nodes[2].input[0] = early
    with pytest.raises(ModelError, match="'pair'"):
        measured(net.proto("y", shapes=shapes))


def test_settings_of_the_build_are_kept() -> None:
    model, cache, given, result = measured(NETS["residual"]())
    excluded = result.layers[0].name
    left = measured(NETS["residual"](), exclude=(excluded,))[3]
    assert [row.name for row in left.layers] == [row.name for row in result.layers[1:]]
    # The calibration of all layers serves it too, and a half's scales are a little different.
    config = BuildConfig(precision="int8", exclude=(excluded,), high_precision="fp16")
    half = measure_sensitivity(model, config, cache, given)
    assert [row.name for row in half.layers] == [row.name for row in left.layers]
    assert half.total_noise == pytest.approx(left.total_noise, rel=0.3)
    with pytest.raises(CalibrationCacheError, match="another model"):
        measure_sensitivity(models.model(NETS["dense"]()), CONFIG, cache, given)


def test_progress_is_told_of_every_layer_and_tensor() -> None:
    model, cache, given, result = measured(NETS["concat"]())
    told: list[tuple[str, int, int]] = []
    measure_sensitivity(model, CONFIG, cache, given, lambda *step: told.append(step))
    steps = 3 * (len(result.layers) + len(result.tensors))
    assert told == [("Measuring sensitivity", done, steps) for done in range(1, steps + 1)]


def test_the_same_gives_the_same() -> None:
    model, cache, given, result = measured(NETS["shortcut"]())
    assert measure_sensitivity(model, CONFIG, cache, given) == result


@pytest.mark.parametrize("amax", [0.5, 3.0])
def test_fake_quantization_is_that_of_onnx(amax: float) -> None:
    net = Net()
    x = net.input("x", ("n",))
    scale = np.float32(amax / 127)
    q = net.op("QuantizeLinear", x, net.constant("s", scale), net.constant("z", np.int8(0)))
    net.op("DequantizeLinear", q, "s", "z", name="y")
    values = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    values[:256] = (np.arange(256, dtype=np.float32) - 128.5) * scale  # Halves of a step.
    values[256:260] = [0, 1e30, -1e30, np.finfo(np.float32).tiny]
    expected = models.run(net.proto("y"), {"x": values})["y"]
    np.testing.assert_array_equal(fake_quantize(values, np.asarray(scale)), expected)
