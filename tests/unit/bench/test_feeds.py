"""What is fed: shapes as asked for, values the same in every run, batches of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_runtime.bench.feeds import from_samples, made_up
from edge_runtime.errors import ConfigError
from edge_runtime.tensors import TensorSpec, check_feeds

IMAGE = TensorSpec("image", "float32", (-1, 3, -1, 8))
SPECS = [
    IMAGE,
    TensorSpec("ids", "int64", (-1, 4)),
    TensorSpec("mask", "bool", (2,)),
    TensorSpec("gain", "float16", ()),
]


def test_arrays_are_made_up_as_trtexec_does_and_alike_each_time() -> None:
    found = made_up(SPECS, usual={}, shapes={}, batch=None)
    (feed,) = found.feeds
    check_feeds(SPECS, feed)
    assert found.shapes == {"image": (1, 3, 1, 8), "ids": (1, 4), "mask": (2,), "gain": ()}
    assert found.batch == 1
    assert np.abs(feed["image"]).max() <= 1
    assert feed["image"].min() < 0
    assert feed["ids"].min() >= 0
    assert feed["ids"].max() <= 127
    again = made_up(SPECS, usual={}, shapes={}, batch=None).feeds[0]
    for name, array in feed.items():
        np.testing.assert_array_equal(array, again[name])


@pytest.mark.parametrize(
    ("options", "image", "batch"),
    [
        ({"usual": {"image": (4, 3, 6, 8)}}, (4, 3, 6, 8), 1),  # ids has a batch of 1.
        ({"usual": {"image": (4, 3, 6, 8), "ids": (4, 4)}}, (4, 3, 6, 8), 4),
        ({"usual": {"image": (4, 3, 6, 8)}, "batch": 2}, (2, 3, 6, 8), 2),
        ({"usual": {"image": (4, 3, 6, 8)}, "shapes": {"image": (1, 3, 7, 8)}}, (1, 3, 7, 8), 1),
        ({"shapes": {"image": (5, 3, 7, 8)}, "batch": 5}, (5, 3, 7, 8), 5),
    ],
)
def test_shapes_are_those_asked_for_then_the_plans_usual_ones(
    options: dict[str, Any], image: tuple[int, ...], batch: int
) -> None:
    found = made_up(SPECS[:2], **{"usual": {}, "shapes": {}, "batch": None, **options})
    assert found.shapes["image"] == found.feeds[0]["image"].shape == image
    assert found.batch == batch


@pytest.mark.parametrize(
    ("specs", "options", "words"),
    [
        (SPECS, {"shapes": {"imag": (1,)}}, "'imag'"),
        (SPECS, {"shapes": {"image": (1, 4, 1, 8)}}, "1x4x1x8"),
        (SPECS, {"batch": 0}, "at least 1"),
        (SPECS, {"batch": 3}, "'mask'"),
        ([TensorSpec("x", "float32", (1, 3))], {"batch": 2}, "'x'"),
        ([TensorSpec("words", "object", (-1,))], {}, "--data"),
    ],
)
def test_what_does_not_fit_is_refused(
    specs: list[TensorSpec], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        made_up(specs, **{"usual": {}, "shapes": {}, "batch": None, **options})


def test_samples_make_batches_and_come_round() -> None:
    spec = TensorSpec("x", "float32", (-1, 2))
    samples = [{"x": np.full((1, 2), index, np.float32)} for index in range(5)]
    found = from_samples(samples, [spec], batch=2)
    assert [feed["x"][:, 0].tolist() for feed in found.feeds] == [[0, 1], [2, 3], [4, 0]]
    assert (found.batch, found.shapes) == (2, {"x": (2, 2)})
    assert len(from_samples(samples, [spec], batch=None).feeds) == 5


def test_samples_of_several_shapes_make_no_batch() -> None:
    spec = TensorSpec("x", "float32", (-1, -1))
    samples = [{"x": np.zeros((1, side), np.float32)} for side in (2, 3)]
    assert len(from_samples(samples, [spec], batch=1).feeds) == 2
    with pytest.raises(ConfigError, match=r"\[1, 2\] and \[1, 3\]"):
        from_samples(samples, [spec], batch=2)
