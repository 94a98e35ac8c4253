"""Chooses the range of an INT8 tensor from its histogram.

Quantization is symmetric: scale = amax / 127, q = clip(round(x / scale), -127, 127). All methods
take values as spread evenly inside each of the histogram's narrow bins.

The divergence alone is no safe guide: on spiky histograms and those of few values, a range that
cuts off much of the distribution may resemble what is left best. So `entropy` chooses only among
the ranges whose squared error is at most a quarter of a decibel above the least.
"""

from __future__ import annotations

import numpy as np

from edge_runtime.config import CalibrationConfig, CalibrationMethod
from edge_runtime.precision.observing.histogram import Floats, Histogram

LEVELS = 127
_COARSE = 0.5 ** (np.arange(12 * 8) / 8)  # Candidates an eighth of an octave apart, down to 2**-12.
_FINE = 0.5 ** (np.arange(-7, 8) / 64)
_NEAR = 0.5 ** (np.arange(-32, 33) / 32)
_SLACK = 1.06


def choose_amax(histogram: Histogram, config: CalibrationConfig) -> float:
    """The absolute value that the largest quantized level stands for; 0.0 for a tensor of zeros.

    Args:
        histogram: What was seen of the tensor.
        config: The method; not `AUTO`, which needs more than a histogram.
    """
    assert config.method is not CalibrationMethod.AUTO
    if config.method is CalibrationMethod.MAX or histogram.amax == 0.0:
        return histogram.amax
    lower, upper, counts = histogram.bins()
    if counts.size == 0:
        return histogram.amax
    if config.method is CalibrationMethod.PERCENTILE:
        return _percentile(config.percentile, lower, upper, counts)
    best = _least_error(histogram.amax, lower, upper, counts)
    if config.method is CalibrationMethod.MSE:
        return best
    limit = _SLACK * squared_error(best, lower, upper, counts)
    near = [amax for amax in _NEAR * best if amax <= histogram.amax]
    near = [amax for amax in near if squared_error(amax, lower, upper, counts) <= limit]
    return float(min(near, key=lambda amax: divergence(amax, lower, upper, counts)))


def squared_error(amax: float, lower: Floats, upper: Floats, counts: Floats) -> float:
    """The sum of squared quantization errors, rounding and clipping, of all counted values.

    In units of the scale, the integral of (u - q(u))**2 from 0 to r is i/12 + (r - i)**3 / 3,
    where i = min(round(r), 127): whole cells add 1/12 each, and beyond the last the error grows
    freely.
    """
    scale = amax / LEVELS
    low, high = lower / scale, upper / scale
    width = high - low
    # A bin without width holds one value; half a unit of the sixth digit is as good as none.
    width = np.maximum(width, 1e-6 * np.maximum(high, 1e-30))
    error = (_cumulative_error(low + width) - _cumulative_error(low)) / width
    return float((error * counts).sum() * scale * scale)


def _cumulative_error(r: Floats) -> Floats:
    cell = np.minimum(np.rint(r), LEVELS)
    result: Floats = cell / 12 + (r - cell) ** 3 / 3
    return result


def _percentile(percentile: float, lower: Floats, upper: Floats, counts: Floats) -> float:
    """The value below which `percentile` percent of the absolute values lie.

    Zeros do not count: they quantize exactly whatever the range, and would shrink it to nothing
    where nearly all values are zero.
    """
    reached = np.cumsum(counts)
    wanted = reached[-1] * percentile / 100
    index = min(int(np.searchsorted(reached, wanted)), counts.size - 1)
    inside = 1 - (reached[index] - wanted) / counts[index]
    return float(lower[index] + (upper[index] - lower[index]) * min(max(inside, 0.0), 1.0))


def divergence(amax: float, lower: Floats, upper: Floats, counts: Floats) -> float:
    """The KL divergence from the clipped distribution to its quantized form (Migacz, GTC 2017).

    P is the distribution of the values with all that lies beyond the range moved into the last
    level; Q spreads each level's own share evenly over the level. Zeros quantize exactly and count
    in neither. The bins are narrower than the levels wherever the range ends, so a short range
    never wins for want of resolution.
    """
    scale = amax / LEVELS
    total = counts.sum()
    edges = (np.arange(LEVELS + 1) + 0.5) * scale
    cumulative = np.concatenate([[0.0], np.cumsum(counts)])
    knots = np.concatenate([lower[:1], upper])
    below = np.interp(edges, knots, cumulative, left=0.0)
    level = np.diff(np.concatenate([[0.0], below])) / total  # Share of values in levels 0 to 127.
    beyond = 1.0 - level.sum()
    width = np.full(level.size, scale)
    width[0] = scale / 2
    inside = upper <= edges[-1]
    share, span = counts[inside] / total, np.maximum((upper - lower)[inside], 1e-30)
    own = float((share * np.log(share / span)).sum())
    p, q = level.copy(), level / max(1.0 - beyond, 1e-12)
    p[-1] += beyond
    used = p > 0
    return (
        own
        + _xlogy(beyond, width[-1])
        - float((p[used] * np.log(np.maximum(q[used], 1e-9) / width[used])).sum())
    )


def _xlogy(share: float, width: float) -> float:
    """share * log(share / width), the entropy of what lies beyond the range in the last level."""
    return share * float(np.log(share / width)) if share > 0 else 0.0


def _least_error(amax: float, lower: Floats, upper: Floats, counts: Floats) -> float:
    """The range of the least squared error: 12 octaves on merged bins, then a finer search."""
    first = np.flatnonzero(np.diff(np.floor(np.log2(lower) * 64), prepend=-np.inf))
    last = np.append(first[1:], lower.size) - 1
    merged = lower[first], upper[last], np.add.reduceat(counts, first)
    best = float(min(_COARSE * amax, key=lambda candidate: squared_error(candidate, *merged)))
    fine = [candidate for candidate in _FINE * best if candidate <= amax]
    return float(min(fine, key=lambda candidate: squared_error(candidate, lower, upper, counts)))
