"""Builds in a process of its own, whose death, as by the kernel's OOM killer, is an error here.

The worker is a fresh interpreter, not a fork: a script needs no `if __name__ == "__main__"`, and
TensorRT finds no threads or CUDA state of the parent. The job goes to its stdin, a line of JSON.
Messages come back, a line of JSON each, through a pipe of their own, since NVIDIA's libraries print
to stdout; what they print goes to a file and from there to the debug log. Graph and plan are files
in a temporary folder. The end of stdin tells the worker to stop: the parent closes it when it has
the plan or wants none, and the system closes it when the parent was killed.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_runtime import errors
from edge_runtime.backends.base import Plan, PlanKey
from edge_runtime.backends.tensorrt.memory_guard import count_oom_kills, read_memory
from edge_runtime.config import OptimizationProfile
from edge_runtime.errors import BuildError, EdgeRuntimeError
from edge_runtime.progress import Progress, silent

_LOGGING = logging.getLogger("edge_runtime.tensorrt")
_CANCEL_SECONDS = 5.0
_LAST_LINES = 10
_PRINTED_LIMIT = 1 << 16  # Bytes of what the worker printed that are looked at.

# sys.path[0] is the current folder here, whose files must not pass for Python's own.
_BOOT = """\
import sys
sys.path = [entry for entry in sys.path if entry]
import json, os
with os.fdopen(0, "rb", buffering=0, closefd=False) as stdin:
    job = json.loads(stdin.readline())
