"""A histogram of absolute FP32 values whose size does not depend on the data.

The bins are cut by the numbers' own bits: the exponent and the upper 9 bits of the mantissa, that
is 512 bins between each power of two and the next, from 2**-31 up. A bin is at most 0.2 % of its
values wide, whatever their range, so no range need be known or grow, counting takes a shift and a
`bincount`, histograms of parts add up exactly, and the order of the samples does not matter.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_runtime.tensors import Array

_SHIFT = 14  # Mantissa bits dropped: 23 - 9.
_FIRST = (127 - 31) << 9  # Bits of 2**-31 after the shift.
_LAST = (255 << 9) - 1  # The largest finite number's bin; above it are infinities and NaN.
_CHUNK = 1 << 17  # Elements counted at a time, so that temporaries stay in the cache.

Floats = npt.NDArray[np.float64]


class Histogram:
    """Counts of the absolute values of a tensor.

    Attributes:
        amax: The largest absolute value, exact; 0.0 before any.
    """

    def __init__(self, *, skip_infinity: bool = False) -> None:
        """Starts empty.

        Args:
            skip_infinity: Leave infinities out, such as those of attention masks, which half
                precision holds as well as FP32; else they are refused.
        """
        self._skip_infinity = skip_infinity
        self.amax = 0.0
        self._counts: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def add(self, values: Array) -> None:
        """Counts an FP32 array of any shape, which stays as it is.

        Raises:
            ValueError: A value is infinite or NaN.
        """
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        if flat.size == 0:
            return
        top = max(float(flat.max()), -float(flat.min()))
        if self._skip_infinity and np.isinf(top):  # A NaN anywhere would make it a NaN.
            self.add(flat[np.isfinite(flat)])
            return
        if not np.isfinite(top):
            raise ValueError("a value is infinite or NaN")
        self.amax = max(self.amax, top)
        bits = flat.view(np.uint32)
        for start in range(0, bits.size, _CHUNK):
            chunk = (bits[start : start + _CHUNK] << 1) >> (_SHIFT + 1)  # Drops the sign as well.
            self._count(np.bincount(chunk.astype(np.intp)))

    def _count(self, counts: npt.NDArray[np.intp]) -> None:
        counts = counts[_FIRST:]  # What is below 2**-31, zeros above all, needs no bin.
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


def _edge(index: npt.NDArray[np.intp]) -> Floats:
    """The lower edges of bins, counted from the first."""
    bits = np.minimum(index + _FIRST, _LAST).astype(np.uint32) << _SHIFT
    return bits.view(np.float32).astype(np.float64)
