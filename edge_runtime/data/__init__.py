"""Samples for calibration and comparison: pictures, NumPy's files, ONNX's test data or memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from edge_runtime.data.arrays import ArrayFile, ArrayFolder
from edge_runtime.data.folder import ARRAYS, PICTURES, list_files, of_kind
from edge_runtime.data.images import ImageFolder, PictureSamples
from edge_runtime.data.onnx_test_data import OnnxTestData, tensor_files
from edge_runtime.data.samples import ArraySamples, CheckedSamples, Samples
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.files import StrPath
from edge_runtime.tensors import Feeds, TensorSpec
from edge_runtime.vision.preprocess import EXAMPLE, Preprocessing

__all__ = ["CheckedSamples", "ImageFolder", "Samples", "Source", "holds_pictures", "open_samples"]

Source = StrPath | ImageFolder | Iterable[Feeds]
"""What a caller may pass for samples: see `open_samples`."""


def open_samples(
    source: Source,
    inputs: Sequence[TensorSpec],
    *,
    preprocessing: Preprocessing | None = None,
    limit: int | None = None,
) -> CheckedSamples:
    """Opens samples for a model and checks what can be checked without reading all of them.

    Args:
        source: A folder of pictures, a folder of .npz or .npy files with one sample each, a folder
            of ONNX test data, an .npz or .npy file with many samples, an `ImageFolder`, a list of
            feeds, or an object whose `__iter__` gives the same feeds each time; or what this
            returned earlier.
        inputs: The model's inputs.
        preprocessing: How a picture becomes a tensor; needed for a folder of pictures, refused for
            anything else.
        limit: The most samples to take, evenly spaced; None takes all, or what `ImageFolder` says.

    Raises:
        DataError: `source` is missing, empty, unreadable, or does not fit the inputs.
        ConfigError: `preprocessing` is missing or has nothing to act on, or `limit` is below 1.
    """
    if isinstance(source, CheckedSamples):
        if preprocessing is not None or limit is not None or not source.are_for(inputs):
            raise ConfigError(
                "These samples are open already: they keep the inputs, preprocessing and limit "
                "that they were opened with. Open them again from their source."
            )
        return source
    if isinstance(source, ImageFolder):
        if preprocessing is not None:
            raise ConfigError(f"{source.path}: this ImageFolder has a preprocessing already.")
        return PictureSamples(source if limit is None else replace(source, limit=limit), inputs)
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(source), inputs, preprocessing, limit)
    _refuse_preprocessing("The samples", preprocessing)
    return ArraySamples(source, inputs, limit=limit)


def holds_pictures(source: Source) -> bool:
    """Whether `source` is the path of a folder of pictures, which need a preprocessing."""
    if not isinstance(source, str | os.PathLike) or not Path(source).is_dir():
        return False
    return bool(of_kind(list_files(source), PICTURES))


def _open_path(
    path: Path,
    inputs: Sequence[TensorSpec],
    preprocessing: Preprocessing | None,
    limit: int | None,
) -> CheckedSamples:
    if path.is_dir():
        files = list_files(path)
        pictures, arrays = of_kind(files, PICTURES), of_kind(files, ARRAYS)
        kinds = {"pictures": pictures, "arrays": arrays, "ONNX test data": tensor_files(files)}
        there = [f"{kind} ({found[0].name})" for kind, found in kinds.items() if found]
        if len(there) > 1:
            raise DataError(f"{path} holds both {' and '.join(there)}; keep one kind.")
        if pictures:
            return _open_pictures(path, inputs, preprocessing, limit)
        if there:
            _refuse_preprocessing(str(path), preprocessing)
            return (ArrayFolder if arrays else OnnxTestData)(path, inputs, limit=limit)
        raise DataError(
            f"{path} holds files such as {files[0].name}, but no pictures, no .npz or .npy and no "
            "input_0.pb of ONNX test data."
        )
    if path.suffix.lower() in ARRAYS:
        _refuse_preprocessing(str(path), preprocessing)
        return ArrayFile(path, inputs, limit=limit)
    found = "a file" if path.exists() else "not there"
    raise DataError(
        f"{path} is {found}; expected a folder of pictures, a folder of .npz or .npy files, one "
        "such file, or a folder of ONNX test data."
    )


def _open_pictures(
    path: Path,
    inputs: Sequence[TensorSpec],
    preprocessing: Preprocessing | None,
    limit: int | None,
) -> CheckedSamples:
    if preprocessing is None:
        raise ConfigError(
            f"{path} holds pictures: say how one becomes an input, as the model was trained, with "
            f"--preprocess, [preprocessing] in the recipe or ImageFolder; for example {EXAMPLE}."
        )
    return PictureSamples(ImageFolder(path, preprocessing, limit=limit), inputs)


def _refuse_preprocessing(what: str, preprocessing: Preprocessing | None) -> None:
    if preprocessing is not None:
        raise ConfigError(
            f"{what}: a preprocessing was given, but these are arrays, which are fed as they are. "
            "Leave it out."
        )
