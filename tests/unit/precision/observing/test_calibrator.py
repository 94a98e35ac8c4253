"""What is counted segment by segment is what one run of the whole net shows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from edge_runtime.errors import DataError
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.observing import calibrator
from edge_runtime.precision.observing.calibrator import Observer
from edge_runtime.precision.observing.histogram import Histogram
from tests import models
from tests.models import FLOAT, NETS, PICTURE, Net

SAMPLES = 3


def prepared(proto: ModelProto) -> ModelProto:
    return prepare(models.model(proto), min_opset=13)


def all_tensors(proto: ModelProto) -> list[str]:
    """Every FP32 activation of the main graph, inputs included."""
    graph = Graph(proto)
    names = [value.name for value in proto.graph.input]
    names += [name for node in proto.graph.node for name in node.output]
    return [name for name in names if graph.is_activation(name)]


def samples(proto: ModelProto, count: int = SAMPLES) -> list[dict[str, np.ndarray]]:
    return [models.feeds(proto, seed, batch=1) for seed in range(count)]


class Counted:
    """A net, of which some tensors are counted."""

    def __init__(self, proto: ModelProto, names: list[str], workers: int = 1) -> None:
        self.histograms = {name: Histogram() for name in names}
        self._observer = Observer(proto, names, workers=workers)

    def run(self, data: Iterable[dict[str, np.ndarray]], **options: Any) -> dict[str, Histogram]:
        self._observer.run(data, self.histograms, **options)
        return self.histograms


def observe(proto: ModelProto, names: list[str], workers: int = 1) -> dict[str, Histogram]:
    data = samples(proto)
    return Counted(proto, names, workers).run(data, total=len(data))


def in_one_run(proto: ModelProto, names: list[str]) -> dict[str, Histogram]:
    """The same from the whole net with every tensor as an output."""
    whole = ModelProto()
    whole.CopyFrom(proto)
    declared = {value.name for value in whole.graph.output}
    inputs = {value.name for value in whole.graph.input}
    for name in names:
        if name not in declared | inputs:
            whole.graph.output.append(helper.make_tensor_value_info(name, FLOAT, None))
    result = {name: Histogram() for name in names}
    for feeds in samples(proto):
        values = {**feeds, **models.run(whole, feeds)}
        for name, histogram in result.items():
            histogram.add(values[name])
    return result


def assert_same(found: dict[str, Histogram], expected: dict[str, Histogram]) -> None:
    """Equal but for what rounding in another order of additions may change."""
    assert list(found) == list(expected)
    for name, histogram in found.items():
        other = expected[name]
        assert histogram.amax == pytest.approx(other.amax, rel=1e-5), name
        counts, others = histogram.bins()[2], other.bins()[2]
        assert counts.sum() == pytest.approx(others.sum(), rel=0.003), name
        assert large(histogram) == pytest.approx(large(other), abs=0.003), name


def large(histogram: Histogram) -> float:
    """The share of the values other than zero that lie above half of the largest."""
    lower, _, counts = histogram.bins()
    return float(counts[lower > histogram.amax / 2].sum() / max(counts.sum(), 1))


@pytest.mark.parametrize("observed", [1, 2, 8, 1000])
@pytest.mark.parametrize("name", NETS)
def test_segments_show_what_the_whole_net_does(
    name: str, observed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrator, "_OBSERVED", observed)
    proto = prepared(NETS[name]())
    every = all_tensors(proto)
    for names in (every, every[1::3], every[2::3]):
        assert_same(observe(proto, names), in_one_run(proto, names))


def test_what_is_no_tensor_passes_from_layer_to_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrator, "_OBSERVED", 1)
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    parts = net.op("SplitToSequence", x, net.constant("four", np.array(4)), name="parts", axis=1)
    x = net.op("Tanh", net.op("Sigmoid", x, name="sig"), name="tanh")
    part = net.op("SequenceAt", parts, net.constant("two", np.array(2)), name="part")
    y = net.op("Add", net.conv("c2", x, (16, 4)), part, name="y")
    proto = prepared(net.proto(net.op("Relu", y, name="r2"), shapes={"r2": ["n", 4, 8, 8]}))
    names = ["r1", "sig", "tanh", "c2", "part", "y"]
    assert_same(observe(proto, names), in_one_run(proto, names))


def test_only_what_is_asked_for_is_counted() -> None:
    proto = prepared(NETS["residual"]())
    assert_same(observe(proto, ["r2", "x"]), in_one_run(proto, ["r2", "x"]))
    assert_same(observe(proto, ["x"]), in_one_run(proto, ["x"]))


def test_the_model_stays_as_it_is() -> None:
    proto = prepared(NETS["branches"]())
    before = proto.SerializeToString(deterministic=True)
    observe(proto, all_tensors(proto))
    assert proto.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_samples_side_by_side_count_as_those_in_a_row(workers: int) -> None:
    proto = prepared(NETS["residual"]())
    names = all_tensors(proto)
    assert_same(observe(proto, names, workers), observe(proto, names))


class InOrder:
    """Notes the first value of each array that it is given."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def add(self, values: np.ndarray) -> None:
        if len(self.seen) % 3 == 0:  # The next samples catch up.
            time.sleep(0.01)
        self.seen.append(float(values.flat[0]))


