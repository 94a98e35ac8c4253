"""Calibration as a whole: what the cache says, and what cannot be calibrated on."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from edge_runtime.config import BuildConfig, CalibrationConfig
from edge_runtime.data import open_samples
from edge_runtime.errors import DataError, ModelError
from edge_runtime.model import Model
from edge_runtime.precision import calibration
from edge_runtime.precision.calibration import calibrate_model
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from tests import models
from tests.models import NETS, PICTURE, Net

METHODS = ("max", "percentile", "mse", "entropy", "auto")


def feeds_of(model: Model, count: int = 12) -> list[dict[str, np.ndarray]]:
    return [models.feeds(model.proto, seed, batch=1) for seed in range(count)]


def calibrate(model: Model, feeds: list, **settings: object) -> CalibrationCache:
    config = BuildConfig(precision="int8", calibration=CalibrationConfig(**settings))
    return calibrate_model(model, config, open_samples(feeds, model.inputs))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["residual", "concat", "pools"])
def test_the_cache_says_what_was_done(name: str, method: str) -> None:
    model = models.model(NETS[name]())
    feeds = feeds_of(model)
    cache = calibrate(model, feeds, method=method)
    assert (cache.model_digest, cache.method, cache.samples) == (model.digest, method, 12)
    assert cache.data_digest == open_samples(feeds, model.inputs).digest()
    assert all(0 < bounds.amax <= bounds.observed for bounds in cache.ranges.values())
    for bounds in cache.ranges.values():
        assert (bounds.method in METHODS[:4]) if method == "auto" else bounds.method == ""
    assert calibrate(model, feeds, method=method).to_json_bytes() == cache.to_json_bytes()


@pytest.mark.parametrize("name", ["residual", "concat"])
def test_few_values_of_each_sample_are_enough(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.model(NETS[name]())
    feeds = feeds_of(model, 40)
    whole = calibrate(model, feeds)
    monkeypatch.setattr(calibration, "_VALUES", 0)
    monkeypatch.setattr(calibration, "_FEWEST_VALUES", 300)
    some = calibrate(model, feeds)
    for tensor, bounds in whole.ranges.items():
        assert some.ranges[tensor].observed == bounds.observed
        assert some.ranges[tensor].amax == pytest.approx(bounds.amax, rel=0.08)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 7, 38])
def test_a_sample_that_is_not_finite_is_named_by_its_own_number(odd: float, place: int) -> None:
    model = models.model(NETS["residual"]())
    feeds = feeds_of(model, 40)
    feeds[place]["x"] = feeds[place]["x"].copy()
    feeds[place]["x"].reshape(-1)[5] = odd
    with pytest.raises(DataError, match=f"sample {place + 1}\\b"):
        calibrate(model, feeds)


def test_what_is_switched_off_is_not_in_the_cache() -> None:
    model = models.model(NETS["residual"]())
    cache = calibrate(model, feeds_of(model), equalize=False, bias_correction=False)
    assert (dict(cache.equalization), dict(cache.means)) == ({}, {})


def with_tail(kind: str) -> Model:
    """A net with a second output that is not INT8, `tail`: what `kind` makes of its input's sum."""
    net = Net()
    x = net.input("x", PICTURE)
    y = net.op("Relu", net.conv("c1", x, (16, 8)), name="y")
    total = net.op("ReduceMean", x, name="total", axes=[1, 2, 3], keepdims=0)
    return models.model(net.proto(y, net.op(kind, total, name="tail")))


@pytest.mark.parametrize("place", [2, 5, 11])
def test_an_output_that_is_not_int8_may_not_fail_either(place: int) -> None:
    model = with_tail("Sqrt")
    feeds = [{"x": np.abs(one["x"])} for one in feeds_of(model)]
    calibrate(model, feeds)
    feeds[place]["x"] *= -1
    with pytest.raises(DataError, match=f"'tail' has NaN or infinite values on sample {place + 1}"):
        calibrate(model, feeds)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_blamed_on_the_samples(odd: float) -> None:
    net = Net()
    y = net.conv("c1", net.input("x", PICTURE), (16, 8))
    proto = net.proto(net.op("Relu", y, name="y"))
    weights = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weights.flat[7] = odd
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "c1.w"))
    model = models.model(proto)
    with pytest.raises(ModelError, match=r"'c1\.w' of node 'c1' hold NaN"):
        calibrate(model, feeds_of(model))


def test_where_a_nan_comes_from_is_named_not_where_it_goes() -> None:
    net = Net()
    x = net.op("Sqrt", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="s")
    x = net.op("Relu", net.conv("b", net.conv("d", x, (16, 16)), (16, 8)), name="a")
    model = models.model(net.proto(x))
    with pytest.raises(DataError, match="'s' has NaN or infinite values on sample 1"):
        calibrate(model, feeds_of(model))
