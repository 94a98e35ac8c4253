"""Keeps TensorRT's kernel timings between builds: the second one takes a fraction of the time.

Timings are of use to the same TensorRT on the same model of GPU only, so there is a file for each
pair. It holds, after a line of ours with the SHA-256 of what follows, TensorRT's own bytes: its
reader is never given bytes that were damaged on disk.

Several builds may run at once. Each adds what it measured to what the others have written by then,
under a lock. Without this file builds are slower and nothing else, so what is wrong with it is
logged as a warning and ends no build.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.files import atomic_write, read_file

_LOGGING = logging.getLogger("edge_runtime.tensorrt")
_MAGIC = b"edge-runtime timing cache 1 "
_HEADER = len(_MAGIC) + 64 + 1  # The hexadecimal digest and a line feed.
_LIMIT = 1 << 30  # A cache of thousands of layers has some tens of MiB.


class _CacheError(EdgeRuntimeError):
    """The file cannot be read or written."""


class TimingCacheFile:
    """The file for one TensorRT and one model of GPU."""

    def __init__(self, path: Path) -> None:
        """Keeps where it is. Its folder is made when something is written."""
        self._path = path
        self._seen = b""

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def attach(self, config: Any) -> Any:
        """Gives an `IBuilderConfig` the timings on disk; empty ones if they cannot be used.

        Returns:
            What `save` takes: the `ITimingCache`, or None if TensorRT takes not even an empty one.
        """
        self._seen = self._read()
        for data in (self._seen, b"") if self._seen else (b"",):
            cache = config.create_timing_cache(data)
            if cache is not None and config.set_timing_cache(cache, False):
                return cache
            if data:
                self._put_aside("TensorRT does not take it")
                self._seen = b""
        _LOGGING.warning("TensorRT takes no timing cache, so every build measures all kernels.")
        return None

    def save(self, config: Any, cache: Any) -> None:
        """Adds what a build has measured to what is on disk by now."""
        if cache is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._merge(config, cache)
                self._write(cache.serialize())
        except (OSError, _CacheError) as error:
            _LOGGING.warning(
                "The kernel timings of this build are lost: %s Set EDGE_RUNTIME_CACHE to a folder "
                "that can be written.",
                error,
            )

    def _write(self, memory: Any) -> None:
        if memory is None:
            raise _CacheError("TensorRT does not give them out.")
        data = bytes(memory)
        if data == self._seen:
            return
        with atomic_write(self._path, error=_CacheError) as file:
            file.write(_MAGIC + _digest(data) + b"\n")
            file.write(data)

    def _merge(self, config: Any, cache: Any) -> None:
        others = self._read()
        if others in (b"", self._seen):
            return
        other = config.create_timing_cache(others)
        if other is None or not cache.combine(other, False):
            self._put_aside("its timings cannot be combined with those of this build")

    def _read(self) -> bytes:
        """TensorRT's bytes; none if there is no file or it is damaged."""
        if not self._path.exists():
            return b""
        try:
            data = read_file(self._path, limit=_LIMIT, error=_CacheError)
        except _CacheError as error:
            _LOGGING.warning("The timing cache is not used: %s", error)
            return b""
        head, payload = data[:_HEADER], data[_HEADER:]
        if head != _MAGIC + _digest(payload) + b"\n":
            self._put_aside("it is damaged")
            return b""
        return payload

    def _put_aside(self, why: str) -> None:
        aside = self._path.with_name(self._path.name + ".damaged")
        try:
            self._path.replace(aside)
        except OSError as error:
            _LOGGING.warning("%s is of no use, as %s; moving it failed: %s", self._path, why, error)
            return
        _LOGGING.warning("%s is of no use, as %s. It is now %s.", self._path, why, aside.name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, of all processes. The lock's file stays: another may hold it."""
        with open(self._path.with_name(self._path.name + ".lock"), "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def timing_cache_path(version: str, device: str, environment: Mapping[str, str]) -> Path:
    """Where the timings of a TensorRT on a GPU are.

    Args:
        version: Version of TensorRT.
        device: What tells models of GPU apart, such as `sm87 Orin`.
        environment: `os.environ`, or what stands for it.

    Returns:
        A path in the folder `edge-runtime/timing` of `EDGE_RUNTIME_CACHE`, or of the user's cache
        (XDG Base Directory Specification: `XDG_CACHE_HOME`, absolute, else `~/.cache`).
    """
    xdg = Path(environment.get("XDG_CACHE_HOME", ""))
    own = environment.get("EDGE_RUNTIME_CACHE")
    if own:
        folder = Path(own)
    elif xdg.is_absolute():
        folder = xdg
    else:
        folder = Path(environment.get("HOME") or "~").expanduser() / ".cache"
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{version} {device}").strip("-.")
    return folder / "edge-runtime" / "timing" / f"{name}.cache"


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
