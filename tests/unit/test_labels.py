"""Labels from every kind of file, matched to samples; and samples that are set aside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.data import CheckedSamples, open_samples
from edge_runtime.data.evaluation import Evaluation, open_held
from edge_runtime.data.labels import open_labels
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.tensors import TensorSpec
from edge_runtime.vision.preprocess import Preprocessing

X = TensorSpec("x", "float32", (-1, 2))
PIXELS = Preprocessing(size=4, color="gray")
PICTURE = TensorSpec("x", "float32", (-1, 1, 4, 4))


def numbered(count: int, spec: TensorSpec = X, **settings: Any) -> CheckedSamples:
    rows = max(1, spec.shape[0])
    feeds = [{"x": np.full((rows, 2), index, "f4")} for index in range(count)]
    return open_samples(feeds, [spec], **settings)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four pictures, two of which have the same name in other folders."""
    for name in ("a/1.png", "b/1.png", "b/2.png", "c.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((4, 4), np.uint8))
    return tmp_path / "pictures"


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    if name.endswith(".npy"):
        np.save(path, np.array(content))
    elif name.endswith(".npz"):
        np.savez(path, **content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("l.npy", [5, 6, 7], [5, 6, 7]),
        ("l.npy", [[5], [6], [7]], [5, 6, 7]),
        ("l.npz", {"anything": [5, 6, 7]}, [5, 6, 7]),
        ("l.npz", {"labels": [5, 6, 7], "images": [1.0]}, [5, 6, 7]),
        ("l.json", [5, [6, 7], {"boxes": []}], [5, [6, 7], {"boxes": []}]),
        ("l.txt", "5\n6\n\n7\n", [5, 6, 7]),
        ("l.csv", "label\n5\n6\n7\n", [5, 6, 7]),
        ("l.csv", '"a, b"\n6\n7', ["a, b", "6", "7"]),
        ("l.txt", "\ufeffcat\ndog\ncat", ["cat", "dog", "cat"]),
    ],
)
def test_labels_in_the_samples_order(
    tmp_path: Path, name: str, content: object, expected: list[object]
) -> None:
    assert open_labels(write(tmp_path, name, content), numbered(3)) == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.json", {"a/1.png": 0, "b/1.png": 1, "2.png": 2, "c.png": 3}),
        ("l.txt", "c.png 3\na/1.png 0\nb/1.png 1\nb/2.png 2"),
        ("l.csv", "file,label\nc.png,3\na/1.png, 0\nb/1.png,1\n2.png,2"),
    ],
)
def test_labels_by_name_or_path(tmp_path: Path, pictures: Path, name: str, content: object) -> None:
    samples = open_samples(pictures, [PICTURE], preprocessing=PIXELS)
    path = write(tmp_path, name, content)
    assert open_labels(path, samples) == [0, 1, 2, 3]
    few = open_samples(pictures, [PICTURE], preprocessing=PIXELS, limit=2)
    assert open_labels(path, few) == [0, 2]


def test_texts_are_not_taken_for_numbers(tmp_path: Path) -> None:
    assert open_labels(write(tmp_path, "l.txt", "007\n8"), numbered(2)) == [7, 8]
    assert open_labels(write(tmp_path, "l.txt", "007\nx8"), numbered(2)) == ["007", "x8"]


def test_an_array_folder_has_names_too(tmp_path: Path) -> None:
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", np.full((1, 2), index, "f4"))
    samples = open_samples(tmp_path, [X])
    assert open_labels({"2.npy": 2, "0.npy": 0, "1.npy": 1}, samples.take([0, 2])) == [0, 2]


def test_labels_lie_beside_the_samples(tmp_path: Path) -> None:
    arrays = {"x": np.zeros((4, 2), "f4")}
    path = write(tmp_path, "s.npz", {**arrays, "labels": np.arange(4)})
    samples = open_samples(path, [X], limit=2)
    assert open_labels(None, samples) == [0, 2]
    assert len(list(samples)) == 2
    assert open_labels([9, 8, 7, 6], samples) == [9, 7]
    assert open_labels(None, open_samples(write(tmp_path, "n.npz", arrays), [X])) is None
    assert open_labels(None, numbered(3)) is None
    # Where the model has such an input they are no labels.
    both = [X, TensorSpec("labels", "int64", (-1,))]
    assert open_labels(None, open_samples(path, both)) is None


def test_labels_do_not_count_as_data(tmp_path: Path) -> None:
    arrays = {"x": np.zeros((4, 2), "f4")}
    digests = {
        open_samples(write(tmp_path, f"{i}.npz", each), [X]).digest()
        for i, each in enumerate((arrays, {**arrays, "labels": np.arange(4)}))
    }
    assert len(digests) == 1


