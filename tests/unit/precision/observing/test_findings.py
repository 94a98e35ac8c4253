"""What is odd about data or a model is said, once each, and what is sound is not."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.config import BuildConfig, CalibrationConfig
from edge_runtime.data import open_samples
from edge_runtime.precision.calibration import calibrate_model
from edge_runtime.precision.observing.findings import Watch, tensor_findings
from edge_runtime.precision.observing.histogram import Histogram
from edge_runtime.tensors import TensorSpec
from tests import models
from tests.models import PICTURE, Net

SPEC = TensorSpec("x", "float32", (1, -1))


def watch(*samples: object) -> list[str]:
    feeds = [{"x": np.asarray(sample, np.float32).reshape(1, -1)} for sample in samples]
    noted = Watch()
    for given, read in zip(feeds, noted.over(open_samples(feeds, [SPEC])), strict=True):
        assert read["x"] is given["x"]
    return noted.findings()


def test_sound_samples_need_no_word() -> None:
    assert watch(*range(10)) == []


def test_one_or_few_samples_are_named() -> None:
    (found,) = watch(1)
    assert "Only 1 sample: ranges are what that one showed" in found
    (found,) = watch(*range(9))
    assert "Only 9 samples" in found


def test_copies_are_named() -> None:
    (found,) = watch(*[7] * 12)
    assert found.startswith("All 12 samples are the same")
    (found,) = watch(*range(10), 3, 3)
    assert found.startswith("2 of 12 samples are copies")


def test_differing_shapes_are_named() -> None:
    (found,) = watch(*[[index] * (3 + index % 2) for index in range(10)])
    assert "Input 'x' had 2 shapes (1x3, 1x4)" in found


def tensors(**arrays: object) -> list[str]:
    histograms = {name: Histogram() for name in arrays}
    for name, histogram in histograms.items():
        histogram.add(np.asarray(arrays[name], np.float32))
    return tensor_findings(histograms)


def test_tensors_without_a_sound_range_are_named_by_reason() -> None:
    assert tensors(sound=np.arange(2000)) == []
    (found,) = tensors(off=np.zeros(2000), sound=np.arange(2000))
    assert found.startswith("1 tensor with 0 on every sample ('off')")
    (found,) = tensors(flat=np.full(2000, -3.5))
    assert "('flat' -3.5)" in found
    (found,) = tensors(short=np.arange(12))
    assert "('short' 12)" in found
    (found,) = tensors(none=np.zeros((0, 4)))
    assert "never had any value ('none')" in found
    (found,) = tensors(**{f"t{index}": np.zeros(2000) for index in range(5)})
    assert found.startswith("5 tensors")
    assert "('t0', 't1', 't2' and 2 more)" in found
    assert tensors(signs=np.resize([1.0, -1.0], 2000)) == []  # One size, two values.


def calibrated(weights: dict[int, float], x: np.ndarray, **settings: bool) -> tuple[str, ...]:
    """The findings for a net whose first layer has channels that are multiplied and shifted."""
    net = Net()
    y = net.conv("c1", net.input("x", PICTURE), (16, 16))
    scale, shift = np.ones((16, 1, 1), np.float32), np.full((16, 1, 1), 3, np.float32)
    for channel, value in weights.items():
        scale[channel], shift[channel] = 0, value
    y = net.op("Add", net.op("Mul", y, net.constant("s", scale)), net.constant("b", shift))
    model = models.model(net.proto(net.conv("c2", net.op("Relu", y, name="r1"), (16, 16))))
    feeds = [{"x": x + np.float32(index)} for index in range(12)]
    config = BuildConfig(precision="int8", calibration=CalibrationConfig(**settings))
    return calibrate_model(model, config, open_samples(feeds, model.inputs)).findings


PICTURES = np.random.default_rng(0).standard_normal((1, 16, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("on", [True, False])
def test_channels_that_never_change_are_named(on: bool) -> None:
    found = calibrated({3: -1.0, 5: -1.0, 9: 2.0}, PICTURES, equalize=on, bias_correction=on)
    dead, constant = found
    assert dead.startswith("2 channels with 0 ")
    assert "'r1' 3, 5" in dead
    assert constant.startswith("1 channel with one value ")
    assert "'r1' 9" in constant


def test_a_tensor_that_is_dead_as_a_whole_is_named_as_such() -> None:
    (found,) = calibrated(dict.fromkeys(range(16), -1.0), PICTURES)
    assert "1 tensor with 0 on every sample ('r1')" in found


def test_a_sound_net_has_no_findings() -> None:
    assert calibrated({}, PICTURES) == ()
