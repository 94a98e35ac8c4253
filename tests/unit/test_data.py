"""Samples: what each source gives, what is refused, and when the digest changes."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.data import ImageFolder, Samples, open_samples
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.tensors import TensorSpec
from edge_runtime.vision.preprocess import EXAMPLE, Preprocessing

IMAGE = TensorSpec("image", "float32", (-1, 3, 2, 2))
PAIR = TensorSpec("x", "float32", (2, 4))
MASK = TensorSpec("mask", "int64", (2,))
PIXELS = Preprocessing(size=2, scale=1)


def save_pictures(folder: Path, **levels: int) -> Path:
    """Gray pictures of one level each; `__` in a name is a folder, `_` a dot."""
    for name, level in levels.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", np.full((3, 5, 3), level, np.uint8))[1].tobytes())
    return folder


def levels(samples: Samples) -> list[float]:
    return [float(feeds["image"][0, 0, 0, 0]) for feeds in samples]


def x_values(samples: Samples) -> list[list[float]]:
    return [feeds["x"][:, 0].tolist() for feeds in samples]


def rows(count: int) -> np.ndarray:
    """[count, 4]; row i holds i."""
    return np.repeat(np.arange(count, dtype=np.float32)[:, None], 4, axis=1)


# --- pictures


def test_pictures_come_by_path_from_all_folders_but_hidden_ones(tmp_path: Path) -> None:
    save_pictures(tmp_path, b__2_PNG=2, b__10_png=1, a_png=0, c_png=3, b__d__x_png=4)
    save_pictures(tmp_path, _hidden_png=9, _git__x_png=9)
    (tmp_path / "labels.json").write_text("{}")
    samples = open_samples(tmp_path, [IMAGE], preprocessing=PIXELS)
    assert levels(samples) == [0, 1, 2, 4, 3]
    assert levels(samples) == [0, 1, 2, 4, 3]
    assert len(samples) == 5
    assert tmp_path.name in samples.description
    assert next(iter(samples))["image"].shape == (1, 3, 2, 2)


def test_a_limit_takes_evenly_spaced_pictures(tmp_path: Path) -> None:
    save_pictures(tmp_path, **{f"{i:02}_png": i for i in range(10)})
    folder = ImageFolder(tmp_path, PIXELS, limit=4)
    assert levels(open_samples(folder, [IMAGE])) == [0, 2, 5, 7]
    assert levels(open_samples(folder, [IMAGE], limit=2)) == [0, 5]
    assert len(open_samples(str(tmp_path), [IMAGE], preprocessing=PIXELS, limit=99)) == 10
    assert "4 of 10" in folder.description


def test_an_image_folder_can_be_read_without_a_model(tmp_path: Path) -> None:
    save_pictures(tmp_path, a_png=5)
    (feeds,) = ImageFolder(tmp_path, "size=2,scale=1", input="image")
    assert feeds["image"].tolist() == np.full((1, 3, 2, 2), 5).tolist()
    with pytest.raises(DataError, match="input"):
        next(iter(ImageFolder(tmp_path, PIXELS)))


def test_the_digest_of_pictures_changes_with_what_is_fed_and_not_with_names(
    tmp_path: Path,
) -> None:
    def digest(folder: str, preprocessing: Preprocessing = PIXELS, **pictures: int) -> str:
        path = save_pictures(tmp_path / folder, **pictures)
        return open_samples(path, [IMAGE], preprocessing=preprocessing).digest()

    base = digest("base", a_png=1, b_png=2)
    assert base.startswith("sha256:")
    assert digest("renamed", c_png=1, d_png=2) == base
    others = {
        digest("swapped", a_png=2, b_png=1),
        digest("changed", a_png=1, b_png=3),
        digest("fewer", a_png=1),
        digest("base", Preprocessing(size=2, scale=1, color="bgr")),
    }
    assert len(others | {base}) == 5


def test_pictures_need_to_be_told_how_they_become_tensors(tmp_path: Path) -> None:
    save_pictures(tmp_path, a_png=1)
    with pytest.raises(ConfigError) as caught:
        open_samples(tmp_path, [IMAGE])
    assert EXAMPLE in str(caught.value)
    with pytest.raises(ConfigError):
        ImageFolder(tmp_path, None)
    with pytest.raises(ConfigError, match="already"):
        open_samples(ImageFolder(tmp_path, PIXELS), [IMAGE], preprocessing=PIXELS)


def test_pictures_feed_the_one_input_of_a_model(tmp_path: Path) -> None:
    save_pictures(tmp_path, a_png=1)
    with pytest.raises(DataError, match=r"image, mask.*\.npz"):
        open_samples(ImageFolder(tmp_path, PIXELS, input="image"), [IMAGE, MASK])
    with pytest.raises(DataError, match=r"'pixels'.*image"):
        open_samples(ImageFolder(tmp_path, PIXELS, input="pixels"), [IMAGE])


def test_a_picture_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    save_pictures(tmp_path, a_png=1)
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.png"):
        list(open_samples(tmp_path, [IMAGE], preprocessing=PIXELS))
    with pytest.raises(DataError, match=r"a\.png.*'image'.*\[\?, 3, 2, 2\].*\[1, 3, 4, 4\]"):
        list(open_samples(tmp_path, [IMAGE], preprocessing=Preprocessing(size=4)))
    sliver = cv2.imencode(".png", np.zeros((1, 20_000, 3), np.uint8))[1].tobytes()
    (tmp_path / "a.png").write_bytes(sliver)
    with pytest.raises(DataError, match=r"a\.png"):
        list(ImageFolder(tmp_path, "size=224,resize=crop", input="image"))


def test_a_kind_of_picture_that_is_not_read_is_refused_not_passed_over(tmp_path: Path) -> None:
    save_pictures(tmp_path, a_png=1)
    (tmp_path / "b.tiff").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=r"b\.tiff"):
        list(open_samples(tmp_path, [IMAGE], preprocessing=PIXELS))


def test_folders_without_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no files"):
        ImageFolder(tmp_path, PIXELS)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="no pictures"):
        ImageFolder(tmp_path, PIXELS)
    with pytest.raises(DataError, match=r"notes\.txt"):
        open_samples(tmp_path, [IMAGE], preprocessing=PIXELS)
    with pytest.raises(DataError, match="a file"):
        ImageFolder(tmp_path / "notes.txt", PIXELS)
    with pytest.raises(DataError, match="not there"):
        ImageFolder(tmp_path / "missing", PIXELS)
    for name in ("missing", "notes.txt"):
        with pytest.raises(DataError, match=name):
            open_samples(tmp_path / name, [IMAGE])


def test_a_folder_of_pictures_and_arrays_is_refused(tmp_path: Path) -> None:
    save_pictures(tmp_path, a_png=1)
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"a\.png.*b\.npy"):
        open_samples(tmp_path, [IMAGE], preprocessing=PIXELS)


@pytest.mark.parametrize("missing", ["cv2", "what_cv2_imports"])
def test_without_opencv_the_message_says_what_to_install(tmp_path: Path, missing: str) -> None:
    save_pictures(tmp_path / "pictures", a_png=1)
    (tmp_path / "cv2.py").write_text(f"raise ModuleNotFoundError(name={missing!r})")
    code = (
        "from edge_runtime.data import ImageFolder\n"
        "from edge_runtime.errors import DataError\n"
        "try: ImageFolder('pictures', 'size=2')\n"
        "except DataError as error: print(error)\n"
        "except ModuleNotFoundError as error: print('a bug:', error.name)"
    )
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    output = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    expected = "pip install 'edge-runtime[vision]'" if missing == "cv2" else f"a bug: {missing}"
    assert expected in output


# --- one file of arrays


def test_an_array_of_the_inputs_rank_is_cut_into_batches(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=rows(6))
    samples = open_samples(tmp_path / "a.npz", [PAIR])
    assert x_values(samples) == [[0, 1], [2, 3], [4, 5]]
    assert x_values(samples) == [[0, 1], [2, 3], [4, 5]]
    dynamic = TensorSpec("x", "float32", (-1, 4))
    assert x_values(open_samples(tmp_path / "a.npz", [dynamic], limit=3)) == [[0], [2], [4]]


def test_one_axis_more_counts_the_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=rows(6).reshape(3, 2, 4), mask=np.arange(6).reshape(3, 2))
    samples = open_samples(tmp_path / "a.npz", [PAIR, MASK])
    assert x_values(samples) == [[0, 1], [2, 3], [4, 5]]
    assert [feeds["mask"].tolist() for feeds in samples] == [[0, 1], [2, 3], [4, 5]]


def test_both_forms_in_one_file_and_an_input_without_axes(tmp_path: Path) -> None:
    scalar = TensorSpec("scale", "float64", ())
    np.savez_compressed(tmp_path / "a.npz", x=rows(4), scale=np.array([0.5, 0.25]))
    samples = open_samples(tmp_path / "a.npz", [PAIR, scalar])
    assert [feeds["scale"].tolist() for feeds in samples] == [0.5, 0.25]
    np.save(tmp_path / "b.npy", np.float64(1))
    with pytest.raises(DataError, match=r"b\.npy.*one axis more"):
        open_samples(tmp_path / "b.npy", [scalar])


def test_an_npy_feeds_a_single_input(tmp_path: Path) -> None:
    np.save(tmp_path / "a.NPY.npy", rows(4))
    assert x_values(open_samples(tmp_path / "a.NPY.npy", [PAIR])) == [[0, 1], [2, 3]]
    with pytest.raises(DataError, match="x, mask"):
        open_samples(tmp_path / "a.NPY.npy", [PAIR, MASK])


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"x": rows(5)}, "5 rows.*batch size of 2.*1 would"),
        ({"x": rows(0)}, "no samples"),
        ({"x": rows(4)[0]}, r"\[4\].*float32\[2, 4\]"),
        ({"x": np.float32(1)}, r"'x'.*\[\]"),
        ({"y": rows(4)}, "arrays y;.*inputs are x"),
        ({"x": rows(4), "other": np.zeros(2)}, "x, other"),
        ({"x": np.array([None])}, "cannot be read"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_when_opened(
    tmp_path: Path, arrays: dict[str, np.ndarray], named: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=rf"a\.npz.*{named}"):
        open_samples(tmp_path / "a.npz", [PAIR])


def test_inputs_with_different_numbers_of_samples_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=rows(4), mask=np.zeros((3, 2), np.int64))
    with pytest.raises(DataError, match="2 for x, 3 for mask"):
        open_samples(tmp_path / "a.npz", [PAIR, MASK])


@pytest.mark.parametrize(
    "wrong", [rows(4).astype(np.float64), rows(4).astype(">f4"), np.zeros((4, 5), np.float32)]
)
def test_a_sample_of_another_type_or_shape_is_named(tmp_path: Path, wrong: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", x=wrong)
    with pytest.raises(DataError, match=r"a\.npz, sample 0.*'x'.*float32\[2, 4\]"):
        list(open_samples(tmp_path / "a.npz", [PAIR]))


def test_what_only_looks_like_an_npz_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", rows(2))
    (tmp_path / "x.npy").rename(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x", b"text")
    for name in ("a.npz", "b.npz", "missing.npz"):
        with pytest.raises(DataError, match=name):
            open_samples(tmp_path / name, [PAIR])


@given(data=st.data())
def test_damage_never_does_more_than_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ending = data.draw(st.sampled_from([".npz", ".npy"]))
    path = tmp_path_factory.mktemp("damage") / f"a{ending}"
    if ending == ".npz":
        np.savez(path, x=rows(2))
    else:
        np.save(path, rows(2))
    damaged = bytearray(path.read_bytes())
    # Digits make other shapes, also enormous ones; most other bytes break the header.
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.sampled_from(b"0123456789'(),<>") | st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))])
    with suppress(DataError):
        assert len(open_samples(path, [PAIR])) == len(list(open_samples(path, [PAIR])))


def test_a_shape_too_large_for_memory_is_a_data_error(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", rows(2))
    whole = (tmp_path / "x.npy").read_bytes()
    claim = whole.replace(b"(2, 4), }" + b" " * 14, b"(2, 400000000000000), }")
    assert len(claim) == len(whole)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", claim)
    with pytest.raises(DataError, match="memory"):
        open_samples(tmp_path / "a.npz", [PAIR])


# --- a folder of arrays


def test_each_file_of_a_folder_is_one_sample(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    np.savez(tmp_path / "b" / "1.npz", x=rows(2) + 1)
    np.save(tmp_path / "a.npy", rows(2))
    np.save(tmp_path / "c.npy", rows(2) + 2)
    samples = open_samples(tmp_path, [PAIR])
    assert x_values(samples) == [[0, 1], [1, 2], [2, 3]]
    assert x_values(open_samples(tmp_path, [PAIR], limit=1)) == [[0, 1]]
    np.save(tmp_path / "c.npy", rows(4))
    with pytest.raises(DataError, match=r"c\.npy.*\[2, 4\].*\[4, 4\]"):
        list(samples)


# --- memory


class Endless:
    """Starts afresh each time; has no length."""

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return ({"x": rows(2) + i} for i in range(5))


@pytest.mark.parametrize("source", [Endless(), list(Endless()), tuple(Endless())])
def test_feeds_in_memory(source: object) -> None:
    samples = open_samples(source, [PAIR])
    assert len(samples) == 5
    assert x_values(samples) == x_values(samples) == [[i, i + 1] for i in range(5)]
    assert x_values(open_samples(source, [PAIR], limit=2)) == [[0, 1], [2, 3]]


def test_what_can_be_read_only_once_is_refused() -> None:
    class Exhausted:
        def __init__(self) -> None:
            self.feeds = iter(list(Endless()))

        def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
            return self.feeds

    for source in (iter(list(Endless())), iter(Endless()), Exhausted()):
        with pytest.raises(DataError, match="only once"):
            open_samples(source, [PAIR])


@pytest.mark.parametrize("source", [[], 3, {"x": rows(2)}, None])
def test_what_holds_no_samples_is_refused(source: object) -> None:
    with pytest.raises(DataError):
        open_samples(source, [PAIR])


def test_feeds_that_do_not_fit_are_named() -> None:
    good = {"x": rows(2)}
    for wrong in (rows(2), {"y": rows(2)}, {"x": [1]}, {**good, "z": rows(2)}):
        with pytest.raises(DataError, match="Sample 1"):
            list(open_samples([good, wrong], [PAIR]))


def test_a_source_that_shrinks_is_noticed() -> None:
    source = list(Endless())
    samples = open_samples(source, [PAIR])
    source.pop()
    with pytest.raises(DataError, match="Sample 4"):
        list(samples)


def test_equal_arrays_have_equal_digests_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "a.npz", x=rows(4))
    np.save(tmp_path / "folder" / "0.npy", rows(4)[:2])
    np.save(tmp_path / "folder" / "1.npy", rows(4)[2:])
    in_memory = [{"x": rows(4)[:2]}, {"x": rows(4)[2:]}]
    sources = (tmp_path / "a.npz", tmp_path / "folder", in_memory)
    digests = {open_samples(source, [PAIR]).digest() for source in sources}
    assert len(digests) == 1

    changed = rows(4)
    changed.view(np.uint8)[3, 15] ^= 1
    fewer = open_samples(in_memory, [PAIR], limit=1)
    swapped = open_samples(in_memory[::-1], [PAIR])
    touched = open_samples([{"x": changed[:2]}, {"x": changed[2:]}], [PAIR])
    digests |= {samples.digest() for samples in (fewer, swapped, touched)}
    assert len(digests) == 4


def test_a_preprocessing_for_arrays_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "folder" / "a.npz", x=rows(2))
    for source in (tmp_path / "folder", tmp_path / "folder" / "a.npz", [{"x": rows(2)}]):
        with pytest.raises(ConfigError, match="arrays"):
            open_samples(source, [PAIR], preprocessing=PIXELS)


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    save_pictures(tmp_path, a_png=1)
    for source, preprocessing in ((tmp_path, PIXELS), ([{"x": rows(2)}], None)):
        with pytest.raises(ConfigError, match="limit"):
            open_samples(source, [IMAGE], preprocessing=preprocessing, limit=0)


def test_samples_are_read_for_their_digest_once_and_a_part_has_its_own() -> None:
    class Counted:
        reads = 0

        def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
            for index in range(4):
                Counted.reads += 1
                yield {"x": np.full((1, 2), index, np.float32)}

    samples = open_samples(Counted(), [TensorSpec("x", "float32", (1, 2))])
    before = Counted.reads
    assert samples.digest() == samples.digest()
    assert Counted.reads == before + 4
    assert samples.take([0, 2]).digest() != samples.digest()
