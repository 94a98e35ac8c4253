"""Puts a model's external data inline: regular files inside the model's folder, through no link."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from edge_runtime.errors import ModelError

MAX_BYTES = 2**31 - 1
"""Largest model with its weights; a protobuf message cannot be larger."""


def load_external_data(
    tensors: Iterable[TensorProto], name: str, folder: Path | None, size: int
) -> None:
    """Reads the data of every tensor that has it outside, into the tensor itself.

    Args:
        tensors: All tensors of a model.
        name: What messages call the model.
        folder: Where its data may lie; none means there may be no external data.
        size: Bytes that the model has already, which count towards `MAX_BYTES`.

    Raises:
        ModelError: The data are missing, too large, not of the tensor's size, or lie where they
            must not: outside the folder, behind a link, in anything but a regular file.
    """
    for tensor in tensors:
        if tensor.data_location != TensorProto.EXTERNAL:
            tensor.ClearField("data_location")  # Inline is the same, whether it is said or not.
            if tensor.external_data:
                raise ModelError(
                    f"{name}: tensor {tensor.name!r} has external data and inline data."
                )
            continue
        if folder is None:
            raise ModelError(f"{name}: tensor {tensor.name!r} has external data; save it inline.")
        data = _read_external(tensor, name, folder)
        size += len(data)
        if size > MAX_BYTES:
            raise ModelError(f"{name} has more than {MAX_BYTES} bytes with its external data.")
        tensor.raw_data = data
        del tensor.external_data[:]
        tensor.ClearField("data_location")


def _read_external(tensor: TensorProto, name: str, folder: Path) -> bytes:
    what = f"{name}: the external data of tensor {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    unknown = set(entries) - {"location", "offset", "length", "checksum"}
    if unknown or "location" not in entries:
        raise ModelError(
            f"{what} is described wrongly: its keys are {', '.join(entries) or 'none'}."
        )
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or -1)
    except ValueError:
        raise ModelError(f"{what} has an offset or length that is not a number.") from None
    wanted = wanted_bytes(tensor)
    if offset < 0 or wanted is None or length not in (-1, wanted):
        raise ModelError(
            f"{what} is {length} bytes at offset {offset}, but its shape and type take {wanted}."
        )
    location = entries["location"]
    parts = location.replace("\\", "/").split("/")
    if not all(parts) or ":" in parts[0] or {".", ".."} & {*parts} or "\0" in location:
        raise ModelError(f"{what} lies at {location!r}, which is not a plain path in its folder.")
    descriptor = _open_inside(folder, parts, what)
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            raise ModelError(
                f"{what} is in {location!r}, which is not a regular file or has links."
            )
        if offset + wanted > info.st_size:
            raise ModelError(
                f"{what} needs bytes {offset} to {offset + wanted} of {location!r}, which has "
                f"{info.st_size}; copy it again."
            )
        with open(descriptor, "rb", closefd=False) as file:  # It would not open a folder.
            file.seek(offset)
            return file.read(wanted)
    finally:
        os.close(descriptor)


def _open_inside(folder: Path, parts: list[str], what: str) -> int:
    """Opens folder/parts, following no link; part by part, so that none can be swapped."""
    try:
        current = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        for index, part in enumerate(parts):
            kind = os.O_DIRECTORY if index < len(parts) - 1 else os.O_NONBLOCK
            try:
                following = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | kind, dir_fd=current)
            finally:
                os.close(current)
            current = following
    except FileNotFoundError:
        raise ModelError(f"{what} is missing: there is no {'/'.join(parts)} beside it.") from None
    except OSError as error:
        raise ModelError(
            f"{what} cannot be opened at {'/'.join(parts)!r} ({error.strerror}); links are refused."
        ) from error
    return current


def wanted_bytes(tensor: TensorProto) -> int | None:
    """Bytes that the tensor's shape and type take; None where they make no sense."""
    if any(size < 0 for size in tensor.dims) or tensor.data_type == TensorProto.STRING:
        return None
    count = 1
    for size in tensor.dims:
        count *= size
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1):
        return (count + 1) // 2
    try:
        return count * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    except KeyError:
        return None
