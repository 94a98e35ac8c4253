"""The fast form runs on integers, saturates nowhere, and comes close to the FP32 model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from edge_runtime.backends.cpu import open_session, run_session
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import place
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.quantized.fast_cpu import fast_form
from tests import models

SIGNED = ("n", 32, 6, 6)


def form(proto: ModelProto, amax: dict[str, float] | float, *exclude: str) -> bytes:
    prepared = prepare(models.model(proto), min_opset=13)
    placement = place(Graph(prepared), exclude=exclude)
    known = amax if isinstance(amax, dict) else dict.fromkeys(placement.tensors, amax)
    before = prepared.SerializeToString(deterministic=True)
    data = fast_form(prepared, placement, known, {})
    assert prepared.SerializeToString(deterministic=True) == before  # It is not changed.
    return data


def observed(proto: ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest absolute value of each tensor that INT8 layers read."""
    prepared = prepare(models.model(proto), min_opset=13)
    tensors = place(Graph(prepared)).tensors
    known = {name: float(np.abs(feeds[name]).max()) for name in tensors if name in feeds}
    del prepared.graph.output[:]
    made = [name for name in tensors if name not in feeds]
    prepared.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in made)
    found = models.run(prepared, feeds) if made else {}
    return {**known, **{name: float(np.abs(values).max()) for name, values in found.items()}}


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    noise = ((reference.astype(np.float64) - other) ** 2).sum()
    return float(10 * np.log10((reference.astype(np.float64) ** 2).sum() / max(noise, 1e-30)))


def fast(data: bytes, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = open_session(data, threads=1, exact=False)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, run_session(session, names, feeds), strict=True))


