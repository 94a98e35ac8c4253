"""From a model and settings to the graphs of a bundle, and a report of what became of each node."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from edge_runtime.backends.cpu import open_session
from edge_runtime.config import BuildConfig, CalibrationConfig, canonical_json
from edge_runtime.data import Samples, open_samples
from edge_runtime.errors import CalibrationCacheError, ConfigError, DataError, ModelError
from edge_runtime.model import Model
from edge_runtime.precision.calibration import calibrate_model
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from edge_runtime.precision.rewrite import calibrated_tensors, rewrite
from edge_runtime.precision.rewritten import Rewritten
from tests import models
from tests.models import NETS, PICTURE, Net

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
FLOORS = {"fp32": 110.0, "fp16": 50.0, "bf16": 30.0, "int8": 18.0}


def samples(model: Model, count: int = 4, scale: float = 1.0) -> Samples:
    feeds = [models.feeds(model.proto, seed) for seed in range(count)]
    scaled = [{name: array * np.float32(scale) for name, array in each.items()} for each in feeds]
    return open_samples(scaled, model.inputs)


def written(model: Model, precision: str, **settings: object) -> Rewritten:
    """The model in a precision, with samples wherever they are of use."""
    given = None if precision == "fp32" else samples(model)
    return rewrite(model, BuildConfig(precision=precision, **settings), samples=given)


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    noise = ((reference.astype(np.float64) - other) ** 2).sum()
    return float(10 * np.log10((reference.astype(np.float64) ** 2).sum() / max(noise, 1e-30)))


def precisions(rewritten: Rewritten) -> dict[str, str]:
    return {node["name"]: node["precision"] for node in rewritten.report["nodes"]}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETS)
def test_every_net_in_every_precision_is_close_to_the_model(name: str, precision: str) -> None:
    model = models.model(NETS[name]())
    before = model.proto.SerializeToString(deterministic=True)
    result = written(model, precision)
    assert model.proto.SerializeToString(deterministic=True) == before
    assert (result.cpu_graph is not None) == (precision in ("fp16", "bf16"))
    assert (result.cache is not None) == (precision == "int8")
    reference = ModelProto()
    reference.CopyFrom(model.proto)
    for node in reference.graph.node:
        node.ClearField("name")
    inputs = models.feeds(model.proto)
    expected = models.run(reference, inputs)
    session = open_session(result.cpu_graph or result.graph)
    found = dict(zip(expected, session.run(list(expected), inputs), strict=True))
    for output, array in expected.items():
        assert sqnr(array, found[output]) > FLOORS[precision], output
    for graph in filter(None, (result.graph, result.cpu_graph)):
        onnx.checker.check_model(onnx.load_model_from_string(graph), full_check=True)
    # The report is what a manifest can hold, and names each node of the graph once.
    assert json.loads(canonical_json(result.report)) == result.report
    assert result.report["asked"] == precision
    assert set(precisions(result).values()) <= {precision, "fp32", "integer"}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_gives_the_same_bytes(precision: str) -> None:
    first, second = (written(models.model(NETS["branches"]()), precision) for _ in range(2))
    assert first.graph == second.graph
    assert first.cpu_graph == second.cpu_graph
    assert first.report == second.report
    if first.cache is not None:
        assert first.cache.to_json_bytes() == second.cache.to_json_bytes()


def test_the_report_says_what_became_of_each_node() -> None:
    result = written(models.model(NETS["conv_bn_relu"]()), "int8")
    assert precisions(result) == {
        "c1": "int8",
        "r1": "fp32",
        "c2": "int8",
        "r2": "fp32",
        "gap": "fp32",
        "flat": "fp32",
        "fc": "fp32",
    }
    assert result.report["kept"] == {"fc": "its matrix has a side below 16"}
    assert result.report["calibration"] == {"method": "mse", "samples": 4}
    result = written(models.model(NETS["residual"]()), "fp16", exclude=("c1",))
    assert precisions(result)["c1"] == "fp32"
    assert precisions(result)["c2"] == "fp16"
    assert result.report["kept"] == {"c1": "excluded"}
    assert result.report["ranges_checked_on"] == 4
    result = rewrite(models.model(NETS["residual"]()), BuildConfig(precision="fp16"))
    assert result.report["ranges_checked_on"] == 0


# Half precision with and without samples.


def square() -> Model:
    net = Net()
    x = net.input("x", ("n", 4))
    y = net.op("Mul", x, x, name="square")
    return models.model(net.proto(net.op("Mul", y, net.constant("small", 0.01), name="y")))


def test_samples_show_what_would_overflow() -> None:
    model = square()
    inputs = {"x": np.array([[1, 2, 3, 300]], np.float32)}
    config = BuildConfig(precision="fp16")
    blind = rewrite(model, config)
    assert np.isinf(models.run(blind.cpu_graph, inputs)["y"]).any()
    seen = rewrite(model, config, samples=open_samples([inputs], model.inputs))
    assert set(seen.report["kept"]) == {"square", "y"}
    assert "'square' reaches 90000" in seen.report["kept"]["square"]
    np.testing.assert_allclose(models.run(seen.cpu_graph, inputs)["y"][0, 3], 900, rtol=1e-6)


def test_weights_that_would_underflow_stay_fp32_without_any_sample() -> None:
    net = Net()
    net.weight("w", 16, 16, 1, 1, scale=1e-9)
    y = net.op("Relu", net.op("Conv", net.input("x", PICTURE), "w", name="c1"), name="r1")
    y = net.op("Mul", y, net.constant("much", 1e4), name="m1")
    model = models.model(net.proto(net.op("Mul", y, net.constant("more", 1e4), name="y")))
    result = rewrite(model, BuildConfig(precision="fp16"))
    assert set(result.report["kept"]) == {"c1"}
    assert "'w'" in result.report["kept"]["c1"]
    assert precisions(result) == {"c1": "fp32", "r1": "fp16", "m1": "fp16", "y": "fp16"}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_mask_of_infinities_is_no_overflow(precision: str) -> None:
    net = Net()
    mask = net.constant("mask", [[0.0, 0.0, -np.inf, -np.inf]])
    y = net.op("Add", net.input("x", ("n", 4)), mask, name="masked")
    proto = net.proto(net.op("Softmax", y, name="y", axis=-1))
    model = models.model(proto)
    result = rewrite(model, BuildConfig(precision=precision), samples=samples(model))
    assert result.report["kept"] == {}
    assert set(precisions(result).values()) == {precision}


# Calibration.


def calibrated(model: Model, **settings: object) -> CalibrationCache:
    return calibrate_model(model, BuildConfig(precision="int8", **settings), samples(model))


def test_calibration_covers_exactly_what_is_quantized() -> None:
    model = models.model(NETS["pools"]())
    cache = calibrated(model)
    assert list(cache.ranges) == calibrated_tensors(model, BuildConfig(precision="int8"))
    assert set(cache.ranges) == {"x", "cat"}
    assert (cache.model_digest, cache.method, cache.samples) == (model.digest, "mse", 4)
    assert cache.data_digest == samples(model).digest()
    largest = max(float(np.abs(feeds["x"]).max()) for feeds in samples(model))
    assert cache.ranges["x"].observed == largest >= cache.ranges["x"].amax > 0


def test_a_cache_gives_the_bytes_that_its_samples_gave() -> None:
    model = models.model(NETS["residual"]())
    config = BuildConfig(precision="int8")
    result = rewrite(model, config, samples=samples(model))
    cache = CalibrationCache.from_json_bytes(result.cache.to_json_bytes())
    again = rewrite(model, config, cache=cache)
    assert again.graph == result.graph
    assert again.cache == result.cache


def test_a_cache_of_all_layers_serves_a_build_without_some() -> None:
    model = models.model(NETS["residual"]())
    config = BuildConfig(precision="int8", exclude=("c1", "add"))
    result = rewrite(model, config, cache=calibrated(model))
    assert precisions(result)["c1"] == "fp32"
    assert precisions(result)["c2"] == "int8"


def test_a_cache_that_does_not_fit_is_refused() -> None:
    model = models.model(NETS["residual"]())
    config = BuildConfig(precision="int8")
    cache = calibrated(model)
    with pytest.raises(CalibrationCacheError, match="another model"):
        rewrite(models.model(NETS["shortcut"]()), config, cache=cache)
    lacking = replace(cache, ranges={n: r for n, r in cache.ranges.items() if n != "r1"})
    with pytest.raises(CalibrationCacheError, match="'r1'"):
        rewrite(model, config, cache=lacking)
    stale = replace(cache, ranges={**cache.ranges, "old": cache.ranges["x"]})
    with pytest.raises(CalibrationCacheError, match="'old'"):
        rewrite(model, config, cache=stale)
    lacking = calibrated(model, exclude=("c1", "c2"))
    with pytest.raises(CalibrationCacheError, match="no range"):
        rewrite(model, config, cache=lacking)


@pytest.mark.parametrize("method", ["max", "percentile", "entropy"])
def test_the_method_is_the_one_asked_for(method: str) -> None:
    model = models.model(NETS["residual"]())
    cache = calibrated(model, calibration=CalibrationConfig(method))
    assert cache.method == method
    assert all(0 < bounds.amax <= bounds.observed for bounds in cache.ranges.values())
    is_max = all(bounds.amax == bounds.observed for bounds in cache.ranges.values())
    assert is_max == (method == "max")


def test_a_tensor_that_is_always_zero_is_reported() -> None:
    net = Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    x = net.op("Clip", x, net.constant("low", 0.0), net.constant("high", 0.0), name="dead")
    model = models.model(net.proto(net.conv("c2", x, (16, 16))))
    result = written(model, "int8")
    assert result.report["always_zero"] == ["dead"]
    assert np.isfinite(models.run(result.graph, models.feeds(model.proto))["c2"]).all()


# What is refused.


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_unknown_node_to_exclude_is_refused(precision: str) -> None:
    with pytest.raises(ConfigError, match="'c9'"):
        written(models.model(NETS["residual"]()), precision, exclude=("c9",))


def test_settings_that_do_nothing_or_lack_something_are_refused() -> None:
    model = models.model(NETS["residual"]())
    with pytest.raises(ConfigError, match="INT8 needs calibration data"):
        rewrite(model, BuildConfig(precision="int8"))
    with pytest.raises(ConfigError, match="does nothing for fp32"):
        rewrite(model, BuildConfig(), samples=samples(model))
    for precision in ("fp32", "fp16", "bf16"):
        with pytest.raises(ConfigError, match=f"does nothing for {precision}"):
            rewrite(model, BuildConfig(precision=precision), cache=calibrated(model))


def test_a_model_without_a_layer_for_int8_is_refused_with_the_reasons() -> None:
    net = Net()
    proto = net.proto(net.op("Relu", net.input("x", PICTURE), name="r1"))
    with pytest.raises(ModelError, match="no such layer"):
        written(models.model(proto), "int8")
    with pytest.raises(ModelError, match="excluded"):
        written(models.model(NETS["max_pool"]()), "int8", exclude=("c1", "c2"))


def quantized(inside: bool) -> ModelProto:
    """A net with Q/DQ of its own, in the graph or in a function."""
    if not inside:
        return onnx.load_model_from_string(written(models.model(NETS["residual"]()), "int8").graph)
    proto = NETS["functions"]()
    zero = onnx.numpy_helper.from_array(np.int8(0))
    scale = onnx.numpy_helper.from_array(np.float32(0.1))
    nodes = [
        onnx.helper.make_node("Constant", [], ["zero"], value=zero),
        onnx.helper.make_node("Constant", [], ["scale"], value=scale),
        onnx.helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["levels"]),
        onnx.helper.make_node("DequantizeLinear", ["levels", "scale", "zero"], ["again"]),
    ]
    function = proto.functions[0]
    function.node[0].input[0] = "again"
    nodes.extend(function.node)
    del function.node[:]
    function.node.extend(nodes)
    return proto


@pytest.mark.parametrize("inside", [False, True], ids=["graph", "function"])
def test_a_model_that_is_quantized_already_is_built_as_fp32_only(inside: bool) -> None:
    model = models.model(quantized(inside))
    with pytest.raises(ModelError, match="quantized already"):
        written(model, "int8")
    result = written(model, "fp32")
    inputs = models.feeds(model.proto)
    for name, array in models.run(result.graph, inputs).items():
        assert sqnr(models.run(model.proto, inputs)[name], array) > 40


def test_quantization_that_tensorrt_misreads_is_refused_in_every_precision() -> None:
    proto = quantized(inside=False)
    for tensor in proto.graph.initializer:
        if tensor.name == "int8_zero":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.uint8(128), "int8_zero"))
    with pytest.raises(ModelError, match="UINT8"):
        written(models.model(proto), "fp32")


def test_samples_that_make_no_numbers_are_refused() -> None:
    model = models.model(NETS["residual"]())
    odd = [{"x": np.full((1, 16, 8, 8), np.nan, np.float32)}]
    with pytest.raises(DataError, match="'x'"):
        rewrite(model, BuildConfig(precision="int8"), samples=open_samples(odd, model.inputs))
