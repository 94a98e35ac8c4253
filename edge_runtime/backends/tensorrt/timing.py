"""Repeats an inference as trtexec does, and times its parts by the GPU's own clock.

Two queries are in flight: while one is computed, the inputs of the next are copied and the outputs
of the one before. Each of the two has a context, and so memory, of its own; the engine's work for
one waits for that for the other. trtexec has one context, whose memory its queries write and read
without waiting for each other. Source: NVIDIA/TensorRT, samples/common/sampleInference.cpp,
`Iteration`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TypeVar

from edge_runtime.backends.base import QueryTimes
from edge_runtime.backends.tensorrt.bindings import Bindings
from edge_runtime.backends.tensorrt.logger import Recording, ThreadErrors
from edge_runtime.cuda.device import Device
from edge_runtime.cuda.stream import Event, Stream
from edge_runtime.errors import DeviceError

DEPTH = 2
"""Queries in flight, and so contexts of a `TimedRun`."""

_Made = TypeVar("_Made", Stream, Event)


@dataclass(frozen=True, slots=True)
class Work:
    """What a context's inference consists of.

    Attributes:
        device: The GPU.
        stream: The context's stream, on which the engine works.
        bindings: Where its tensors lie.
        errors: What catches TensorRT's messages.
        enqueue: Enqueues the engine's work on `stream`.
        spin: Whether the host waits with a busy core.
    """

    device: Device
    stream: Stream
    bindings: Bindings
    errors: ThreadErrors
    enqueue: Callable[[Recording], None]
    spin: bool


class TimedRun:
    """See `TimedQueries`.

    Args:
        works: What to repeat: `DEPTH` contexts' inferences, each of which has run before.
        transfers: Whether to copy inputs and outputs each time.
        release: Called in the end, to close the contexts.

    Attributes:
        began: When the timing began, in seconds of `time.perf_counter`.
    """

    def __init__(
        self, works: Sequence[Work], *, transfers: bool, release: Callable[[], None]
    ) -> None:
        self._transfers = transfers
        self._device = device = works[0].device
        spin = works[0].spin
        with ExitStack() as undo, device.current():
            self._upload = _kept(undo, device.create_stream())
            self._download = _kept(undo, device.create_stream())
            self._origin = _kept(undo, device.create_event(timing=True, spin=spin))
            self._slots = [
                _Slot(
                    work,
                    [_kept(undo, device.create_event(timing=True, spin=spin)) for _ in range(6)],
                )
                for work in works
            ]
            self._origin.record(self._upload)
            self._origin.synchronize()
            self._close = undo.pop_all()
        self._origin_ns = time.perf_counter_ns()
        self.began = self._origin_ns / 1e9
        self._next = 0
        self._release: Callable[[], None] | None = release
        self._last: Event | None = None

    def enqueue(self) -> None:
        """See `TimedQueries`.

        Raises:
            InferenceError: TensorRT refused.
            DeviceError: The GPU or its driver failed.
        """
        slot = self._slots[self._next]
        if slot.busy:
            return
        work, transfers = slot.work, self._transfers
        h2d_start, h2d_end, start, end, d2h_start, d2h_end = slot.events
        stream, upload, download = work.stream, self._upload, self._download
        with work.device.current(), work.errors as log:
            work.bindings.begin()
            if transfers:
                h2d_start.record(upload)
                work.bindings.upload(upload)
                h2d_end.record(upload)
                stream.wait_event(h2d_end)
            if self._last is not None:
                stream.wait_event(self._last)
            start.record(stream)
            before = time.perf_counter_ns()
            work.enqueue(log)
            after = time.perf_counter_ns()
            end.record(stream)
            if transfers:
                download.wait_event(end)
                d2h_start.record(download)
                work.bindings.download(download)
                d2h_end.record(download)
        slot.enqueued = (before - self._origin_ns) / 1e6, (after - before) / 1e6
        slot.busy = True
        self._last = end
        self._advance()

    def wait(self) -> QueryTimes | None:
        """See `TimedQueries`.

        Raises:
            DeviceError: The GPU failed.
        """
        slot = self._slots[self._next]
        if not slot.busy:
            return None
        h2d_start, h2d_end, start, end, d2h_start, d2h_end = slot.events
        slot.busy = False
        with self._device.current():
            since, transfers = self._origin, self._transfers
            (d2h_end if transfers else end).synchronize()
            begun = start.milliseconds_since(since)
            done = end.milliseconds_since(since)
            return QueryTimes(
                *slot.enqueued,
                h2d_start.milliseconds_since(since) if transfers else begun,
                h2d_end.milliseconds_since(h2d_start) if transfers else None,
                begun,
                end.milliseconds_since(start),
                d2h_start.milliseconds_since(since) if transfers else done,
                d2h_end.milliseconds_since(d2h_start) if transfers else None,
            )

    def drain(self) -> list[QueryTimes]:
        """See `TimedQueries`."""
        found = []
        for _ in self._slots:
            times = self.wait()
            if times is not None:
                found.append(times)
            self._advance()
        return found

    def close(self) -> None:
        """See `TimedQueries`. Waits for what is in flight."""
        release, self._release = self._release, None
        if release is None:
            return
        with suppress(DeviceError), self._device.current():
            for stream in (*(slot.work.stream for slot in self._slots), self._download):
                stream.synchronize()
        self._close.close()
        release()

    def _advance(self) -> None:
        self._next = (self._next + 1) % len(self._slots)


class _Slot:
    """One of the queries in flight: its work and events, and when the host enqueued it."""

    def __init__(self, work: Work, events: list[Event]) -> None:
        self.work = work
        self.events = events
        self.enqueued = (0.0, 0.0)
        self.busy = False


def _kept(undo: ExitStack, made: _Made) -> _Made:
    undo.callback(made.close)
    return made
