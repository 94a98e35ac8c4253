"""Metrics of a task: how much worse a graph does than FP32 on the same samples."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from tempfile import SpooledTemporaryFile
from typing import Any, Protocol

import numpy as np

from edge_runtime.accuracy.bootstrap import Comparison, Floats, ratio_of_sums
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.tensors import Array, Outputs

_OWN = "For another task, name a function of your own: --metric python:MODULE:FUNCTION."
_SHOWN = 3
_SPOOL = 256 << 20  # Bytes of FP32 outputs that are held in memory; what is more is on disk.


class Metric(Protocol):
    """Compares graphs with FP32. The samples come in the same order each time."""

    def set_reference(self, outputs: Iterable[Outputs]) -> None:
        """Takes FP32's outputs, one sample at a time, and keeps what it needs of them.

        Raises:
            ConfigError: The metric is not for such outputs.
            DataError: Outputs are not numbers, or do not fit the labels.
        """

    def compare(self, outputs: Iterable[Outputs]) -> Comparison:
        """Compares a graph's outputs, one sample at a time, with FP32's.

        Raises:
            DataError: Outputs are not numbers, or have other shapes than FP32's.
        """


class Top1:
    """The share of rows whose largest entry is the labelled class, or one of the accepted ones."""

    def __init__(self, labels: Sequence[Any]) -> None:
        """Reads the labels.

        Args:
            labels: For each sample a class or a list of accepted ones; where a sample has several
                rows, a list with these for each row.
        """
        self._labels = labels
        self._hits: list[tuple[int, int]] = []

    def set_reference(self, outputs: Iterable[Outputs]) -> None:
        """See `Metric`."""
        classes: set[int] = set()
        self._hits = list(self._count(outputs, classes))
        if not any(hits for hits, _ in self._hits):
            raise DataError(nothing_right(len(self._hits)))

    def compare(self, outputs: Iterable[Outputs]) -> Comparison:
        """See `Metric`."""
        found = list(self._count(outputs, set()))
        rows = np.array([[a, b, n] for (a, n), (b, _) in zip(self._hits, found, strict=True)], "f8")
        return Comparison(ratio_of_sums(rows, 0, 2), ratio_of_sums(rows, 1, 2), len(rows))

    def _count(self, outputs: Iterable[Outputs], classes: set[int]) -> Iterator[tuple[int, int]]:
        for index, named in enumerate(outputs):
            scores = _class_scores(named)
            _check_numbers(scores, index)
            if not classes:
                classes.update(range(scores.shape[1]))
                self._check_classes(len(classes))
            accepted = self._accepted(index, len(scores))
            best = scores.argmax(-1).tolist()
            yield sum(b in a for b, a in zip(best, accepted, strict=True)), len(best)

    def _accepted(self, index: int, rows: int) -> list[set[int]]:
        label = self._labels[index]
        each = [label] if rows == 1 else label
        if not isinstance(each, list) or len(each) != rows:
            raise DataError(
                f"Sample {index}: the output has {rows} rows, so that the labels must be a list "
                f"with one for each; there is {label!r}."
            )
        return [set(item) if isinstance(item, list) else {item} for item in each]

    def _check_classes(self, count: int) -> None:
        """Refuses labels that cannot be met."""
        wrong = [
            f"{label!r} of sample {index}"
            for index, label in enumerate(self._labels)
            if not all(type(c) is int and 0 <= c < count for c in _flat(label))
            or not list(_flat(label))
        ]
        if wrong:
            more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            raise DataError(
                f"No output class matches the label {', '.join(wrong[:_SHOWN])}{more}: the output "
                f"has {count} classes, 0 to {count - 1}."
            )


class Agreement:
    """The share of rows (along the last axis) whose largest entry is where FP32's is.

    Of several outputs, the one with the lowest share counts.
    """

    def __init__(self) -> None:
        self._best: list[dict[str, Array]] = []

    def set_reference(self, outputs: Iterable[Outputs]) -> None:
        """See `Metric`."""
        self._best = [_best(named, index) for index, named in enumerate(outputs)]

    def compare(self, outputs: Iterable[Outputs]) -> Comparison:
        """See `Metric`."""
        rows = []
        for index, (wanted, named) in enumerate(zip(self._best, outputs, strict=True)):
            found = _best(named, index)
            row: list[float] = []
            for name, reference in wanted.items():
                if name not in found or found[name].shape != reference.shape:
                    raise DataError(_other_shape(index, name, "map or a function of your own"))
                row += [float((found[name] == reference).sum()), reference.size]
            rows.append(row)
        return Comparison(_ones, _worst(np.array(rows, "f8")), len(rows))


class Sqnr:
    """The share of the outputs' power that is not noise; of several outputs, the noisiest counts.

    10 ** (-SQNR / 10) is the noise, which is the drop.
    """

    def __init__(self) -> None:
        self._spool: Any = SpooledTemporaryFile(_SPOOL)  # noqa: SIM115  # Closed below.
        weakref.finalize(self, self._spool.close)
        self._names: list[str] = []

    def set_reference(self, outputs: Iterable[Outputs]) -> None:
        """See `Metric`."""
        for index, named in enumerate(outputs):
            floats = _floats(named)
            self._names = self._names or list(floats)
            if not floats:
                raise ConfigError(f"sqnr is of real outputs, but the model has none. {_OWN}")
            for array in floats.values():
                _check_finite(array, index)
                np.save(self._spool, array, allow_pickle=False)

    def compare(self, outputs: Iterable[Outputs]) -> Comparison:
        """See `Metric`."""
        self._spool.seek(0)
        rows = []
        for index, named in enumerate(outputs):
            row = []
            for name in self._names:
                reference = np.load(self._spool, allow_pickle=False).astype(np.float64)
                found = named[name].astype(np.float64)
                if found.shape != reference.shape:
                    raise DataError(_other_shape(index, name, "map or a function of your own"))
                _check_finite(found, index)
                power = float((reference**2).sum())
                row += [power - float(((reference - found) ** 2).sum()), power]
            rows.append(row)
        return Comparison(_ones, _worst(np.array(rows, "f8")), len(rows))


def nothing_right(samples: int) -> str:
    """Says that FP32 scores 0 on labels: nothing could be lost, so that every budget is kept."""
    which = "the only sample" if samples == 1 else f"any of {samples} samples"
    return (
        f"The FP32 model itself is not right on {which}, so that INT8 has nothing to lose. Check "
        "that the labels are in the samples' order, number classes from 0 as the model does, and "
        "that inputs are prepared as in training."
    )


def _worst(rows: Floats) -> Callable[[Floats], Floats]:
    """The lowest of the ratios of columns 0 and 1, 2 and 3, and so on."""
    ratios = [ratio_of_sums(rows, at, at + 1) for at in range(0, rows.shape[1], 2)]

    def score(weights: Floats) -> Floats:
        lowest: Floats = np.min([ratio(weights) for ratio in ratios], axis=0)
        return lowest

    return score


def _ones(weights: Floats) -> Floats:
    """What a graph scores against itself."""
    return np.ones(len(weights))


def _class_scores(named: Outputs) -> Array:
    """The one output that is scores of classes, [rows, classes].

    Raises:
        ConfigError: There is none, or more than one.
    """
    scores = []
    for array in _floats(named).values():
        shape = array.shape
        if len(shape) > 1 and shape[1] > 1 and all(size == 1 for size in shape[2:]):
            scores.append(array.reshape(shape[:2]))
    if len(scores) != 1:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in named.items())
        raise ConfigError(
            f"top1 is of one output [rows, classes], but the model's outputs are {shapes}. {_OWN}"
        )
    return scores[0]


def _best(named: Outputs, index: int) -> dict[str, Array]:
    """Where each output's rows are largest."""
    best = {}
    for name, array in _floats(named).items():
        if array.ndim and array.shape[-1] > 1:
            _check_numbers(array, index)
            best[name] = array.argmax(-1).astype(np.int32)
    if not best:
        raise ConfigError(
            "agreement is of outputs whose last axis has several entries, but the model has none: "
            f"use sqnr. {_OWN}"
        )
    return best


def _floats(named: Outputs) -> Outputs:
    return {name: array for name, array in named.items() if array.dtype.kind == "f"}


def _flat(label: Any) -> Iterator[Any]:
    if isinstance(label, list):
        for item in label:
            yield from _flat(item)
    else:
        yield label


def _check_numbers(array: Array, index: int) -> None:
    if np.isnan(array).any():
        raise DataError(_not_finite(index, "NaN"))


def _check_finite(array: Array, index: int) -> None:
    if not np.isfinite(array).all():
        raise DataError(_not_finite(index, "NaN or infinity"))


def _not_finite(index: int, what: str) -> str:
    return (
        f"Sample {index}: the outputs hold {what}. If FP32's do not, leave the layers that make "
        "them out (--exclude) or choose --high-precision fp32."
    )


def _other_shape(index: int, name: str, instead: str) -> str:
    return (
        f"Sample {index}: output {name!r} has another shape than FP32's, as after the selection of "
        f"boxes, so that they cannot be compared entry by entry: use {instead}."
    )
