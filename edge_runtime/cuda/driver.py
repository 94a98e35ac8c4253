"""The driver calls that edge_runtime needs: a Protocol, with one class per Python binding.

A call wants the context current in its thread (`push`), unless it says otherwise. Handles are what
the class itself returned. Every failure is a `DeviceError` (`result.device_error`). Lifetimes are
not thought of here but in `context`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

STREAM_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
EVENT_BLOCKING_SYNC = 1  # CU_EVENT_BLOCKING_SYNC
EVENT_DISABLE_TIMING = 2  # CU_EVENT_DISABLE_TIMING
HOST_DEVICEMAP = 2  # CU_MEMHOSTALLOC_DEVICEMAP
# CU_STREAM_CAPTURE_MODE_RELAXED: in the others, a kernel that is loaded lazily ends the capture.
CAPTURE_RELAXED = 2


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What the driver says about a GPU.

    Attributes:
        name: NVIDIA's name of it.
        compute_capability: As in `sm87`.
        memory: All of its memory, in bytes. An integrated GPU shares the host's.
        integrated: Whether host and GPU use the same memory, as on a Jetson.
        maps_host_memory: Whether it can work on pinned host memory without a copy.
        driver_version: Newest CUDA that the driver knows: 12060 is 12.6.
    """

    name: str
    compute_capability: str
    memory: int
    integrated: bool
    maps_host_memory: bool
    driver_version: int


class HostMemory(Protocol):
    """Pinned host memory."""

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """Its bytes."""

    @property
    def address(self) -> int:
        """Where they are for the CPU."""


class Driver(Protocol):
    """One GPU's primary context, retained until the process ends, through one binding.

    Nothing is destroyed at interpreter exit: the process's end does that, in the right order.
    """

    name: str
    info: DeviceInfo

    def push(self) -> None:
        """Makes the context current in this thread, above what was."""

    def pop(self) -> None:
        """Undoes `push`."""

    def synchronize(self) -> None:
        """Waits for all work in the context, of other libraries too."""

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes."""

    def create_stream(self) -> tuple[Any, int]:
        """A stream that does not wait for the default stream: handle, and `CUstream`."""

    def destroy_stream(self, stream: Any) -> None:
        """Destroys it."""

    def synchronize_stream(self, stream: Any) -> None:
        """Waits for all work in it."""

    def wait_event(self, stream: Any, event: Any) -> None:
        """Lets later work in `stream` wait for the latest `record_event`."""

    def create_event(self, flags: int) -> Any:
        """An event."""

    def destroy_event(self, event: Any) -> None:
        """Destroys it."""

    def record_event(self, event: Any, stream: Any) -> None:
        """Marks the end of what `stream` holds now."""

    def record_foreign(self, event: Any, stream: int) -> None:
        """Marks the end of what another library's `CUstream` holds now."""

    def synchronize_event(self, event: Any) -> None:
        """Waits for the latest `record_event`."""

    def query_event(self, event: Any) -> bool:
        """Whether the latest `record_event` was reached."""

    def elapsed(self, start: Any, end: Any) -> float:
        """Milliseconds between two recorded events."""

    def allocate(self, size: int) -> tuple[Any, int]:
        """Device memory: handle and address."""

    def free(self, memory: Any) -> None:
        """Frees it."""

    def allocate_host(self, size: int, flags: int) -> tuple[Any, int]:
        """Pinned host memory: handle and address."""

    def free_host(self, memory: Any) -> None:
        """Frees it."""

    def device_address(self, memory: Any) -> int:
        """Where the GPU sees pinned host memory that was allocated with `HOST_DEVICEMAP`."""

    def copy_to_device(
        self, target: int, source: HostMemory, offset: int, size: int, stream: Any
    ) -> None:
        """Enqueues a copy from `offset` bytes into `source`."""

    def copy_to_host(
        self, target: HostMemory, offset: int, source: int, size: int, stream: Any
    ) -> None:
        """Enqueues a copy to `offset` bytes into `target`."""

    def copy_on_device(self, target: int, source: int, size: int, stream: Any) -> None:
        """Enqueues a copy."""

    def begin_capture(self, stream: Any) -> None:
        """From now on work in `stream` is not run but noted."""

    def end_capture(self, stream: Any) -> Any:
        """The graph of what was noted."""

    def destroy_graph(self, graph: Any) -> None:
        """Destroys it."""

    def instantiate(self, graph: Any) -> Any:
        """A graph that can be launched, independent of `graph`."""

    def launch(self, executable: Any, stream: Any) -> None:
        """Enqueues all of an instantiated graph."""

    def destroy_executable(self, executable: Any) -> None:
        """Destroys an instantiated graph."""
