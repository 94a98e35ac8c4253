"""Corrections are kept where other samples say that they help, and left out where they harm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper

from edge_runtime.config import BuildConfig, CalibrationConfig
from edge_runtime.data import Samples, open_samples
from edge_runtime.model import Model
from edge_runtime.precision.calibration import calibrate_model
from edge_runtime.precision.corrections.trial import (
    BIAS,
    BOTH,
    EQUALIZED,
    NOTHING,
    choose_corrections,
    trial_places,
)
from edge_runtime.precision.observing.reference import Reference
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache, TensorRange
from edge_runtime.tensors import Feeds
from tests import models

INT8 = BuildConfig(precision="int8")


def opened(model: Model, feeds: Iterable[Feeds]) -> Samples:
    return open_samples(list(feeds), model.inputs)


def pictures(count: int, *, seed: int = 0, size: int = 8) -> list[Feeds]:
    random = np.random.default_rng(seed)
    return [
        {"x": random.standard_normal((1, 8, size, size), dtype=np.float32)} for _ in range(count)
    ]


def two_convolutions(imbalance: np.ndarray) -> Model:
    """Conv, Relu, Conv; the channels between are `imbalance` times what they would be."""
    net = models.Net()
    x = net.op("Relu", net.conv("c1", net.input("x", ["n", 8, 8, 8]), (8, 16)), name="r1")
    proto = net.proto(net.conv("c2", x, (16, 16)))
    for tensor in proto.graph.initializer:
        factor = {"c1.w": imbalance[:, None, None, None], "c1.b": imbalance}.get(tensor.name)
        if tensor.name == "c2.w":
            factor = 1 / imbalance[None, :, None, None]
        if factor is not None:
            scaled = (numpy_helper.to_array(tensor) * factor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
    return models.model(proto)


@pytest.mark.parametrize(
    ("count", "places"),
    [(1, []), (2, [1]), (3, [1]), (8, [2, 6]), (64, list(range(2, 64, 4)))],
)
def test_a_quarter_of_the_samples_is_held_out(count: int, places: list[int]) -> None:
    model = two_convolutions(np.ones(16))
    assert trial_places(opened(model, pictures(count))) == places


def test_of_large_samples_only_a_few_are_tried() -> None:
    net = models.Net()
    model = models.model(net.proto(net.conv("c", net.input("x", ["n", 8, "h", "w"]), (8, 16))))
    feeds = pictures(40, size=256)
    assert len(trial_places(opened(model, feeds))) == 4


def test_what_is_taken_stays_although_the_array_is_used_again() -> None:
    class Reused:
        def __len__(self) -> int:
            return 4

        def __iter__(self):
            array = np.zeros((1, 8, 8, 8), dtype=np.float32)
            for value in range(4):
                array[:] = value
                yield {"x": array}

    model = two_convolutions(np.ones(16))
    taken = Reference.of(model.proto, open_samples(Reused(), model.inputs).take([1, 3]))
    assert [float(feeds["x"].max()) for feeds in taken.feeds] == [1.0, 3.0]


def test_unequal_channels_are_equalized_and_what_was_tried_is_on_record() -> None:
    model = two_convolutions(np.geomspace(0.05, 20, 16).astype(np.float32))
    cache = calibrate_model(model, INT8, opened(model, pictures(32)))
    assert "c1" in cache.equalization
    assert set(cache.tried) == {BIAS, BOTH, EQUALIZED}
    assert cache.tried[BOTH] > cache.tried[BIAS] + 6


def test_equal_channels_are_left_as_they_are() -> None:
    model = two_convolutions(np.ones(16))
    cache = calibrate_model(model, INT8, opened(model, pictures(32)))
    assert not cache.equalization
    assert cache.means


def test_a_single_sample_equalizes_nothing_and_says_so() -> None:
    model = two_convolutions(np.geomspace(0.05, 20, 16).astype(np.float32))
    cache = calibrate_model(model, INT8, opened(model, pictures(1)))
    assert not cache.equalization
    assert not cache.tried
    assert any("not equalized" in finding for finding in cache.findings)


def test_neither_correction_means_no_trial() -> None:
    model = two_convolutions(np.ones(16))
    off = replace(INT8, calibration=CalibrationConfig(equalize=False, bias_correction=False))
    cache = calibrate_model(model, off, opened(model, pictures(16)))
    assert not cache.tried
    assert not cache.means


def ruined(cache: CalibrationCache) -> CalibrationCache:
    """Biases that are far off: as if the means had come from quite other samples."""
    return replace(cache, means={name: (1e4,) * len(m) for name, m in cache.means.items()})


def test_a_correction_that_harms_is_left_out() -> None:
    model = two_convolutions(np.ones(16))
    cache = calibrate_model(model, INT8, opened(model, pictures(16)))
    plain = replace(cache, means={})
    candidates = {BIAS: ruined(cache), NOTHING: plain}
    chosen = choose_corrections(
        model, INT8, candidates, Reference.of(model.proto, pictures(8, seed=1))
    ).cache
    assert not chosen.means
    assert chosen.tried[NOTHING] > chosen.tried[BIAS] + 6


def test_a_gain_that_a_few_samples_cannot_show_is_not_taken() -> None:
    model = two_convolutions(np.ones(16))
    cache = calibrate_model(model, INT8, opened(model, pictures(16)))
    candidates = {BIAS: cache, BOTH: replace(cache, means={})}
    chosen = choose_corrections(
        model, INT8, candidates, Reference.of(model.proto, pictures(1, seed=1))
    ).cache
    assert chosen.means  # The first is kept: the other is not 24 dB better.


def test_what_equalization_gains_is_not_lost_with_the_bias_correction() -> None:
    model = two_convolutions(np.geomspace(0.05, 20, 16).astype(np.float32))
    cache = calibrate_model(model, INT8, opened(model, pictures(32)))
    assert cache.equalization
    spoilt = ruined(cache)
    unequal = replace(
        spoilt, equalization={}, ranges=dict.fromkeys(cache.ranges, TensorRange(1, 1))
    )
    candidates = {
        NOTHING: replace(unequal, means={}),
        BIAS: unequal,
        EQUALIZED: replace(cache, means={}),
        BOTH: cache,
    }
    chosen = choose_corrections(
        model, INT8, candidates, Reference.of(model.proto, pictures(8, seed=1))
    ).cache
    assert chosen.equalization
    assert NOTHING not in chosen.tried  # Only one step away from the best so far is tried.
