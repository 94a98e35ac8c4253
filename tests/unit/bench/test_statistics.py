"""Percentiles by trtexec's rule, summaries, and LoadGen's early stopping, each computed anew."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.bench.statistics import (
    early_stopping,
    loadgen_percentile,
    percentile,
    queries_needed,
    summarize,
    throughput,
)

TIMES = st.lists(st.floats(0, 1e6), min_size=1, max_size=300)
PERCENTS = st.sampled_from([50, 90, 95, 97, 99, 99.9])


@given(times=TIMES, percent=st.one_of(PERCENTS, st.floats(0, 100)))
def test_a_percentile_is_the_value_at_trtexecs_index(times: list[float], percent: float) -> None:
    ordered = sorted(times)
    index = max(len(times) - 1 - int((1 - percent / 100) * len(times)), 0)
    assert percentile(np.array(ordered), percent) == ordered[index]


def test_a_percentile_interpolates_nothing() -> None:
    ordered = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    assert percentile(ordered, 90) == 100
    assert percentile(ordered, 79) == 4
    assert percentile(ordered, 0) == 1
    assert percentile(ordered, 100) == 100


@given(times=TIMES)
def test_a_summary_is_that_of_the_times_in_any_order(times: list[float]) -> None:
    found = summarize(np.array(times))
    assert (found.count, found.min, found.max) == (len(times), min(times), max(times))
    assert found.median == statistics.median(times)
    assert found.mean == pytest.approx(float(sum(map(Fraction, times)) / len(times)), rel=1e-15)
    if found.mean > 1e-9:
        assert found.variation == pytest.approx(statistics.pstdev(times) / found.mean, abs=1e-7)
    assert set(found.percentiles) == {90, 95, 99}
    assert found == summarize(np.array(times[::-1]))


def test_times_of_nothing_do_not_vary() -> None:
    assert summarize(np.zeros(3)).variation == 0


def test_throughput_counts_what_was_done_in_a_second() -> None:
    assert throughput(300, 2.0) == 150


def test_mlperfs_published_numbers_of_queries() -> None:
    assert queries_needed(90) == 64
    assert queries_needed(99) == 662
    assert queries_needed(99, over=0) == 459


@given(percent=st.sampled_from([60, 90, 95, 99]), over=st.integers(0, 12))
def test_the_queries_needed_are_the_fewest(percent: int, over: int) -> None:
    def tail(count: int) -> Fraction:
        q = Fraction(100 - percent, 100)
        return sum(
            (math.comb(count, k) * q**k * (1 - q) ** (count - k) for k in range(over + 1)),
            Fraction(0),
        )

    needed = queries_needed(percent, over)
    assert tail(needed) < Fraction(1, 100) <= tail(needed - 1)


@settings(max_examples=20)
@given(count=st.integers(0, 1500), percent=st.sampled_from([90, 95, 99]))
def test_an_estimate_discards_as_many_as_loadgen(count: int, percent: float) -> None:
    times = np.random.default_rng(count).permutation(count).astype(np.float64)
    found = early_stopping(times, percent)
    assert found.queries == count
    assert found.needed == queries_needed(percent)
    assert found.enough == (count >= found.needed)
    if not found.enough:
        assert (found.estimate, found.discarded) == (None, None)
        return
    # LoadGen's loop: t is the last for which find_min_passing(t) + t queries are there.
    t = 1
    while count >= queries_needed(percent, t + 1):
        t += 1
    assert found.discarded == t - 1
    assert found.estimate == np.sort(times)[count - t]
    assert found.estimate >= percentile(np.sort(times), percent) - 1


@given(times=TIMES, percent=PERCENTS)
def test_loadgens_percentile_is_at_its_own_index(times: list[float], percent: float) -> None:
    ordered = sorted(times)
    assert (
        loadgen_percentile(np.array(ordered), percent) == ordered[int(len(times) * (percent / 100))]
    )