def test_a_batch_takes_a_label_for_each_row() -> None:
    samples = numbered(2, TensorSpec("x", "float32", (3, 2)))
    assert open_labels(np.arange(6), samples) == [[0, 1, 2], [3, 4, 5]]
    assert open_labels([[0, 1, 2], [3, 4, 5]], samples) == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ([1], "1 labels for 3 samples: sample 1 and those after"),
        ([1, 2], "2 labels for 3 samples: sample 2 has none"),
        ([1, 2, 3, 4, 5], r"5 labels for 3 .*number 3 on \(4, 5"),
        ({"a.png": 1}, "no names"),
        ([object()] * 3, "there is a object"),
        (np.zeros(3), r"float64\[3\]"),
        (np.zeros((3, 2), int), r"int64\[3, 2\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, named: str) -> None:
    with pytest.raises(DataError, match=named):
        open_labels(labels, numbered(3))


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ({"c.png": 1}, "'a/1.png', 'b/1.png', 'b/2.png' have no label"),
        ({"c.png": 1, "1.png": 0, "b/2.png": 2}, "'a/1.png', 'b/1.png' have no label"),
        (
            {"a/1.png": 0, "b/1.png": 0, "2.png": 0, "c.png": 0, "d.png": 0, "e.png": 1},
            "'d.png', 'e.png' are no file of 4 pictures",
        ),
        ([1], "'b/1.png', 'b/2.png', 'c.png' have none"),
    ],
)
def test_pictures_without_labels_are_named(pictures: Path, labels: Any, named: str) -> None:
    samples = open_samples(pictures, [PICTURE], preprocessing=PIXELS)
    with pytest.raises(DataError, match=named):
        open_labels(labels, samples)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("l.xml", "", r"\.json"),
        ("l.json", "3", "a list of labels"),
        ("l.json", '{"a": 1, "a": 2}', "'a' twice"),
        ("l.txt", "a 1\nb\n", "line 2: 1 columns"),
        ("l.csv", "a,1,2\n", "line 1: 3 columns"),
        ("l.txt", "a 1\na 2", "'a' has more than one"),
        ("l.npz", {"a": [1], "b": [2]}, "'labels'"),
        ("l.npy", ["a"], "whole numbers"),
    ],
)
def test_files_that_are_no_labels_are_refused(
    tmp_path: Path, name: str, content: object, named: str
) -> None:
    with pytest.raises(DataError, match=named):
        open_labels(write(tmp_path, name, content), numbered(1))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(b"\xff")
    for name in ("l.txt", "none.json", "none.npy"):
        with pytest.raises(DataError, match=name):
            open_labels(tmp_path / name, numbered(1))


@given(st.binary(max_size=40), st.sampled_from([".txt", ".csv", ".json"]))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, ending: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(data)
    try:
        labels = open_labels(path, numbered(2))
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert labels is not None
        assert len(labels) == 2


# Samples that are set aside.


def values(samples: CheckedSamples) -> list[float]:
    return [float(feeds["x"].flat[0]) for feeds in samples]


def test_every_fourth_calibration_sample_is_set_aside() -> None:
    labels = list(range(10))
    held, rest = open_held(Evaluation(labels=labels), (X,), calibration=numbered(10))
    assert values(held.samples) == [3, 7]
    assert held.labels == [3, 7]
    assert rest is not None
    assert values(rest) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert "every fourth" in held.description


def test_too_few_to_set_aside_are_refused() -> None:
    open_held(Evaluation(), (X,), calibration=numbered(8))
    with pytest.raises(DataError, match=r"7 are too few.*at least 8"):
        open_held(Evaluation(), (X,), calibration=numbered(7))
    with pytest.raises(DataError, match="--eval-data"):
        open_held(Evaluation(), (X,), calibration=None)


def test_given_samples_leave_calibration_as_it_is() -> None:
    calibration = numbered(3)
    held, rest = open_held(Evaluation(numbered(2)), (X,), calibration=calibration)
    assert rest is calibration
    assert values(held.samples) == [0, 1]


def test_pictures_take_the_preprocessing_and_arrays_do_not(pictures: Path) -> None:
    for source in (pictures, [{"x": np.zeros((1, 1, 4, 4), "f4")}]):
        evaluation = Evaluation(source)
        held, _ = open_held(evaluation, (PICTURE,), calibration=None, preprocessing=PIXELS)
        assert len(list(held.samples)) == len(held.samples)


def test_labels_and_limits_that_do_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="no use"):
        open_held(Evaluation(labels=[1] * 8), (X,), calibration=numbered(8), labelled=False)
    with pytest.raises(ConfigError, match="limit"):
        open_held(Evaluation(limit=3), (X,), calibration=numbered(8))


def test_samples_and_labels_both_are_in_the_digest() -> None:
    digests = [
        open_held(Evaluation(numbered(count), labels), (X,), calibration=None)[0].digest
        for count, labels in ((2, [0, 1]), (2, [0, 2]), (2, None), (3, [0, 1, 0]), (2, [0, 1]))
    ]
    assert len(set(digests)) == 4
    assert digests[0] == digests[-1]


@pytest.mark.parametrize("kind", ["pictures", "folder", "npz", "memory"])
def test_taking_some_is_the_same_for_all_sources(tmp_path: Path, pictures: Path, kind: str) -> None:
    (tmp_path / "folder").mkdir()
    arrays = [np.full((1, 1, 4, 4), index, "f4") for index in range(4)]
    for index, path in enumerate(sorted(pictures.rglob("*.png"))):
        cv2.imwrite(str(path), np.full((4, 4), 50 * index, np.uint8))
        np.save(tmp_path / f"folder/{index}.npy", arrays[index])
    np.savez(tmp_path / "s.npz", x=np.concatenate(arrays))
    sources = {
        "pictures": pictures,
        "folder": tmp_path / "folder",
        "npz": tmp_path / "s.npz",
        "memory": [{"x": array} for array in arrays],
    }
    preprocessing = PIXELS if kind == "pictures" else None
    samples = open_samples(sources[kind], [PICTURE], preprocessing=preprocessing)
    every = [feeds["x"].copy() for feeds in samples]
    assert len({array.tobytes() for array in every}) == 4
    taken = samples.take([1, 3])
    assert (len(taken), list(taken.places), taken.total) == (2, [1, 3], 4)
    assert "2 of 4" in taken.description
    np.testing.assert_array_equal([feeds["x"] for feeds in taken], [every[1], every[3]])
    np.testing.assert_array_equal([feeds["x"] for feeds in taken.take([1])], [every[3]])
    assert len(samples) == 4
