"""The driver through pycuda, and through libcuda for what pycuda lacks.

What pycuda 2026.1 does (src/cpp/cuda.hpp) decides what it is asked for:

- It keeps its own stack of contexts in each thread, of which the driver knows at most one, and
  aborts the process if a thread ends while one is left on it, as a daemon thread may. Only making
  and destroying objects looks at that stack. So `push` is the driver's own, and pycuda's stack is
  used (`_scope`) just for the moment in which an object is made or destroyed.
- Its destructors warn and leak, or abort the process, where they cannot make their context current.
  So each object has one reference too many (`_keep`), which is dropped only inside a `_scope`.
- It aborts the process if the interpreter ends while a daemon thread is in a call that lets go of
  the GIL, a copy or a wait, since it is C++ ("FATAL: exception not rethrown"). Those are `Libcuda`.
- Its events do not say their `CUevent`, and it has no graphs. Those are `Libcuda`, too.
- Its exceptions hold no number, only the call and the driver's description of the error.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pycuda.driver as cuda

from edge_runtime.cuda.driver import STREAM_NON_BLOCKING, DeviceInfo
from edge_runtime.cuda.libcuda import Libcuda
from edge_runtime.cuda.result import UNKNOWN, result_of
from edge_runtime.errors import DeviceError


class PycudaDriver(Libcuda):
    """`Driver` on pycuda; handles are ints: addresses, `CUstream` and so on.

    Args:
        ordinal: Which GPU, counted as the driver does.
    """

    name = "pycuda"

    def __init__(self, ordinal: int) -> None:
        super().__init__()
        self._objects: dict[int, Any] = {}
        try:
            cuda.init()
            device = cuda.Device(ordinal)
            self.info = _info(device)
            self._context = device.retain_primary_context()
        except cuda.Error as error:
            raise self._raised(error) from error
        self.context = self._keep(int(self._context.handle), self._context)

    def memory_info(self) -> tuple[int, int]:
        """See `Driver`."""
        try:
            free, total = cuda.mem_get_info()
        except cuda.Error as error:
            raise self._raised(error) from error
        return int(free), int(total)

    def create_stream(self) -> tuple[int, int]:
        """See `Driver`."""
        with self._scope():
            stream = cuda.Stream(STREAM_NON_BLOCKING)
            handle = self._keep(int(stream.handle), stream)
        return handle, handle

    def destroy_stream(self, stream: int) -> None:
        """See `Driver`."""
        with self._scope():
            self._destroy(stream)

    def allocate(self, size: int) -> tuple[int, int]:
        """See `Driver`."""
        with self._scope():
            memory = cuda.mem_alloc(size)
            address = self._keep(int(memory), memory)
        return address, address

    def free(self, memory: int) -> None:
        """See `Driver`."""
        with self._scope():
            self._destroy(memory)

    def allocate_host(self, size: int, flags: int) -> tuple[int, int]:
        """See `Driver`."""
        with self._scope():
            array = cuda.pagelocked_empty((size,), np.uint8, mem_flags=flags)
            address = self._keep(int(array.ctypes.data), array.base)
        return address, address

    def free_host(self, memory: int) -> None:
        """See `Driver`."""
        with self._scope():
            self._destroy(memory)

    def device_address(self, memory: int) -> int:
        """See `Driver`."""
        try:
            return int(self._objects[memory].get_device_pointer())
        except cuda.Error as error:
            raise self._raised(error) from error

    def _keep(self, handle: int, item: Any) -> int:
        """Keeps pycuda's object for `handle` until `_destroy`, or the end of the process."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(item))
        self._objects[handle] = item
        return handle

    def _destroy(self, handle: int) -> None:
        item = self._objects.pop(handle)
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(item))

    def _raised(self, error: Exception) -> DeviceError:
        """From "cuMemAlloc failed: out of memory", maybe followed by " - " and a remark."""
        call, _, text = str(error).partition(" failed: ")
        code = result_of(text) or result_of(text.rpartition(" - ")[0]) or UNKNOWN
        return self._failed(code, call)

    @contextmanager
    def _scope(self) -> Iterator[None]:
        """The context on pycuda's own stack of this thread, and current."""
        before = self.get_current()
        try:
            self._context.push()
            try:
                if self.may_be_lost:
                    cuda.mem_get_info()  # Fails then, and else pycuda would warn on stderr.
                yield
            finally:
                self._pop_scope()
        except cuda.Error as error:
            raise self._raised(error) from error
        finally:
            # pycuda has replaced what was current by what its own stack holds now.
            if self.get_current() != before:
                self.set_current(before)

    def _pop_scope(self) -> None:
        try:
            cuda.Context.pop()
        except cuda.Error:
            # Off pycuda's stack, which else aborts the process when the thread ends.
            self._context.detach()
            raise


def _info(device: Any) -> DeviceInfo:
    attributes = cuda.device_attribute
    major, minor = device.compute_capability()
    return DeviceInfo(
        name=device.name(),
        compute_capability=f"sm{major}{minor}",
        memory=int(device.total_memory()),
        integrated=device.get_attribute(attributes.INTEGRATED) == 1,
        maps_host_memory=device.get_attribute(attributes.CAN_MAP_HOST_MEMORY) == 1,
        driver_version=int(cuda.get_driver_version()),
    )
