"""Memory for outputs whose shape only the data decides (TensorRT's `IOutputAllocator`)."""

from __future__ import annotations

from functools import cache
from typing import Any

from edge_runtime.backends.tensorrt.staging import ALIGNMENT
from edge_runtime.cuda.device import Device
from edge_runtime.cuda.memory import DeviceBuffer
from edge_runtime.errors import DeviceError, InferenceError


class OutputMemory:
    """The device memory of one such output: it grows when TensorRT asks for more.

    TensorRT asks within `execute_async_v3`, in the thread that calls it, and says there too what
    shape the output has. Nothing may be in flight that still uses the memory.

    Attributes:
        vendor: The `IOutputAllocator` to give to TensorRT. It only lives as long as this.
        shape: The shape that TensorRT has given; None until it does.
    """

    def __init__(self, trt: Any, device: Device) -> None:
        self._device = device
        self._buffer: DeviceBuffer | None = None
        self._error: DeviceError | None = None
        self.shape: tuple[int, ...] | None = None
        self.vendor = _allocator_class(trt)(self)

    def begin(self) -> None:
        """Forgets the last inference."""
        self.shape = self._error = None

    def finish(self, name: str) -> tuple[DeviceBuffer, tuple[int, ...]]:
        """The memory and the shape of output `name`, once `execute_async_v3` has returned.

        Raises:
            DeviceError: There was not enough memory.
            InferenceError: TensorRT has not given both.
        """
        self.raise_error()
        if self.shape is None or self._buffer is None:
            raise InferenceError(f"TensorRT did not say what shape output {name!r} has.")
        return self._buffer, self.shape

    def raise_error(self) -> None:
        """Raises the error that kept `reallocate` from giving memory, if one did."""
        if self._error is not None:
            raise self._error

    def take(self, name: str) -> DeviceBuffer:
        """The memory of output `name`, which now belongs to the caller."""
        buffer, _ = self.finish(name)
        self._buffer = None
        return buffer

    def reallocate(self, size: int) -> int:
        """The address of at least `size` bytes; 0, which TensorRT takes for a failure, if none."""
        if self._buffer is None or self._buffer.size < size:
            self.close()
            try:
                self._buffer = self._device.allocate(max(size, ALIGNMENT))
            except DeviceError as error:  # Raised in a callback it would only be printed.
                self._error = error
                return 0
        return self._buffer.address

    def close(self) -> None:
        """Frees the memory."""
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None


@cache
def _allocator_class(trt: Any) -> Any:
    def init(self: Any, memory: OutputMemory) -> None:
        trt.IOutputAllocator.__init__(self)
        self.memory = memory

    def reallocate_output(self: Any, _: str, __: int, size: int, ___: int) -> int:
        address: int = self.memory.reallocate(size)
        return address

    def reallocate_output_async(self: Any, _: str, __: int, size: int, ___: int, ____: int) -> int:
        address: int = self.memory.reallocate(size)
        return address

    def notify_shape(self: Any, _: str, shape: Any) -> None:
        self.memory.shape = tuple(shape)

    return type(
        "OutputAllocator",
        (trt.IOutputAllocator,),
        {
            "__init__": init,
            "reallocate_output": reallocate_output,
            "reallocate_output_async": reallocate_output_async,
            "notify_shape": notify_shape,
        },
    )
