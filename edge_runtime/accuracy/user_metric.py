"""A metric that is a function of the user's: `python:MODULE:FUNCTION`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.accuracy.bootstrap import Comparison, Floats, Score, ratio_of_sums
from edge_runtime.config import digest
from edge_runtime.errors import DataError
from edge_runtime.tensors import Outputs
from edge_runtime.user_function import load_function

Function = Callable[[list[Outputs], "list[Any] | None"], Any]


class UserMetric:
    """What a function says of the outputs of all samples; larger is better.

    It is called as `function(outputs, labels)`: `outputs` is a list with `{name: array}` for each
    sample, `labels` a list with the label of each, or None. It returns an array with a score for
    each sample, whose mean is the metric, or one number; only of the former there is an interval,
    and only that can be judged with `confident`.
    """

    def __init__(self, metric: str, labels: list[Any] | None) -> None:
        """Imports the function.

        Args:
            metric: `python:MODULE:FUNCTION`; the module is looked for in the working folder first.
            labels: The label of each sample.

        Raises:
            ConfigError: There is no such function, or its module cannot be imported.
        """
        self._name = metric.removeprefix("python:")
        self._function = load_function(metric)
        self._labels = labels
        self._reference: Floats = np.zeros(0)

    def set_reference(self, outputs: Iterable[Outputs]) -> None:
        """See `Metric`."""
        self._reference, self._count = self._scores(list(outputs))

    def compare(self, outputs: Iterable[Outputs]) -> Comparison:
        """See `Metric`."""
        found, count = self._scores(list(outputs))
        if found.shape != self._reference.shape:
            raise DataError(
                f"{self._name} returned {len(self._reference)} scores for FP32 and {len(found)} "
                "for INT8; it must return as many for both."
            )
        if len(found) == 1 < count:
            return Comparison(_same(self._reference[0]), _same(found[0]), count, resamples=0)
        return Comparison(_mean(self._reference), _mean(found), count)

    def _scores(self, outputs: list[Outputs]) -> tuple[Floats, int]:
        """The scores, one or one for each sample, and the number of samples."""
        try:
            returned = self._function(outputs, self._labels)
        except (Exception, SystemExit) as error:  # The user's code: whatever it raises, it failed.
            raise DataError(
                f"{self._name} failed with {type(error).__name__}: {error}. It is called as "
                "function(outputs, labels)."
            ) from error
        try:
            scores = np.asarray(returned, dtype=np.float64)
        except (TypeError, ValueError):
            scores = np.full(1, np.nan)
        if scores.ndim > 1 or scores.size not in (1, len(outputs)) or not np.isfinite(scores).all():
            raise DataError(
                f"{self._name} returned {_shown(returned)}; it must return a finite number, or an "
                f"array with one for each of the {len(outputs)} samples."
            )
        return scores.reshape(-1), len(outputs)


def source_digest(metric: str) -> str:
    """Digest of the source of the function's module: another source may judge otherwise."""
    function = load_function(metric)
    module = sys.modules[metric.split(":")[1]]
    path = inspect.getsourcefile(module) if inspect.ismodule(module) else None
    return digest(Path(path).read_bytes() if path else repr(function))


def _same(value: Any) -> Score:
    return lambda weights: np.full(len(weights), float(value))


def _mean(scores: Floats) -> Score:
    return ratio_of_sums(np.stack([scores, np.ones(len(scores))], axis=1), 0, 1)


def _shown(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array {list(value.shape)} of {value.dtype.name}"
    text = repr(value)
    return text if len(text) < 60 else f"a {type(value).__name__}"
