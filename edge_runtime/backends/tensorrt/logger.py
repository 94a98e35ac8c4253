"""Keeps TensorRT's log lines, since a failed build gives its reason nowhere else.

TensorRT has one logger in a process: while anything made with a first one lives, a second is
ignored. So there is one here too, for good, and `recording` says where its lines go.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_LOGGING = logging.getLogger("edge_runtime.tensorrt")
_RECORDED = logging.getLogger("edge_runtime.tensorrt.recorded")
"""Errors that a recording keeps are for its error's message; here they are for a debug log, and for
the last words of a process that dies before it can say more."""
_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,
    "VERBOSE": logging.DEBUG,
}
_ROUTINE = (
    "has Int64 binding",  # Said of every int64 input and output, which is as it should be.
    "was provided with non-empty data",  # Said of optional inputs that ONNX leaves empty.
)
_ONE_AT_A_TIME = threading.Lock()


class Recording:
    """The ERROR lines of one build."""

    def __init__(self) -> None:
        self._errors: list[str] = []

    def add(self, message: str) -> None:
        """Keeps an error, but for noise; TensorRT's own threads call this too."""
        text = strip_noise(message)
        if text:
            self._errors.append(text)
            _RECORDED.debug("%s", text)

    @property
    def errors(self) -> tuple[str, ...]:
        """The messages in order; some have several lines."""
        return tuple(self._errors)


class _Sink(threading.local):
    """Where a thread's lines go.

    Errors go into the thread's own recording where it has one, as while it runs an engine; else
    into that of the build that is going on, whose threads TensorRT makes; else to Python's logging,
    as everything that is no error does.
    """

    build: Recording | None = None
    own: Recording | None = None

    def write(self, severity: str, message: str) -> None:
        level = _LEVELS[severity]
        recording = self.own or _Sink.build
        if level == logging.ERROR and recording is not None:
            recording.add(message)
        else:
            routine = any(text in message for text in _ROUTINE)
            _LOGGING.log(logging.DEBUG if routine else level, "%s", message)


@contextmanager
def recording(trt: Any) -> Iterator[tuple[Any, Recording]]:
    """The logger to give to the module `trt`, and the errors that it gets within the block.

    One block at a time: a second thread waits here.
    """
    logger, _ = _logger(trt)
    with _ONE_AT_A_TIME:
        _Sink.build = Recording()
        try:
            yield logger, _Sink.build
        finally:
            _Sink.build = None


class ThreadErrors:
    """The errors that the logger gets from one thread, while it is in a `with` block of this.

    An engine logs in the thread that runs it. Threads do not wait for each other.

    Attributes:
        logger: The logger to give to the module.
    """

    def __init__(self, trt: Any) -> None:
        self.logger, self._sink = _logger(trt)

    def __enter__(self) -> Recording:
        self._sink.own = recording = Recording()
        return recording

    def __exit__(self, *_: object) -> None:
        self._sink.own = None


def strip_noise(message: str) -> str:
    """Drops the line that every API error ends with where there is no driver; it explains nothing.

    TensorRT asks the driver for the pending CUDA error and logs that it could not: cudaError 35.
    Any other CUDA error is real and stays.
    """
    return "\n".join(
        line
        for line in message.splitlines()
        if not ("catchCudaError" in line and "(cudaError 35:" in line)
    ).strip()


@cache
def _logger(trt: Any) -> tuple[Any, _Sink]:
    sink = _Sink()

    def init(self: Any) -> None:
        trt.ILogger.__init__(self)

    def log(_: Any, severity: Any, message: str) -> None:
        sink.write(severity.name, message)

    return type("RecordingLogger", (trt.ILogger,), {"__init__": init, "log": log})(), sink
