"""Which nodes half precision would break, and the reasons that users read."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from edge_runtime.config import Precision
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.halves.half_ranges import (
    HEADROOM,
    Peak,
    half_tensors,
    keep_full,
    peak_counters,
)
from edge_runtime.precision.halves.half_types import HALF_TYPES, HalfType
from tests import models
from tests.models import NETS, PICTURE, Net

FP16, BF16 = HALF_TYPES[Precision.FP16], HALF_TYPES[Precision.BF16]


def graph(proto: ModelProto, half: HalfType = FP16) -> Graph:
    return Graph(prepare(models.model(proto), min_opset=half.min_opset))


def layer(weight: np.ndarray) -> ModelProto:
    """A Mul by a constant of 8 and a Relu."""
    net = Net()
    y = net.op("Mul", net.input("x", ("n", 8)), net.constant("k", weight), name="y")
    return net.proto(net.op("Relu", y, name="r"))


def full(*values: float) -> np.ndarray:
    return np.resize(np.array(values, np.float32), 8)


def test_every_activation_that_would_be_half_is_observed() -> None:
    assert half_tensors(graph(NETS["residual"]()), FP16) == [
        *("x", "c0", "r0", "c1", "r1", "c2", "add", "r2", "c3")
    ]
    assert "t1" not in half_tensors(graph(NETS["transposed"](), BF16), BF16)


def test_nothing_is_kept_where_all_fits() -> None:
    assert keep_full(graph(NETS["residual"]()), FP16, {"x": 3.0, "c0": 16000.0}) == {}
    assert keep_full(graph(NETS["residual"]()), FP16, {}) == {}


def test_who_makes_or_reads_what_is_too_large_is_kept() -> None:
    kept = keep_full(graph(NETS["residual"]()), FP16, {"r1": 20000.0, "x": 1.0})
    assert set(kept) == {"r1", "c2"}
    assert "'r1' reaches 20000" in kept["c2"]
    assert "65504" in kept["c2"]


def test_there_is_headroom_for_what_samples_do_not_show() -> None:
    edge = FP16.max / HEADROOM
    assert keep_full(graph(NETS["residual"]()), FP16, {"r1": edge}) == {}
    assert keep_full(graph(NETS["residual"]()), FP16, {"r1": edge * 1.001}) != {}
    assert keep_full(graph(NETS["residual"](), BF16), BF16, {"r1": 1e30}) == {}


@pytest.mark.parametrize(
    ("weight", "half", "words"),
    [
        (full(1e-9), FP16, ["0 dB"]),
        (full(3e-7, -2e-7), FP16, ["dB"]),
        (full(1.0, 70000.0), FP16, ["70000", "65504"]),
        (full(-np.inf, 70000.0), FP16, ["70000"]),
        (full(np.finfo(np.float32).max), BF16, ["3.4"]),
    ],
)
def test_a_constant_that_half_cannot_hold_is_named(
    weight: np.ndarray, half: HalfType, words: list[str]
) -> None:
    kept = keep_full(graph(layer(weight), half), half, {})
    assert set(kept) == {"y"}
    for word in ["'k'", *words]:
        assert word in kept["y"]


@pytest.mark.parametrize(
    ("weight", "half"),
    [
        (full(1.0, 1e-9), FP16),  # What underflows is nothing beside the rest.
        (full(65504.0), FP16),
        (full(0.0), FP16),
        (full(-np.inf, 0.0), FP16),
        (full(1e-9), BF16),
        (full(1e38), BF16),
        (full(0.1, 1 / 3), BF16),
    ],
)
def test_a_constant_that_half_holds_well_enough_is_half(weight: np.ndarray, half: HalfType) -> None:
    assert keep_full(graph(layer(weight), half), half, {}) == {}


def test_a_constant_of_nothing_is_no_trouble() -> None:
    net = Net()
    none = net.constant("none", np.zeros((1, 0, 8, 8), np.float32))
    cat = net.op("Concat", net.input("x", (1, 16, 8, 8)), none, name="cat", axis=1)
    assert keep_full(graph(net.proto(cat)), FP16, {}) == {}


def test_integers_and_what_stays_fp32_anyway_have_no_reason() -> None:
    net = Net()
    x = net.input("x", PICTURE)
    index = net.constant("index", np.array([100_000_000, 5]) % 16)
    y = net.op("Gather", x, index, name="pick", axis=1)
    scales = net.constant("scales", [1.0, 1.0, 1e-9 + 2, 2])
    y = net.op("Resize", y, "", scales, name="resize")
    proto = net.proto(y, shapes={"resize": ["n", 2, 16, 16]})
    assert keep_full(graph(proto), FP16, {}) == {}


# The largest value of a tensor.


def test_a_peak_is_the_largest_absolute_value_but_for_infinity() -> None:
    peak = Peak()
    peak.add(np.zeros((0, 3), np.float32))
    assert peak.amax == 0.0
    peak.add(np.array([[1, -3], [2, 0]], np.float32))
    peak.add(np.array([-np.inf, 4, np.inf], np.float32))
    peak.add(np.array([-np.inf], np.float32))
    peak.add(np.float32(2.5))
    assert peak.amax == 4.0


@pytest.mark.parametrize("beside", [[1.0], [np.inf, 2.0], []])
def test_a_peak_refuses_what_is_no_number(beside: list[float]) -> None:
    with pytest.raises(ValueError, match="NaN"):
        Peak().add(np.array([*beside, np.nan], np.float32))


def test_only_what_would_be_half_is_watched() -> None:
    net = graph(NETS["residual"]())
    assert list(peak_counters(net, Precision.FP16)) == half_tensors(net, FP16)
    assert peak_counters(net, Precision.FP32) == {}


# Graphs that are quantized already.


def quantized(scale: float, opset: int = 19) -> Graph:
    """A Conv behind Q/DQ, and a Relu that reads the same INT8 values."""
    net = Net(opset=opset)
    s, z = net.constant("s", scale), net.constant("z", np.int8(0))
    x = net.op("QuantizeLinear", net.input("x", PICTURE), s, z, name="q")
    x = net.op("DequantizeLinear", x, s, z, name="dq")
    levels = net.constant("w.int8", np.ones((16, 16, 1, 1), np.int8))
    w = net.op("DequantizeLinear", levels, net.constant("ws", 0.5), z, name="w")
    y = net.op("Conv", x, w, name="conv")
    return Graph(net.proto(net.op("Add", net.op("Relu", x, name="relu"), y, name="add")))


def test_a_layer_whose_scale_half_lacks_is_kept_and_not_made_fp16() -> None:
    assert keep_full(quantized(0.125), FP16, {}) == {}
    kept = keep_full(quantized(0.1), FP16, {})
    assert kept == {"conv": "'x' has a scale of 0.1, which is no number of the type"}
    # Before operator set 19 Q/DQ are FP32's alone.
    kept = keep_full(quantized(0.125, opset=13), FP16, {})
    assert kept == {"conv": "'x' is quantized in FP32"}


def test_int8_values_that_overflow_half_are_read_in_fp32_by_all() -> None:
    kept = keep_full(quantized(1024.0), FP16, {})
    assert set(kept) == {"conv", "relu"}
    assert "131072" in kept["relu"]
    assert keep_full(quantized(1024.0, opset=22), BF16, {}) == {}