sys.path[:] = job["path"]
from edge_runtime.backends.tensorrt.worker import main
main(job)
"""


class ChildBuilder:
    """A Builder whose work another process does."""

    def __init__(
        self,
        factory: str,
        arguments: Mapping[str, Any],
        key: PlanKey,
        *,
        root: Path = Path("/"),
    ) -> None:
        """Keeps how the worker makes its own builder.

        Args:
            factory: `module:function`, which returns a Builder.
            arguments: What it is called with, as plain JSON values.
            key: What that builder builds for.
            root: Where the file tree begins that tells of the machine's memory.
        """
        self._factory = factory
        self._arguments = dict(arguments)
        self._key = key
        self._root = root

    @property
    def key(self) -> PlanKey:
        """What `build` builds for."""
        return self._key

    def build(
        self,
        graph: bytes,
        profiles: Sequence[OptimizationProfile],
        progress: Progress = silent,
    ) -> Plan:
        """Builds a plan in a worker, as the worker's builder does.

        Whatever ends this early, Ctrl-C or an error of `progress`, ends the worker too, within some
        seconds.

        Raises:
            BuildError: The worker's builder refused, or the worker was killed or crashed.
            EdgeRuntimeError: Any other that the worker's builder raised.
            RuntimeError: A bug in the worker; its traceback is in the message.
        """
        try:
            folder = Path(tempfile.mkdtemp(prefix="edge-runtime-build-"))
        except OSError as error:
            raise _no_room(error) from error
        worker = _Worker(self._key, folder, self._root)
        try:
            try:
                (folder / "graph").write_bytes(graph)
            except OSError as error:
                raise _no_room(error) from error
            worker.start(self._job(folder, profiles))
            return worker.follow(progress)
        finally:
            try:
                worker.end()
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _job(self, folder: Path, profiles: Sequence[OptimizationProfile]) -> dict[str, Any]:
        return {
            "path": [str(entry) for entry in sys.path],
            "factory": self._factory,
            "arguments": self._arguments,
            "folder": os.fspath(folder),
            "profiles": [
                {name: str(shapes) for name, shapes in profile.items()} for profile in profiles
            ],
            "level": logging.getLogger("edge_runtime").getEffectiveLevel(),
        }


class _Worker:
    """The process, and what it has said."""

    def __init__(self, key: PlanKey, folder: Path, root: Path) -> None:
        self._key = key
        self._folder = folder
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None
        self._messages = -1
        self._log: deque[str] = deque(maxlen=_LAST_LINES)
        self._kills = count_oom_kills(root)
        self._memory = read_memory(root)

    def start(self, job: Mapping[str, Any]) -> None:
        """Starts it. Ctrl-C, which a terminal sends to both, is for this process to handle."""
        self._messages, writer = os.pipe()
        # Not one of the first three, which are free where this process has no stdin or stdout.
        theirs = fcntl.fcntl(writer, fcntl.F_DUPFD_CLOEXEC, 3)
        os.close(writer)
        job = {**job, "messages": theirs}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Inherited.
        try:
            with open(self._folder / "printed", "wb") as printed:
                self._process = subprocess.Popen(  # noqa: S603  # This interpreter, our own code.
                    [sys.executable, "-c", _BOOT],
                    stdin=subprocess.PIPE,
                    stdout=printed,
                    stderr=printed,
                    pass_fds=(theirs,),
                )
        except OSError as error:
            raise BuildError(f"The build's own process cannot start: {error}.") from error
        finally:
            os.close(theirs)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None

    def follow(self, progress: Progress) -> Plan:
        """Passes on what it says until it has a plan or an error."""
        with os.fdopen(self._messages, "rb") as messages:
            self._messages = -1
            for line in messages:
                kind, content = json.loads(line)
                if kind == "progress":
                    progress(*content)
                elif kind == "log":
                    self._pass_on(*content)
                elif kind == "plan":
                    return self._plan(content)
                elif kind == "error":
                    raise _error(content)
                else:
                    raise RuntimeError(f"The build's own process failed:\n{content}")
        raise self._death()

    def end(self) -> None:
        """Ends it, asked first and then not, and logs what it printed."""
        if self._messages >= 0:
            os.close(self._messages)
        if self._process is None:
            return
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # It is dead already.
            self._process.stdin.write(b"stop\n")
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_CANCEL_SECONDS)
        except BaseException as error:
            self._process.kill()
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise  # A second Ctrl-C.
        for line in self._printed():
            _LOGGING.debug("printed: %s", line)

    def _plan(self, content: Mapping[str, Any]) -> Plan:
        if content["key"] != json.loads(json.dumps(asdict(self._key))):
            raise BuildError(
                f"The build's own process built for {content['key']}, not for {self._key}: has the "
                "machine or its TensorRT changed?"
            )
        return Plan(self._key, (self._folder / "plan").read_bytes(), content["verdict"])

    def _pass_on(self, name: str, level: int, message: str) -> None:
        self._log.append(message)
        logging.getLogger(name).log(level, "%s", message)

    def _death(self) -> BuildError:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_CANCEL_SECONDS)
        code = self._process.returncode
        lines = [*self._log, *self._printed()][-_LAST_LINES:]
        what = f"ended with exit code {code} before the plan was built"
        if code is None:
            what = "lost its pipe to this one"  # `end` kills it.
        elif code < 0:
            what = f"was killed by {_signal_name(-code)}"
        if code == -signal.SIGKILL and count_oom_kills(self._root) > self._kills:
            found = f"; {self._memory[0] >> 20} MiB were available before" if self._memory else ""
            what = (
                f"was killed by the kernel's OOM killer: the machine ran out of memory{found}. "
                "Close other programs, add swap, or build with a lower workspace"
            )
        return BuildError(f"The process that built for {self._key} {what}.", log=tuple(lines))

    def _printed(self) -> list[str]:
        """The last lines that it, or a library in it, printed."""
        try:
            with open(self._folder / "printed", "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _PRINTED_LIMIT))
                text = file.read().decode(errors="replace")
        except OSError:
            return []  # The folder was removed by someone; there is nothing to tell then.
        return [line for line in text.splitlines() if line.strip()]


def _error(content: Mapping[str, Any]) -> EdgeRuntimeError:
    """The error of the worker, as it was."""
    kind: type[EdgeRuntimeError] = getattr(errors, content["kind"])
    error = kind.__new__(kind)
    error.args = tuple(content["args"])
    for name, value in content["fields"].items():
        setattr(error, name, tuple(value) if isinstance(value, list) else value)
    return error


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def _no_room(error: OSError) -> BuildError:
    return BuildError(
        f"The graph cannot be handed to the build's own process: {error}. Free some space, or set "
        "TMPDIR to another folder."
    )
