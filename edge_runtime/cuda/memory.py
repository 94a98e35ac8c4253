"""Memory of the GPU, and pinned memory of the host that the GPU copies from and to."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.cuda.context import Context, Resource
from edge_runtime.cuda.driver import HOST_DEVICEMAP


class DeviceBuffer(Resource):
    """Device memory, not initialised.

    Args:
        context: Where to allocate it.
        size: Bytes, 1 or more.

    Attributes:
        address: Where it is; the driver aligns it to 256 bytes.
        size: Its bytes.
    """

    def __init__(self, context: Context, size: int) -> None:
        self.size = size
        with context.current():
            handle, self.address = context.driver.allocate(size)
        super().__init__(context, handle, context.driver.free)


class PinnedBuffer:
    """Page-locked host memory, not initialised.

    Args:
        context: Where to allocate it.
        size: Bytes, 1 or more.
        mapped: Lets the GPU work on it without a copy.

    Attributes:
        size: Its bytes.
        address: Where the CPU sees it.
        array: Its bytes, uint8 of shape (size,). Arrays made from it keep the memory, even after
            `close()`.
    """

    def __init__(self, context: Context, size: int, *, mapped: bool) -> None:
        self.size = size
        driver = context.driver
        device_address: int | None = None
        with context.current():
            handle, self.address = driver.allocate_host(size, HOST_DEVICEMAP if mapped else 0)
            if mapped:
                try:
                    device_address = driver.device_address(handle)
                except BaseException:
                    driver.free_host(handle)
                    raise
        self._device_address = device_address
        self._state = _PinnedState(context, handle)
        owner = (ctypes.c_uint8 * size).from_address(self.address)
        weakref.finalize(owner, self._state.free).atexit = False
        self.array: npt.NDArray[np.uint8] = np.frombuffer(memoryview(owner), np.uint8)

    @property
    def device_address(self) -> int:
        """Where the GPU sees it.

        Raises:
            ValueError: It was not allocated as mapped.
        """
        if self._device_address is None:
            raise ValueError("This PinnedBuffer is not mapped; allocate it with mapped=True.")
        return self._device_address

    def close(self) -> None:
        """Frees it, when no array made from it is left; nothing on the GPU may use it any more."""
        self._state.idle = True
        if hasattr(self, "array"):
            del self.array


class _PinnedState:
    """How pinned memory is freed: the last array that shows it decides when."""

    def __init__(self, context: Context, handle: Any) -> None:
        self._context = context
        self._handle = handle
        self.idle = False

    def free(self) -> None:
        """Frees it."""
        free = self._context.free if self.idle else self._context.drop
        free(self._context.driver.free_host, self._handle)
