"""`--effort high`: levels that make a layer's outputs better, and never worse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto

from edge_runtime.config import BuildConfig, CalibrationConfig
from edge_runtime.data import open_samples
from edge_runtime.errors import DataError
from edge_runtime.model import read_model
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import place
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.quantized import rounding
from edge_runtime.precision.quantized.reconstruction import round_matrix
from edge_runtime.precision.quantized.rounding import round_weights
from edge_runtime.precision.quantized.weights import QuantizedWeight, WeightKey, quantize_weights
from edge_runtime.precision.rewrite import rewrite
from tests import models
from tests.conftest import Net as Committed
from tests.models import NETS, PICTURE, Net

Rounded = dict[WeightKey, QuantizedWeight]


def correlated(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows whose columns go together, as those of pictures do."""
    few = random.standard_normal((rows, max(1, columns // 4)))
    mixed = few @ random.standard_normal((few.shape[1], columns))
    return (mixed + 0.1 * random.standard_normal((rows, columns))).astype(np.float32)[None]


def moments(rows: np.ndarray) -> np.ndarray:
    return rows.swapaxes(1, 2) @ rows


def noise(rows: np.ndarray, matrix: np.ndarray, levels: np.ndarray, scale: np.ndarray) -> float:
    return float((((matrix - levels * scale) @ rows.swapaxes(1, 2)).astype(float) ** 2).sum())


def smooth(proto: ModelProto, seed: int) -> dict[str, np.ndarray]:
    """Feeds whose neighbouring values go together, as those of pictures do."""
    feeds = models.feeds(proto, seed)
    for name, values in feeds.items():
        for axis in range(1, values.ndim):
            values = np.cumsum(values, axis=axis) / values.shape[axis] ** 0.5
        feeds[name] = values.astype(np.float32)
    return feeds


def both(
    proto: ModelProto, count: int = 12, feeds: list[dict[str, np.ndarray]] | None = None
) -> tuple[Rounded, Rounded]:
    """The nearest rounding of a net and the one on samples."""
    model = models.model(proto)
    prepared = prepare(model, min_opset=13)
    before = prepared.SerializeToString(deterministic=True)
    placement = place(Graph(prepared))
    nearest = quantize_weights(Graph(prepared), placement)
    samples = open_samples(feeds or [smooth(proto, i) for i in range(count)], model.inputs)
    amax = dict.fromkeys(placement.tensors, 4.0)
    told: list[tuple[int, int]] = []
    found = round_weights(
        prepared,
        placement,
        amax,
        nearest,
        samples,
        lambda _, done, total: told.append((done, total)),
    )
    assert prepared.SerializeToString(deterministic=True) == before
    assert told[-1][0] == told[-1][1] > 0
    assert found.keys() == nearest.keys()
    for key, weight in found.items():
        assert weight.levels.shape == nearest[key].levels.shape
        assert weight.levels.dtype == np.int8
        assert weight.levels.min() >= -127
        assert weight.scale is nearest[key].scale
        assert weight.axis == nearest[key].axis
    return nearest, found


# --- one matrix


@given(
    st.integers(0, 99), st.integers(1, 3), st.integers(1, 9), st.integers(1, 90), st.integers(4, 99)
)
def test_no_matrix_is_rounded_worse_than_to_its_nearest_levels(
    seed: int, groups: int, channels: int, columns: int, count: int
) -> None:
    random = np.random.default_rng(seed)
    rows = np.concatenate([correlated(random, count, columns) for _ in range(groups)])
    fit, held = rows[:, ::2], rows[:, 1::2]
    matrix = random.standard_normal((groups, channels, columns)).astype(np.float32)
    scale = np.abs(matrix).max(axis=2, keepdims=True) / 7
    nearest = np.rint(matrix / scale).astype(np.int8)
    found = round_matrix(matrix, scale, nearest, moments(fit), moments(held), levels=7)
    if found is not None:
        assert found.dtype == np.int8
        assert np.abs(found).max() <= 7
        worst = noise(held, matrix, nearest, scale) * (1 + 1e-4)
        assert noise(held, matrix, found, scale) <= worst


def test_a_matrix_of_rows_that_go_together_is_rounded_much_better() -> None:
    random = np.random.default_rng(0)
    rows = correlated(random, 600, 100)
    fit, held, unseen = rows[:, :300], rows[:, 300:400], rows[:, 400:]
    matrix = random.standard_normal((1, 20, 100)).astype(np.float32)
    scale = np.abs(matrix).max(axis=2, keepdims=True) / 127
    nearest = np.rint(matrix / scale).astype(np.int8)
    found = round_matrix(matrix, scale, nearest, moments(fit), moments(held), levels=127)
    assert found is not None
    ratio = noise(unseen, matrix, nearest, scale) / noise(unseen, matrix, found, scale)
    assert 10 * np.log10(ratio) > 5


def test_rows_of_zeros_leave_the_nearest_levels() -> None:
    matrix = np.ones((2, 3, 4), np.float32)
    zeros = np.zeros((2, 4, 4), np.float32)
    levels = np.full((2, 3, 4), 127, np.int8)
    scale = np.full((2, 3, 1), 1 / 127, np.float32)
    assert round_matrix(matrix, scale, levels, zeros, zeros, levels=127) is None


# --- whole nets


@pytest.mark.parametrize(
    "name",
    [
        *("concat", "mean_head", "transposed", "dense", "attention", "branches", "loop"),
        *("constant_nodes", "one_dimension", "several_outputs"),
    ],
)
def test_layers_of_every_kind_are_rounded(name: str) -> None:
    nearest, found = both(NETS[name]())
    assert any((found[key].levels != nearest[key].levels).any() for key in nearest)
    step = max(np.abs(found[k].levels.astype(int) - nearest[k].levels).max() for k in found)
    assert step < 20  # The weights are the same ones still.


def test_the_same_samples_give_the_same_levels() -> None:
    (_, first), (_, second) = both(NETS["residual"]()), both(NETS["residual"]())
    for key, weight in first.items():
        np.testing.assert_array_equal(weight.levels, second[key].levels)


def test_a_layer_is_better_on_what_it_was_not_fitted_to() -> None:
    net = Net()
    net.op("MatMul", net.input("x", ("n", 48)), net.weight("w", 48, 24), name="y")
    proto = net.proto("y")
    rows = correlated(np.random.default_rng(0), 800, 48)[0]
    rows *= 3 / np.abs(rows).max()
    nearest, found = both(proto, feeds=[{"x": part} for part in np.split(rows[:400], 10)])
    ((key, weight),) = found.items()
    w = np.frombuffer(net.initializers[0].raw_data, np.float32).reshape(48, 24)
    errors = [
        float(((rows[400:] @ (w - q.dequantized)) ** 2).sum()) for q in (nearest[key], weight)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_a_wide_layer_is_rounded_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = both(NETS["residual"]())[1]
    monkeypatch.setattr(rounding, "_MOST_COLUMNS", 50)  # Of 144.
    monkeypatch.setattr(rounding, "_PASS_BYTES", 1)
    nearest, found = both(NETS["residual"]())
    for key, weight in found.items():
        assert (weight.levels != nearest[key].levels).any()
        assert (weight.levels != whole[key].levels).any()


def test_weights_that_two_layers_share_get_one_rounding() -> None:
    nearest, found = both(NETS["shared_weights"]())
    assert len(found) == 2
    assert all((found[key].levels != nearest[key].levels).any() for key in found)


def test_one_sample_is_enough_and_too_little_is_left_alone() -> None:
    both(NETS["residual"](), count=1)
    net = Net()
    net.op("MatMul", net.input("x", ("n", 16)), net.weight("w", 16, 16), name="y")
    proto = net.proto("y")
    nearest, found = both(proto, feeds=[models.feeds(proto, batch=1)])
    assert all(found[key] is nearest[key] for key in nearest)  # One row is nothing to judge by.


def test_a_sample_that_is_not_a_number_is_named() -> None:
    proto = NETS["residual"]()
    feeds = [models.feeds(proto, i) for i in range(4)]
    feeds[2]["x"][0, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"'x'.*sample 3"):
        both(proto, feeds=feeds)


def test_huge_and_tiny_activations_do_not_overflow() -> None:
    for size in (1e-30, 1e30):
        net = Net()
        x = net.op("Mul", net.input("x", PICTURE), net.constant("size", size), name="big")
        proto = net.proto(net.conv("c", x, (16, 16)))
        model = models.model(proto)
        prepared = prepare(model, min_opset=13)
        placement = place(Graph(prepared))
        nearest = quantize_weights(Graph(prepared), placement)
        samples = open_samples([smooth(proto, i) for i in range(9)], model.inputs)
        found = round_weights(prepared, placement, {"big": 4 * size}, nearest, samples)
        assert (found["c.w", 0].levels != nearest["c.w", 0].levels).any()


def test_effort_high_brings_a_real_net_closer_to_fp32(digits: Committed) -> None:
    model = read_model(digits.model)
    calibration = digits.as_input(digits.calibration)
    samples = open_samples([{"image": picture[None]} for picture in calibration], model.inputs)
    held_out = {"image": digits.as_input(digits.images)}
    expected = models.run(model.proto, held_out)["logits"]
    sqnr = {}
    rounded = {}
    for effort in ("default", "high"):
        config = BuildConfig("int8", CalibrationConfig(effort=effort))
        result = rewrite(model, config, samples=samples)
        rounded[effort] = set(result.report["rounded"])
        error = models.run(result.graph, held_out)["logits"] - expected
        sqnr[effort] = 10 * np.log10((expected**2).sum() / (error**2).sum())
    assert sqnr["high"] > sqnr["default"] + 0.2
    assert not rounded["default"]
    assert len(rounded["high"]) > 6
