"""An array in the GPU's memory that other libraries can take over without a copy."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_runtime.cuda import dlpack
from edge_runtime.cuda.device import Device
from edge_runtime.cuda.memory import DeviceBuffer


class DeviceArray:
    """A C-contiguous array in the GPU's memory, complete when it is made.

    It belongs to the caller: its memory is given back by `close()`, or when it is dropped. What was
    taken from it by DLPack keeps the memory for longer; what read `__cuda_array_interface__` has to
    keep the DeviceArray.

    Args:
        buffer: Its memory, at least as large as shape and dtype say. Taken over.
        shape: One size a dimension.
        dtype: Element type.
        device: The GPU that holds `buffer`.
        release: Takes `buffer` back, in any thread, without waiting for anything; None frees it.

    Attributes:
        shape: One size a dimension.
        dtype: Element type.
        address: Of the first element.
        nbytes: Size of all elements.
    """

    def __init__(
        self,
        buffer: DeviceBuffer,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        device: Device,
        release: Callable[[DeviceBuffer], None] | None = None,
    ) -> None:
        self.shape = shape
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.nbytes = math.prod(shape) * self.dtype.itemsize
        if self.nbytes > buffer.size:
            raise ValueError(f"{self.nbytes} bytes do not fit in a buffer of {buffer.size}.")
        self._device = device
        self._memory = _Memory(buffer, self, device, release or DeviceBuffer.close)

    @property
    def address(self) -> int:
        """Of the first element, in device memory."""
        return self._memory.address

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3, without a stream: there is nothing to wait for.

        Source: Numba's documentation, CUDA Array Interface (version 3).
        """
        self._memory.shared()
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address if self.nbytes else 0, False),
            "strides": None,
            "stream": None,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLDeviceType and number of the GPU."""
        return dlpack.CUDA, self._device.ordinal

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """A DLPack capsule of this memory; see the array API standard.

        Args:
            stream: Where the consumer works; there is nothing that it had to wait for.
            max_version: Newest version of DLPack that the consumer reads.
            dl_device: Where the consumer wants it: None or this GPU.
            copy: Whether it wants a copy: None or False.

        Raises:
            BufferError: It wants a copy or another device, or DLPack lacks the element type.
        """
        del stream
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError(
                "A DeviceArray is only handed out as it is: without a copy, on its own GPU. Call "
                "to_host() for a copy in host memory."
            )
        memory = self._memory
        memory.shared()
        return dlpack.export(memory, self._device.ordinal, max_version)

    def to_host(self) -> npt.NDArray[Any]:
        """A copy in host memory, of the same shape and dtype, that belongs to the caller."""
        result = np.empty(self.shape, self.dtype)
        address = self.address
        if not self.nbytes:
            return result
        device = self._device
        stream = device.create_stream()
        try:
            staging = device.allocate_pinned(self.nbytes)
            try:
                with device.current():
                    device.copy_to_host(staging, address, self.nbytes, stream)
                    stream.synchronize()
                result.reshape(-1).view(np.uint8)[:] = staging.array
            finally:
                staging.close()
        finally:
            stream.close()
        return result

    def __array__(self, *_: object, **__: object) -> npt.NDArray[Any]:
        """Refuses numpy, which would make an array of one Python object of it.

        Raises:
            TypeError: Always.
        """
        raise TypeError("A DeviceArray is in the GPU's memory; call to_host() for a numpy array.")

    def close(self) -> None:
        """Gives the memory back, as soon as nothing taken from it by DLPack is left.

        Nothing on the GPU may use it any more. Calling it again does nothing.
        """
        self.__dict__.pop("_memory", None)

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name == "_memory":
                raise ValueError("This DeviceArray is closed.")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class _Memory:
    """The memory of a DeviceArray and of all that DLPack has taken from it."""

    def __init__(
        self,
        buffer: DeviceBuffer,
        array: DeviceArray,
        device: Device,
        release: Callable[[DeviceBuffer], None],
    ) -> None:
        self.address = buffer.address
        self.__array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (buffer.address, False),
            "version": 3,
        }
        self._loan = _Loan(buffer, device, release)
        weakref.finalize(self, self._loan.end).atexit = False

    def shared(self) -> None:
        """From now on the GPU may use it in streams that are not ours."""
        self._loan.shared = True


class _Loan:
    """How the memory is given back."""

    def __init__(
        self, buffer: DeviceBuffer, device: Device, release: Callable[[DeviceBuffer], None]
    ) -> None:
        self._buffer = buffer
        self._context = device.context
        self._release = release
        self.shared = False

    def end(self) -> None:
        """Gives it back."""
        if self.shared:
            self._context.drop(self._release, self._buffer)
        else:
            self._release(self._buffer)
