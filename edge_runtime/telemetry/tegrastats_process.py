"""The program tegrastats as a source of readings, where the kernel's own files do not do."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence

from edge_runtime.errors import DataError
from edge_runtime.telemetry.readings import Reading
from edge_runtime.telemetry.tegrastats import parse_line

_GRACE = 1.0
_CHUNK = 1 << 16
_CHUNKS = 16
"""The most that is read at once; a pipe holds no more than one chunk."""

_LONGEST = 1 << 18
"""Bytes without a line's end, after which what writes them is not tegrastats."""


class TegrastatsProcess:
    """Runs tegrastats and has its last line ready. It is ended with `close`.

    Args:
        command: The program and its arguments; it must write a line at least every `patience`.
        patience: Seconds to wait for the first line, and the age at which the last one is too old.

    Raises:
        DataError: It cannot be started, ends, or writes no line of tegrastats in time.
    """

    def __init__(self, command: Sequence[str], *, patience: float = 5.0) -> None:
        self._name = command[0]
        self._patience = patience
        self._rest = b""
        self._last: Reading | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the caller names the program
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
            )
        except OSError as reason:
            self._errors.close()
            raise DataError(f"Cannot start {self._name}: {reason.strerror}.") from reason
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        try:
            self._wait_for_the_first()
        except BaseException:
            self.close()
            raise

    def read(self, seconds: float) -> Reading:
        """What the last line says, with the time at which it came.

        Raises:
            DataError: The program has ended, hangs, or writes something else.
        """
        self._drain(seconds)
        if self._last is None or seconds - self._last.seconds > self._patience:
            raise DataError(
                f"{self._name} has written no line for {self._patience:g} s: call it by hand to "
                "see why."
            )
        return self._last

    def close(self) -> None:
        """Ends the program; it has a second to do so by itself."""
        if self._errors.closed:
            return
        self._process.terminate()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def _wait_for_the_first(self) -> None:
        end = time.perf_counter() + self._patience
        while self._last is None and (left := end - time.perf_counter()) > 0:
            select.select([self._output], [], [], left)
            self._drain(time.perf_counter())
        if self._last is None:
            raise DataError(
                f"{self._name} wrote no line within {self._patience:g} s: call it by hand to see "
                "why."
            )

    def _drain(self, seconds: float) -> None:
        """Takes all that was written, and reads the last line of it that is complete."""
        for _ in range(_CHUNKS):
            try:
                data = os.read(self._output, _CHUNK)
            except BlockingIOError:
                break
            if not data:
                raise DataError(self._ended())
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > _LONGEST:
                raise DataError(f"{self._name} writes no lines: it is not tegrastats.")
            if lines:
                self._last = parse_line(lines[-1].decode("utf-8", "replace"), seconds=seconds)

    def _ended(self) -> str:
        try:
            code = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            return f"{self._name} has closed its output: call it by hand to see why."
        self._errors.seek(0)
        said = " ".join(self._errors.read(4096).decode("utf-8", "replace").split())
        return f"{self._name} ended with exit code {code}" + (f": {said[:200]}" if said else ".")
