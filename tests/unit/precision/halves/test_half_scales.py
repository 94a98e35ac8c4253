"""INT8 scales as numbers of half precision: nothing shifts, clips or is too coarse."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_runtime.config import Precision
from edge_runtime.precision.halves.half_scales import half_scale, in_half
from edge_runtime.precision.halves.half_types import HALF_TYPES, HalfType
from edge_runtime.precision.quantized.weights import quantize_weight, scale_of

FP16, BF16 = HALF_TYPES[Precision.FP16], HALF_TYPES[Precision.BF16]
DTYPES = {FP16.label: np.float16, BF16.label: ml_dtypes.bfloat16}
HALVES = pytest.mark.parametrize("half", [FP16, BF16], ids=["fp16", "bf16"])


def is_in(half: HalfType, values: np.ndarray) -> bool:
    return bool((values.astype(DTYPES[half.label]).astype(np.float32) == values).all())


@HALVES
@given(
    hnp.arrays(
        np.float32,
        st.integers(1, 6),
        elements=st.floats(-40, 15).map(lambda power: np.float32(2.0**power)),
    )
)
def test_a_scale_clips_nothing_and_costs_at_most_half_a_decibel(
    half: HalfType, scale: np.ndarray
) -> None:
    found = half_scale(scale, half)
    if found is None:
        assert half is FP16
        # Only what is too small to be precise or too large to be multiplied has none.
        assert scale.min() < 1e-6 or scale.max() * 128 > 65000
        return
    assert found.dtype == np.float32
    assert found.shape == scale.shape
    assert is_in(half, found)
    exact = scale.astype(np.float64)
    assert (found * 127.5 >= exact * 127).all()
    assert (found <= exact * 1.06).all()
    assert (found.astype(np.float64) * 128 <= half.max).all()


@HALVES
def test_ordinary_scales_are_the_nearest_numbers(half: HalfType) -> None:
    scale = np.geomspace(1e-4, 100, 1000, dtype=np.float32)
    found = half_scale(scale, half)
    assert found is not None
    np.testing.assert_array_equal(found, scale.astype(DTYPES[half.label]).astype(np.float32))


def test_a_number_that_is_one_already_stays() -> None:
    scale = np.array([2.0**-20, 2.0**-10, 1.0, 3.0, 511.0], np.float32)
    np.testing.assert_array_equal(half_scale(scale, FP16), scale)
    assert half_scale(np.float32(0.5), FP16) == np.float32(0.5)
    assert half_scale(np.float32(0.5), FP16).shape == ()


@pytest.mark.parametrize("scale", [1e-8, 2e-7, 512.0, 7e4, 1e30])
def test_what_has_no_fitting_number_has_none(scale: float) -> None:
    assert half_scale(np.array([0.1, scale], np.float32), FP16) is None
    assert half_scale(np.array([0.1, scale], np.float32), BF16) is not None


def test_small_scales_are_rounded_up_rather_than_clip() -> None:
    smallest = 2.0**-24
    scale = np.array([20.4 * smallest], np.float32)
    assert half_scale(scale, FP16) == np.float32(21 * smallest)
    scale = np.array([200.4 * smallest], np.float32)  # 0.2 % less is a quarter of a level.
    assert half_scale(scale, FP16) == np.float32(200 * smallest)


def test_dead_channels_need_not_be_precise() -> None:
    scale = np.array([0.1, 1e-12, 1e-38], np.float32)
    assert half_scale(scale, FP16) is None
    found = half_scale(scale, FP16, negligible=1e-9)
    assert found is not None
    assert is_in(FP16, found)
    assert (found > 0).all()


def test_what_half_holds_is_told() -> None:
    scales = np.array([0.5, 0.1, 2.0**-24, 2.0**-25, 511.0, 512.0, 1e30], np.float32)
    assert in_half(scales, FP16).tolist() == [True, False, True, False, True, False, False]


@HALVES
@given(
    hnp.arrays(
        np.float32, (4, 6), elements=st.floats(-1, 1, width=32).map(lambda x: np.float32(x * 3))
    ),
    st.sampled_from([0, 1, None]),
)
def test_levels_are_the_nearest_with_the_scale_that_is_stored(
    half: HalfType, weight: np.ndarray, axis: int | None
) -> None:
    rounded = quantize_weight(weight, axis, half=half)
    stored = rounded.scale.astype(DTYPES[half.label]).astype(np.float32)
    if not is_in(half, rounded.scale):  # None fits: then it is FP32's own.
        np.testing.assert_array_equal(rounded.scale, quantize_weight(weight, axis).scale)
        return
    np.testing.assert_array_equal(stored, rounded.scale)
    steps = stored if axis is None else np.expand_dims(stored, 1 - axis)
    error = np.abs(rounded.levels * steps.astype(np.float64) - weight)
    assert (error <= 0.5001 * steps).all()
    used = np.abs(rounded.levels).max() if axis is None else np.abs(rounded.levels).max(1 - axis)
    amax = np.abs(weight).max() if axis is None else np.abs(weight).max(1 - axis)
    assert (used >= 120)[amax > 1e-3].all()  # The range is used.


def test_a_zero_channel_does_not_make_small_ones_dead() -> None:
    weight = np.array([[0.0, 0.0], [3e-8, -2e-8]], np.float32)
    rounded = quantize_weight(weight, 0, half=FP16)
    np.testing.assert_array_equal(rounded.scale, scale_of(np.array([0.0, 3e-8])))
    assert np.abs(rounded.levels[1]).max() == 127


def test_a_dead_channel_beside_live_ones_does_not_keep_them_from_half() -> None:
    weight = np.array([[1.0, -0.5], [1e-20, -2e-20], [0.0, 0.0]], np.float32)
    rounded = quantize_weight(weight, 0, half=FP16)
    assert is_in(FP16, rounded.scale)
    assert np.abs(rounded.dequantized[1]).max() < 1e-7
