"""Streams, in which the GPU works in order, and events, which mark points in them.

Methods other than `close` want the context current: `with device.current():`.
"""

from __future__ import annotations

from edge_runtime.cuda.context import Context, Resource
from edge_runtime.cuda.driver import EVENT_BLOCKING_SYNC, EVENT_DISABLE_TIMING


class Event(Resource):
    """A point in a stream.

    Args:
        context: Where to make it.
        timing: Whether it notes the time.
        spin: Waits for it with a busy CPU core rather than asleep.
    """

    def __init__(self, context: Context, *, timing: bool, spin: bool) -> None:
        flags = (0 if timing else EVENT_DISABLE_TIMING) | (0 if spin else EVENT_BLOCKING_SYNC)
        with context.current():
            handle = context.driver.create_event(flags)
        super().__init__(context, handle, context.driver.destroy_event)

    def record(self, stream: Stream) -> None:
        """Moves the event to the end of what `stream` holds now."""
        self._driver.record_event(self._handle, stream._handle)

    def synchronize(self) -> None:
        """Waits until the GPU has reached the event; at once where it was never recorded.

        Raises:
            DeviceError: Work before it failed.
        """
        self._driver.synchronize_event(self._handle)

    def is_done(self) -> bool:
        """Whether the GPU has reached the event.

        Raises:
            DeviceError: Work before it failed.
        """
        return self._driver.query_event(self._handle)

    def milliseconds_since(self, start: Event) -> float:
        """The time between two events that were made with `timing` and reached."""
        return self._driver.elapsed(start._handle, self._handle)


class Stream(Resource):
    """A queue of work for the GPU, which neither waits for the default stream nor lets it wait.

    Args:
        context: Where to make it.

    Attributes:
        handle: The driver's `CUstream`, as TensorRT takes it.
    """

    def __init__(self, context: Context) -> None:
        with context.current():
            handle, self.handle = context.driver.create_stream()
        super().__init__(context, handle, context.driver.destroy_stream)
        self._marker: Event | None = None  # for `wait_foreign`

    def synchronize(self) -> None:
        """Waits until all work in it is done.

        Raises:
            DeviceError: Some of the work failed.
        """
        self._driver.synchronize_stream(self._handle)

    def wait_event(self, event: Event) -> None:
        """Lets later work in this stream wait for the event as it was last recorded."""
        self._driver.wait_event(self._handle, event._handle)

    def wait_foreign(self, stream: int) -> None:
        """Lets later work in this stream wait for what another library's stream holds now.

        Args:
            stream: Its `CUstream`; 1 is the legacy, 2 the calling thread's default stream.
        """
        if self._marker is None:
            self._marker = Event(self._context, timing=False, spin=True)
        self._driver.record_foreign(self._marker._handle, stream)
        self.wait_event(self._marker)

    def close(self) -> None:
        """See `Resource`."""
        super().close()
        if self._marker is not None:
            self._marker.close()