def kernels(data: bytes, folder: Path) -> Counter[str]:
    """How often each operator is in the graph that ONNX Runtime makes of it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(folder / "optimised.onnx").graph
    return Counter(node.op_type for node in graph.node)


def constants(data: bytes) -> dict[str, np.ndarray]:
    graph = onnx.load_from_string(data).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


# Nothing saturates.


def extreme(kind: str, sign: int) -> ModelProto:
    """All activations are the largest, and all weights the largest or smallest, that there are."""
    net = models.Net()
    ones = np.full(64, float(sign), np.float32)
    if kind == "MatMul":
        x = net.op("Relu", net.input("x", ("n", 64)), name="r")
        return net.proto(net.op("MatMul", x, net.constant("w", np.tile(ones, (64, 1))), name="y"))
    if kind == "Gemm":
        x = net.op("Relu", net.input("x", ("n", 64)), name="r")
        w = net.constant("w", np.tile(ones, (64, 1)))
        return net.proto(net.op("Gemm", x, w, net.weight("b", 64), name="y", transB=1))
    x = net.op("Relu", net.input("x", ("n", 64, 6, 6)), name="r")
    group = 64 if kind == "depthwise Conv" else 1
    w = net.constant("w", np.full((64, 64 // group, 3, 3), float(sign), np.float32))
    x = net.op("Conv", x, w, net.weight("b", 64), name="c", pads=[1] * 4, group=group)
    return net.proto(net.conv("last", net.op("Add", x, "r", name="sum"), (64, 16)))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kind", ["Conv", "depthwise Conv", "Gemm", "MatMul"])
def test_the_largest_values_of_all_do_not_saturate(kind: str, sign: int, tmp_path: Path) -> None:
    proto = extreme(kind, sign)
    shape = (4, 64) if kind in ("Gemm", "MatMul") else (2, 64, 6, 6)
    feeds = {"x": np.full(shape, 3.0, np.float32)}
    data = form(proto, observed(proto, feeds))
    integers = {"QLinearConv", "MatMulIntegerToFloat", "QGemm"}
    assert integers & kernels(data, tmp_path).keys()
    weights = constants(data)["w.int8"]
    assert (weights == 63 * sign).all()
    for name, reference in models.run(data, feeds).items():
        assert sqnr(reference, fast(data, feeds)[name]) >= 40
        assert sqnr(models.run(proto, feeds)[name], reference) >= 30


@pytest.mark.parametrize("name", models.NETS)
def test_every_net_computes_what_its_quantized_form_says_and_comes_close_to_fp32(name: str) -> None:
    proto = models.model(models.NETS[name]()).proto
    random = np.random.default_rng(0)
    weights = {tensor.name for tensor in proto.graph.initializer}
    feeds = {
        value.name: random.standard_normal(
            [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim], dtype=np.float32
        )
        for value in proto.graph.input
        if value.name not in weights
    }
    data = form(proto, observed(proto, feeds))
    expected, simulated, found = (
        models.run(proto, feeds),
        models.run(data, feeds),
        fast(data, feeds),
    )
    for output, values in expected.items():
        assert sqnr(simulated[output], found[output]) >= 40, output
        assert sqnr(values, found[output]) >= 25, output


# What it is made of.


def test_a_residual_net_runs_on_integers_from_end_to_end(tmp_path: Path) -> None:
    net = models.Net()
    x = net.op("Relu", net.conv("c0", net.input("x", SIGNED), (32, 32)), name="r0")
    x = net.op("MaxPool", x, name="pool", kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("Relu", net.conv("c1", x, (32, 32)), name="r1")
    y = net.op("Add", net.conv("c2", y, (32, 32)), x, name="add")
    y = net.op("GlobalAveragePool", net.op("Relu", y, name="r2"), name="gap")
    y = net.op("Flatten", y, name="flat")
    proto = net.proto(net.op("Gemm", y, net.weight("w", 32, 16), name="fc"))
    found = kernels(form(proto, 3.0), tmp_path)
    assert found["QLinearConv"] == 3
    assert found["QLinearAdd"] == found["QLinearGlobalAveragePool"] == found["QGemm"] == 1
    assert not found.keys() & {"Conv", "Add", "Relu", "Gemm", "DequantizeLinear"}
    assert found["QuantizeLinear"] == 1  # The input.


def test_signed_activations_have_their_zero_in_the_middle_and_others_at_the_bottom() -> None:
    net = models.Net()
    x = net.op("Relu", net.conv("c0", net.input("x", SIGNED), (32, 32)), name="r0")
    values = constants(form(net.proto(net.op("Relu", net.conv("c1", x, (32, 32)))), 2.0))
    assert (values["x.zero"], values["x.zero"].dtype) == (128, np.uint8)
    assert values["x.scale"] == np.float32(2 / 127)
    assert values["r0.zero"] == 0
    assert values["r0.scale"] == np.float32(2 / 255)


def test_weights_have_7_bits_and_biases_are_int32_in_units_of_their_products() -> None:
    net = models.Net()
    x = net.op("Relu", net.conv("c0", net.input("x", SIGNED), (32, 32)), name="r0")
    proto = net.proto(net.conv("c1", x, (32, 32)))
    before, after = constants(proto.SerializeToString()), constants(form(proto, 2.0))
    assert np.abs(after["c0.w.int8"].astype(int)).max(axis=(1, 2, 3)).tolist() == [63] * 32
    units = after["x.scale"] * after["c0.w.scale"]
    assert after["c0.b.int32"].dtype == np.int32
    np.testing.assert_allclose(after["c0.b.int32"] * units, before["c0.b"], atol=units.max())
    assert "c1.w.int8" not in after  # Its output has no range: it stays FP32, weights and all.
    np.testing.assert_array_equal(after["c1.w"], before["c1.w"])


def test_a_bias_beyond_int32_makes_the_scale_larger_and_not_the_bias_smaller() -> None:
    net = models.Net()
    w = np.full((16, 32, 1, 1), 1e-9, np.float32)
    w[1:] = net._random.standard_normal(w[1:].shape)
    b = np.linspace(-40, 40, 16, dtype=np.float32)
    x = net.op("Conv", net.input("x", SIGNED), net.constant("w", w), net.constant("b", b), name="c")
    proto = net.proto(net.conv("last", net.op("Relu", x, name="r"), (16, 16)))
    data = form(proto, {"x": 1.0, "r": 60.0})
    feeds = {"x": np.random.default_rng(0).uniform(-1, 1, (2, 32, 6, 6)).astype(np.float32)}
    values = constants(data)
    np.testing.assert_allclose(values["b.int32"] * values["b.scale"], b, atol=1e-3)
    assert sqnr(models.run(proto, feeds)["last"], fast(data, feeds)["last"]) > 25


def test_layers_that_share_a_weight_share_its_int8_form() -> None:
    values = constants(form(models.shared_weights(), 2.0))
    assert sum(name.startswith("c1.w.int8") for name in values) == 1


def test_what_is_excluded_stays_fp32() -> None:
    graph = onnx.load_from_string(form(models.residual(), 2.0, "c1")).graph
    producers = {name: node.op_type for node in graph.node for name in node.output}
    by_name = {node.name: node for node in graph.node}
    assert producers.get(by_name["c1"].input[0]) != "DequantizeLinear"
    assert producers.get(by_name["c2"].input[0]) == "DequantizeLinear"


def test_a_tensor_that_is_an_output_too_is_not_quantized_where_it_leaves_the_graph() -> None:
    net = models.Net()
    x = net.op("Relu", net.conv("c0", net.input("x", SIGNED), (32, 32)), name="r0")
    y = net.op("Relu", net.conv("c1", x, (32, 32)), name="r1")
    proto = net.proto(x, net.conv("c2", y, (32, 32)))
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 32, 6, 6), dtype=np.float32)}
    expected, found = models.run(proto, feeds), fast(form(proto, observed(proto, feeds)), feeds)
    assert sqnr(expected["r0"], found["r0"]) > 100
    assert sqnr(expected["c2"], found["c2"]) < 60


def test_the_bias_is_corrected_for_7_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def correct(proto, placement, weights, means):
        seen.append(({entry.node for entry in placement.weights}, weights, means))
        return []

    monkeypatch.setattr("edge_runtime.precision.quantized.fast_cpu.correct_bias", correct)
    form(models.residual(), 2.0)
    [(nodes, weights, _)] = seen
    assert nodes == {"c0", "c1", "c2"}  # c3 stays FP32 and has nothing to correct.
    assert all(np.abs(weight.levels.astype(int)).max() == 63 for weight in weights.values())


def test_equal_models_give_equal_bytes() -> None:
    assert form(models.residual(), 2.0) == form(models.residual(), 2.0)


def test_inputs_and_outputs_keep_their_names_types_and_shapes() -> None:
    proto = models.several_outputs()
    after = onnx.load_from_string(form(proto, 2.0)).graph
    assert [value.name for value in after.output] == [value.name for value in proto.graph.output]
    assert list(after.input) == list(proto.graph.input)
    assert all(v.type.tensor_type.elem_type == TensorProto.FLOAT for v in after.output)
