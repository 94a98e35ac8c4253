"""How far one tensor is from another that it should equal, accumulated over samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from edge_runtime.tensors import Array


@dataclass(frozen=True, slots=True)
class Agreement:
    """How close an output comes to its reference, over all samples.

    Attributes:
        max_error: The largest absolute difference.
        mean_error: The mean absolute difference.
        sqnr_db: Signal to quantization noise in dB, 10 log10(sum(ref**2) / sum((ref - x)**2));
            None where the outputs are equal, which is infinite, or the reference is all zeros.
        cosine: The cosine of the angle between all values of both; None if one is all zeros.
        top1: Share of rows (along the last axis) with the same largest entry; None for outputs
            whose last axis has fewer than two entries.
        equal: Whether every value is the same.
    """

    max_error: float
    mean_error: float
    sqnr_db: float | None
    cosine: float | None
    top1: float | None
    equal: bool

    def to_json(self) -> dict[str, float | bool | None]:
        """The figures as plain JSON values."""
        return asdict(self)


class AgreementMeter:
    """Adds up the differences of an output, sample by sample, in float64."""

    def __init__(self) -> None:
        self._count = 0
        self._max = self._total = self._noise = 0.0
        self._reference = self._other = self._product = 0.0
        self._rows = self._hits = 0
        self._equal = True

    def add(self, reference: Array, other: Array) -> None:
        """Adds one sample.

        Raises:
            ValueError: The shapes differ, or a value is not a number.
        """
        if reference.shape != other.shape:
            raise ValueError(f"shapes {list(reference.shape)} and {list(other.shape)} differ")
        a, b = reference.astype(np.float64), other.astype(np.float64)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise ValueError("there are NaN or infinite values")
        error = np.abs(a - b)
        self._equal = self._equal and bool((a == b).all())
        self._count += a.size
        self._max = max(self._max, float(error.max(initial=0.0)))
        self._total += float(error.sum())
        self._noise += float((error**2).sum())
        self._reference += float((a**2).sum())
        self._other += float((b**2).sum())
        self._product += float((a * b).sum())
        if a.ndim and a.shape[-1] > 1:
            hits = a.argmax(-1) == b.argmax(-1)
            self._rows += hits.size
            self._hits += int(hits.sum())

    def result(self) -> Agreement:
        """The figures over all samples so far."""
        norm = (self._reference * self._other) ** 0.5
        sqnr = None
        if self._noise and self._reference:
            sqnr = float(10 * np.log10(self._reference / self._noise))
        return Agreement(
            max_error=self._max,
            mean_error=self._total / max(self._count, 1),
            sqnr_db=sqnr,
            cosine=self._product / norm if norm else None,
            top1=self._hits / self._rows if self._rows else None,
            equal=self._equal,
        )
