"""Files on disk: replaced atomically, opened only if they are plain files, errors made readable."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edge_runtime.errors import EdgeRuntimeError

StrPath = str | os.PathLike[str]
Fail = Callable[[str], EdgeRuntimeError]
"""Makes the error to raise from its message; an exception class will do."""

_HINTS = {
    errno.EACCES: "Choose a folder that you may write to.",
    errno.EPERM: "Choose a folder that you may write to.",
    errno.EROFS: "Choose a folder that you may write to.",
    errno.ENOENT: "Create its folder first.",
    errno.ENOTDIR: "Choose another folder.",
    errno.ENOSPC: "Free some space, or write it elsewhere.",
    errno.EDQUOT: "Free some space, or write it elsewhere.",
    errno.EFBIG: "Write it to a file system, or under a limit, that allows larger files.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


class AtomicFile:
    """The temporary file behind `atomic_write`."""

    def __init__(self, descriptor: int, path: Path, error: Fail) -> None:
        self._descriptor = descriptor
        self._path = path
        self._error = error

    def write(self, data: bytes | memoryview) -> None:
        """Appends all of `data`.

        Raises:
            EdgeRuntimeError: The system refused, as `atomic_write` says.
        """
        left = memoryview(data).cast("B")
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            raise self._error(_cannot_write(self._path, error)) from error


@contextmanager
def atomic_write(path: StrPath, *, error: Fail = EdgeRuntimeError) -> Iterator[AtomicFile]:
    """Replaces the file at `path`, or creates it, all or nothing.

    What the block writes goes to a temporary file in the same folder, which is synced and then
    renamed over `path`. If the block or the system fails, `path` is what it was and the temporary
    file is gone; if the process is killed, `path` is what it was or complete, and a hidden `.tmp`
    file may stay. A symbolic link is followed; the mode of a replaced file is kept.

    Args:
        path: The file to write.
        error: Makes the error to raise when the system refuses; other errors pass unchanged.

    Raises:
        EdgeRuntimeError: From `error`: the folder is missing or read-only, the disk is full, or
            `path` is something other than a plain file.
    """
    shown = Path(path)
    target = Path(os.path.realpath(shown))
    temporary = target.parent / f".{target.name[:32]}.{secrets.token_hex(6)}.tmp"
    mode = _mode(target, shown, error)
    try:
        descriptor = _create(temporary, mode, shown, error)
        try:
            yield AtomicFile(descriptor, shown, error)
            try:
                if mode is not None:
                    os.fchmod(descriptor, mode)
                os.fsync(descriptor)
                os.replace(temporary, target)
                _sync_folder(target.parent)
            except OSError as reason:
                raise error(_cannot_write(shown, reason)) from reason
        finally:
            os.close(descriptor)
    except BaseException:
        # The first error is the one to report, whatever becomes of the temporary file.
        with suppress(OSError):
            temporary.unlink()
        raise


def check_writable(path: StrPath, *, error: Fail = EdgeRuntimeError) -> None:
    """Finds what would keep `atomic_write` from writing `path`: before long work, not after it.

    Raises:
        EdgeRuntimeError: From `error`: `path` is a folder, or its folder is missing or read-only.
    """
    shown = Path(path)
    target = Path(os.path.realpath(shown))
    folder = target.parent
    _mode(target, shown, error)
    code = 0
    if not folder.is_dir():
        code = errno.ENOENT
    elif not os.access(folder, os.W_OK):
        code = errno.EACCES
    if code:
        raise error(_cannot_write(shown, OSError(code, os.strerror(code))))


@contextmanager
def open_file(path: StrPath, *, error: Fail = EdgeRuntimeError) -> Iterator[BinaryIO]:
    """Opens a plain file for reading; every `OSError` inside the block is raised as `error`.

    Raises:
        EdgeRuntimeError: From `error`: the file is missing, unreadable, or not a plain file.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise error(f"Cannot read {os.fspath(path)}: it is not a plain file.")
            yield file
    except IsADirectoryError as reason:
        raise error(f"Cannot read {os.fspath(path)}: it is a folder, not a file.") from reason
    except OSError as reason:
        raise error(f"Cannot read {os.fspath(path)}: {_reason(reason)}.") from reason


def read_file(path: StrPath, *, limit: int, error: Fail = EdgeRuntimeError) -> bytes:
    """Reads a plain file of at most `limit` bytes.

    Raises:
        EdgeRuntimeError: From `error`: the file cannot be read or is larger.
    """
    with open_file(path, error=error) as file:
        # Asking for the limit itself would reserve as much memory, whatever the file's size.
        data = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)
    if len(data) > limit:
        raise error(f"{os.fspath(path)} is larger than {limit >> 20} MiB, the most that is read.")
    return data


def _open_at_once(path: str, flags: int) -> int:
    """Without O_NONBLOCK, opening a named pipe would wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _mode(target: Path, shown: Path, error: Fail) -> int | None:
    """The permissions of the file to replace; None if there is none."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as reason:
        raise error(_cannot_write(shown, reason)) from reason
    if stat.S_ISDIR(mode):
        raise error(f"Cannot write {shown}: it is a folder. Give the name of a file.")
    if not stat.S_ISREG(mode):
        # A rename would put a plain file in place of a device or a pipe.
        raise error(f"Cannot write {shown}: it is a device, pipe or socket. Name a plain file.")
    return stat.S_IMODE(mode)


def _create(temporary: Path, mode: int | None, shown: Path, error: Fail) -> int:
    # Others must not read in the temporary file what they may not read in the one it replaces.
    mode = 0o666 if mode is None else mode & 0o666
    try:
        return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as reason:
        raise error(_cannot_write(shown, reason)) from reason


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a folder; the file itself is synced.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> str:
    hint = _HINTS.get(error.errno or 0, "")
    return f"Cannot write {path}: {_reason(error)}." + (f" {hint}" if hint else "")


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
