"""Measures how much of a tensor an error is: power over power, added up over samples in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_runtime.tensors import Array

_PART = 1 << 15  # Values that are squared at a time.


@dataclass
class Noise:
    """The error of a tensor beside what it should be, over all samples so far.

    Attributes:
        error: The sum of the squared errors.
        signal: The sum of the squares of what it should be.
    """

    error: float = 0.0
    signal: float = 0.0

    def add(self, reference: Array, other: Array) -> float:
        """Adds a sample and returns its error."""
        added = error(reference, other)
        self.error += added
        self.signal += signal(reference)
        return added

    @property
    def share(self) -> float:
        """error / signal: 0 if there is no error, infinite if there is nothing else."""
        if not self.error:
            return 0.0
        return self.error / self.signal if self.signal else math.inf


def signal(reference: Array) -> float:
    """The power of a tensor: its sum of squares, or its size if it is not of floats."""
    if not is_float(reference):
        return float(reference.size)
    return _power(reference)


def error(reference: Array, other: Array) -> float:
    """The power of an error: the sum of its squares, or how many entries differ if not of floats.

    A tensor of another shape, as detectors make, has nothing in common with the reference: its
    error is all of the larger one. NaN and infinity where the reference has none are an infinite
    error.
    """
    if reference.shape != other.shape:
        return max(signal(reference), signal(other))
    if not is_float(reference):
        return float((reference != other).sum())
    with np.errstate(invalid="ignore", over="ignore"):
        power = _power(np.subtract(other, reference))
    return power if math.isfinite(power) else math.inf


def is_float(array: Array) -> bool:
    """Whether errors of a tensor have a size; of integers, booleans and texts, only a number."""
    return array.dtype.kind == "f"


def _power(values: Array) -> float:
    """The sum of squares in float64, piece by piece: a copy in float64 need not fit the cache."""
    flat = values.reshape(-1)
    parts = (flat[at : at + _PART].astype(np.float64) for at in range(0, flat.size, _PART))
    return math.fsum(float(np.einsum("i,i", part, part)) for part in parts)
