"""Drops and their intervals: paired, repeatable, and as wide as the samples leave open."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.accuracy.bootstrap import Comparison, Drop, ratio_of_sums


def shares(hits: np.ndarray) -> np.ndarray:
    return np.stack([hits.astype(float), np.ones(len(hits))], axis=1)


def compare(before: np.ndarray, after: np.ndarray, **settings: int) -> Drop:
    return Comparison(
        ratio_of_sums(shares(before), 0, 1),
        ratio_of_sums(shares(after), 0, 1),
        len(before),
        **settings,
    ).drop()


def test_the_interval_of_a_share_is_that_of_the_binomial() -> None:
    before = np.ones(1000)
    after = np.ones(1000)
    after[:100] = 0
    drop = compare(before, after)
    assert (drop.reference, drop.reached, drop.drop) == pytest.approx((1.0, 0.9, 0.1))
    # 0.1 +- 1.96 * sqrt(0.1 * 0.9 / 1000)
    assert drop.interval == pytest.approx((0.0814, 0.1186), abs=0.002)
    assert compare(before, after) == drop


def test_samples_are_paired() -> None:
    random = np.random.default_rng(0)
    before = random.random(400) < 0.6
    after = before.copy()
    after[:4] = 0
    low, high = compare(before, after).interval
    # Drawn apart, the two would differ by some 0.07 either way by chance alone.
    assert low >= -1e-9
    assert high < 0.02


def test_many_samples_are_drawn_in_parts_and_none_is_left_out() -> None:
    seen: list[np.ndarray] = []

    def score(weights: np.ndarray) -> np.ndarray:
        seen.append(weights)
        return weights[:, 0]

    Comparison(score, lambda weights: weights[:, 0] * 0, 3000).drop()
    drawn = np.concatenate(seen[1:])
    assert len(seen) > 2
    assert drawn.shape == (2000, 3000)
    assert (drawn.sum(1) == 3000).all()


def test_a_budget_is_met_by_the_drop_or_by_its_whole_interval() -> None:
    drop = Drop(0.9, 0.8, 0.9 - 0.8, (0.05, 0.15))
    assert drop.within(0.1, confident=False)  # Though 0.9 - 0.8 is a little more, in binary.
    assert not drop.within(0.099, confident=False)
    assert not drop.within(0.1, confident=True)
    assert drop.within(0.15, confident=True)


def test_without_resamples_there_is_no_interval() -> None:
    assert compare(np.ones(4), np.ones(4), resamples=0).interval is None


def test_one_sample_has_no_interval() -> None:
    assert compare(np.ones(1), np.zeros(1)).interval is None


def test_what_has_nothing_to_lose_loses_nothing() -> None:
    always_zero = ratio_of_sums(np.array([[0.0, 0.0]]), 0, 1)
    noisy_zero = ratio_of_sums(np.array([[-1.0, 0.0]]), 0, 1)
    assert always_zero(np.ones((1, 1))) == 1
    assert noisy_zero(np.ones((1, 1))) == 0
