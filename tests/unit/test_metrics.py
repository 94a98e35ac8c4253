"""How far outputs are apart, against the formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_runtime.metrics import Agreement, AgreementMeter


def measure(*pairs: tuple[object, object]) -> Agreement:
    meter = AgreementMeter()
    for reference, other in pairs:
        meter.add(np.asarray(reference, np.float32), np.asarray(other, np.float32))
    return meter.result()


def test_the_figures_of_one_sample() -> None:
    figures = measure(([[3.0, 4.0]], [[3.0, 4.5]]))
    assert figures.max_error == 0.5
    assert figures.mean_error == 0.25
    assert figures.sqnr_db == pytest.approx(20.0)  # 10 log10(25 / 0.25)
    assert figures.cosine == pytest.approx((9 + 18) / (5 * (9 + 20.25) ** 0.5))
    assert figures.top1 == 1.0
    assert not figures.equal


def test_samples_add_up() -> None:
    figures = measure(([1.0, 2.0], [2.0, 1.0]), ([3.0, 0.0], [3.0, 0.0]), ([0, 1], [0.0, 3.0]))
    assert figures.max_error == 2.0
    assert figures.mean_error == 4 / 6
    assert figures.sqnr_db == pytest.approx(10 * np.log10(15 / 6))
    assert figures.top1 == pytest.approx(2 / 3)


VALUES = hnp.arrays(np.float32, (3, 4, 5), elements=st.floats(-1000, 1000, width=32))


@given(VALUES, VALUES)
def test_every_figure_is_what_numpy_says(reference: np.ndarray, other: np.ndarray) -> None:
    figures = measure(*zip(reference, other, strict=True))
    a, b = reference.astype(np.float64), other.astype(np.float64)
    noise, signal = ((a - b) ** 2).sum(), (a**2).sum()
    assert figures.max_error == np.abs(a - b).max()
    assert figures.mean_error == pytest.approx(np.abs(a - b).mean())
    assert figures.top1 == (a.argmax(-1) == b.argmax(-1)).mean()
    assert figures.equal == np.array_equal(a, b)
    if noise and signal:
        assert figures.sqnr_db == pytest.approx(10 * np.log10(signal / noise))
    else:
        assert figures.sqnr_db is None
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    assert figures.cosine == (pytest.approx((a * b).sum() / norms) if norms else None)


def test_equal_outputs_have_no_noise() -> None:
    figures = measure(([1.0, 2.0], [1.0, 2.0]))
    assert figures.equal
    assert (figures.sqnr_db, figures.cosine, figures.max_error) == (None, pytest.approx(1.0), 0.0)


def test_an_output_of_zeros_has_no_signal() -> None:
    figures = measure(([0.0, 0.0], [0.0, 0.5]))
    assert (figures.sqnr_db, figures.cosine, figures.equal) == (None, None, False)


@pytest.mark.parametrize("shape", [(), (1,), (5, 1)])
def test_a_single_value_has_no_largest_entry(shape: tuple[int, ...]) -> None:
    assert measure((np.ones(shape), np.zeros(shape))).top1 is None


def test_a_batch_of_none_counts_as_nothing() -> None:
    assert measure((np.ones((0, 5)), np.ones((0, 5)))) == Agreement(
        0.0, 0.0, None, None, None, True
    )


def test_integers_and_booleans_are_compared_as_numbers() -> None:
    meter = AgreementMeter()
    meter.add(np.array([250, 3], np.uint8), np.array([3, 250], np.uint8))  # No wrapping round.
    assert meter.result().max_error == 247
    meter = AgreementMeter()
    meter.add(np.array([True, False]), np.array([False, False]))
    assert meter.result().max_error == 1


def test_large_values_do_not_overflow() -> None:
    figures = measure(([3e38, 1.0], [3e38, 2.0]))
    assert figures.max_error == 1.0
    assert figures.cosine == pytest.approx(1.0)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused_on_either_side(odd: float) -> None:
    with pytest.raises(ValueError, match="NaN"):
        measure(([1.0, 2.0], [1.0, odd]))
    with pytest.raises(ValueError, match="NaN"):
        measure(([odd, 2.0], [1.0, 2.0]))
    with pytest.raises(ValueError, match="NaN"):
        measure(([odd], [odd]))


@pytest.mark.parametrize("shape", [(4,), (3, 4), (4, 1), (1, 4), (), (4, 2), (8,)])
def test_shapes_that_differ_are_refused_never_broadcast(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[2, 4\]"):
        measure((np.ones((2, 4)), np.ones(shape)))
