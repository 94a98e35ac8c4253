"""The few driver calls that TensorRT itself makes, on the software GPU.

TensorRT goes through CUDA's runtime, which makes the device's primary context current where a
thread has none; so does `_primary`. Without a software GPU, work runs at once, on host memory.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Ranges = Sequence[tuple[int, int]]
Run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_MAJOR, _MINOR = 75, 76  # cuda.h: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


class Driver:
    """`gpu` is the software GPU or None."""

    def __init__(self, gpu: Any, device: str) -> None:
        self._gpu, self._device = gpu, device
        self._host: dict[int, Any] = {}
        self._lock, self._allocations = threading.RLock(), 0
        self._context = ctypes.c_void_p()
        # The software GPU has this name already loaded: the loader knows libraries by it.
        self._cuda: Any = None if gpu is None else ctypes.CDLL("libcuda.so.1")
        self._launch: Any = None if gpu is None else gpu.library.swgpu_launch

    @property
    def architecture(self) -> str:
        """Such as `sm87`."""
        if self._cuda is None:
            return self._device
        self._cuda.cuInit(0)
        numbers = []
        for attribute in (_MAJOR, _MINOR):
            value = ctypes.c_int()
            self._cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
            numbers.append(str(value.value))
        return "sm" + "".join(numbers)

    def ranges(self, reads: Ranges, writes: Ranges) -> tuple[Any, int, int]:
        """What a kernel touches, made once for many launches."""
        flat = [number for pair in (*reads, *writes) for number in pair]
        return (ctypes.c_uint64 * len(flat))(*flat), len(reads), len(writes)

    def launch(
        self, stream: int, run: Any, argument: int, ranges: tuple[Any, int, int], seconds: float
    ) -> int:
        """Enqueues a kernel, `Run` or None; 0, or the driver's error."""
        if self._launch is None:
            if run is not None:
                run(argument)
            return 0
        return int(self._launch(stream, run, argument, *ranges, seconds, 1))

    def fail_running(self, error: int) -> None:
        """Called by a kernel that cannot compute: its context is broken."""
        if self._gpu is not None:
            self._gpu.fail_running(error)

    def capturing(self, stream: int) -> bool:
        """Whether the stream is being captured into a graph."""
        if self._cuda is None or not stream:
            return False
        status = ctypes.c_int()
        self._cuda.cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(status))
        return status.value != 0

    def synchronize(self, stream: int) -> int:
        """Waits for the stream; within a capture that is error 900, and breaks the capture."""
        if self._cuda is None:
            return 0
        return int(self._cuda.cuStreamSynchronize(ctypes.c_void_p(stream)))

    def record(self, event: int, stream: int) -> int:
        """Records an event of the caller's."""
        if self._cuda is None:
            return 0
        return int(self._cuda.cuEventRecord(ctypes.c_void_p(event), ctypes.c_void_p(stream)))

    def idle(self) -> bool:
        """Whether no stream has work; so also after the device was lost."""
        return self._gpu is None or bool(self._gpu.idle())

    def allocate(self, size: int) -> int:
        """Device memory of the library's own; 0 if there is no more."""
        if self._cuda is None:
            memory = (ctypes.c_char * (size + 256))()
            address = (ctypes.addressof(memory) + 255) // 256 * 256
            self._host[address] = memory
            return address
        address = ctypes.c_uint64()
        with self._lock:
            first = not self._allocations
            if first and self._cuda.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), 0):
                return 0
            self._allocations += 1
            with self._primary():
                failed = self._cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
            if failed:
                self._let_go()
        return 0 if failed else int(address.value)

    def free(self, address: int) -> None:
        """Frees what `allocate` gave."""
        if self._cuda is None:
            self._host.pop(address, None)
            return
        with self._lock:
            with self._primary():
                self._cuda.cuMemFree_v2(ctypes.c_uint64(address))
            self._let_go()

    def _let_go(self) -> None:
        """The primary context is held while the library has memory in it, and no longer."""
        self._allocations -= 1
        if not self._allocations:
            self._cuda.cuDevicePrimaryCtxRelease_v2(0)

    @contextmanager
    def _primary(self) -> Iterator[None]:
        current = ctypes.c_void_p()
        self._cuda.cuCtxGetCurrent(ctypes.byref(current))
        if current:
            yield
            return
        self._cuda.cuCtxPushCurrent_v2(self._context)
        try:
            yield
        finally:
            self._cuda.cuCtxPopCurrent_v2(ctypes.byref(current))
