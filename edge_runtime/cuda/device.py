"""A GPU: what it is, and everything that is made on it."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager

from edge_runtime.cuda.bindings import open_driver
from edge_runtime.cuda.context import Context
from edge_runtime.cuda.driver import Driver
from edge_runtime.cuda.graph import Capture, capture
from edge_runtime.cuda.memory import DeviceBuffer, PinnedBuffer
from edge_runtime.cuda.stream import Event, Stream

_devices: dict[tuple[str, int], Device] = {}
_lock = threading.Lock()


class Device:
    """One GPU, through one Python binding of CUDA. Made by `open_device`; shared by threads.

    What is made on it belongs to the caller and outlives `close()`. Copies want the context
    current: `with device.current():` around as many as one likes.

    Args:
        driver: The binding.
        ordinal: Which GPU, counted as the driver does.

    Attributes:
        driver: The binding's name, `cuda-bindings` or `pycuda`.
        ordinal: Which GPU.
        info: What it is.
        context: Where everything on it is made and freed.
    """

    def __init__(self, driver: Driver, ordinal: int) -> None:
        self.driver = driver.name
        self.ordinal = ordinal
        self.info = driver.info
        self.context = Context(driver)
        self._driver = driver

    def current(self) -> AbstractContextManager[None]:
        """Makes the GPU's primary context current in this thread; then, what was so before.

        Cheap; may be nested; may be held in several threads at once.
        """
        return self.context.current()

    def create_stream(self) -> Stream:
        """A new stream, which neither waits for the default stream nor lets it wait."""
        return Stream(self.context)

    def create_event(self, *, timing: bool = False, spin: bool = True) -> Event:
        """A new event.

        Args:
            timing: Lets it be asked for `milliseconds_since`.
            spin: Waits for it with a busy CPU core: some microseconds faster than asleep.
        """
        return Event(self.context, timing=timing, spin=spin)

    def allocate(self, size: int) -> DeviceBuffer:
        """Device memory of `size` bytes, 1 or more, not initialised.

        Raises:
            DeviceError: `CUDA_ERROR_OUT_OF_MEMORY` (2), where there is not as much.
        """
        return DeviceBuffer(self.context, size)

    def allocate_pinned(self, size: int, *, mapped: bool = False) -> PinnedBuffer:
        """Page-locked host memory of `size` bytes, 1 or more, not initialised.

        Args:
            size: Bytes.
            mapped: Lets the GPU work on it without a copy; only if `info.maps_host_memory`.

        Raises:
            DeviceError: `CUDA_ERROR_OUT_OF_MEMORY` (2), where there is not as much.
        """
        return PinnedBuffer(self.context, size, mapped=mapped)

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of the GPU's memory, which integrated ones share with the host."""
        with self.current():
            return self._driver.memory_info()

    def copy_to_device(
        self, target: int, source: PinnedBuffer, size: int, stream: Stream, *, offset: int = 0
    ) -> None:
        """Enqueues a copy to the device; the caller keeps both ends until it is done.

        Args:
            target: Address in device memory.
            source: Where the bytes come from.
            size: How many.
            stream: Where to enqueue it.
            offset: First byte in `source`.
        """
        if offset < 0 or offset + size > source.size:
            raise _beyond(source, size, offset)
        self._driver.copy_to_device(target, source, offset, size, stream._handle)

    def copy_to_host(
        self, target: PinnedBuffer, source: int, size: int, stream: Stream, *, offset: int = 0
    ) -> None:
        """Enqueues a copy to the host; the caller keeps both ends until it is done.

        Args:
            target: Where the bytes go to.
            source: Address in device memory.
            size: How many bytes.
            stream: Where to enqueue it.
            offset: First byte in `target`.
        """
        if offset < 0 or offset + size > target.size:
            raise _beyond(target, size, offset)
        self._driver.copy_to_host(target, offset, source, size, stream._handle)

    def copy_on_device(self, target: int, source: int, size: int, stream: Stream) -> None:
        """Enqueues a copy of `size` bytes between two addresses in device memory."""
        self._driver.copy_on_device(target, source, size, stream._handle)

    def capture(self, stream: Stream) -> AbstractContextManager[Capture]:
        """Captures what is enqueued in `stream`, or waits for it, instead of running it.

            with device.capture(stream) as captured:
                ...
            captured.graph.launch(stream)

        The context is current inside. An exception inside ends the capture; nothing is left of it.

        Raises:
            DeviceError: At the end, if something inside could not be captured.
        """
        return capture(self.context, stream)

    def close(self) -> None:
        """Lets the next `open_device` make a new Device. What was made on this one stays.

        So does the primary context, until the process ends: CUDA's runtime inside TensorRT holds it
        as well.
        """
        with _lock:
            for key, device in list(_devices.items()):
                if device is self:
                    del _devices[key]


def open_device(driver: str = "auto", ordinal: int = 0) -> Device:
    """The GPU, shared by all of the process that open it through the same binding.

    Args:
        driver: `cuda-bindings`, `pycuda`, or `auto` for the first of these that is installed.
        ordinal: Which GPU, counted as the driver does.

    Raises:
        BackendUnavailableError: Says what is missing and how to mend it.
    """
    with _lock:
        device = _devices.get((driver, ordinal))
        if device is None:
            opened = open_driver(driver, ordinal)
            device = _devices.get((opened.name, ordinal)) or Device(opened, ordinal)
            _devices[driver, ordinal] = _devices[opened.name, ordinal] = device
        return device


def _beyond(buffer: PinnedBuffer, size: int, offset: int) -> ValueError:
    return ValueError(f"{size} bytes at {offset} are not inside of a buffer of {buffer.size}.")
