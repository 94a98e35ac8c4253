"""Weights in other files: read from the model's folder, and from nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from edge_runtime.errors import ModelError
from edge_runtime.model import model_from_proto, read_model
from tests import models
from tests.models import NETS, refusal, save_external, write


def describe_external(**entries: object) -> ModelProto:
    """A model whose first weight, 9216 bytes, says that it lies in another file."""
    proto = NETS["residual"]()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights", **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return proto


def test_external_data_beside_the_model_is_loaded(tmp_path: Path) -> None:
    proto = NETS["residual"]()
    model = read_model(save_external(proto, tmp_path))
    assert not any(tensor.external_data for tensor in model.proto.graph.initializer)
    (tmp_path / "net.data").unlink()
    inputs = models.feeds(proto)
    np.testing.assert_equal(models.run(model.proto, inputs), models.run(proto, inputs))


def test_external_data_in_a_folder_of_the_models_folder_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "weights").write_bytes(b"skip" + bytes(range(256)) * 36)
    path = write(tmp_path, describe_external(location="deep/er/weights", offset=4, length=9216))
    weight = read_model(path).proto.graph.initializer[0]
    assert weight.raw_data == bytes(range(256)) * 36


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that a model in `tmp_path / "model"` must not reach."""
    (tmp_path / "model").mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(9216))
    return secret


@pytest.mark.parametrize(
    "location",
    [
        *("../secret", "sub/../../secret", "..\\secret", "./../secret", "sub/./../../secret"),
        *("C:\\secret", "C:secret", "\\\\server\\secret", "sub//secret", "", ".", "..", "sub/"),
        *("model.data\0", "file:secret", "~/secret/..", "{absolute}"),
    ],
)
def test_external_data_elsewhere_is_refused(outside: Path, location: str) -> None:
    folder = outside.parent / "model"
    (folder / "sub").mkdir()
    proto = describe_external(location=location.format(absolute=outside))
    assert "not a plain path" in refusal(write(folder, proto))


def link_file(folder: Path, secret: Path) -> None:
    (folder / "weights").symlink_to(secret)


def link_file_inside(folder: Path, secret: Path) -> None:
    (folder / "real").write_bytes(bytes(9216))
    (folder / "weights").symlink_to("real")


def link_nowhere(folder: Path, secret: Path) -> None:
    (folder / "weights").symlink_to("nowhere")


def hard_link(folder: Path, secret: Path) -> None:
    (folder / "weights").hardlink_to(secret)


def pipe(folder: Path, secret: Path) -> None:
    os.mkfifo(folder / "weights")


def make_folder(folder: Path, secret: Path) -> None:
    (folder / "weights").mkdir()


def nothing(folder: Path, secret: Path) -> None:
    assert list(folder.iterdir()) == []


def shorter(folder: Path, secret: Path) -> None:
    (folder / "weights").write_bytes(bytes(9215))


@pytest.mark.parametrize(
    "make",
    [link_file, link_file_inside, link_nowhere, hard_link, pipe, make_folder, nothing, shorter],
)
def test_external_data_must_be_a_whole_file_of_its_own(
    outside: Path, make: Callable[[Path, Path], None]
) -> None:
    folder = outside.parent / "model"
    make(folder, outside)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert "'c0.w'" in refusal(write(folder, describe_external()))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_external_data_behind_a_linked_folder_is_refused(outside: Path) -> None:
    folder = outside.parent / "model"
    (folder / "sub").symlink_to(outside.parent)
    message = refusal(write(folder, describe_external(location="sub/secret")))
    assert "links are refused" in message or "not a directory" in message.lower()


def test_a_folder_that_is_reached_by_a_link_itself_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    save_external(NETS["residual"](), tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    read_model(tmp_path / "link" / "net.onnx")


@pytest.mark.parametrize(
    "entries",
    [
        *({"offset": -1}, {"offset": -(2**63)}, {"offset": 10**30}, {"offset": 1}),
        *({"length": 9215}, {"length": 9217}, {"length": -2}, {"length": 10**30}),
        *({"offset": "x"}, {"length": "many"}, {"offset": "1e3"}, {"offset": "9" * 5000}),
        {"__class__": "evil"},
    ],
)
def test_external_data_that_is_described_wrongly_is_refused(
    tmp_path: Path, entries: dict[str, object]
) -> None:
    (tmp_path / "weights").write_bytes(bytes(9216))
    assert "'c0.w'" in refusal(write(tmp_path, describe_external(**entries)))


def test_external_data_without_a_location_is_refused(tmp_path: Path) -> None:
    proto = describe_external()
    del proto.graph.initializer[0].external_data[:]
    assert "'c0.w'" in refusal(write(tmp_path, proto))


def test_external_and_inline_data_in_one_tensor_is_refused(tmp_path: Path) -> None:
    proto = NETS["residual"]()
    proto.graph.initializer[0].external_data.add(key="location", value="weights")
    assert "'c0.w'" in refusal(write(tmp_path, proto))


def test_a_model_in_memory_has_no_folder_for_external_data() -> None:
    with pytest.raises(ModelError, match="inline"):
        model_from_proto(describe_external(), name="net.onnx")


@pytest.mark.parametrize("place", ["constant", "branch", "function"])
def test_external_data_is_found_wherever_it_hides(outside: Path, place: str) -> None:
    tensor = describe_external(location="../secret").graph.initializer[0]
    proto = NETS["functions" if place == "function" else "branches"]()
    if place == "branch":
        models.node(proto, "if").attribute[0].g.initializer.append(tensor)
    else:
        nodes = proto.functions[0].node if place == "function" else proto.graph.node
        nodes.insert(0, helper.make_node("Constant", [], ["secret"], value=tensor))
    assert "not a plain path" in refusal(write(outside.parent / "model", proto))
