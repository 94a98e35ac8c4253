"""How sure a ratio of two measurements is: from blocks of queries, or rounds, drawn again.

Latencies of one run are not independent: a slow query has slow neighbours. So whole blocks of
neighbours are drawn (Kuensch 1989, "The Jackknife and the Bootstrap for General Stationary
Observations"), and where blocks themselves still resemble their neighbours, as in a machine that
warms up, the error is widened as for an autoregressive series: there are fewer independent blocks
than blocks (Priestley 1981, "Spectral Analysis and Time Series", 5.3.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edge_runtime.bench.statistics import Times

CONFIDENCE = 0.998
"""Of the intervals: of 1,000 comparisons of equals, one is called slower and one faster."""

POWER = 0.8
"""The chance to see the smallest difference that is said to be visible."""

BLOCKS = 40
"""Blocks of neighbours into which a run is cut."""

_DRAWS = 600
_LEVELS = 400
_LEAST_FREEDOM = 4.0
_TRIM = 0.25

Weights = npt.NDArray[np.float64]
"""float64[draws, blocks], how often each draw has each block."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio, by its natural logarithm, and how sure it is.

    Attributes:
        log: The logarithm of the ratio.
        error: The logarithm's standard error.
        freedom: Degrees of freedom of that error.
    """

    log: float
    error: float
    freedom: float

    @property
    def ratio(self) -> float:
        """The ratio."""
        return math.exp(self.log)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true ratio is, with `CONFIDENCE`."""
        reach = student((1 + CONFIDENCE) / 2, self.freedom) * self.error
        return math.exp(self.log - reach), math.exp(self.log + reach)

    @property
    def smallest(self) -> float:
        """The least difference, as a share, that is seen with a chance of `POWER`."""
        steps = student((1 + CONFIDENCE) / 2, self.freedom) + student(POWER, self.freedom)
        return math.expm1(steps * self.error)


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A series cut into blocks of neighbours.

    Attributes:
        times: float64[n], in the order in which they were measured.
        edges: int64[blocks + 1]: where each block begins, and the end.
    """

    times: Times
    edges: npt.NDArray[np.int64]

    @classmethod
    def equal(cls, times: Times) -> Blocks:
        """Blocks of the same length, `BLOCKS` of them or as many as there are values."""
        count = min(BLOCKS, len(times))
        return cls(times, np.linspace(0, len(times), count + 1).astype(np.int64))

    @classmethod
    def of(cls, rounds: Sequence[Times]) -> Blocks:
        """A block for each round."""
        edges = np.cumsum([0, *map(len, rounds)])
        return cls(np.concatenate(rounds), edges.astype(np.int64))

    def __len__(self) -> int:
        return len(self.edges) - 1

    @property
    def sizes(self) -> Times:
        """float64[blocks], values in each block."""
        return np.diff(self.edges).astype(np.float64)

    def sums(self, values: Times) -> Times:
        """float64[blocks], the sum over each block of a value for each time."""
        found: Times = np.add.reduceat(values, self.edges[:-1])
        return found


@lru_cache(maxsize=4)
def draw(blocks: int) -> Weights:
    """Draws that many blocks out of as many, again and again; always the same, read-only."""
    chances = np.full(blocks, 1 / blocks)
    found = np.random.default_rng(0).multinomial(blocks, chances, _DRAWS).astype(np.float64)
    found.flags.writeable = False
    return found


def mean_error(series: Blocks) -> tuple[float, float]:
    """Standard error of the logarithm of the mean, and its degrees of freedom."""
    sums = series.sums(series.times)
    weights = draw(len(series))
    drawn = (weights @ sums) / (weights @ series.sizes)
    return _error(drawn, sums / series.sizes)


def percentile_error(series: Blocks, percent: float) -> tuple[float, float]:
    """Standard error of the logarithm of a percentile, and its degrees of freedom.

    What is slower than it may come in a few bursts, and no more than those are independent.
    """
    drawn = percentile_draws(series, percent, draw(len(series)))
    ordered = np.sort(series.times)
    above = (series.times > ordered[_index(len(ordered), percent)]).astype(np.float64)
    slow = series.sums(above)
    error, freedom = _error(drawn, slow / series.sizes)
    # Kish's effective number of blocks.
    bursts = float(slow.sum() ** 2 / (slow @ slow)) if slow.any() else 1.0
    return error, min(freedom, max(bursts - 1, _LEAST_FREEDOM))


def percentile_draws(series: Blocks, percent: float, weights: Weights) -> Times:
    """float64[draws], the percentile by trtexec's rule in each draw of blocks.

    Only values near the percentile are told apart: within six standard errors of its rank, four
    hundred of them at most.
    """
    ordered, count = np.sort(series.times), len(series.times)
    middle = _index(count, percent)
    above = series.sums((series.times > ordered[middle]).astype(np.float64)) / series.sizes
    reach = 6 * max(float(above.std()) / math.sqrt(len(series)), 1 / count) * count + 1
    first, last = max(middle - reach, 0), min(middle + reach, count - 1)
    levels = np.unique(ordered[np.linspace(first, last, _LEVELS).round().astype(np.int64)])
    blocks = np.split(series.times, series.edges[1:-1])
    under = np.stack([np.searchsorted(np.sort(block), levels, "right") for block in blocks])
    counts = weights @ under.astype(np.float64)
    sizes = weights @ series.sizes
    ranks = np.maximum(sizes - 1 - np.floor((1 - percent / 100) * sizes), 0)
    reached = counts > ranks[:, None]
    reached[:, -1] = True
    found: Times = levels[reached.argmax(axis=1)]
    return found


def of_runs(old: float, new: float, errors: Sequence[tuple[float, float]]) -> Estimate:
    """The ratio new / old of two runs that know nothing of each other (Welch 1947).

    Args:
        old: A figure of one run, above 0.
        new: The same of the other.
        errors: Standard error of the logarithm of each, and its degrees of freedom.
    """
    total = sum(error**2 for error, _ in errors)
    parts = sum(error**4 / freedom for error, freedom in errors)
    freedom = total**2 / parts if parts else _LEAST_FREEDOM
    return Estimate(math.log(new / old), math.sqrt(total), max(freedom, _LEAST_FREEDOM))


def of_rounds(logs: Times) -> Estimate:
    """The ratio of two that were measured in turns, from the logarithm of each round's ratio.

    The mean of the middle half of them: what disturbs one turn and not the next counts for little.

    Args:
        logs: float64[rounds].
    """
    count = len(logs)
    chosen = np.random.default_rng(0).integers(count, size=(_DRAWS, count))
    drawn = _middle(logs[chosen])
    freedom = count - 2 * int(_TRIM * count) - 1
    error = float(drawn.std()) * math.sqrt(count / (count - 1))
    return Estimate(float(_middle(logs)), error, max(freedom, _LEAST_FREEDOM))


def of_pooled_rounds(
    old: Blocks, new: Blocks, percent: float, figures: tuple[float, float]
) -> Estimate:
    """The ratio of a percentile over all rounds; both have the same rounds drawn.

    Args:
        old: A block for each round.
        new: The same rounds of the other.
        percent: The percentile.
        figures: It, of the old and the new one, above 0.
    """
    weights = draw(len(old))
    above, below = (percentile_draws(side, percent, weights) for side in (new, old))
    count = len(old)
    apart = above / above.mean() - below / below.mean()
    error = float(apart.std()) * math.sqrt(count / (count - 1))
    return Estimate(math.log(figures[1] / figures[0]), error, max(count - 1, _LEAST_FREEDOM))


@lru_cache(maxsize=512)
def student(probability: float, freedom: float) -> float:
    """Quantile of Student's t distribution (Abramowitz and Stegun 1964, 26.7.5).

    From 4 degrees of freedom on it is less than 1 % off, up to the probability 0.999.
    """
    x = NormalDist().inv_cdf(probability)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / freedom**power for power, term in enumerate(terms, 1))


def _error(drawn: Times, blocks: Times) -> tuple[float, float]:
    """Standard error of what was drawn, widened as blocks resemble their neighbours."""
    count = len(blocks)
    alike = _likeness(blocks)
    widening = (1 + alike) / (1 - alike)
    error = float(drawn.std() / drawn.mean()) * math.sqrt(widening * count / (count - 1))
    return error, max(count / widening - 1, _LEAST_FREEDOM)


def _likeness(values: Times) -> float:
    """Correlation of each value with the next, 0 to 0.9; a few values show less than there is."""
    count = len(values)
    apart = values - values.mean()
    square = float(apart @ apart)
    if square == 0 or count < 8:
        return 0.0
    found = float(apart[1:] @ apart[:-1]) / square
    return min(max((found * count + 1) / (count - 4), 0.0), 0.9)


def _middle(logs: Times) -> Times:
    """Mean of the middle half, over the last axis."""
    count = logs.shape[-1]
    cut = int(_TRIM * count)
    found: Times = np.sort(logs, axis=-1)[..., cut : count - cut].mean(axis=-1)
    return found


def _index(count: int, percent: float) -> int:
    return max(count - 1 - int((1 - percent / 100) * count), 0)