def test_every_tensor_meets_the_samples_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrator, "_OBSERVED", 1)
    proto = prepared(NETS["residual"]())
    names = all_tensors(proto)
    data = [models.feeds(proto, seed, batch=1) for seed in range(12)]

    def run(workers: int) -> dict[str, list[float]]:
        counters = {name: InOrder() for name in names}
        Observer(proto, names, workers=workers).run(data, counters, total=len(data))
        return {name: counter.seen for name, counter in counters.items()}

    found, expected = run(4), run(1)
    for name in names:
        assert len(set(expected[name])) > 1
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_the_first_sample_that_fails_is_named_whoever_comes_behind() -> None:
    proto = prepared(NETS["residual"]())
    data = [models.feeds(proto, seed, batch=1) for seed in range(12)]
    for number in (5, 6, 9):
        data[number - 1]["x"][:] = np.nan
    read = iter(data)
    with pytest.raises(DataError, match="on sample 5"):
        Counted(proto, all_tensors(proto), 4).run(read, total=12)
    assert len(list(read)) >= 3  # Those behind are not read in vain.


class Late(Histogram):
    """Counts late: whoever fills the next sample into the same array may have done so by then."""

    def add(self, values: np.ndarray) -> None:
        time.sleep(0.02)
        super().add(values)


@pytest.mark.parametrize("workers", [1, 3])
def test_samples_may_come_in_one_buffer(workers: int) -> None:
    proto = prepared(NETS["residual"]())
    array = models.feeds(proto)["x"]

    def reuse() -> Iterator[dict[str, np.ndarray]]:
        for factor in (1.0, 7.0, 2.0):
            array[...] = factor  # As a reader does that has one buffer.
            yield {"x": array}

    histogram = Late()
    Observer(proto, ["x"], workers=workers).run(reuse(), {"x": histogram}, total=3)
    assert histogram.amax == 7.0
    assert histogram.bins()[2].tolist() == [array.size] * 3


def test_progress_is_told_of_every_sample() -> None:
    proto = prepared(NETS["residual"]())
    told: list[tuple[str, int, int]] = []
    data = samples(proto)
    Counted(proto, ["r2"]).run(data, total=3, progress=lambda *step: told.append(step))
    assert [step[1:] for step in told] == [(1, 3), (2, 3), (3, 3)]


def test_no_sample_is_refused() -> None:
    with pytest.raises(DataError, match="no calibration sample"):
        Counted(prepared(NETS["residual"]()), ["x"]).run([], total=0)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_not_finite_is_named_with_its_sample(odd: float) -> None:
    proto = prepared(NETS["residual"]())
    data = samples(proto)
    data[1]["x"] = data[1]["x"].copy()
    data[1]["x"][0, 0, 0, 0] = odd
    with pytest.raises(DataError) as caught:
        Counted(proto, ["x", "r2"]).run(data, total=3)
    assert "'x'" in str(caught.value)
    assert "sample 2" in str(caught.value)


def test_what_the_net_itself_makes_not_finite_is_named() -> None:
    net = Net()
    x = net.op("Log", net.input("x", PICTURE), name="log")
    proto = prepared(net.proto(net.conv("c1", net.op("Relu", x, name="r1"), (16, 16))))
    data = [
        {"x": np.ones((1, 16, 8, 8), np.float32)},
        {"x": np.full((1, 16, 8, 8), -1, np.float32)},
    ]
    with pytest.raises(DataError, match=r"'(log|r1)'.*sample 2"):
        Counted(proto, ["x", "log", "r1"]).run(data, total=2)


def test_a_sample_that_the_model_cannot_run_is_named() -> None:
    net = Net()
    x = net.input("x", ("n", 16, "h", "w"))
    down = net.op("MaxPool", x, name="down", kernel_shape=[2, 2], strides=[2, 2])
    up = net.op("ConvTranspose", down, net.weight("w", 16, 16, 2, 2), name="up", strides=[2, 2])
    proto = prepared(net.proto(net.op("Add", up, x, name="add")))
    data = [{"x": np.ones((1, 16, side, side), np.float32)} for side in (4, 5)]
    with pytest.raises(DataError, match="sample 2"):
        Counted(proto, ["add"]).run(data, total=2)
