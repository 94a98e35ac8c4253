"""How sure a drop in accuracy is: the paired bootstrap over samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Score = Callable[[Floats], Floats]
"""From how often each sample counts, [resamples, samples], to the score of each resample."""

RESAMPLES = 2000
_CHUNK = 1 << 20  # Weights held at a time.
_SEED = 20260


@dataclass(frozen=True, slots=True)
class Comparison:
    """The scores of a model and of its INT8 form on the same samples; larger is better.

    Attributes:
        reference: The model's.
        reached: The INT8 form's.
        samples: How many samples there are.
        resamples: How many times they are drawn anew for an interval; 0 where that cannot be done.
    """

    reference: Score
    reached: Score
    samples: int
    resamples: int = RESAMPLES

    def drop(self) -> Drop:
        """The scores, what was lost and the interval that this lies in."""
        ones = np.ones((1, self.samples))
        reference, reached = (float(score(ones)[0]) for score in (self.reference, self.reached))
        return Drop(reference, reached, reference - reached, self._interval())

    def _interval(self) -> tuple[float, float] | None:
        if not self.resamples or self.samples < 2:  # One sample can only be drawn again and again.
            return None
        random = np.random.default_rng(_SEED)
        step = max(1, _CHUNK // self.samples)
        drops = []
        for start in range(0, self.resamples, step):
            # Each draw of as many samples, with replacement, is used for both: they are paired.
            size = min(step, self.resamples - start)
            shares = np.full(self.samples, 1 / self.samples)
            weights = random.multinomial(self.samples, shares, size=size).astype(np.float64)
            drops.append(self.reference(weights) - self.reached(weights))
        low, high = np.percentile(np.concatenate(drops), [2.5, 97.5])
        return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Drop:
    """What was lost.

    Attributes:
        reference: The model's score.
        reached: The INT8 form's score.
        drop: Their difference.
        interval: The ends of the drop's 95 % interval by the percentile bootstrap (Efron and
            Tibshirani 1993, chapter 13), always the same for the same scores; None where no
            interval can be given. Where no sample differs it has no width: the less, the fewer
            the samples, does that prove that none ever would.
    """

    reference: float
    reached: float
    drop: float
    interval: tuple[float, float] | None

    def within(self, budget: float, *, confident: bool) -> bool:
        """Whether the drop, or if `confident` also its upper end, is inside the budget."""
        worst = self.drop
        if confident:
            assert self.interval is not None
            worst = max(worst, self.interval[1])
        return worst <= budget + _ROUNDING


_ROUNDING = 1e-12  # Of differences of shares, such as 0.9 - 0.8 > 0.1.


def ratio_of_sums(rows: Floats, over: int, under: int) -> Score:
    """The score sum(column `over`) / sum(column `under`) of figures for each sample.

    Args:
        rows: A row for each sample.
        over: The column of the numerator.
        under: The column of the denominator. Where its sum is 0 there was nothing to lose: the
            score is 1 if the numerator's is 0 too, as of an output that is always 0, else 0.
    """

    def score(weights: Floats) -> Floats:
        sums = weights @ rows
        is_empty = sums[:, under] == 0
        ratios = sums[:, over] / np.where(is_empty, 1.0, sums[:, under])
        return np.where(is_empty, sums[:, over] == 0, ratios)

    return score
