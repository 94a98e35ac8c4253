"""CUDA graphs: work that is captured once from a stream and then launched as a whole."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from edge_runtime.cuda.context import Context, Resource
from edge_runtime.cuda.stream import Stream
from edge_runtime.errors import DeviceError

_log = logging.getLogger(__name__)


class Graph(Resource):
    """Captured work, with the addresses and sizes that it had then.

    Made by `Device.capture`.
    """

    def launch(self, stream: Stream) -> None:
        """Enqueues all of it in `stream`. Wants the context current."""
        self._driver.launch(self._handle, stream._handle)


class Capture:
    """What a capture has led to.

    Attributes:
        graph: The graph, once the capture has ended well. Belongs to the caller.
    """

    graph: Graph


@contextmanager
def capture(context: Context, stream: Stream) -> Iterator[Capture]:
    """Captures what is enqueued in `stream` inside; see `Device.capture`."""
    driver = context.driver
    handle = stream._handle
    result = Capture()
    context.begin_capture()
    try:
        with context.current():
            driver.begin_capture(handle)
            try:
                yield result
            except BaseException:
                try:
                    driver.destroy_graph(driver.end_capture(handle))
                except DeviceError as error:
                    _log.debug("%s", error)  # What went wrong inside says more.
                raise
            graph = driver.end_capture(handle)
            try:
                executable = driver.instantiate(graph)
            finally:
                driver.destroy_graph(graph)
    finally:
        context.end_capture()
    result.graph = Graph(context, executable, driver.destroy_executable)
