"""Reads what `run --input` names: arrays as they are, pictures as the bundle says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_runtime.data.arrays import load_arrays
from edge_runtime.data.folder import ARRAYS
from edge_runtime.data.onnx_test_data import load_tensor, load_test_data
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.files import open_file
from edge_runtime.tensors import Array, TensorSpec
from edge_runtime.vision.preprocess import EXAMPLE, Preprocessing


def read_feeds(
    texts: Sequence[str], specs: Sequence[TensorSpec], preprocessing: Preprocessing | None
) -> dict[str, Array]:
    """The feeds that `NAME=FILE` or `FILE` texts name.

    Args:
        texts: What --input said. Without a name, an .npz feeds the inputs that its arrays are
            named after, a folder of ONNX test data all in their order, and another file the only
            input.
        specs: The model's inputs.
        preprocessing: How a picture becomes an input, if anybody said.

    Returns:
        New arrays by input, owned by the caller. Whether they fit, `Session.run` says.

    Raises:
        ConfigError: An input is unknown, fed twice or not at all, or a picture comes without
            preprocessing.
        DataError: A file cannot be read.
    """
    feeds: dict[str, Array] = {}
    for text in texts:
        fed, file = _target(text, specs)
        arrays = _read(file, fed, preprocessing)
        for name in arrays:
            if name in feeds:
                raise ConfigError(f"--input {text}: input {name!r} is fed already.")
        feeds.update(arrays)
    missing = [spec.name for spec in specs if spec.name not in feeds]
    if missing:
        raise ConfigError(
            f"Nothing feeds input {missing[0]!r}: give --input {missing[0]}=FILE, an .npy, .npz or "
            "picture."
        )
    return feeds


def _target(text: str, specs: Sequence[TensorSpec]) -> tuple[Sequence[TensorSpec], Path]:
    """The inputs that a text is for, and its file. Names and paths may hold = themselves."""
    for spec in specs:
        if text.startswith(f"{spec.name}="):
            return [spec], Path(text[len(spec.name) + 1 :])
    name, equals, _ = text.partition("=")
    if equals and not Path(text).exists():
        raise ConfigError(
            f"--input {text}: the model has no input {name!r}; its inputs are "
            f"{', '.join(spec.name for spec in specs)}."
        )
    return specs, Path(text)


def _read(
    file: Path, specs: Sequence[TensorSpec], preprocessing: Preprocessing | None
) -> dict[str, Array]:
    if file.suffix.lower() in ARRAYS:
        return load_arrays(file, specs)
    if file.is_dir():
        return load_test_data(file, specs)
    if len(specs) != 1:
        raise ConfigError(
            f"--input {file}: the model has the inputs {', '.join(spec.name for spec in specs)}; "
            f"say which this is, as --input {specs[0].name}={file}."
        )
    with open_file(file, error=DataError):  # A wrong path is the likelier mistake.
        pass
    if file.suffix == ".pb":
        return {specs[0].name: load_tensor(file)}
    if preprocessing is None:
        raise ConfigError(
            f"{file} is no .npy or .npz, and the bundle does not say how a picture becomes input "
            f"{specs[0].name!r} ({specs[0]}): say it as the model was trained, with --preprocess; "
            f"for example {EXAMPLE}."
        )
    # OpenCV, which a device that is fed arrays does not need.
    from edge_runtime.vision.pictures import read_picture, to_tensor

    return {specs[0].name: to_tensor(read_picture(file), preprocessing)}
