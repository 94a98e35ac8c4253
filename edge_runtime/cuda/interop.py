"""Arrays of other libraries in the GPU's memory, read without a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_runtime.cuda import dlpack
from edge_runtime.cuda.array import DeviceArray
from edge_runtime.cuda.device import Device
from edge_runtime.cuda.stream import Stream
from edge_runtime.errors import FeedError

_DEVICES = (dlpack.CUDA, dlpack.CUDA_HOST, dlpack.CUDA_MANAGED)


@dataclass(frozen=True, slots=True)
class DeviceView:
    """An array that the GPU can read, whoever owns it.

    Attributes:
        address: Of the first element, for the GPU.
        shape: One size a dimension.
        dtype: Element type.
        contiguous: Whether the elements are C-contiguous.
        owner: To be kept until the GPU has read it.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    contiguous: bool
    owner: object


def is_device_array(value: object) -> bool:
    """Whether `view` takes it: a GPU's array by DLPack or by `__cuda_array_interface__`."""
    if isinstance(value, np.ndarray):
        return False
    return _has_dlpack(value) or hasattr(value, "__cuda_array_interface__")


def view(value: Any, stream: Stream, device: Device, *, tensor: str = "input") -> DeviceView:
    """Reads where a device array is, and lets later work in `stream` wait until it is complete.

    Wants the context current. DLPack is asked first: there the producer does the waiting right. Of
    the other interface, an array without a stream is taken as complete.

    Args:
        value: What `is_device_array` has said yes to.
        stream: Where it will be read.
        device: The GPU that will read it.
        tensor: The input's name, for errors.

    Raises:
        FeedError: It is on another GPU, or says something about itself that cannot be.
    """
    if isinstance(value, DeviceArray):
        found = value.__dlpack_device__()
        _check_device(found, device, tensor)
        return DeviceView(value.address, value.shape, value.dtype, True, value._memory)
    if _has_dlpack(value):
        return _from_dlpack(value, stream, device, tensor)
    return _from_interface(value, stream, tensor)


def _has_dlpack(value: Any) -> bool:
    if not hasattr(value, "__dlpack_device__"):
        return False
    return value.__dlpack_device__()[0] in _DEVICES


def _from_dlpack(value: Any, stream: Stream, device: Device, tensor: str) -> DeviceView:
    kind, ordinal = value.__dlpack_device__()
    _check_device((kind, ordinal), device, tensor)
    handle = None if kind == dlpack.CUDA_HOST else stream.handle
    try:
        try:
            capsule = value.__dlpack__(stream=handle, max_version=(1, 0))
        except TypeError:  # older producers lack max_version
            capsule = value.__dlpack__(stream=handle)
        read = dlpack.read(capsule)
    except (BufferError, ValueError) as error:
        raise FeedError(
            tensor, expected="an array that DLPack can hand over", found=f"{error}"
        ) from error
    _check_device(read.device, device, tensor)
    contiguous = _is_contiguous(read.shape, read.strides, read.dtype.itemsize)
    return DeviceView(read.address, read.shape, read.dtype, contiguous, capsule)


def _check_device(found: tuple[int, int], device: Device, tensor: str) -> None:
    kind, ordinal = found
    if kind == dlpack.CUDA and ordinal != device.ordinal:
        raise FeedError(
            tensor,
            expected=f"an array on GPU {device.ordinal}, the session's",
            found=f"one on GPU {ordinal}",
        )


def _from_interface(value: Any, stream: Stream, tensor: str) -> DeviceView:
    interface = value.__cuda_array_interface__
    if interface.get("mask") is not None:
        raise FeedError(tensor, expected="an array without a mask", found="one with a mask")
    dtype = np.dtype(interface["typestr"])
    shape = tuple(int(size) for size in interface["shape"])
    producer = interface.get("stream")
    if producer == 0:
        raise FeedError(
            tensor, expected="a __cuda_array_interface__ with a stream or None", found="stream 0"
        )
    if producer is not None and producer != stream.handle:
        stream.wait_foreign(producer)
    return DeviceView(
        address=int(interface["data"][0]),
        shape=shape,
        dtype=dtype,
        contiguous=_is_contiguous(shape, interface.get("strides"), dtype.itemsize),
        owner=value,
    )


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None, size: int) -> bool:
    if strides is None or 0 in shape:
        return True
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != size:
            return False
        size *= length
    return True
