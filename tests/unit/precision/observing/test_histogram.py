"""The histogram counts exactly, whatever the values, their order and the parts they come in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_runtime.config import CalibrationConfig
from edge_runtime.precision.observing import histogram as module
from edge_runtime.precision.observing.histogram import Histogram
from edge_runtime.precision.ranging.ranges import choose_amax, squared_error

SMALLEST = 2.0**-31
LARGEST = float(np.float32(3.39e38))
FLOATS = st.floats(-LARGEST, LARGEST, width=32)
ORDINARY = st.floats(-8, 8, width=32)
VALUES = hnp.arrays(
    np.float32, hnp.array_shapes(max_dims=3, max_side=6), elements=FLOATS | ORDINARY
)


def histogram(*arrays: np.ndarray) -> Histogram:
    result = Histogram()
    for array in arrays:
        result.add(array)
    return result


def bins_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower edges and counts: absolute values with all but 9 bits of the mantissa cut off."""
    flat = np.abs(np.asarray(values, np.float32)).reshape(-1)
    mantissa, exponent = np.frexp(flat[flat >= SMALLEST].astype(np.float64))
    return np.unique(np.ldexp(np.floor(mantissa * 1024) / 1024, exponent), return_counts=True)


@given(VALUES)
def test_counts_and_edges_are_what_numpy_says(values: np.ndarray) -> None:
    before = values.copy()
    result = histogram(values)
    lower, upper, counts = result.bins()
    edges, expected = bins_of(values)
    np.testing.assert_array_equal(lower, edges)
    np.testing.assert_array_equal(counts, expected)
    assert result.amax == np.abs(values).max()
    np.testing.assert_array_equal(values, before)
    # Every bin holds its values, is narrow, and ends before the next one.
    assert (lower <= upper).all()
    assert (upper <= lower * (1 + 2**-9)).all()
    assert (upper[:-1] <= lower[1:]).all()
    if counts.size:
        assert upper[-1] == result.amax


@given(st.lists(VALUES, min_size=1, max_size=4), st.randoms())
def test_parts_in_any_order_are_the_whole(parts: list[np.ndarray], random: object) -> None:
    whole = histogram(np.concatenate([part.reshape(-1) for part in parts]))
    shuffled = list(parts)
    random.shuffle(shuffled)
    pieces = histogram(*shuffled)
    assert pieces.amax == whole.amax
    for found, expected in zip(pieces.bins(), whole.bins(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 3, 5])
def test_what_is_not_finite_is_refused_and_counts_for_nothing(odd: float, where: int) -> None:
    good = np.array([1, -2, 0, 5, 3, 4], np.float32)
    result = histogram(good)
    bad = good * 100
    bad[where] = odd
    with pytest.raises(ValueError, match="infinite or NaN"):
        result.add(bad)
    assert (result.amax, result.bins()[2].sum()) == (5.0, 5.0)


def test_zeros_and_underflows_need_no_bin() -> None:
    tiny = np.array([0.0, -0.0, 1e-40, -1e-12, SMALLEST / 2], np.float32)
    result = histogram(tiny)
    assert result.amax == np.float32(SMALLEST / 2)
    assert [part.size for part in result.bins()] == [0, 0, 0]


def test_nothing_is_counted_of_nothing() -> None:
    result = histogram(np.zeros((0, 3), np.float32))
    assert (result.amax, result.bins()[2].size) == (0.0, 0)


@pytest.mark.parametrize(
    "view", [np.s_[::2], np.s_[::-1], np.s_[:, 1:3], np.s_[..., None], np.s_[2:2]]
)
def test_any_view_of_an_array_counts(view: object) -> None:
    values = np.arange(-12, 12, dtype=np.float32).reshape(6, 4)
    result, expected = histogram(values[view]), histogram(np.ascontiguousarray(values[view]))
    np.testing.assert_array_equal(result.bins()[2], expected.bins()[2])


def test_arrays_larger_than_a_chunk_are_counted_whole() -> None:
    size = 3 * getattr(module, "_CHUNK", 1 << 17) + 17
    values = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    result = histogram(values)
    edges, counts = bins_of(values)
    np.testing.assert_array_equal(result.bins()[0], edges)
    np.testing.assert_array_equal(result.bins()[2], counts)
    assert result.amax == np.abs(values).max()


MOST = 1 << 14
LARGE = (8, 64, 28, 28)
KINDS = ("normal", "relu", "laplace", "heavy", "uniform", "far outlier", "few far", "channels last")


