"""What accuracy is judged on: samples that calibration has not seen, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edge_runtime.config import digest
from edge_runtime.data import Source, holds_pictures, open_samples
from edge_runtime.data.labels import LabelSource, open_labels
from edge_runtime.data.samples import CheckedSamples
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.tensors import TensorSpec
from edge_runtime.vision.preprocess import Preprocessing

_EVERY = 4
_FEWEST = 8


@dataclass(frozen=True)
class Evaluation:
    """What accuracy is to be judged on.

    Attributes:
        samples: The samples, in the forms that calibration takes; None sets every fourth sample of
            the calibration aside.
        labels: Their labels: a file, a list in the samples' order or labels by file name; None
            takes the array `labels` of the samples' own .npz, if there is one.
        limit: The most samples to take, evenly spaced; None takes all.
    """

    samples: Source | None = None
    labels: LabelSource | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Held:
    """Samples that are held out, opened.

    Attributes:
        samples: The samples; calibration has not seen them.
        labels: The label of each; None without labels.
        description: Where they are from, in words.
    """

    samples: CheckedSamples
    labels: list[Any] | None
    description: str

    @cached_property
    def digest(self) -> str:
        """Digest of the samples, which all are read for it, and of their labels."""
        return digest({"samples": self.samples.digest(), "labels": self.labels})


def open_held(
    evaluation: Evaluation,
    inputs: tuple[TensorSpec, ...],
    *,
    calibration: CheckedSamples | None,
    preprocessing: Preprocessing | None = None,
    labelled: bool = True,
) -> tuple[Held, CheckedSamples | None]:
    """Opens what accuracy is judged on.

    Args:
        evaluation: What to judge on.
        inputs: The model's inputs.
        calibration: The calibration's samples; None if there are none.
        preprocessing: How a picture becomes an input.
        labelled: Whether the metric takes labels; for others none are read, or may be given.

    Returns:
        What to judge on, and what is left to calibrate on.

    Raises:
        ConfigError: Labels or a limit are given where they do nothing.
        DataError: There is nothing to set aside, too little of it, or it cannot be read.
    """
    if evaluation.labels is not None and not labelled:
        raise ConfigError(
            "Labels were given, but the metric compares with FP32's outputs, and has no use for "
            "them: leave them out, or choose top1 or map (--metric)."
        )
    if evaluation.samples is not None:
        pictures = preprocessing if holds_pictures(evaluation.samples) else None
        samples = open_samples(
            evaluation.samples, inputs, preprocessing=pictures, limit=evaluation.limit
        )
        labels = open_labels(evaluation.labels, samples) if labelled else None
        return Held(samples, labels, f"{samples.description}, given for this"), calibration
    if evaluation.limit is not None:
        raise ConfigError("limit is of samples that are given to judge on (--eval-data).")
    if calibration is None:
        raise DataError(
            "There are no samples to judge the accuracy on: give them (--eval-data), since a "
            "calibration that was made earlier has none to set aside."
        )
    count = len(calibration)
    if count < _FEWEST:
        raise DataError(
            f"{calibration.description}: {count} are too few to set some aside to judge the "
            f"accuracy on, which takes at least {_FEWEST}. Give more, or others (--eval-data)."
        )
    aside = range(_EVERY - 1, count, _EVERY)
    rest = [index for index in range(count) if index % _EVERY != _EVERY - 1]
    samples = calibration.take(aside)
    labels = open_labels(evaluation.labels, samples) if labelled else None
    held = Held(samples, labels, f"every fourth calibration sample: {samples.description}")
    return held, calibration.take(rest)
