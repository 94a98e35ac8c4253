"""Which nodes half precision would break, and the reasons that users read."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from edge_runtime.config import Precision
from edge_runtime.precision.graph import Graph
from edge_runtime.precision.half import HALF_TYPES, HalfType
from edge_runtime.precision.half_ranges import HEADROOM, half_tensors, keep_full
from edge_runtime.precision.histogram import Histogram
from edge_runtime.precision.prepare import prepare
from tests import models
from tests.models import NETS, PICTURE, Net

FP16, BF16 = HALF_TYPES[Precision.FP16], HALF_TYPES[Precision.BF16]


def graph(proto: ModelProto, half: HalfType = FP16) -> Graph:
    return Graph(prepare(models.model(proto), min_opset=half.min_opset))


def histograms(**largest: float) -> dict[str, Histogram]:
    result = {}
    for name, value in largest.items():
        result[name] = Histogram()
        result[name].add(np.array([0.5, -value], np.float32))
    return result


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
    assert keep_full(graph(NETS["residual"]()), FP16, histograms(x=3.0, c0=16000.0)) == {}
    assert keep_full(graph(NETS["residual"]()), FP16, None) == {}


def test_who_makes_or_reads_what_is_too_large_is_kept() -> None:
    kept = keep_full(graph(NETS["residual"]()), FP16, histograms(r1=20000.0, x=1.0))
    assert set(kept) == {"r1", "c2"}
    assert "'r1' reaches 20000" in kept["c2"]
    assert "65504" in kept["c2"]


def test_there_is_headroom_for_what_samples_do_not_show() -> None:
    edge = FP16.max / HEADROOM
    assert keep_full(graph(NETS["residual"]()), FP16, histograms(r1=edge)) == {}
    assert keep_full(graph(NETS["residual"]()), FP16, histograms(r1=edge * 1.001)) != {}
    assert keep_full(graph(NETS["residual"](), BF16), BF16, histograms(r1=1e30)) == {}


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
    kept = keep_full(graph(layer(weight), half), half, None)
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
    assert keep_full(graph(layer(weight), half), half, None) == {}


def test_a_constant_of_nothing_is_no_trouble() -> None:
    net = Net()
    none = net.constant("none", np.zeros((1, 0, 8, 8), np.float32))
    cat = net.op("Concat", net.input("x", (1, 16, 8, 8)), none, name="cat", axis=1)
    assert keep_full(graph(net.proto(cat)), FP16, None) == {}


def test_integers_and_what_stays_fp32_anyway_have_no_reason() -> None:
    net = Net()
    x = net.input("x", PICTURE)
    index = net.constant("index", np.array([100_000_000, 5]) % 16)
    y = net.op("Gather", x, index, name="pick", axis=1)
    scales = net.constant("scales", [1.0, 1.0, 1e-9 + 2, 2])
    y = net.op("Resize", y, "", scales, name="resize")
    proto = net.proto(y, shapes={"resize": ["n", 2, 16, 16]})
    assert keep_full(graph(proto), FP16, None) == {}
