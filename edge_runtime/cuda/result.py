"""What a `CUresult` means, and the one place where it becomes a `DeviceError`."""

from __future__ import annotations

import ctypes
from functools import cache

from edge_runtime.errors import DeviceError

# After these the context is of no more use: every later call in it fails as well.
_LOST = frozenset({4, 46, 214, 700, 702, 709, 710, *range(714, 720), 999})
UNKNOWN = 999  # CUDA_ERROR_UNKNOWN, the highest


@cache
def library() -> ctypes.CDLL:
    """NVIDIA's driver library, which its driver or L4T installs.

    Raises:
        OSError: The dynamic linker does not find it.
    """
    return ctypes.CDLL("libcuda.so.1")


def device_error(code: int, call: str) -> DeviceError:
    """The error for what the driver function `call` returned."""
    return DeviceError(code, _text("cuGetErrorName", code) or "an unknown CUresult", call)


def result_of(text: str) -> int:
    """The `CUresult` that the driver describes with `text`; 0 where there is none."""
    return _results().get(text, 0)


def is_lost(error: DeviceError) -> bool:
    """Whether the device or its context is lost, so that only a new process can use it again."""
    return error.code in _LOST


@cache
def _results() -> dict[str, int]:
    """`CUresult` by the driver's description; where two share one, the lower."""
    codes = range(UNKNOWN, 0, -1)
    return {text: code for code in codes if (text := _text("cuGetErrorString", code))}


def _text(call: str, code: int) -> str:
    found = ctypes.c_char_p()
    unknown = library()[call](code, ctypes.byref(found))
    return "" if unknown else (found.value or b"").decode("utf-8", "replace")
