"""A histogram of absolute FP32 values whose size does not depend on the data.

The bins are cut by the numbers' own bits: the exponent and the upper 9 bits of the mantissa, that
is 512 bins between each power of two and the next, from 2**-31 up. A bin is at most 0.2 % of its
values wide, whatever their range, so no range need be known or grow, counting takes a shift and a
`bincount`, histograms of parts add up exactly, and the order of the samples does not matter.

Counting every value of every sample takes longer than the network itself. A histogram may be told
how many of an array to count: it then takes values evenly spread over the array, each for several,
and only of the largest, which decide where a range may end, all.
"""

from __future__ import annotations

from math import gcd

import numpy as np
import numpy.typing as npt

from edge_runtime.tensors import Array

_SHIFT = 14  # Mantissa bits dropped: 23 - 9.
_FIRST = (127 - 31) << 9  # Bits of 2**-31 after the shift.
_LAST = (255 << 9) - 1  # The largest finite number's bin; above it are infinities and NaN.
_OCTAVE = 1 << 9
_CHUNK = 1 << 17  # Elements counted at a time, so that temporaries stay in the cache.

Floats = npt.NDArray[np.float64]
_Values = npt.NDArray[np.float32]


class Histogram:
    """Counts of the absolute values of a tensor.

    Attributes:
        amax: The largest absolute value, exact; 0.0 before any.
        low: The smallest value, exact; infinity before any.
        high: The largest value, exact; minus infinity before any.
        size: How many values there were, zeros included.
    """

    def __init__(self, *, most: int | None = None) -> None:
        """Starts empty.

        Args:
            most: About how many values of an array to count; None counts all. Of a larger array
                every k-th value counts k times, but those above half of its largest all once,
                unless they are more than `most` as well.
        """
        self._most = most
        self.amax = 0.0
        self.low, self.high = np.inf, -np.inf
        self.size = 0
        self._counts: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def add(self, values: Array) -> None:
        """Counts an FP32 array of any shape, which stays as it is.

        Raises:
            ValueError: A value is infinite or NaN.
        """
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        if flat.size == 0:
            return
        low, high = float(flat.min()), float(flat.max())
        top = max(high, -low)
        if not np.isfinite(top):
            raise ValueError("a value is infinite or NaN")
        self.amax = max(self.amax, top)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.size += flat.size
        if self._most is None or flat.size <= self._most:
            for start in range(0, flat.size, _CHUNK):
                self._count(_counts(flat[start : start + _CHUNK]))
        elif top > 0.0:
            self._add_some(flat, low, top, self._most)

    def _add_some(self, flat: _Values, low: float, top: float, most: int) -> None:
        step = _step(flat.size, most)
        bits = int(np.float32(top).view(np.uint32))
        # Where to start is taken from the data, so that samples differ and their order does not
        # matter.
        counts = _counts(flat[bits % step :: step]) * step
        half = max((bits >> _SHIFT) - _OCTAVE - _FIRST, 0)
        edge = np.float32(_edge(np.array([half]))[0])
        is_upper = flat >= edge
        if low <= -edge:
            is_upper |= flat <= -edge
        if np.count_nonzero(is_upper) <= most:
            counts[half:] = 0
            self._count(_counts(flat[np.flatnonzero(is_upper)]))
        self._count(counts)

    def _count(self, counts: npt.NDArray[np.intp]) -> None:
        if counts.size > self._counts.size:
            self._counts = np.concatenate(
                [self._counts, np.zeros(counts.size - self._counts.size, dtype=np.int64)]
            )
        self._counts[: counts.size] += counts

    def bins(self) -> tuple[Floats, Floats, Floats]:
        """The bins that are not empty, in ascending order.

        Returns:
            Lower edges, upper edges and counts, each float64 [bins]. The last upper edge is `amax`.
        """
        index = np.flatnonzero(self._counts)
        lower = _edge(index)
        upper = np.minimum(_edge(index + 1), self.amax)
        return lower, np.maximum(upper, lower), self._counts[index].astype(np.float64)


def _counts(values: _Values) -> npt.NDArray[np.intp]:
    """How many absolute values are in each bin."""
    bits = (values.view(np.uint32) << 1) >> (_SHIFT + 1)
    # What is below 2**-31, zeros above all, needs no bin.
    return np.bincount(np.maximum(bits, _FIRST - 1).astype(np.intp) - (_FIRST - 1))[1:]


def _step(size: int, most: int) -> int:
    """The least step that takes at most about `most` of `size`, even along every axis.

    A step that shares a factor with the size of an axis, such as the channels', would pass over
    some of its places. One that has none in common with their product meets all alike.
    """
    step = -(-size // most)
    while gcd(step, size) > 1:
        step += 1
    return step


def _edge(index: npt.NDArray[np.intp]) -> Floats:
    """The lower edges of bins, counted from the first."""
    bits = np.minimum(index + _FIRST, _LAST).astype(np.uint32) << _SHIFT
    return bits.view(np.float32).astype(np.float64)
