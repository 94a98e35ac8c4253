"""Metrics on outputs that are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.accuracy.bootstrap import Drop
from edge_runtime.accuracy.task_metrics import Agreement, Metric, Sqnr, Top1
from edge_runtime.errors import ConfigError, DataError


def scores(*best: int, classes: int = 4) -> list[dict[str, np.ndarray]]:
    """A sample for each, whose largest entry is that."""
    return [{"y": np.eye(classes, dtype=np.float32)[[index]]} for index in best]


def drop(metric: Metric, reference: object, found: object) -> Drop:
    metric.set_reference(iter(reference))
    return metric.compare(iter(found)).drop()


def test_top1_counts_labelled_rows() -> None:
    found = drop(Top1([0, 1, [2, 3], 3]), scores(0, 1, 3, 0), scores(0, 2, 2, 0))
    assert (found.reference, found.reached) == (0.75, 0.5)


def test_top1_of_several_rows_a_sample_takes_a_label_for_each() -> None:
    both = [{"y": np.eye(4, dtype=np.float32)[[0, 1]].reshape(2, 4, 1, 1)}]
    found = drop(Top1([[0, [2, 3]]]), both, both)
    assert found.reference == 0.5
    with pytest.raises(DataError, match=r"2 rows.*'?3'?"):
        drop(Top1([3]), both, both)


def test_top1_can_go_up() -> None:
    found = drop(Top1([1, 0]), scores(0, 0), scores(1, 0))
    assert found.drop == -0.5


def test_labels_that_fp32_never_meets_are_refused() -> None:
    with pytest.raises(DataError, match="FP32 model itself is not right on any of 3 samples"):
        Top1([1, 2, [2, 3]]).set_reference(iter(scores(0, 0, 0)))


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ([0, 4, -1], "4 of sample 1, -1 of sample 2: the output has 4 classes, 0 to 3"),
        ([0, 1, "cat"], "'cat' of sample 2"),
        ([0, 1, True], "True of sample 2"),
        ([[], 1, [0, 9]], r"\[\] of sample 0, \[0, 9\] of sample 2"),
        ([9] * 3, "9 of sample 0, 9 of sample 1, 9 of sample 2:"),
        ([9] * 5, "and 2 more"),
    ],
)
def test_labels_that_no_class_matches_are_refused(labels: list[object], named: str) -> None:
    with pytest.raises(DataError, match=named):
        Top1(labels).set_reference(iter(scores(*[0] * len(labels))))


@pytest.mark.parametrize(
    "outputs",
    [
        {"y": np.zeros((1, 4, 8, 8), "f4")},
        {"y": np.zeros((1, 4), "i8")},
        {"y": np.zeros((1, 4), "f4"), "z": np.zeros((1, 2), "f4")},
        {"y": np.zeros(4, "f4")},
    ],
)
def test_top1_is_only_of_scores_of_classes(outputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(ConfigError, match=r"outputs are y \[.*python:MODULE:FUNCTION"):
        Top1([0]).set_reference(iter([outputs]))


def test_agreement_is_with_fp32_row_by_row() -> None:
    reference = [{"y": np.eye(4, dtype="f4")[None]}, {"y": np.eye(4, dtype="f4")[None]}]
    found = [{"y": np.eye(4, dtype="f4")[None, [0, 1, 2, 0]]}, reference[0]]
    assert drop(Agreement(), reference, found).drop == pytest.approx(1 / 8)


def test_the_output_that_agrees_least_counts() -> None:
    def both(y: int, z: int) -> dict[str, np.ndarray]:
        return {"y": np.eye(4, dtype="f4")[[y]], "z": np.eye(4, dtype="f4")[[z]], "n": np.ones(1)}

    found = drop(Agreement(), [both(0, 0), both(1, 1)], [both(0, 0), both(1, 2)])
    assert (found.reference, found.reached) == (1.0, 0.5)


def test_sqnr_is_the_noise_of_the_worst_output() -> None:
    reference = [{"y": np.full(4, 2.0, "f4"), "z": np.full(2, 1.0, "f4")}] * 2
    found = [{"y": np.full(4, 2.1, "f4"), "z": np.full(2, 1.1, "f4")}, reference[0]]
    # y: 4 * 0.1**2 / 32; z: 2 * 0.1**2 / 4
    assert drop(Sqnr(), reference, found).drop == pytest.approx(0.005, rel=1e-4)
    metric = Sqnr()
    metric.set_reference(iter(reference))
    for _ in range(2):  # What is kept of FP32 serves every candidate.
        assert metric.compare(iter(found)).drop().drop == pytest.approx(0.005, rel=1e-4)


def test_an_output_that_is_always_zero_loses_nothing() -> None:
    zeros = [{"y": np.zeros(4, "f4")}]
    assert drop(Sqnr(), zeros, zeros).drop == 0


@pytest.mark.parametrize("metric", [Top1([0, 1]), Agreement(), Sqnr()])
def test_nan_is_refused_in_either(metric: Metric) -> None:
    bad = scores(0, 1)
    bad[1] = {"y": np.full((1, 4), np.nan, "f4")}
    with pytest.raises(DataError, match=r"Sample 1.*NaN"):
        drop(metric, bad, scores(0, 1))
    with pytest.raises(DataError, match=r"Sample 1.*NaN"):
        drop(metric, scores(0, 1), bad)


@pytest.mark.parametrize("metric", [Agreement(), Sqnr()])
def test_outputs_of_other_shapes_are_refused(metric: Metric) -> None:
    with pytest.raises(DataError, match=r"Sample 0: output 'y'.*map"):
        drop(metric, scores(0), [{"y": np.zeros((2, 4), "f4")}])


def test_metrics_of_numbers_refuse_models_without_any() -> None:
    whole = [{"y": np.zeros(4, "i8")}]
    for metric in (Agreement(), Sqnr()):
        with pytest.raises(ConfigError, match="python:MODULE:FUNCTION"):
            metric.set_reference(iter(whole))
