"""ONNX test data as samples: what is read, in which order, and what is refused in one line."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.cli.feeds import read_feeds
from edge_runtime.data import open_samples
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.model import read_tensor
from edge_runtime.tensors import TensorSpec

X = TensorSpec("x", "float32", (-1, 4))
MASK = TensorSpec("mask", "int64", (2,))


def rows(level: float, count: int = 1) -> np.ndarray:
    return np.full((count, 4), level, np.float32)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(numpy_helper.from_array(array, "any name").SerializeToString())
    return path


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_tensor(path)
    message = str(caught.value)
    assert message.isprintable()
    assert path.name in message
    return message


# --- folders


def test_each_set_is_a_sample_and_each_file_an_input(tmp_path: Path) -> None:
    for index in (0, 2, 10):
        folder = tmp_path / f"test_data_set_{index}"
        save(folder / "input_0.pb", rows(index, 1 + index))  # The sizes differ.
        save(folder / "input_1.pb", np.array([index, index]))
        save(folder / "output_0.pb", rows(99))
    (tmp_path / "model.onnx").write_bytes(b"not read")
    samples = open_samples(tmp_path, [X, MASK])
    found = [(feeds["x"][0, 0], len(feeds["x"]), feeds["mask"].tolist()) for feeds in samples]
    assert found == [(0, 1, [0, 0]), (2, 3, [2, 2]), (10, 11, [10, 10])]
    assert samples.names == ["test_data_set_0", "test_data_set_2", "test_data_set_10"]
    assert "3 sets" in samples.description


def test_one_set_is_opened_as_it_is(tmp_path: Path) -> None:
    save(tmp_path / "input_0.pb", rows(5))
    (feeds,) = open_samples(tmp_path, [X])
    np.testing.assert_array_equal(feeds["x"], rows(5))


def test_a_limit_and_a_choice_take_some(tmp_path: Path) -> None:
    for index in range(6):
        save(tmp_path / f"test_data_set_{index}" / "input_0.pb", rows(index))
    samples = open_samples(tmp_path, [X], limit=3)
    assert [feeds["x"][0, 0] for feeds in samples] == [0, 2, 4]
    assert (list(samples.places), samples.total) == ([0, 2, 4], 6)
    assert [feeds["x"][0, 0] for feeds in samples.take([2, 0])] == [4, 0]
    assert "3 of 6" in samples.description


def test_the_digest_is_that_of_what_is_fed(tmp_path: Path) -> None:
    save(tmp_path / "test_data_set_0" / "input_0.pb", rows(1))
    as_list = open_samples([{"x": rows(1)}], [X])
    assert open_samples(tmp_path, [X]).digest() == as_list.digest()
    save(tmp_path / "test_data_set_0" / "input_0.pb", rows(2))
    assert open_samples(tmp_path, [X]).digest() != as_list.digest()


def test_a_set_that_lacks_an_input_is_named(tmp_path: Path) -> None:
    save(tmp_path / "test_data_set_0" / "input_0.pb", rows(1))
    save(tmp_path / "test_data_set_0" / "input_1.pb", np.array([1, 2]))
    save(tmp_path / "test_data_set_1" / "input_0.pb", rows(1))
    with pytest.raises(DataError, match=r"test_data_set_1 .*input_1\.pb.*'mask'.*input_0\.pb"):
        open_samples(tmp_path, [X, MASK])
    with pytest.raises(DataError, match=r"test_data_set_0 .*input_1\.pb.*only 1 inputs \(x\)"):
        open_samples(tmp_path, [X])
    (tmp_path / "test_data_set_1" / "input_0.pb").rename(
        tmp_path / "test_data_set_1" / "output_0.pb"
    )
    with pytest.raises(DataError, match=r"test_data_set_1 .*no inputs"):
        open_samples(tmp_path, [X, MASK])


@pytest.mark.parametrize("wrong", [rows(1).astype(np.float64), rows(1)[0], rows(1)[:, :3]])
def test_a_set_of_another_type_or_shape_is_named(tmp_path: Path, wrong: np.ndarray) -> None:
    save(tmp_path / "test_data_set_0" / "input_0.pb", rows(1))
    save(tmp_path / "test_data_set_7" / "input_0.pb", wrong)
    with pytest.raises(DataError, match=r"test_data_set_7: Input 'x'.*float32\[\?, 4\]"):
        list(open_samples(tmp_path, [X]))


def test_two_kinds_of_samples_in_a_folder_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "test_data_set_0" / "input_0.pb", rows(1))
    np.savez(tmp_path / "test_data_0.npz", x=rows(1))
    with pytest.raises(DataError, match=r"test_data_0\.npz.*input_0\.pb"):
        open_samples(tmp_path, [X])


def test_a_preprocessing_has_nothing_to_act_on(tmp_path: Path) -> None:
    from edge_runtime.vision.preprocess import Preprocessing

    save(tmp_path / "input_0.pb", rows(1))
    with pytest.raises(ConfigError, match="arrays"):
        open_samples(tmp_path, [X], preprocessing=Preprocessing(size=2))


def test_run_takes_a_set_or_one_of_its_files(tmp_path: Path) -> None:
    file = save(tmp_path / "input_0.pb", rows(3))
    save(tmp_path / "input_1.pb", np.array([1, 2]))
    feeds = read_feeds([str(tmp_path)], [X, MASK], None)
    assert (feeds["x"][0, 0], feeds["mask"].tolist()) == (3, [1, 2])
    np.testing.assert_array_equal(read_feeds([f"x={file}"], [X], None)["x"], rows(3))


# --- tensors


@given(
    hnp.arrays(
        st.sampled_from(["f2", "f4", "f8", "i1", "u1", "i2", "i4", "u4", "i8", "u8", "?"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    ),
    st.booleans(),
)
def test_a_tensor_is_read_as_it_was_written(array: np.ndarray, raw: bool) -> None:
    tensor = numpy_helper.from_array(array)
    if not raw:
        values = array.view(np.uint16) if array.dtype == np.float16 else array
        kind = tensor.data_type
        values = [float(v) for v in array.ravel()] if array.dtype.kind == "f" else values.ravel()
        tensor = helper.make_tensor("x", kind, array.shape, values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input_0.pb"
        path.write_bytes(tensor.SerializeToString())
        found = read_tensor(path)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@given(st.binary(max_size=80), st.integers(0, 60))
def test_any_bytes_are_read_or_refused(junk: bytes, keep: int) -> None:
    good = numpy_helper.from_array(rows(1), "x").SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input_0.pb"
        for content in (junk, good[:keep] + junk):
            path.write_bytes(content)
            try:
                assert read_tensor(path).size <= 8 * len(content)
            except DataError as error:
                assert str(error).isprintable()


def test_a_tensor_may_have_its_data_in_its_folder_only(tmp_path: Path) -> None:
    tensor = TensorProto(dims=[2], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="values.bin")
    path = tmp_path / "in" / "input_0.pb"
    path.parent.mkdir()
    path.write_bytes(tensor.SerializeToString())
    assert "missing" in refused(path)
    (path.parent / "values.bin").write_bytes(np.array([1, 2], np.float32).tobytes())
    assert read_tensor(path).tolist() == [1, 2]
    (tmp_path / "values.bin").write_bytes(b"\0" * 8)
    tensor.external_data[0].value = "../values.bin"
    path.write_bytes(tensor.SerializeToString())
    assert "plain path" in refused(path)
    (path.parent / "link.bin").symlink_to(tmp_path / "values.bin")
    tensor.external_data[0].value = "link.bin"
    path.write_bytes(tensor.SerializeToString())
    assert "links" in refused(path)


def _tensor(dims: list[int], kind: int = TensorProto.FLOAT, **data: object) -> bytes:
    return TensorProto(dims=dims, data_type=kind, **data).SerializeToString()


GOOD = numpy_helper.from_array(rows(1), "x").SerializeToString()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        GOOD[:-3],
        _tensor([2**62], raw_data=b"\0" * 8),
        _tensor([2**40, 2**40], int32_data=[1], kind=TensorProto.INT32),
        _tensor([-1], int32_data=[1, 2], kind=TensorProto.INT32),
        _tensor([-2, -2], raw_data=b"\0" * 16),
        _tensor([2], raw_data=b"\0" * 7),
        _tensor([2], float_data=[1, 2, 3]),
        _tensor([2], float_data=[1, 2], kind=TensorProto.INT64),
        _tensor([2], string_data=[b"a"], kind=TensorProto.STRING),
        _tensor([1], string_data=[b"\xff"], kind=TensorProto.STRING),
        _tensor([1], raw_data=b"\0" * 4, kind=99),
        _tensor([1], raw_data=b"\0" * 4, kind=0),
    ],
)
def test_what_is_no_sound_tensor_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "input_0.pb"
    path.write_bytes(content)
    refused(path)


def test_sequences_and_maps_are_refused_as_such(tmp_path: Path) -> None:
    path = tmp_path / "input_0.pb"
    sequence = numpy_helper.from_list([rows(1), rows(2)], "seq")
    empty = onnx.SequenceProto(name="s", elem_type=onnx.SequenceProto.TENSOR)
    mapping = numpy_helper.from_dict({1: 2.0, 3: 4.0}, "m")
    for value in (sequence, mapping):
        path.write_bytes(value.SerializeToString())
        assert "sequences and maps" in refused(path)
    path.write_bytes(empty.SerializeToString())
    refused(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "input_0.pb")
    os.mkfifo(tmp_path / "input_1.pb")
    refused(tmp_path / "input_1.pb")
