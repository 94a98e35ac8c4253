"""The histogram counts exactly, whatever the values, their order and the parts they come in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_runtime.precision import histogram as module
from edge_runtime.precision.histogram import Histogram

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


def test_infinities_can_be_left_out_but_nan_never() -> None:
    result = Histogram(skip_infinity=True)
    result.add(np.array([1, -np.inf, -3, np.inf], np.float32))
    assert (result.amax, result.bins()[2].sum()) == (3.0, 2.0)
    result.add(np.full(4, -np.inf, np.float32))
    assert result.amax == 3.0
    with pytest.raises(ValueError, match="infinite or NaN"):
        result.add(np.array([np.inf, np.nan], np.float32))


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
