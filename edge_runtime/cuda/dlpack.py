"""DLPack capsules of arrays in the GPU's memory, in and out.

Format: dmlc/dlpack, include/dlpack/dlpack.h, both `DLManagedTensor` and, from its version 1.0,
`DLManagedTensorVersioned`; protocol: the Python array API standard's `__dlpack__`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

CPU = 1
CUDA = 2
CUDA_HOST = 3
CUDA_MANAGED = 13

# DLDataTypeCode and bits: numpy's name. numpy lacks bfloat16 (4), and what is smaller than a byte.
_TYPES = {
    **{(0, bits): f"int{bits}" for bits in (8, 16, 32, 64)},
    **{(1, bits): f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{(2, bits): f"float{bits}" for bits in (16, 32, 64)},
    **{(5, bits): f"complex{bits}" for bits in (64, 128)},
    (6, 8): "bool",
}
_VERSIONED = np.lib.NumpyVersion(np.__version__) >= "2.1.0"


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("ordinal", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("rank", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # in elements; NULL: C-contiguous
        ("byte_offset", ctypes.c_uint64),
    )


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.argtypes = (ctypes.py_object, ctypes.c_char_p)
_is_valid.restype = ctypes.c_int
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_pointer.restype = ctypes.c_void_p


@dataclass(frozen=True, slots=True)
class Borrowed:
    """What a capsule describes; valid for as long as the capsule is kept.

    Attributes:
        address: Of the first element.
        shape: One size a dimension.
        strides: In bytes, or None where C-contiguous.
        dtype: Element type.
        device: DLDeviceType and number.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: np.dtype[Any]
    device: tuple[int, int]


def read(capsule: object) -> Borrowed:
    """Reads an unused capsule, and leaves it unused: dropping it gives the memory back.

    Raises:
        ValueError: It is not an unused capsule of a DLPack version before 2, or numpy does not have
            its element type; says what was found.
    """
    tensor = _tensor(capsule)
    code, bits, lanes = tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes
    name = _TYPES.get((code, bits))
    if name is None or lanes != 1:
        raise ValueError(f"elements of DLPack's type code {code}, {bits} bits, {lanes} lanes")
    dtype = np.dtype(name)
    rank = tensor.rank
    strides = None
    if rank and tensor.strides:
        strides = tuple(step * dtype.itemsize for step in tensor.strides[:rank])
    return Borrowed(
        address=(tensor.data or 0) + tensor.byte_offset,
        shape=tuple(tensor.shape[:rank]) if rank else (),
        strides=strides,
        dtype=dtype,
        device=(tensor.device.type, tensor.device.ordinal),
    )


def export(memory: object, ordinal: int, max_version: tuple[int, int] | None) -> object:
    """A capsule of device memory.

    numpy makes it, as if of host memory, because its deleter is written in C: consumers call it in
    any thread, while an exception is on its way, and after the interpreter's end. Only then is the
    device written in.

    Args:
        memory: Describes itself by `__array_interface__`; the capsule keeps it.
        ordinal: The GPU.
        max_version: Newest version of DLPack that the consumer reads; None: older than 1.0.

    Raises:
        BufferError: DLPack does not have the element type.
    """
    array = np.asarray(memory)
    capsule = array.__dlpack__(max_version=max_version) if _VERSIONED else array.__dlpack__()
    _tensor(capsule).device = _Device(CUDA, ordinal)
    return capsule


def _tensor(capsule: object) -> _Tensor:
    if _is_valid(capsule, b"dltensor"):
        return _Tensor.from_address(_pointer(capsule, b"dltensor"))
    if _is_valid(capsule, b"dltensor_versioned"):
        versioned = _Versioned.from_address(_pointer(capsule, b"dltensor_versioned"))
        if versioned.major != 1:
            raise ValueError(f"DLPack {versioned.major}.{versioned.minor}")
        tensor: _Tensor = versioned.tensor
        return tensor
    raise ValueError(f"{capsule!r}")
