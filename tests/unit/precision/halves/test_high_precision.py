"""INT8 graphs whose rest is FP16 or BF16, and their twins, against numpy."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edge_runtime.backends.cpu import open_session
from edge_runtime.config import BuildConfig, CalibrationConfig
from edge_runtime.data import open_samples
from edge_runtime.errors import ModelError
from edge_runtime.model import Model
from edge_runtime.precision.calibration import calibrate_model
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.quantized.weights import QuantizedWeight, balance_kernels
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from edge_runtime.precision.rewrite import rewrite
from edge_runtime.precision.rewritten import Rewritten
from tests import models
from tests.models import NETS, PICTURE, Net

HALVES = ("fp16", "bf16")
DTYPES = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
PLAIN = CalibrationConfig(equalize=False, bias_correction=False)


def config(rest: str, **settings: object) -> BuildConfig:
    settings = {"calibration": PLAIN, **settings}
    return BuildConfig(precision="int8", high_precision=rest, **settings)


def written(proto: ModelProto, rest: str, scale: float = 1.0, **settings: object) -> Rewritten:
    model = models.model(proto)
    return rewrite(model, config(rest, **settings), samples=samples(model, scale))


def samples(model: Model, scale: float = 1.0) -> object:
    feeds = [models.feeds(model.proto, seed) for seed in range(3)]
    scaled = [{name: array * np.float32(scale) for name, array in each.items()} for each in feeds]
    return open_samples(scaled, model.inputs)


def parsed(data: bytes) -> tuple[ModelProto, Graph]:
    proto = onnx.load_model_from_string(data)
    return proto, Graph(proto)


def precisions(result: Rewritten) -> dict[str, str]:
    return {node["name"]: node["precision"] for node in result.report["nodes"]}


def types(graph: Graph, name: str) -> list[int]:
    """The types of what a node reads and makes."""
    node = models.node(graph.proto, name)
    return [graph.elem_type(tensor) for tensor in (*node.input, *node.output) if tensor]


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    noise = ((reference.astype(np.float64) - other) ** 2).sum()
    return float(10 * np.log10((reference.astype(np.float64) ** 2).sum() / max(noise, 1e-30)))


@pytest.mark.parametrize("rest", HALVES)
@pytest.mark.parametrize("name", NETS)
def test_every_net_is_written_so_that_everybody_reads_it(name: str, rest: str) -> None:
    proto = NETS[name]()
    result = written(proto, rest)
    full = written(proto, "fp32")
    assert result.cpu_graph is not None
    for data in (result.graph, result.cpu_graph):
        onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
        values = [*(loaded := onnx.load_model_from_string(data)).graph.input, *loaded.graph.output]
        assert {v.type.tensor_type.elem_type for v in values} == {TensorProto.FLOAT}
    # The same layers are INT8, and those on a GPU and on a CPU give the same.
    layers = {name for name, kind in precisions(full).items() if kind == "int8"}
    assert layers == {name for name, kind in precisions(result).items() if kind == "int8"}
    inputs = models.feeds(proto)
    expected = dict(
        zip(
            full_names := [o.name for o in proto.graph.output],
            open_session(full.graph).run(full_names, inputs),
            strict=True,
        )
    )
    found = open_session(result.cpu_graph).run(full_names, inputs)
    for output, array in zip(full_names, found, strict=True):
        assert array.dtype == np.float32
        assert sqnr(expected[output], array) > 22, output
    if rest == "fp16":  # ONNX Runtime has no kernels for BF16.
        for output, array in models.run(result.graph, inputs).items():
            assert sqnr(expected[output], array) > 22, output


@pytest.mark.parametrize("rest", HALVES)
def test_layers_read_half_behind_int8_and_no_cast_comes_between(rest: str) -> None:
    result = written(NETS["residual"](), rest)
    proto, graph = parsed(result.graph)
    for name in ("c0", "c1", "c2", "c3", "add", "r1"):
        assert set(types(graph, name)) == {TYPES[rest]}, name
    for name in ("c0", "c1", "c2", "c3"):
        for tensor in models.node(proto, name).input[:2]:
            maker = graph.producer[tensor]
            assert maker.op_type == "DequantizeLinear"
            assert graph.elem_type(maker.input[1]) == TYPES[rest]
            assert graph.elem_type(maker.input[0]) == TensorProto.INT8
    casts = [node.output[0] for node in proto.graph.node if node.op_type == "Cast"]
    assert casts == ["c3"]  # The output alone: the input is quantized as it comes.
    quantized = [node.input[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    kinds = dict(zip(quantized, map(graph.elem_type, quantized), strict=True))
    assert kinds.pop("x") == TensorProto.FLOAT
    assert set(kinds.values()) == {TYPES[rest]}
    assert set(precisions(result).values()) == {"int8", rest}
    assert result.report["kept"] == result.report["kept_full"] == {}
    assert result.report["ranges_checked_on"] == 3


def test_the_graph_is_no_larger_than_with_fp32() -> None:
    proto = NETS["residual"]()
    floats = [
        t
        for t in parsed(written(proto, "fp16").graph)[0].graph.initializer
        if t.data_type == TensorProto.FLOAT
    ]
    assert [tensor.dims for tensor in floats] == [[]]  # The scale of the input.


# The twin, step by step.


def round_to(rest: str, values: np.ndarray) -> np.ndarray:
    return values.astype(DTYPES[rest]).astype(np.float64)


def convolve(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A 3x3 convolution with padding 1, in float64."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    result: np.ndarray = np.einsum("nchwij,ocij->nohw", windows, weight)
    return result


@pytest.mark.parametrize("rest", HALVES)
def test_the_twin_computes_what_numpy_does(rest: str) -> None:
    """Levels times levels exactly, everything else rounded to half after each node."""
    proto = NETS["residual"]()
    result = written(proto, rest)
    values = {t.name: numpy_helper.to_array(t) for t in parsed(result.graph)[0].graph.initializer}
    plain = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}

    def scale_of(name: str) -> float:
        bounds = result.cache.ranges[name]
        return float(np.float32(bounds.amax / 127).astype(DTYPES[rest]))

    def quantized(x: np.ndarray, name: str) -> np.ndarray:
        scale = np.float32(scale_of(name))
        levels = np.clip(np.rint(x.astype(np.float32) / scale), -128, 127)
        return levels.astype(np.float64) * float(scale)

    def layer(x: np.ndarray, name: str, read: str) -> np.ndarray:
        weight = plain[f"{name}.w"]
        scale = (np.abs(weight).max((1, 2, 3)) / 127).astype(np.float32).astype(DTYPES[rest])
        np.testing.assert_array_equal(
            values[f"{name}.w.scale.half"].view(np.uint16), scale.view(np.uint16)
        )
        steps = scale.astype(np.float64)[:, None, None, None]
        levels = np.clip(np.rint(weight / steps.astype(np.float32)), -127, 127)
        nearest = QuantizedWeight(levels.astype(np.int8), scale.astype(np.float32), 0)
        levels = balance_kernels(weight, nearest).levels
        np.testing.assert_array_equal(values[f"{name}.w.int8"], levels)
        bias = round_to(rest, plain[f"{name}.b"])[:, None, None]
        return round_to(rest, convolve(quantized(x, read), levels * steps) + bias)

    inputs = models.feeds(proto)
    r0 = np.maximum(layer(inputs["x"], "c0", "x"), 0)
    r1 = np.maximum(layer(r0, "c1", "r0"), 0)
    branch = round_to(rest, quantized(r0, "r0"))  # What the sum reads is a half tensor.
    r2 = np.maximum(round_to(rest, layer(r1, "c2", "r1") + branch), 0)
    y = layer(r2, "c3", "r2")
    found = open_session(result.cpu_graph).run(["c3"], inputs)[0]
    # Sums of products in another order may fall to the other side of a rounding, seldom.
    assert (found == y).mean() > 0.9
    assert sqnr(y, found) > 45


def test_the_twin_multiplies_levels_not_rounded_values() -> None:
    """With weights of 1 and one input channel the product is visible: 1 step of the scale."""
    net = Net()
    w = net.constant("w", np.full((16, 1, 1, 1), 127.0, np.float32))
    y = net.op("Conv", net.input("x", ("n", 1, 4, 4)), w, name="y")
    model = models.model(net.proto(y))
    cache = calibrate_model(model, config("bf16"), samples(model))
    ranges = {"x": replace(cache.ranges["x"], amax=127.0)}
    result = rewrite(model, config("bf16"), cache=replace(cache, ranges=ranges))
    x = np.full((1, 1, 4, 4), 101.0, np.float32)
    found = open_session(result.cpu_graph).run(["y"], {"x": x})[0]
    assert (found == np.float32(101 * 127).astype(ml_dtypes.bfloat16).astype(np.float32)).all()


# What half cannot hold.


def overflowing() -> ModelProto:
    """Two layers around a product that reaches 1e5, and one behind."""
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    x = net.op(
        "Mul",
        net.conv("c2", x, (16, 16)),
        net.constant("much", np.float32([1e5, 1e5])[:1]),
        name="m",
    )
    x = net.conv("c3", net.op("Abs", x, name="abs"), (16, 16))
    x = net.op("Mul", x, net.constant("less", 1e-5), name="m2")
    return net.proto(net.conv("c4", net.op("Tanh", x, name="t"), (16, 16)))


def test_what_overflows_stays_fp32_and_its_layers_int8() -> None:
    proto = overflowing()
    result = written(proto, "fp16")
    found = precisions(result)
    assert {found[f"c{i}"] for i in (1, 2, 3, 4)} == {"int8"}
    full = result.report["kept_full"]
    assert "abs" in full
    assert "reaches" in full["abs"]
    assert "c3" in full  # It reads what FP16 cannot hold.
    assert "c4" not in full
    assert found["abs"] == "fp32"
    assert found["t"] == "fp16"
    _, graph = parsed(result.graph)
    assert types(graph, "c3")[:2] == [TensorProto.FLOAT] * 2
    assert types(graph, "c4")[:2] == [TensorProto.FLOAT16] * 2
    inputs = models.feeds(proto)
    reference = open_session(written(proto, "fp32").graph).run(["c4"], inputs)[0]
    for data in (result.graph, result.cpu_graph):
        array = open_session(data).run(["c4"], inputs)[0]
        assert sqnr(reference, array) > 25
    assert written(proto, "bf16").report["kept_full"] == {}


def test_a_calibration_that_did_not_look_says_so() -> None:
    model = models.model(overflowing())
    blind = calibrate_model(model, config("fp32"), samples(model))
    assert blind.peaks == {}
    result = rewrite(model, config("fp16"), cache=blind)
    assert result.report["ranges_checked_on"] == 0
    assert "abs" in result.report["kept_full"]  # INT8 reads it, so its largest value is known.
    seeing = calibrate_model(model, config("fp16"), samples(model))
    assert seeing.ranges == blind.ranges
    assert {"c1", "m", "m2", "c4"} <= seeing.peaks.keys()
    assert not seeing.peaks.keys() & seeing.ranges.keys()
    again = CalibrationCache.from_json_bytes(seeing.to_json_bytes())
    assert again == seeing
    result = rewrite(model, config("fp16"), cache=again)
    assert result.report["ranges_checked_on"] == 3
    assert result.graph == rewrite(model, config("fp16"), samples=samples(model)).graph
    # What was seen for one half type serves the other, and FP32.
    assert rewrite(model, config("bf16"), cache=seeing).report["ranges_checked_on"] == 3
    assert rewrite(model, config("fp32"), cache=seeing).report.get("ranges_checked_on") is None


def tiny(scale: float) -> ModelProto:
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    w = np.random.default_rng(1).standard_normal((16, 16, 3, 3)).astype(np.float32)
    w[3] *= np.float32(scale)
    x = net.op("Conv", x, net.constant("c2.w", w), name="c2", pads=[1] * 4)
    return net.proto(net.op("Neg", x, name="y"))


def test_a_layer_whose_scales_no_half_holds_stays_int8_amid_fp32() -> None:
    proto = tiny(1e-6)
    result = written(proto, "fp16")
    assert precisions(result) == {"c1": "int8", "r1": "fp16", "c2": "int8", "y": "fp16"}
    assert set(result.report["kept_full"]) == {"c2"}
    assert "'c2.w'" in result.report["kept_full"]["c2"]
    inputs = models.feeds(proto)
    expected = models.run(proto, inputs)["y"][:, 3]
    graph, twin = (open_session(d).run(["y"], inputs)[0] for d in (result.graph, result.cpu_graph))
    np.testing.assert_allclose(twin[:, 3], expected, atol=np.abs(expected).max() * 0.1)
    np.testing.assert_allclose(graph[:, 3], expected, atol=np.abs(expected).max() * 0.1)
    assert written(tiny(1e-2), "fp16").report["kept_full"] == {}
    assert written(tiny(1e-12), "fp16").report["kept_full"] == {}  # Dead.
    assert written(proto, "bf16").report["kept_full"] == {}


def test_a_tensor_read_in_both_types_is_quantized_once() -> None:
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    w = np.random.default_rng(1).standard_normal((16, 16, 1, 1)).astype(np.float32)
    w[3] *= np.float32(1e-6)
    y = net.op("Conv", x, net.constant("c2.w", w), name="c2")
    result = written(net.proto(y, net.conv("c3", x, (16, 16))), "fp16")
    proto, graph = parsed(result.graph)
    assert [n.input[0] for n in proto.graph.node if n.op_type == "QuantizeLinear"].count(
        "r1.half"
    ) == 1
    levels = {graph.producer[models.node(proto, name).input[0]].input[0] for name in ("c2", "c3")}
    assert len(levels) == 1
    assert types(graph, "c2")[0] == TensorProto.FLOAT
    assert types(graph, "c3")[0] == TensorProto.FLOAT16
    names = [node.name for node in proto.graph.node]
    assert len(names) == len(set(names))


# Layers that are not INT8.


@pytest.mark.parametrize("rest", ["fp32", *HALVES])
def test_an_excluded_layer_is_of_the_rest(rest: str) -> None:
    result = written(NETS["residual"](), rest, exclude=("c1",))
    assert precisions(result)["c1"] == rest
    assert precisions(result)["c2"] == "int8"
    assert result.report["kept"] == {"c1": "excluded"}
    assert result.report["high_precision"] == rest
    assert result.report["weighted_layers"]["count"] == 4
    assert result.report["weighted_layers"]["as_asked"] == 3
    share = result.report["weighted_layers"]
    assert share["values_as_asked"] / share["values"] == pytest.approx(0.75)


def test_bf16_leaves_transposed_convolutions_amid_fp32() -> None:
    result = written(NETS["transposed"](), "bf16")
    assert precisions(result)["t1"] == precisions(result)["t2"] == "int8"
    assert result.report["kept_full"]["t1"] == "ConvTranspose has no form of that type"
    assert written(NETS["transposed"](), "fp16").report["kept_full"] == {}


def test_control_flow_stays_fp32() -> None:
    result = written(NETS["branches"](), "fp16")
    assert precisions(result)["if"] == "fp32"
    assert precisions(result)["c2"] == "int8"
    assert result.report["kept"]["if"] == "its operator has no INT8 form"
    assert result.report["kept_full"]["if"] == "its branches compute in FP32"


def test_a_recurrent_layer_has_a_reason() -> None:
    net = Net()
    x = net.op("MatMul", net.input("x", (5, "n", 16)), net.weight("w", 16, 16), name="m")
    w, r = net.weight("g.w", 1, 48, 16), net.weight("g.r", 1, 48, 16)
    net.nodes.append(helper.make_node("GRU", [x, w, r], ["", "y"], name="gru", hidden_size=16))
    result = written(net.proto("y"), "fp16")
    assert precisions(result)["m"] == "int8"
    assert precisions(result)["gru"] == "fp16"
    assert result.report["kept"] == {"gru": "its operator has no INT8 form"}


def test_a_model_that_is_quantized_already_is_refused() -> None:
    proto = onnx.load_model_from_string(written(NETS["residual"](), "fp32").graph)
    with pytest.raises(ModelError, match="quantized already"):
        written(proto, "fp16")
