"""Mean average precision of detections, by COCO's rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_runtime.accuracy.bootstrap import Comparison, Floats, Score
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.tensors import Array, Outputs

_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_MOST = 100  # Detections of a class in a picture that count, those with the highest scores.
_RESAMPLES = 200  # Each takes a whole evaluation, unlike those of a share of hits.


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes in a picture.

    Attributes:
        boxes: float64 [n, 4]: x1, y1, x2, y2.
        classes: int64 [n].
        scores: float64 [n]; ones for labels.
    """

    boxes: Floats
    classes: Array
    scores: Floats


class MeanAveragePrecision:
    """mAP at IoU 0.50 to 0.95 in steps of 0.05, of up to 100 detections a class and picture.

    Precision is interpolated at 101 recalls (Lin et al. 2014, arXiv 1405.0312, and the COCO
    evaluation's code); classes without a labelled box do not count. Crowds are not known.
    """

    def __init__(self, labels: Sequence[Any]) -> None:
        """Reads the labels.

        Args:
            labels: For each sample `{"boxes": [[x1, y1, x2, y2], ...], "classes": [...]}`.

        Raises:
            DataError: They are of another form, or there is no box at all.
        """
        self._truth = [_truth(label, index) for index, label in enumerate(labels)]
        if not any(len(each.classes) for each in self._truth):
            raise DataError("No sample has a labelled box; map needs some.")
        self._reference: Score = average_precision([], [])

    def set_reference(self, outputs: Iterable[Outputs]) -> None:
        """See `Metric`."""
        found = [_detections(named, index) for index, named in enumerate(outputs)]
        self._reference = average_precision(self._truth, found)
        if not self._reference(np.ones((1, len(self._truth)))).any():
            raise DataError(
                "The FP32 model itself finds none of the labelled boxes, so that INT8 has nothing "
                "to lose. Check that the labels are in the samples' order, and that their boxes "
                "and classes are in the model's own pixels and numbers."
            )

    def compare(self, outputs: Iterable[Outputs]) -> Comparison:
        """See `Metric`."""
        found = [_detections(named, index) for index, named in enumerate(outputs)]
        reached = average_precision(self._truth, found)
        return Comparison(self._reference, reached, len(self._truth), _RESAMPLES)


def average_precision(truth: Sequence[Boxes], found: Sequence[Boxes]) -> Score:
    """The mAP of detections, as a function of how often each picture counts."""
    labelled = sorted({int(c) for each in truth for c in each.classes})
    classes = [_of_class(truth, found, number) for number in labelled]

    def one(weights: Floats) -> float:
        scores = [ap for ap in (_precision(*of_class, weights) for of_class in classes) if ap >= 0]
        return float(np.mean(scores)) if scores else 0.0

    return lambda weights: np.array([one(each) for each in weights])


def _of_class(
    truth: Sequence[Boxes], found: Sequence[Boxes], number: int
) -> tuple[Array, Array, Floats]:
    """For a class: each detection's picture, whether it is right, and the boxes in each picture.

    Returns:
        int [d] and bool [thresholds, d], the detections from the highest score to the lowest, and
        float64 [pictures].
    """
    pictures, scores, right = [], [], []
    counts = np.zeros(len(truth))
    for index, (wanted, have) in enumerate(zip(truth, found, strict=True)):
        boxes = wanted.boxes[wanted.classes == number]
        counts[index] = len(boxes)
        mine = np.flatnonzero(have.classes == number)
        mine = mine[np.argsort(-have.scores[mine], kind="stable")][:_MOST]
        overlaps = _overlaps(have.boxes[mine], boxes)
        right.append(np.array([_match(overlaps, limit) for limit in _THRESHOLDS]))
        pictures.append(np.full(len(mine), index))
        scores.append(have.scores[mine])
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return np.concatenate(pictures)[order], np.concatenate(right, axis=1)[:, order], counts


def _match(overlaps: Floats, limit: float) -> Array:
    """Which detections find a box that none before them has taken; the best left is theirs."""
    free = np.ones(overlaps.shape[1], bool)
    right = np.zeros(len(overlaps), bool)
    for index, row in enumerate(overlaps):
        left = np.where(free, row, -1.0)
        if left.size and left.max() >= min(limit, 1 - 1e-10):
            free[left.argmax()] = False
            right[index] = True
    return right


