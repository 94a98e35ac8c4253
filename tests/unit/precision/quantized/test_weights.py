"""INT8 weights of convolutions: errors under a kernel cancel, so that flat pictures stay exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import Placement, Weight
from edge_runtime.precision.quantized.weights import (
    balance_kernels,
    quantize_weight,
    quantize_weights,
)


def steps_off(weight: np.ndarray, rounded: object) -> np.ndarray:
    """The error of every weight in steps."""
    scale = rounded.scale.reshape(-1, *[1] * (weight.ndim - 1))
    return rounded.levels - weight / scale


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 1, 3), (4, 3, 3, 3), (6, 1, 5, 5), (3, 2, 7, 7), (2, 2, 2, 2, 2)]),
    levels=st.sampled_from([127, 63]),
)
def test_errors_of_every_kernel_cancel(seed: int, shape: tuple[int, ...], levels: int) -> None:
    weight = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    nearest = quantize_weight(weight, 0, levels=levels)
    balanced = balance_kernels(weight, nearest, levels=levels)
    off = steps_off(weight, balanced)
    assert np.abs(off.sum(axis=tuple(range(2, off.ndim)))).max() <= 0.501
    assert np.abs(off).max() <= 1.001
    assert np.abs(balanced.levels).max() <= levels
    np.testing.assert_array_equal(balanced.scale, nearest.scale)
    assert nearest.levels is not balanced.levels


def test_more_kernels_than_are_balanced_at_a_time() -> None:
    weight = np.random.default_rng(0).normal(size=(200, 100, 3, 3)).astype(np.float32)
    off = steps_off(weight, balance_kernels(weight, quantize_weight(weight, 0)))
    assert np.abs(off.sum(axis=(2, 3))).max() <= 0.501


def test_weights_at_levels_stay() -> None:
    weight = np.array([127, -127, 3, 0, 0, 1, -5, 9, 64], dtype=np.float32).reshape(1, 1, 3, 3)
    nearest = quantize_weight(weight, 0)
    np.testing.assert_array_equal(balance_kernels(weight, nearest).levels, nearest.levels)


def test_a_kernel_of_zeros_stays() -> None:
    weight = np.zeros((2, 1, 3, 3), dtype=np.float32)
    assert not balance_kernels(weight, quantize_weight(weight, 0)).levels.any()


def test_levels_at_the_end_move_only_inwards() -> None:
    # Scales of half precision may leave the largest weight beyond the last level.
    weight = np.full((1, 1, 3, 3), 127.4, dtype=np.float32)
    nearest = quantize_weight(np.full_like(weight, 127.0), 0)
    assert (balance_kernels(weight, nearest).levels == 127).all()


@pytest.mark.parametrize(("op", "is_balanced"), [("Conv", True), ("ConvTranspose", False)])
def test_only_convolutions_are_balanced(op: str, is_balanced: bool) -> None:
    weight = np.random.default_rng(1).normal(size=(4, 4, 3, 3)).astype(np.float32)
    axis = 0 if op == "Conv" else 1
    node = helper.make_node(op, ["x", "w"], ["y"], name="layer")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "xy"]
    graph = helper.make_graph(
        [node], "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")]
    )
    proto = helper.make_model(graph)
    placement = Placement(weights=[Weight("w", "layer", 1, axis)])
    found = quantize_weights(Graph(proto), placement)["w", axis].levels
    same = np.array_equal(found, quantize_weight(weight, axis).levels)
    assert same is not is_balanced
