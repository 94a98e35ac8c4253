"""Host and device memory in which the tensors of one context lie side by side.

All inputs are copied to the GPU as one block, and all outputs back as one: a copy costs the CPU
some microseconds whatever its size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_runtime.cuda.device import Device
from edge_runtime.cuda.memory import DeviceBuffer, PinnedBuffer
from edge_runtime.cuda.stream import Stream
from edge_runtime.errors import DeviceError
from edge_runtime.tensors import Array

ALIGNMENT = 256
"""Bytes that TensorRT wants the address of a tensor to be a multiple of."""


class Staging:
    """A block of pinned host memory and its counterpart on the GPU. It grows and never shrinks.

    With `mapped`, the GPU works on the host memory itself, and nothing is copied.
    """

    def __init__(self, device: Device, *, mapped: bool) -> None:
        self._device = device
        self._mapped = mapped
        self._host: PinnedBuffer | None = None
        self._gpu: DeviceBuffer | None = None
        self._used = 0

    @property
    def size(self) -> int:
        """Bytes that the tensors take, with the gaps between them."""
        return self._used

    def place(self, sizes: Sequence[int]) -> list[int]:
        """Makes room for tensors of these sizes in bytes, and returns where each one lies.

        What was in the block is lost if it grows. Nothing may be in flight.
        """
        offsets, end = [], 0
        for size in sizes:
            offsets.append(end)
            end += -(-max(size, 1) // ALIGNMENT) * ALIGNMENT  # Empty tensors have addresses too.
        self._used = end
        if self._host is None or self._host.size < end:
            self._grow(max(end, 1))
        return offsets

    def address(self, offset: int) -> int:
        """The GPU's address of the tensor that lies there."""
        if self._mapped:
            return self._pinned.device_address + offset
        assert self._gpu is not None
        return self._gpu.address + offset

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """The host memory of the tensor that lies there, as an array of the block's own."""
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        view: Array = self._pinned.array[offset : offset + size].view(dtype).reshape(shape)
        return view

    def upload(self, stream: Stream) -> None:
        """Copies all tensors to the GPU, once `stream` comes to it."""
        self.upload_part(0, self._used, stream)

    def upload_part(self, offset: int, size: int, stream: Stream) -> None:
        """Copies some of it to the GPU."""
        if not self._mapped and size:
            self._device.copy_to_device(
                self.address(offset), self._pinned, size, stream, offset=offset
            )

    def download(self, stream: Stream) -> None:
        """Copies all tensors to the host, once `stream` comes to it."""
        self.download_part(0, self._used, stream)

    def download_part(self, offset: int, size: int, stream: Stream) -> None:
        """Copies some of it to the host."""
        if not self._mapped and size:
            self._device.copy_to_host(
                self._pinned, self.address(offset), size, stream, offset=offset
            )

    def download_from(self, address: int, size: int, stream: Stream) -> None:
        """Copies a tensor that lies elsewhere on the GPU to the start of the host's block."""
        if size:
            self._device.copy_to_host(self._pinned, address, size, stream)

    def close(self) -> None:
        """Frees the block. Nothing may be in flight."""
        for buffer in (self._host, self._gpu):
            if buffer is not None:
                buffer.close()
        self._host = self._gpu = None

    def _grow(self, size: int) -> None:
        """Replaces the block, or leaves none if there is no memory for it."""
        self.close()
        host = self._device.allocate_pinned(size, mapped=self._mapped)
        try:
            self._gpu = None if self._mapped else self._device.allocate(size)
        except DeviceError:
            host.close()
            raise
        self._host = host

    @property
    def _pinned(self) -> PinnedBuffer:
        assert self._host is not None
        return self._host
