"""Means over test samples and 95 % intervals of them, by bootstrap.

Whole groups are drawn: all views of one picture together, since they err together (Efron and
Tibshirani 1993, "An Introduction to the Bootstrap", chapter 8). All tools see the same draws, so
the difference of two tools has an interval of its own, narrower than those of its parts: it is
paired.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
Figures = dict[str, list[float]]

DRAWS = 4000
_CHUNK = 100


def draws_of(figures: Figures, names: tuple[str, ...]) -> tuple[Array, Array]:
    """Sums of some figures over all samples, and over each draw of groups.

    Returns:
        float64 [names] and float64 [DRAWS, names].
    """
    groups, index = np.unique(figures["group"], return_inverse=True)
    columns = np.stack([np.asarray(figures[name], np.float64) for name in names], axis=1)
    sums = np.zeros((len(groups), len(names)))
    np.add.at(sums, index, columns)
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS // _CHUNK):
        chosen = random.integers(len(groups), size=(_CHUNK, len(groups)))
        drawn.append(sums[chosen].sum(axis=1))
    return sums.sum(axis=0), np.concatenate(drawn)


def ratio(figures: Figures, above: str, below: str) -> tuple[float, Array]:
    """The ratio of two figures' sums, and that of each draw; the sums of `below` are not 0."""
    whole, drawn = draws_of(figures, (above, below))
    return float(whole[0] / whole[1]), drawn[:, 0] / drawn[:, 1]


def mean(figures: Figures, name: str) -> tuple[float, Array]:
    """The mean of a figure over samples, and that of each draw."""
    ones = {**figures, "one": [1.0] * len(figures[name])}
    return ratio(ones, name, "one")


def sqnr(figures: Figures) -> tuple[float, Array]:
    """Signal to quantization noise in dB over all samples, and that of each draw."""
    share, drawn = ratio(figures, "noise", "signal")
    return float(-10 * np.log10(share)), -10 * np.log10(np.maximum(drawn, 1e-30))


def interval(drawn: Array, *, choices: int = 1) -> list[float]:
    """The middle 95 % of the draws; wider where this is the best of several `choices`.

    Of many tools one comes out best by luck, and was picked for that. An interval that shall hold
    whichever is picked has the error rate of each divided by their number (Bonferroni).
    """
    tail = 2.5 / choices
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return [float(low), float(high)]