def large(kind: str, seed: int) -> np.ndarray:
    """401,408 values such as a layer's output holds."""
    random = np.random.default_rng(seed)
    values = random.standard_normal(LARGE).astype(np.float32)
    if kind == "relu":
        values = np.maximum(values, 0)
    elif kind == "laplace":
        values = random.laplace(size=LARGE).astype(np.float32)
    elif kind == "heavy":
        values = random.standard_t(3, LARGE).astype(np.float32)
    elif kind == "uniform":
        values = random.uniform(-1, 1, LARGE).astype(np.float32)
    elif kind == "far outlier":
        values[3, 5, 7, 11] = -90.0
    elif kind == "few far":
        values.reshape(-1)[random.integers(0, values.size, 40)] *= 12
    elif kind == "channels last":  # One channel of 28 is much larger than all others.
        values[..., 3] *= 20
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_counting_a_share_chooses_the_range_that_counting_all_does(kind: str) -> None:
    whole, some = Histogram(), Histogram(most=MOST)
    for seed in range(6):
        values = large(kind, seed)
        whole.add(values)
        some.add(values)
    assert some.amax == whole.amax
    found, best = (choose_amax(counted, CalibrationConfig()) for counted in (some, whole))
    errors = [squared_error(amax, *whole.bins()) for amax in (found, best)]
    assert 10 * np.log10(errors[0] / errors[1]) < 0.05
    if kind not in ("heavy", "far outlier", "few far"):  # There the least error is flat.
        assert found == pytest.approx(best, rel=0.02)
    shares = [counted.bins()[2].sum() for counted in (some, whole)]
    assert shares[0] == pytest.approx(shares[1], rel=0.02)


@pytest.mark.parametrize("kind", ["normal", "relu", "laplace", "heavy", "far outlier"])
def test_above_half_of_the_largest_the_counts_are_exact(kind: str) -> None:
    some, whole = Histogram(most=MOST), Histogram()
    for counted in (some, whole):
        counted.add(large(kind, 0))
    (edges, _, counts), (all_edges, _, expected) = some.bins(), whole.bins()
    np.testing.assert_array_equal(
        counts[edges > some.amax / 2], expected[all_edges > whole.amax / 2]
    )


@pytest.mark.parametrize("place", [0, 1, 12_345, 8 * 64 * 28 * 28 - 1])
def test_the_largest_values_are_all_counted(place: int) -> None:
    values = large("relu", 0)
    values.reshape(-1)[place] = -50.0
    result = Histogram(most=MOST)
    result.add(values)
    _lower, upper, counts = result.bins()
    assert (result.amax, upper[-1], counts[-1]) == (50.0, 50.0, 1.0)


@pytest.mark.parametrize("shape", [(4, 96, 1024), (16, 1000, 30), (7, 11, 13, 400), (100_003, 5)])
def test_no_place_along_an_axis_is_passed_over(shape: tuple[int, ...]) -> None:
    """Each place of the last axis holds a value of its own, and all are met alike."""
    values = np.broadcast_to(2.0 ** np.arange(shape[-1]).clip(0, 20), shape).astype(np.float32)
    result = Histogram(most=MOST)
    result.add(values)
    whole = histogram(values)
    np.testing.assert_array_equal(result.bins()[0], whole.bins()[0])
    np.testing.assert_allclose(result.bins()[2], whole.bins()[2], rtol=0.35)


def test_the_order_of_large_arrays_does_not_matter() -> None:
    arrays = [large(kind, seed) for seed, kind in enumerate(KINDS)]
    first, second = Histogram(most=MOST), Histogram(most=MOST)
    for array, other in zip(arrays, reversed(arrays), strict=True):
        first.add(array)
        second.add(other)
    for found, expected in zip(first.bins(), second.bins(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_one_value_that_is_not_finite_is_found_among_many(odd: float) -> None:
    values = large("relu", 0)
    values[7, 63, 27, 26] = odd
    with pytest.raises(ValueError, match="infinite or NaN"):
        Histogram(most=MOST).add(values)


@given(VALUES, st.integers(1, 20))
def test_any_small_share_of_any_values_keeps_the_largest(values: np.ndarray, most: int) -> None:
    result = Histogram(most=most)
    result.add(values)
    assert result.amax == np.abs(values).max()
    _lower, upper, counts = result.bins()
    assert (counts > 0).all()
    assert upper.size == 0 or upper[-1] <= result.amax
