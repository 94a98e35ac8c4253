"""mAP against cases worked out by hand from COCO's rules."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.accuracy.detection import Boxes, MeanAveragePrecision, average_precision
from edge_runtime.errors import ConfigError, DataError


def boxes(*rows: tuple[float, ...]) -> Boxes:
    """Rows of x1, y1, x2, y2, class and, if they are detections, score."""
    table = np.array([(*row, 1.0)[:6] for row in rows], float).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4].astype(int), table[:, 5])


def score(truth: list[Boxes], found: list[Boxes]) -> float:
    return float(average_precision(truth, found)(np.ones((1, len(truth))))[0])


SQUARE = (0, 0, 10, 10)


def test_what_is_found_exactly_scores_one() -> None:
    assert score([boxes((*SQUARE, 3))], [boxes((*SQUARE, 3, 0.2))]) == pytest.approx(1)


def test_another_class_is_another_thing() -> None:
    assert score([boxes((*SQUARE, 3))], [boxes((*SQUARE, 4, 0.9))]) == 0


def test_an_overlap_counts_at_the_thresholds_that_it_reaches() -> None:
    # Half of the box's width and 3/4: IoU 0.75 reaches 0.50, 0.55, ..., 0.75: 6 of 10.
    assert score([boxes((0, 0, 100, 10, 0))], [boxes((0, 0, 75, 10, 0, 1))]) == pytest.approx(0.6)
    assert score([boxes((0, 0, 100, 10, 0))], [boxes((0, 0, 49, 10, 0, 1))]) == 0


def test_a_miss_leaves_the_recalls_above_it_at_zero() -> None:
    truth = [boxes((*SQUARE, 0), (50, 50, 60, 60, 0))]
    # Recall 0.5 at precision 1: recalls 0.00 to 0.50 are 51 of 101.
    assert score(truth, [boxes((*SQUARE, 0, 0.9))]) == pytest.approx(51 / 101)


def test_a_false_alarm_costs_precision_only_from_there_on() -> None:
    truth = [boxes((*SQUARE, 0), (50, 50, 60, 60, 0))]
    found = [boxes((*SQUARE, 0, 0.9), (80, 80, 90, 90, 0, 0.8), (50, 50, 60, 60, 0, 0.7))]
    # Precision 1 up to recall 0.5, then 2/3 up to 1.
    assert score(truth, found) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_box_is_found_once() -> None:
    found = [boxes((*SQUARE, 0, 0.9), (*SQUARE, 0, 0.8))]
    assert score([boxes((*SQUARE, 0))], found) == pytest.approx(1)
    truth = [boxes((*SQUARE, 0), (50, 50, 60, 60, 0))]
    found = [boxes((*SQUARE, 0, 0.9), (*SQUARE, 0, 0.8), (50, 50, 60, 60, 0, 0.7))]
    assert score(truth, found) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_classes_count_alike_and_only_if_labelled() -> None:
    truth = [boxes((*SQUARE, 0), (50, 50, 60, 60, 1))]
    found = [boxes((*SQUARE, 0, 0.9), (20, 20, 30, 30, 2, 0.9))]
    assert score(truth, found) == pytest.approx(0.5)


def test_the_order_is_that_of_scores_over_all_pictures() -> None:
    truth = [boxes((*SQUARE, 0)), boxes((*SQUARE, 0))]
    found = [boxes((*SQUARE, 0, 0.6)), boxes((70, 70, 80, 80, 0, 0.9), (*SQUARE, 0, 0.5))]
    # The false alarm comes first: precision 0, 1/2, 2/3, whose envelope is 2/3 throughout.
    assert score(truth, found) == pytest.approx(2 / 3)


def test_rows_without_a_score_only_fill_up() -> None:
    metric = MeanAveragePrecision([{"boxes": [list(SQUARE)], "classes": [1]}])
    metric.set_reference([{"detections": np.array([[*SQUARE, 0.9, 1]], "f4")}])
    filled = np.array([[*SQUARE, 0.0, 1]], "f4")
    assert metric.compare([{"detections": filled}]).drop().drop == pytest.approx(1)


def test_labels_of_which_fp32_finds_nothing_are_refused() -> None:
    metric = MeanAveragePrecision([{"boxes": [list(SQUARE)], "classes": [1]}])
    with pytest.raises(DataError, match="FP32 model itself finds none of the labelled boxes"):
        metric.set_reference([{"detections": np.array([[*SQUARE, 0.9, 2]], "f4")}])


def test_no_more_than_a_hundred_detections_of_a_class_count() -> None:
    noise = [(200 + i, 0, 201 + i, 1, 0, 0.9) for i in range(100)]
    assert score([boxes((*SQUARE, 0))], [boxes(*noise, (*SQUARE, 0, 0.1))]) == 0
    assert score([boxes((*SQUARE, 0))], [boxes(*noise[1:], (*SQUARE, 0, 0.1))]) > 0


def test_a_picture_that_is_drawn_twice_counts_twice() -> None:
    truth = [boxes((*SQUARE, 0)), boxes((*SQUARE, 0))]
    found = [boxes((*SQUARE, 0, 0.9)), boxes()]
    scores = average_precision(truth, found)(np.array([[1.0, 1], [2, 0], [0, 2]]))
    assert scores == pytest.approx([51 / 101, 1, 0])


LABELS = [{"boxes": [[0, 0, 10, 10], [50, 50, 60, 60]], "classes": [1, 2]}]
ROWS = np.array([[0, 0, 10, 10, 0.9, 1], [50, 50, 60, 60, 0.8, 2], [0, 0, 0, 0, 0, 0]], "f4")


@pytest.mark.parametrize(
    "outputs",
    [
        {"detections": ROWS[None]},
        {"b": ROWS[None, :, :4], "s": ROWS[None, :, 4], "c": ROWS[None, :, 5]},
        {"labels": ROWS[None, :, 5], "boxes": ROWS[None, :, :4], "scores": ROWS[None, :, 4]},
        {"p": ROWS[:, 5].astype("i8"), "q": ROWS[:, 4], "r": ROWS[:, :4]},
    ],
)
def test_the_forms_that_detections_come_in(outputs: dict[str, np.ndarray]) -> None:
    metric = MeanAveragePrecision(LABELS * 2)
    metric.set_reference([outputs] * 2)
    drop = metric.compare([outputs] * 2).drop()
    assert (drop.reference, drop.drop) == (pytest.approx(1), 0)
    assert drop.interval == (0, 0)


def test_what_int8_misses_is_lost() -> None:
    metric = MeanAveragePrecision(LABELS)
    metric.set_reference([{"detections": ROWS}])
    assert metric.compare([{"detections": ROWS[:1]}]).drop().drop == pytest.approx(0.5)


@pytest.mark.parametrize(
    "outputs",
    [
        {"raw": np.zeros((1, 84, 8400), "f4")},
        {"a": ROWS[:, :4], "b": ROWS[:, 4]},
        {"a": ROWS[:, :4], "b": ROWS[:, 4], "c": ROWS[:1, 5]},
        {"a": ROWS[:, :4], "b": ROWS[:, :4], "c": ROWS[:, 5]},
    ],
)
def test_other_outputs_are_referred_to_a_function(outputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(ConfigError, match="python:MODULE:FUNCTION"):
        MeanAveragePrecision(LABELS).set_reference([outputs])


@pytest.mark.parametrize(
    "label",
    [
        3,
        {"boxes": [[0, 0, 1, 1]]},
        {"boxes": [[0, 0, 1, 1]], "classes": [1, 2]},
        {"boxes": [[0, 0, 1]], "classes": [1]},
        {"boxes": [[0, 0, 1, 1]], "classes": [0.5]},
        {"boxes": [[0, 0, 1, "x"]], "classes": [1]},
        {"boxes": [[5, 0, 1, 1]], "classes": [1]},
    ],
)
def test_labels_of_another_form_are_refused(label: object) -> None:
    with pytest.raises(DataError, match="Sample 1"):
        MeanAveragePrecision([LABELS[0], label])


def test_some_box_must_be_labelled() -> None:
    with pytest.raises(DataError, match="No sample"):
        MeanAveragePrecision([{"boxes": [], "classes": []}])


def test_nan_is_refused() -> None:
    with pytest.raises(DataError, match=r"Sample 0.*NaN"):
        MeanAveragePrecision(LABELS).set_reference([{"detections": ROWS * np.nan}])
