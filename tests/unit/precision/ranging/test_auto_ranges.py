"""The method is chosen by what the layers that read a tensor make of its error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config import CalibrationConfig
from edge_runtime.data import open_samples
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import place
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.observing.calibrator import Observer
from edge_runtime.precision.observing.histogram import Histogram
from edge_runtime.precision.ranging.auto_ranges import choose_ranges, rounding_error
from edge_runtime.precision.ranging.calibration_cache import TensorRange
from tests import models
from tests.models import NETS, Net


def choose(net: object, feeds: list[dict[str, np.ndarray]]) -> dict[str, TensorRange]:
    model = models.model(net)
    proto = prepare(model, min_opset=13)
    placement = place(Graph(proto))
    histograms = {name: Histogram() for name in placement.tensors}
    samples = open_samples(feeds, model.inputs)
    Observer(proto, histograms.keys()).run(samples, histograms, total=len(samples))
    before = proto.SerializeToString(deterministic=True)
    found = choose_ranges(proto, placement, histograms, samples, CalibrationConfig())
    assert proto.SerializeToString(deterministic=True) == before
    assert list(found) == placement.tensors
    return found


def gemm(rows: np.ndarray, bias: float = 0.0) -> object:
    """One matrix, of which only some inputs count."""
    net = Net()
    w = net.constant("w", np.repeat(rows[:, None], 16, axis=1).astype(np.float32))
    b = net.constant("b", np.full(16, bias, np.float32))
    return net.proto(net.op("Gemm", net.input("x", ("n", 64)), w, b, name="fc"))


def rare_and_large(count: int = 12) -> list[dict[str, np.ndarray]]:
    """64 features, all small but the first, which now and then is 25 times as large."""
    random = np.random.default_rng(0)
    values = random.standard_normal((count, 400, 64)).astype(np.float32)
    values[:, :2, 0] = 25.0
    return [{"x": sample} for sample in values]


@pytest.mark.parametrize("bias", [0.0, 1e6])
def test_the_range_fits_what_the_layer_reads(bias: float) -> None:
    """The same tensor: its large values count where the layer looks at them, else they do not."""
    only_large = choose(gemm(np.eye(64)[0], bias), rare_and_large())["x"]
    only_small = choose(gemm(1 - np.eye(64)[0], bias), rare_and_large())["x"]
    assert only_large.observed == only_small.observed == 25.0
    assert only_large.amax > 22.0
    assert only_small.amax < 6.0
    assert only_large.method != only_small.method


def test_readers_are_weighed_together() -> None:
    """Two layers read one tensor: the one whose output suffers most decides."""
    net = Net()
    x = net.input("x", ("n", 64))
    rows = {"large": np.eye(64)[0], "small": 1 - np.eye(64)[0]}
    outputs = []
    for name, weight in rows.items():
        w = net.constant(f"{name}.w", np.repeat(weight[:, None], 16, axis=1).astype(np.float32))
        outputs.append(net.op("MatMul", x, w, name=name))
    assert choose(net.proto(*outputs), rare_and_large())["x"].amax > 22.0


@pytest.mark.parametrize("read_later", ["large", "small"])
def test_what_counts_is_the_output_of_the_model(read_later: str) -> None:
    """Most of what a layer makes is of small values; what is read of it decides all the same."""
    net = Net()
    rows = np.ones((64, 16), np.float32)
    rows[0], rows[:, 0] = 0, np.eye(64)[0]
    y = net.op("MatMul", net.input("x", ("n", 64)), net.constant("w", rows), name="fc")
    kept = np.eye(16)[0] if read_later == "large" else 1 - np.eye(16)[0]
    proto = net.proto(net.op("Mul", y, net.constant("kept", kept.astype(np.float32)), name="out"))
    feeds = [{"x": np.concatenate([f["x"], f["x"][2:], f["x"][2:]])} for f in rare_and_large()]
    amax = choose(proto, feeds)["x"].amax
    assert amax > 22.0 if read_later == "large" else amax < 6.0


@pytest.mark.parametrize("name", NETS)
def test_every_net_gets_a_range_and_a_method_for_each_tensor(name: str) -> None:
    proto = NETS[name]()
    model = models.model(proto)
    if not place(Graph(prepare(model, min_opset=13))).weights:
        return
    feeds = [models.feeds(proto, seed, batch=1) for seed in range(3)]
    for bounds in choose(proto, feeds).values():
        assert 0 < bounds.amax <= bounds.observed
        assert bounds.method in ("max", "percentile", "mse", "entropy")


def test_samples_may_differ_in_shape() -> None:
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", ("n", 16, "h", "w")), (16, 16)), name="r1")
    random = np.random.default_rng(0)
    feeds = [
        {"x": random.standard_normal((1, 16, side, 2 * side)).astype(np.float32)}
        for side in (4, 9, 6)
    ]
    assert choose(net.proto(net.conv("c2", x, (16, 16))), feeds).keys() == {"x", "r1"}


def test_a_tensor_of_zeros_has_no_choice() -> None:
    feeds = [{"x": np.zeros((4, 64), np.float32)}]
    assert choose(gemm(np.ones(64)), feeds)["x"].amax == 0.0


@given(st.lists(st.floats(-100, 100, width=32), min_size=1), st.floats(0.1, 200))
def test_the_error_is_that_of_the_nearest_of_255_levels(values: list[float], amax: float) -> None:
    array = np.array(values, np.float32)
    found = array + rounding_error(array, amax)
    levels = np.arange(-127, 128) * (amax / 127)
    nearest = np.abs(array[:, None] - levels).min(axis=1)
    np.testing.assert_allclose(np.abs(found - array), nearest, atol=1e-4 * max(amax, 1))
