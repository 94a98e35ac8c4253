"""What the contexts of one engine share, and the errors of TensorRT's runtime in words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.backends.tensorrt.interface import Interface
from edge_runtime.backends.tensorrt.logger import Recording
from edge_runtime.cuda.device import Device
from edge_runtime.cuda.memory import DeviceBuffer
from edge_runtime.cuda.stream import Stream
from edge_runtime.errors import DeviceError, InferenceError
from edge_runtime.gpu_config import GpuConfig


class BufferPool:
    """Device memory of outputs that stay on the GPU: given back, it is used again."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._lock = threading.RLock()  # The collector may call `give_back` inside of it.
        self._free: dict[int, list[DeviceBuffer]] = {}
        self._closed = False

    def take(self, size: int) -> DeviceBuffer:
        """Memory of at least `size` bytes."""
        size = max(size, 1)
        with self._lock:
            if free := self._free.get(size):
                return free.pop()
        return self._device.allocate(size)

    def give_back(self, buffer: DeviceBuffer) -> None:
        """Takes memory back, from any thread."""
        with self._lock:
            if not self._closed:
                self._free.setdefault(buffer.size, []).append(buffer)
                return
        buffer.close()

    def close(self) -> None:
        """Frees what is here; what is given back later is freed then."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, {}
        for buffers in free.values():
            for buffer in buffers:
                buffer.close()


class SharedMemory:
    """One block of activation memory that contexts use in turn, in the order of their streams."""

    def __init__(self, device: Device, size: int) -> None:
        self.buffer = device.allocate(max(size, 1))
        self._last = device.create_event()
        self._used = False
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, stream: Stream) -> Iterator[None]:
        """What is enqueued in the block runs after whatever used the memory before."""
        with self._lock:
            if self._used:
                stream.wait_event(self._last)
            try:
                yield
            finally:
                self._last.record(stream)
                self._used = True

    def close(self) -> None:
        """Frees the memory. Nothing may be in flight."""
        self.buffer.close()
        self._last.close()


@dataclass(frozen=True)
class Resources:
    """What the contexts of one engine share.

    Attributes:
        trt: TensorRT's module.
        engine: The `ICudaEngine`.
        interface: Its inputs and outputs.
        device: The GPU.
        config: How it is used.
        pool: Memory of outputs that stay on the GPU.
        shared: Activation memory that contexts use in turn; None if each has its own.
    """

    trt: Any
    engine: Any
    interface: Interface
    device: Device
    config: GpuConfig
    pool: BufferPool
    shared: SharedMemory | None = field(default=None)


@contextmanager
def freeing(device: Device) -> Iterator[None]:
    """`device.current()` for freeing things, which goes on where the device is lost."""
    with suppress(DeviceError), ExitStack() as entered:
        with suppress(DeviceError):
            entered.enter_context(device.current())
        yield


def check(done: object, log: Recording, what: str) -> None:
    """Raises the `InferenceError` of a call that TensorRT answered with False or None.

    Args:
        done: What it returned.
        log: The errors that it logged.
        what: What it was to do, to follow "TensorRT did not".
    """
    if done is None or done is False:
        raise refusal(log, what)


def refusal(log: Recording, what: str) -> InferenceError:
    """The error with TensorRT's own lines."""
    return InferenceError(f"TensorRT did not {what}: {reasons(log) or 'it gave no reason'}.")


def reasons(log: Recording) -> str:
    """TensorRT's own lines as one; empty if it logged none."""
    return "; ".join(" ".join(message.split()) for message in log.errors)
