"""The driver's calls through ctypes alone, for tests of the software GPU itself."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_uint64
from typing import Any

from tests.software_gpu.gpu import SoftwareGpu

SIZE = 1024
"""Bytes of a `Frame`'s buffers."""


class CallError(Exception):
    """A driver call failed: `code` is its CUresult."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} returned {code}")
        self.code = code


class Calls:
    """Calls by name. Integers and addresses go in as they are; outputs come back as integers."""

    def __init__(self, gpu: SoftwareGpu) -> None:
        self.gpu = gpu

    def code(self, name: str, *arguments: object) -> int:
        """Calls it and returns its CUresult."""
        values = [c_uint64(a & 2**64 - 1) if isinstance(a, int) else a for a in arguments]
        return int(self.gpu.function(name)(*values))

    def do(self, name: str, *arguments: object) -> None:
        """Calls it; raises `CallError` unless it succeeds."""
        if code := self.code(name, *arguments):
            raise CallError(name, code)

    def make(self, name: str, *arguments: object) -> int:
        """Calls it with a place for one output in front, and returns that output."""
        out = c_uint64()
        self.do(name, ctypes.byref(out), *arguments)
        return out.value

    @staticmethod
    def place() -> Any:
        """A place for one output, kept in its `_obj`."""
        return ctypes.byref(c_uint64())

    @contextmanager
    def primary(self) -> Iterator[int]:
        """The primary context, current in this thread."""
        self.do("cuInit", 0)
        context = self.make("cuDevicePrimaryCtxRetain", 0)
        self.do("cuCtxPushCurrent_v2", context)
        try:
            yield context
        finally:
            self.code("cuCtxPopCurrent_v2", None)
            self.code("cuDevicePrimaryCtxRelease_v2", 0)

    def stream(self) -> int:
        """A new non-blocking stream."""
        return self.make("cuStreamCreate", 1)

    def event(self, flags: int = 2) -> int:
        """A new event; flag 2: it keeps no time."""
        return self.make("cuEventCreate", flags)

    def memory(self, size: int) -> int:
        """The address of new device memory."""
        return self.make("cuMemAlloc_v2", size)

    def pinned(self, size: int, flags: int = 0) -> int:
        """The address of new pinned memory."""
        return self.make("cuMemHostAlloc", size, flags)

    def copy_in(self, target: int, source: int, size: int, stream: int) -> None:
        """An asynchronous copy from the host to the device."""
        self.do("cuMemcpyHtoDAsync_v2", target, source, size, stream)

    def copy_out(self, target: int, source: int, size: int, stream: int) -> None:
        """An asynchronous copy from the device to the host."""
        self.do("cuMemcpyDtoHAsync_v2", target, source, size, stream)

    def record(self, event: int, stream: int) -> None:
        """Records the event."""
        self.do("cuEventRecord", event, stream)

    def await_stream(self, stream: int) -> None:
        """Waits for the stream's work."""
        self.do("cuStreamSynchronize", stream)

    def free(self, *, memory: tuple[int, ...] = (), pinned: tuple[int, ...] = ()) -> None:
        """Frees memory."""
        for address in memory:
            self.do("cuMemFree_v2", address)
        for address in pinned:
            self.do("cuMemFreeHost", address)

    def destroy(self, *, streams: tuple[int, ...] = (), events: tuple[int, ...] = ()) -> None:
        """Destroys streams and events."""
        for stream in streams:
            self.do("cuStreamDestroy_v2", stream)
        for event in events:
            self.do("cuEventDestroy_v2", event)


def read(address: int, size: int) -> bytes:
    """The bytes at an address of memory that is still mapped, as they are now."""
    return ctypes.string_at(address, size)


def write(address: int, data: bytes) -> None:
    """Sets bytes at once, without the driver."""
    ctypes.memmove(address, data, len(data))


class Frame:
    """One stream with a buffer on the device, one to copy in from and one to copy out to."""

    def __init__(self, calls: Calls, size: int = SIZE) -> None:
        self.calls, self.gone = calls, False
        self.stream, self.event = calls.stream(), calls.event()
        self.memory = calls.memory(size)
        self.source, self.target = calls.pinned(size), calls.pinned(size)
        write(self.source, bytes(range(256)) * (size // 256))

    def run(self) -> None:
        """Copies in, copies out and records the event."""
        self.copies()
        self.calls.record(self.event, self.stream)

    def copies(self) -> None:
        """Copies in and copies out."""
        self.calls.copy_in(self.memory, self.source, SIZE, self.stream)
        self.calls.copy_out(self.target, self.memory, SIZE, self.stream)

    def arrived(self) -> bool:
        """Whether the bytes came through."""
        return read(self.target, SIZE) == read(self.source, SIZE)

    def forget(self) -> None:
        """All of it went with its context: there is nothing to give back."""
        self.gone = True

    def close(self) -> None:
        """Gives all back."""
        if self.gone:
            return
        self.calls.destroy(streams=(self.stream,), events=(self.event,))
        self.calls.free(memory=(self.memory,), pinned=(self.source, self.target))


def broken(gpu: SoftwareGpu, *words: str) -> None:
    """The rules broken so far are these, one for one."""
    found = gpu.violations(forget=True)
    assert len(found) == len(words), found
    for text, word in zip(found, words, strict=True):
        assert word in text