def _precision(pictures: Array, right: Array, counts: Floats, weights: Floats) -> float:
    """The average precision of a class over the thresholds; -1 if nothing of it is labelled."""
    labelled = float(weights @ counts)
    if not labelled:
        return -1.0
    times = weights[pictures]
    hits = np.cumsum(right * times, axis=1)
    all_found = np.cumsum(times)
    precision = hits / np.maximum(all_found, np.spacing(1.0))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for recall, best in zip(hits / labelled, precision, strict=True):
        at = np.searchsorted(recall, _RECALLS, side="left")
        total += float(best[at[at < len(best)]].sum())
    return total / (len(_RECALLS) * len(_THRESHOLDS))


def _overlaps(a: Floats, b: Floats) -> Floats:
    """Intersection over union of each of `a`, [n, 4], with each of `b`, [m, 4]: [n, m]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    areas = [np.clip(each[:, 2:] - each[:, :2], 0, None).prod(-1) for each in (a, b)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.asarray(common / np.where(union > 0, union, 1.0), np.float64)


def _truth(label: Any, index: int) -> Boxes:
    if isinstance(label, dict) and label.keys() == {"boxes", "classes"}:
        try:
            boxes = np.array(label["boxes"], np.float64).reshape(-1, 4)
            classes = np.array(label["classes"]).reshape(-1)
        except (TypeError, ValueError):
            boxes, classes = np.zeros((0, 4)), np.ones(1)
        whole = classes.dtype.kind in "iu" or not len(classes)
        if len(boxes) == len(classes) and whole and np.isfinite(boxes).all():
            if (boxes[:, 2:] < boxes[:, :2]).any():
                raise DataError(f"Sample {index}: a labelled box ends before it begins.")
            return Boxes(boxes, classes.astype(np.int64), np.ones(len(boxes)))
    raise DataError(
        f"Sample {index}: its label is not of the form "
        '{"boxes": [[x1, y1, x2, y2], ...], "classes": [class, ...]}, with as many of both.'
    )


def _detections(named: Outputs, index: int) -> Boxes:
    """The detections in a model's outputs; those with no score above 0 fill up.

    Raises:
        ConfigError: The outputs are not detections.
        DataError: One is not a number.
    """
    parts = _parts(named)
    if parts is None:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in named.items())
        raise ConfigError(
            "map is of detections after the selection of boxes: one output [..., 6] of x1, y1, x2, "
            f"y2, score, class, or three of boxes, scores and classes; the model's are {shapes}. "
            "For others, name a function of your own: --metric python:MODULE:FUNCTION."
        )
    boxes, scores, classes = (array.astype(np.float64) for array in parts)
    if not all(np.isfinite(array).all() for array in (boxes, scores, classes)):
        raise DataError(f"Sample {index}: the detections hold NaN or infinity.")
    real = scores > 0
    return Boxes(boxes[real], np.rint(classes[real]).astype(np.int64), scores[real])


def _parts(named: Outputs) -> tuple[Array, Array, Array] | None:
    """Boxes [n, 4], scores [n] and classes [n]; None where outputs are something else."""
    arrays = list(named.values())
    if len(arrays) == 1 and arrays[0].ndim >= 2 and arrays[0].shape[-1] == 6:
        rows = arrays[0].reshape(-1, 6)
        return rows[:, :4], rows[:, 4], rows[:, 5]
    if len(arrays) != 3:
        return None
    boxes = [array for array in arrays if array.ndim >= 2 and array.shape[-1] == 4]
    if len(boxes) != 1:
        return None
    rest = [(name, array) for name, array in named.items() if array is not boxes[0]]
    # Names decide, or a type that only classes have; else scores come first.
    swapped = [
        any(word in name.lower() for word in ("class", "label")) or array.dtype.kind in "iu"
        for name, array in rest
    ]
    scores, classes = (array.reshape(-1) for _, array in (rest[::-1] if swapped[0] else rest))
    flat = boxes[0].reshape(-1, 4)
    return (flat, scores, classes) if len(flat) == len(scores) == len(classes) else None
