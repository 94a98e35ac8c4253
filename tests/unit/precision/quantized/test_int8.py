"""INT8 graphs compute what symmetric quantization, written out in numpy, computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import ModelProto, TensorProto, numpy_helper

from edge_runtime.backends.cpu import open_session
from edge_runtime.errors import ModelError
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import place
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.graphs.validate import validate
from edge_runtime.precision.quantized.int8 import quantize
from edge_runtime.precision.quantized.weights import (
    balance_kernels,
    quantize_weight,
    quantize_weights,
    scale_of,
)
from tests import models
from tests.models import NETS, PICTURE, Net


def quantized(proto: ModelProto, amax: dict[str, float] | float, *exclude: str) -> ModelProto:
    """The INT8 form, with these ranges, or one for all; valid for everybody who reads it."""
    result = prepare(models.model(proto), min_opset=13)
    placement = place(Graph(result), exclude=exclude)
    ranges = amax if isinstance(amax, dict) else dict.fromkeys(placement.tensors, amax)
    quantize(result, placement, ranges, quantize_weights(Graph(result), placement))
    validate(result, "net.onnx")
    onnx.checker.check_model(result, full_check=True)
    return result


def weights(proto: ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def behind(proto: ModelProto, name: str, index: int = 0) -> tuple[str, float]:
    """Of an input of a node that reads INT8: the FP32 tensor and its scale."""
    made = {node.output[0]: node for node in proto.graph.node}
    dequantize = made[models.node(proto, name).input[index]]
    quantize = made[dequantize.input[0]]
    assert (quantize.op_type, dequantize.op_type) == ("QuantizeLinear", "DequantizeLinear")
    assert quantize.input[1:] == dequantize.input[1:]
    return quantize.input[0], float(weights(proto)[quantize.input[1]])


def fake_quantize(x: np.ndarray, amax: float) -> np.ndarray:
    scale = np.float32(amax / 127)
    return np.clip(np.rint(x / scale), -128, 127).astype(np.float64) * float(scale)


def fake_quantize_weight(weight: np.ndarray) -> np.ndarray:
    """What INT8 makes of the weights of a Conv, whose levels `test_weights` checks."""
    rounded = balance_kernels(weight, quantize_weight(weight, 0))
    return rounded.dequantized.astype(np.float64)


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A 3x3 convolution with padding 1, in float64."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    result: np.ndarray = np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]
    return result


def test_a_graph_computes_what_numpy_does() -> None:
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    proto = net.proto(net.conv("c2", x, (16, 8)))
    amax = {"x": 2.5, "r1": 3.25}  # Clips both.
    inputs = models.feeds(proto)
    w = {name: value.astype(np.float64) for name, value in weights(proto).items()}
    y = convolve(fake_quantize(inputs["x"], 2.5), fake_quantize_weight(w["c1.w"]), w["c1.b"])
    y = fake_quantize(np.maximum(y, 0), 3.25)
    y = convolve(y, fake_quantize_weight(w["c2.w"]), w["c2.b"])
    graph = quantized(proto, amax)
    session = open_session(graph.SerializeToString())
    for found in (models.run(graph, inputs)["c2"], session.run(["c2"], inputs)[0]):
        # A value at the edge between two levels may fall either way; nearly none is.
        error = np.abs(found - y)
        assert np.quantile(error, 0.99) < 1e-5
        assert error.max() < 0.02
    assert np.abs(models.run(proto, inputs)["c2"] - y).max() > 0.05  # It is not just FP32.


@pytest.mark.parametrize("name", NETS)
def test_every_net_is_written_so_that_everybody_reads_it(name: str) -> None:
    proto = NETS[name]()
    graph = quantized(proto, 4.0)
    inputs = models.feeds(proto)
    outputs = models.run(graph, inputs)
    session = open_session(graph.SerializeToString())
    for output, expected in zip(session.run(None, inputs), outputs.values(), strict=True):
        assert output.shape == expected.shape
        assert np.isfinite(output).all()


def test_zero_points_are_int8_zeros_and_weights_int8_by_channel() -> None:
    for make in NETS.values():
        graph = quantized(make(), 4.0)
        values = weights(graph)
        for node in graph.graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                scale, zero = (values[name] for name in node.input[1:])
                assert (scale.dtype, zero.dtype) == (np.float32, np.int8)
                assert scale.shape == zero.shape
                assert not zero.any()
                assert (scale > 0).all()
    graph = quantized(NETS["residual"](), 4.0)
    stored = weights(graph)["c1.w.int8"]
    assert stored.dtype == np.int8
    assert (
        np.abs(stored).reshape(16, -1).max(1).tolist() == [127] * 16
    )  # Each channel its own scale.


def test_fp32_weights_and_bias() -> None:
    proto = NETS["residual"]()
    before, after = weights(proto), weights(quantized(proto, 4.0))
    assert not {"c0.w", "c1.w", "c2.w", "c3.w"} & after.keys()  # Stored once, as INT8.
    for name in ("c0.b", "c1.b", "c2.b", "c3.b"):
        np.testing.assert_array_equal(after[name], before[name])


def test_the_axis_of_weights_is_the_layers_own() -> None:
    graph = quantized(NETS["dense"](), 4.0)
    found = {}
    for node in graph.graph.node:
        if node.op_type in ("Gemm", "MatMul"):
            made = next(n for n in graph.graph.node if n.output[0] == node.input[1])
            axis = next((a.i for a in made.attribute if a.name == "axis"), None)
            found[node.name] = (axis, weights(graph)[made.input[1]].shape)
    assert found == {"g1": (1, (32,)), "g2": (0, (20,)), "m": (1, (16,))}
    graph = quantized(NETS["transposed"](), 4.0)
    assert weights(graph)["t1.weight.scale"].shape == ()
    assert weights(graph)["t2.weight.scale"].shape == (16,)


def test_excluded_layers_keep_their_weights() -> None:
    proto = NETS["residual"]()
    graph = quantized(proto, 4.0, "c1")
    np.testing.assert_array_equal(weights(graph)["c1.w"], weights(proto)["c1.w"])
    assert models.node(graph, "c1").input[:2] == ["r0", "c1.w"]


# Sharing.


def test_a_tensor_is_quantized_once_for_all_that_read_it() -> None:
    graph = quantized(NETS["attention"](), 4.0)
    made = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert [node.input[0] for node in made] == ["x", "pv"]


def test_weights_that_are_shared_are_stored_once() -> None:
    graph = quantized(NETS["shared_weights"](), 4.0)
    assert models.node(graph, "c2").input[1] == models.node(graph, "c3").input[1]
    stored = [
        name for name, value in weights(graph).items() if value.dtype == np.int8 and value.ndim
    ]
    assert sorted(name for name in stored if name.endswith(".int8")) == [
        "c1.w.int8",
        "c1.weight.int8",
    ]


@pytest.mark.parametrize(("other", "is_shared"), [(4.0, True), (3.3, True), (3.0, False)])
def test_two_ranges_of_a_tensor_become_one_where_they_are_near(
    other: float, is_shared: bool
) -> None:
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    y = net.op("Relu", net.conv("c2", x, (16, 16)), name="r2")
    cat = net.op("Concat", x, y, name="cat", axis=1)
    proto = net.proto(net.conv("c3", cat, (32, 16)))
    graph = quantized(proto, {"x": 4.0, "r1": other, "r2": 4.0, "cat": 4.0})
    assert behind(graph, "cat", 0) == ("r1", pytest.approx(4 / 127))
    assert behind(graph, "c2") == ("r1", pytest.approx((4.0 if is_shared else other) / 127))
    same = models.node(graph, "c2").input[0] == models.node(graph, "cat").input[0]
    assert same == is_shared


def test_pools_and_concats_pass_one_scale_through() -> None:
    ranges = {"x": 4.0, "r1": 3.0, "p1": 2.0, "p2": 1.0, "cat": 3.5}
    graph = quantized(NETS["pools"](), ranges)
    for place_ in [("p1", 0), ("p2", 0), ("cat", 0), ("cat", 1), ("cat", 2), ("c2", 0)]:
        assert behind(graph, *place_)[1] == pytest.approx(3.5 / 127)


# Odd ranges and weights.


def test_a_tensor_that_was_always_zero_has_a_scale_all_the_same() -> None:
    proto = NETS["residual"]()
    ranges = dict.fromkeys(("x", "r0", "r1", "r2"), 4.0)
    graph = quantized(proto, {**ranges, "r1": 0.0})
    assert behind(graph, "c2") == ("r1", pytest.approx(1 / 127))
    assert all(np.isfinite(a).all() for a in models.run(graph, models.feeds(proto)).values())


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 3.4e38])
def test_a_range_of_any_size_gives_a_scale_that_divides(value: float) -> None:
    scale = scale_of(value)
    assert scale.dtype == np.float32
    assert np.isfinite(scale)
    assert np.isfinite(np.float32(1) / scale)


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3)),
        elements=st.floats(-(2.0**99), 2.0**99, width=32),
    ),
    st.sampled_from([0, 1, 2, None]),
)
def test_a_weight_is_rounded_to_the_nearest_level(weight: np.ndarray, axis: int | None) -> None:
    rounded = quantize_weight(weight, axis)
    levels, scale = rounded.levels, rounded.scale
    assert levels.shape == weight.shape
    assert (levels.dtype, scale.dtype) == (np.int8, np.float32)
    assert levels.min() >= -127
    steps = scale if axis is None else np.expand_dims(scale, [i for i in range(3) if i != axis])
    error = np.abs(levels * steps.astype(np.float64) - weight)
    assert (error <= 0.5001 * steps).all()
    for index in range(weight.shape[axis] if axis is not None else 1):
        part = weight if axis is None else weight.take(index, axis)
        largest = np.abs(part).max()
        if largest > 1e-30:
            taken = levels if axis is None else levels.take(index, axis)
            assert np.abs(taken).max() == 127  # The range is used in full.
        elif not largest:
            assert scale.reshape(-1)[index] == np.float32(1 / 127)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_weights_that_are_not_numbers_are_refused(odd: float) -> None:
    proto = NETS["residual"]()
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "c3.w")
    broken = numpy_helper.to_array(tensor).copy()
    broken[0, 0, 0, 0] = odd
    tensor.CopyFrom(numpy_helper.from_array(broken, "c3.w"))
    with pytest.raises(ModelError) as caught:
        quantized(proto, 4.0)
    assert "'c3.w'" in str(caught.value)
    assert "'c3'" in str(caught.value)


def test_names_that_are_taken_are_not_taken_again() -> None:
    net = Net()
    x = net.input("x", PICTURE)
    taken = net.op("Tanh", x, name="x.int8")
    for name in ("x.scale", "x.dequantized", "x.QuantizeLinear", "int8_zero"):
        taken = net.op("Tanh", taken, name=name)
    y = net.op("Add", net.conv("c1", x, (16, 16)), taken, name="add")
    proto = net.proto(y)
    inputs = models.feeds(proto)
    found, expected = models.run(quantized(proto, 4.0), inputs), models.run(proto, inputs)
    assert np.abs(found["add"] - expected["add"]).max() < 0.3


def test_types_are_those_of_the_model() -> None:
    graph = quantized(NETS["conv_bn_relu"](), 4.0)
    assert graph.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert graph.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
