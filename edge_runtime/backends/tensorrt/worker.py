"""The process that `child.ChildBuilder` starts: makes a builder, builds, and says how it went."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from edge_runtime.config import ShapeRange
from edge_runtime.errors import BuildError, EdgeRuntimeError
from edge_runtime.files import atomic_write

_GRACE_SECONDS = 4.0


def main(job: Mapping[str, Any]) -> NoReturn:
    """Does the job that the parent's line on stdin described, and ends the process.

    It ends without Python's and the libraries' own shutdown, in which CUDA may hang or crash.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _volunteer()
    channel = _Channel(job["messages"])
    parent = _Parent(job["folder"])
    threading.Thread(target=parent.watch, daemon=True).start()
    _log_to(channel, job["level"])

    said: object = None

    def progress(*now: Any) -> None:
        nonlocal said
        if parent.has_enough.is_set():
            raise KeyboardInterrupt
        if now != said:
            said = now
            channel.send("progress", now)

    try:
        _build(job, channel, progress)
    except EdgeRuntimeError as error:
        content = {"kind": _public_name(error), "args": error.args, "fields": _fields(error)}
        channel.send("error", content)
    except BaseException:  # noqa: BLE001  # A bug, which the parent raises, or no more than a stop.
        channel.send("bug", traceback.format_exc())
    parent.has_enough.wait()  # It reads the plan, or is gone.
    parent.leave(0)


class _Parent:
    """The other end of stdin, which says `stop` before it closes it, unless it was killed."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._is_gone = False
        self.has_enough = threading.Event()

    def watch(self) -> None:
        """Waits for the end of stdin; then the build has some seconds to end."""
        words = b""
        while more := os.read(0, 64):
            words += more
        self._is_gone = not words
        self.has_enough.set()
        time.sleep(_GRACE_SECONDS)
        self.leave(1)

    def leave(self, code: int) -> NoReturn:
        """Ends the process. Where the parent is gone, nobody else removes graph and plan."""
        if self._is_gone:
            shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(code)


class _Channel:
    """The pipe to the parent. Any thread may send."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, kind: str, content: object) -> None:
        line = memoryview(json.dumps([kind, content]).encode() + b"\n")
        with self._lock, suppress(BrokenPipeError):  # Without a parent there is nobody to tell.
            while line:
                line = line[os.write(self._descriptor, line) :]


class _Forward(logging.Handler):
    """Sends log lines to the parent, which gives them to its own loggers."""

    def __init__(self, channel: _Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.send("log", (record.name, record.levelno, record.getMessage()))


def _build(job: Mapping[str, Any], channel: _Channel, progress: Any) -> None:
    module, _, function = job["factory"].partition(":")
    builder = getattr(import_module(module), function)(**job["arguments"])
    folder = Path(job["folder"])
    profiles = [
        {name: ShapeRange.parse(shapes) for name, shapes in profile.items()}
        for profile in job["profiles"]
    ]
    plan = builder.build((folder / "graph").read_bytes(), profiles, progress)
    with atomic_write(folder / "plan", error=BuildError) as file:
        file.write(plan.data)
    channel.send("plan", {"key": asdict(plan.key), "verdict": plan.verdict})


def _public_name(error: EdgeRuntimeError) -> str:
    """Its class, or the nearest above it that `edge_runtime.errors` has."""
    home = EdgeRuntimeError.__module__
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == home)


def _fields(error: EdgeRuntimeError) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if not name.startswith("__")}


def _log_to(channel: _Channel, level: int) -> None:
    logger = logging.getLogger("edge_runtime")
    logger.addHandler(_Forward(channel))
    logger.setLevel(level)
    # The parent shows these if the process dies before it can raise its error.
    logging.getLogger("edge_runtime.tensorrt.recorded").setLevel(logging.DEBUG)


def _volunteer() -> None:
    """Makes this the process that the kernel's OOM killer takes first, rather than its parent."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")
