"""Ranges against a search that tries them all on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_runtime.config import CalibrationConfig, CalibrationMethod
from edge_runtime.precision.observing.histogram import Histogram
from edge_runtime.precision.ranging.ranges import choose_amax, divergence, squared_error

METHODS = tuple(method for method in CalibrationMethod if method is not CalibrationMethod.AUTO)
NAMES = (
    *("normal", "laplace", "relu", "uniform", "student", "heavy", "lognormal", "bytes"),
    *("normalized bytes", "sigmoid", "outlier", "far outlier", "one value", "two values", "spike"),
    *("sparse", "few", "small", "large"),
)


def draw(name: str, count: int = 4_000) -> np.ndarray:
    """Values such as tensors hold."""
    random = np.random.default_rng(7)
    normal, pixels = random.standard_normal(count), random.integers(0, 256, count) / 255
    kinds = {
        "normal": normal,
        "laplace": random.laplace(size=count),
        "relu": np.maximum(normal, 0),
        "uniform": random.uniform(-1, 1, count),
        "student": random.standard_t(3, count),
        "heavy": random.standard_t(1.5, count),
        "lognormal": random.lognormal(0, 2, count),
        "bytes": pixels,
        "normalized bytes": (pixels - 0.485) / 0.229,
        "sigmoid": 1 / (1 + np.exp(-5 * normal)),
        "outlier": np.append(normal, 30.0),
        "far outlier": np.append(normal, 1e4),
        "one value": np.full(count, 3.3),
        "two values": np.repeat([1.0, 100.0], count // 2),
        "spike": np.append(np.ones(count), 10 * normal[:9]),
        "sparse": np.where(random.random(count) < 0.99, 0, normal),
        "few": normal[:20],
        "small": 1e-7 * normal,
        "large": 1e30 * normal,
    }
    return kinds[name]


def histogram(values: np.ndarray) -> Histogram:
    result = Histogram()
    result.add(values.astype(np.float32))
    return result


def choose(values: np.ndarray, method: str, percentile: float = 99.99) -> float:
    return choose_amax(histogram(values), CalibrationConfig(method, percentile))


def error(values: np.ndarray, amax: float) -> float:
    """The sum of squared errors of symmetric INT8 with this range."""
    distinct, counts = np.unique(np.abs(values.astype(np.float32)), return_counts=True)
    exact, scale = distinct.astype(np.float64), amax / 127
    return float((np.minimum(np.rint(exact / scale), 127) * scale - exact) ** 2 @ counts)


def brute_force(values: np.ndarray) -> float:
    """The least error of 64 ranges an octave, 11 octaves down."""
    top = float(np.abs(values.astype(np.float32)).max())
    return min(error(values, top * 0.5 ** (step / 64)) for step in range(11 * 64))


@pytest.mark.parametrize("name", NAMES)
def test_mse_is_within_a_tenth_of_a_decibel_of_the_best(name: str) -> None:
    values = draw(name)
    floor = 1e-9 * float((values.astype(np.float64) ** 2).sum())  # 90 dB is as good as exact.
    found, best = error(values, choose(values, "mse")), brute_force(values)
    assert 10 * np.log10((found + floor) / (best + floor)) < 0.1


@pytest.mark.parametrize("clipped", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("name", ["normal", "laplace", "uniform", "heavy", "bytes", "sigmoid"])
def test_the_error_that_mse_expects_is_the_error_there_is(name: str, clipped: float) -> None:
    values = draw(name, 20_000)
    counted = histogram(values)
    amax = clipped * counted.amax
    assert squared_error(amax, *counted.bins()) == pytest.approx(error(values, amax), rel=0.05)


@settings(max_examples=60)
@given(
    hnp.arrays(
        np.float32,
        st.integers(1, 60),
        elements=st.floats(-1000, 1000, width=32) | st.sampled_from([0.0, 1.0, -1.0, 64.0]),
    )
)
def test_mse_is_close_to_the_best_for_any_values(values: np.ndarray) -> None:
    if np.abs(values).max() < 1e-3:
        return
    floor = 1e-5 * float((values.astype(np.float64) ** 2).sum())
    found, best = error(values, choose(values, "mse")), brute_force(values)
    assert 10 * np.log10((found + floor) / (best + floor)) < 1.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_no_method_leaves_the_range_or_collapses(name: str, method: str) -> None:
    values = np.abs(draw(name).astype(np.float32))
    amax = choose(draw(name), method)
    assert 0 < amax <= values.max()
    # Whatever is clipped, it is one value or a small share of what is not zero.
    assert (values > amax * 1.02).sum() <= max(1, 0.01 * (values > 0).sum())


@pytest.mark.parametrize("name", NAMES)
def test_max_is_the_largest_value(name: str) -> None:
    assert choose(draw(name), "max") == np.abs(draw(name).astype(np.float32)).max()


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 99.99])
@pytest.mark.parametrize("name", ["normal", "laplace", "uniform", "heavy", "sigmoid", "outlier"])
def test_percentile_is_numpys(name: str, percentile: float) -> None:
    values = np.abs(draw(name).astype(np.float32))
    below, above = (
        np.percentile(values, percentile, method="lower"),
        np.percentile(values, percentile, method="higher"),
    )
    assert below * 0.997 <= choose(draw(name), "percentile", percentile) <= above * 1.003


def test_the_hundredth_percentile_is_the_largest_value() -> None:
    assert choose(draw("normal"), "percentile", 100) == choose(draw("normal"), "max")


def test_percentile_does_not_collapse_where_nearly_all_is_zero() -> None:
    values = np.append(np.zeros(1_000_000), draw("normal", 50))
    assert choose(values, "percentile") > 1.0


@pytest.mark.parametrize("count", [300, 4_000])
@pytest.mark.parametrize("name", NAMES)
def test_entropy_costs_little_however_spiky_or_few_the_values_are(name: str, count: int) -> None:
    values = draw(name, count)
    floor = 1e-9 * float((values.astype(np.float64) ** 2).sum())
    found, best = error(values, choose(values, "entropy")), brute_force(values)
    assert 10 * np.log10((found + floor) / (best + floor)) < 1.5


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.floats(-300, 300),  # Where a heap of values is,
            st.sampled_from([0.0, 1e-3, 0.1, 1.0, 30.0]),  # how wide it is,
            st.sampled_from([1, 3, 40, 700]),  # and of how many values.
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["normal", "heavy", "uniform"]),
)
def test_entropy_at_most_doubles_the_least_error(heaps: list, kind: str) -> None:
    shape = draw(kind, 700)
    values = np.concatenate([place + width * shape[:count] for place, width, count in heaps])
    if np.abs(values).max() < 1e-3:
        return
    floor = 1e-5 * float((values**2).sum())
    found, best = error(values, choose(values, "entropy")), brute_force(values)
    assert (found + floor) / (best + floor) < 2


def test_entropy_is_the_divergence_s_own_choice_where_the_error_allows() -> None:
    """It keeps the tail that the least squared error cuts off, as the divergence wants it."""
    values = draw("laplace", 200_000)
    bins = histogram(values).bins()
    entropy, mse = (choose(values, method) for method in ("entropy", "mse"))
    assert divergence(entropy, *bins) < divergence(mse, *bins)
    assert entropy != pytest.approx(mse, rel=0.02)


@pytest.mark.parametrize("name", ["normal", "laplace", "relu"])
def test_the_divergence_is_that_of_the_counts(name: str) -> None:
    """Against the definition, level by level on the bins."""
    lower, upper, counts = histogram(draw(name, 50_000)).bins()
    amax = float(upper[-1]) * 0.8
    assert divergence(amax, lower, upper, counts) == pytest.approx(
        by_definition(amax, lower, upper, counts), abs=0.02
    )


def by_definition(amax: float, lower: np.ndarray, upper: np.ndarray, counts: np.ndarray) -> float:
    """Sum of p log(p / q): q spreads each level's inliers evenly over the level."""
    scale = amax / 127
    middle = (lower + upper) / 2
    level = np.rint(middle / scale)
    inside = level <= 127
    total = 0.0
    for k in np.unique(level[inside]):
        members = level == k
        width = scale if k else scale / 2
        q = counts[members].sum() / counts[inside].sum() / width
        for p, span in zip(counts[members], (upper - lower)[members], strict=True):
            total += p / counts.sum() * np.log(p / counts.sum() / max(span, 1e-30) / q)
        if k == 127:
            beyond = counts[~inside].sum() / counts.sum()
            total += beyond * np.log(beyond / width / q) if beyond else 0.0
    return float(total)


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_that_is_always_zero_has_no_range(method: CalibrationMethod) -> None:
    assert choose(np.zeros(100), method) == 0.0
    assert choose_amax(Histogram(), CalibrationConfig(method)) == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_values_below_every_bin_have_the_range_of_the_largest(method: CalibrationMethod) -> None:
    values = np.array([0.0, 1e-12, -3e-12])
    assert choose(values, method) == pytest.approx(3e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [2.0**-10, 2.0**20])
def test_the_unit_of_the_values_does_not_matter(method: CalibrationMethod, factor: float) -> None:
    values = draw("laplace")
    expected = factor * choose(values, method)
    assert choose(values * factor, method) == pytest.approx(expected, rel=0.05)
