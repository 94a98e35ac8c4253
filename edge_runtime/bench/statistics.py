"""Figures of latencies: trtexec's percentiles and LoadGen's rule for how many queries they need.

trtexec: NVIDIA/TensorRT, samples/common/sampleReporting.cpp, `findPercentile`, `findMedian` and
`findCoeffOfVariance`. LoadGen: mlcommons/inference, loadgen/early_stopping.cc and results.cc; the
rules of MLPerf Inference, "Early Stopping Criterion".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]

PERCENTILES = (90.0, 95.0, 99.0)
"""Those that trtexec prints."""

CONFIDENCE = 0.99
"""LoadGen's: a percentile claimed is to be right in 99 of 100 runs."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is said about a series of times, in milliseconds as they are.

    Attributes:
        count: How many.
        min: The least.
        max: The largest.
        mean: Their mean.
        median: The middle one, or the mean of the two in the middle.
        percentiles: By percentile; see `percentile`.
        variation: Standard deviation over mean, as a share: trtexec's coefficient of variance is
            100 times that. 0 where all are 0.
    """

    count: int
    min: float
    max: float
    mean: float
    median: float
    percentiles: Mapping[float, float]
    variation: float

    def to_json(self) -> dict[str, object]:
        """The same as plain JSON values; a percentile's key is its text, such as `99` or `99.9`."""
        return {
            "count": self.count,
            "min": self.min,
            "max": self.max,
            "mean": self.mean,
            "median": self.median,
            "percentiles": {f"{key:g}": value for key, value in self.percentiles.items()},
            "variation": self.variation,
        }


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Whether there are queries enough for a percentile, by LoadGen's rule.

    Attributes:
        percentile: The percentile claimed, such as 99.
        queries: How many were measured.
        needed: The fewest from which LoadGen makes an estimate.
        discarded: Queries slower than `estimate`; None where there are too few.
        estimate: The percentile's latency that is right in 99 of 100 runs, in the unit of the
            latencies; None where there are too few.
    """

    percentile: float
    queries: int
    needed: int
    discarded: int | None
    estimate: float | None

    @property
    def enough(self) -> bool:
        """Whether the percentile may be claimed."""
        return self.estimate is not None

    def to_json(self) -> dict[str, object]:
        """The same as plain JSON values."""
        return {
            "percentile": self.percentile,
            "queries": self.queries,
            "needed": self.needed,
            "enough": self.enough,
            "discarded": self.discarded,
            "estimate": self.estimate,
        }


def percentile(ordered: Times, percent: float) -> float:
    """A percentile by trtexec's rule: a value that was measured, nothing in between.

    It is `ordered[max(n - 1 - int((1 - percent / 100) * n), 0)]`, in double precision. trtexec
    computes the index in single precision: where `(1 - percent / 100) * n` is a whole number, it
    may take the neighbour.

    Args:
        ordered: float64[n], ascending, at least one.
        percent: 0 to 100.
    """
    count = len(ordered)
    return float(ordered[max(count - 1 - int((1 - percent / 100) * count), 0)])


def loadgen_percentile(ordered: Times, percent: float) -> float:
    """A percentile as LoadGen reports it: `ordered[int(n * percent / 100)]`.

    Args:
        ordered: float64[n], ascending, at least one.
        percent: 0 to less than 100.
    """
    return float(ordered[int(len(ordered) * (percent / 100))])


def summarize(times: Times, percentiles: Sequence[float] = PERCENTILES) -> Summary:
    """Summarises float64[n] in any order, n at least 1."""
    ordered = np.sort(times)
    count = len(ordered)
    middle = count // 2
    median = ordered[middle] if count % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    mean = math.fsum(ordered) / count
    deviation = math.sqrt(math.fsum((ordered - mean) ** 2) / count)
    return Summary(
        count=count,
        min=float(ordered[0]),
        max=float(ordered[-1]),
        mean=mean,
        median=float(median),
        percentiles={percent: percentile(ordered, percent) for percent in percentiles},
        variation=deviation / mean if mean else 0.0,
    )


def throughput(count: int, walltime: float) -> float:
    """Things per second: queries, or samples, done in `walltime` seconds."""
    return count / walltime


def early_stopping(times: Times, percent: float) -> EarlyStopping:
    """LoadGen's estimate of a percentile, for scenarios without a latency bound.

    It takes the largest t such that t slower queries among n would be seen in fewer than 1 of 100
    runs if more than 1 - percent / 100 of all queries were slower, and the t-th largest latency.

    Args:
        times: float64[n], in any order; n may be 0.
        percent: Above 0 and below 100.
    """
    count = len(times)
    needed = queries_needed(percent)
    if count < needed:
        return EarlyStopping(percent, count, needed, None, None)
    over = _most_over(count, percent)
    return EarlyStopping(percent, count, needed, over - 1, float(np.sort(times)[count - over]))


@lru_cache(maxsize=256)
def queries_needed(percent: float, over: int = 1) -> int:
    """The fewest queries from which `percent` may be claimed though `over` of them are slower.

    It is the least n with P(X <= over) < 0.01, where X is binomial(n, 1 - percent / 100): LoadGen's
    `find_min_passing(over) + over`, with its tolerance 0. For 90 and 99 that gives 64 and 662, the
    figures in MLPerf's rules. LoadGen's server scenario is valid if no more than `over` of as many
    queries are above the latency bound.
    """
    low, high = over, over + 1  # P(X <= over) is 1 at n = over.
    while not _is_rare(high, percent, over):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _is_rare(middle, percent, over):
            high = middle
        else:
            low = middle
    return high


def _is_rare(count: int, percent: float, over: int) -> bool:
    """Whether so few slow queries come in fewer than 1 of 100 runs."""
    return bool(_tails(count, percent, over)[-1] < math.log(1 - CONFIDENCE))


def _most_over(count: int, percent: float) -> int:
    """The most slow queries that are as rare; `count` is at least `queries_needed`."""
    expected = math.ceil((1 - percent / 100) * count)  # Half of all runs have as many.
    tails = _tails(count, percent, max(expected, 1))
    return int(np.searchsorted(tails, math.log(1 - CONFIDENCE), "left")) - 1


def _tails(count: int, percent: float, over: int) -> Times:
    """log P(X <= k) for k from 0 to `over`; X is binomial(count, 1 - percent / 100)."""
    under = percent / 100
    k = np.arange(1, over + 1, dtype=np.float64)
    steps = np.log((count - k + 1) / k) + (math.log1p(-under) - math.log(under))
    return np.logaddexp.accumulate(np.cumsum([count * math.log(under), *steps]))
