"""Atomic writing under failures that are injected, real, and fatal; and bounded reading."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import BundleError, DataError
from edge_runtime.files import atomic_write, open_file, read_file

CALLS = ("write", "fchmod", "fsync", "replace")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that any user may look into, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def nobody() -> Iterator[None]:
    """Root may write anywhere; be somebody else for a moment."""
    user = os.geteuid()
    if user:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def open_files() -> int:
    return len(names(Path("/proc/self/fd")))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def save(path: Path, *chunks: bytes) -> None:
    with atomic_write(path, error=DataError) as file:
        for chunk in chunks:
            file.write(chunk)


def refusal(path: Path) -> str:
    """The one line that says why `path` cannot be written."""
    with pytest.raises(DataError) as caught:
        save(path, b"new")
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_what_is_written_is_what_is_read(chunks: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        save(path, *chunks)
        assert read_file(path, limit=1 << 20) == b"".join(chunks)
        assert names(path.parent) == ["file"]


def test_a_write_that_the_system_cuts_short_is_continued(tmp_path, monkeypatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    save(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_nothing_is_seen_before_the_block_ends(tmp_path) -> None:
    path = tmp_path / "file"
    save(path, b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, BundleError])
def test_an_exception_in_the_block_passes_and_leaves_the_old_file(tmp_path, error) -> None:
    path = tmp_path / "file"
    save(path, b"old")

    def fail() -> None:
        with atomic_write(path, error=DataError) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize(
    "at", range(6)
)  # write, write, fchmod, fsync, replace, fsync of the folder
def test_a_failure_at_any_system_call_leaves_one_whole_file(
    tmp_path, monkeypatch, at, kind
) -> None:
    path = tmp_path / "file"
    save(path, b"old")
    calls = []

    def failing(name, call):
        def counted(*arguments, **options):
            calls.append(name)
            if len(calls) == at + 1:
                raise OSError(errno.EIO, "Input/output error") if kind is OSError else kind
            return call(*arguments, **options)

        return counted

    for name in CALLS:
        monkeypatch.setattr(os, name, failing(name, getattr(os, name)))
    with pytest.raises(DataError if kind is OSError else kind):
        save(path, b"new", b"er")
    assert len(calls) == at + 1
    assert path.read_bytes() == (b"old" if at < 5 else b"newer")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(("call", "at"), [("write", 1), ("write", 2), ("fsync", 1), ("replace", 1)])
def test_a_killed_process_leaves_the_old_file(tmp_path, call, at) -> None:
    path = tmp_path / "file"
    save(path, b"old")
    killed = f"""
import os, sys
from edge_runtime.files import atomic_write
original, count = os.{call}, 0
def killing(*arguments, **options):
    global count
    count += 1
    if count == {at}:
        os._exit(9)
    return original(*arguments, **options)
os.{call} = killing
with atomic_write(sys.argv[1]) as file:
    file.write(b"new")
    file.write(b"er")
"""
    assert subprocess.run([sys.executable, "-c", killed, path], check=False).returncode == 9
    assert path.read_bytes() == b"old"
    save(path, b"next")
    assert path.read_bytes() == b"next"


def test_a_file_beyond_the_size_limit_is_refused_and_removed(tmp_path) -> None:
    path = tmp_path / "file"
    save(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DataError, match="file too large"):
            save(path, b"x" * 900, b"x" * 900)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_is_named(tmp_path, monkeypatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        with open("/dev/full", "wb", buffering=0) as file:
            return file.write(data)

    monkeypatch.setattr(os, "write", full)
    message = refusal(tmp_path / "file")
    assert "no space left on device" in message
    assert "Free some space" in message
    assert names(tmp_path) == []


def test_a_missing_folder_is_refused(tmp_path) -> None:
    assert "Create its folder first." in refusal(tmp_path / "none" / "file")


@pytest.mark.parametrize("folder", ["/", "{tmp}", "{tmp}/."])
def test_a_folder_is_refused(tmp_path, folder) -> None:
    assert "it is a folder" in refusal(Path(folder.format(tmp=tmp_path)))


def test_a_file_in_place_of_a_folder_is_refused(tmp_path) -> None:
    save(tmp_path / "file", b"old")
    assert "not a directory" in refusal(tmp_path / "file" / "inner")


def test_a_folder_without_permission_is_refused(public_folder) -> None:
    public_folder.chmod(0o555)
    with nobody():
        assert "may write to" in refusal(public_folder / "file")
    assert names(public_folder) == []


def test_a_file_without_permission_is_refused(public_folder) -> None:
    save(public_folder / "file", b"secret")
    (public_folder / "file").chmod(0)
    with nobody(), pytest.raises(DataError, match="permission denied"):
        read_file(public_folder / "file", limit=10, error=DataError)


def test_a_pipe_or_device_is_not_replaced(tmp_path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/null")):
        mode = path.stat().st_mode
        assert "device, pipe or socket" in refusal(path)
        assert path.stat().st_mode == mode


def test_a_new_file_has_the_usual_mode_and_a_replaced_one_keeps_its_own(tmp_path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        save(path, b"old")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o606)
        save(path, b"new")
        assert stat.S_IMODE(path.stat().st_mode) == 0o606
    finally:
        os.umask(before)


def test_what_others_may_not_read_they_may_not_read_while_it_is_written(tmp_path) -> None:
    path = tmp_path / "file"
    save(path, b"old")
    path.chmod(0o600)
    with atomic_write(path):
        modes = [stat.S_IMODE(other.stat().st_mode) for other in tmp_path.iterdir()]
    assert modes == [0o600, 0o600]


def test_a_link_is_followed(tmp_path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    save(target, b"old")
    link.symlink_to(target)
    save(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_name_of_the_longest_length_can_be_written(tmp_path) -> None:
    path = tmp_path / ("ä" * 126 + "abc")
    save(path, b"new")
    assert path.read_bytes() == b"new"
    assert "shorter name" in refusal(tmp_path / ("a" * 256))


def test_reading_refuses_what_is_no_plain_file(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (
        ("none", "no such file"),
        ("", "a folder"),
        ("pipe", "not a plain file"),
    ):
        with pytest.raises(DataError, match=reason):
            read_file(tmp_path / name, limit=10, error=DataError)


def test_refusing_to_read_leaves_no_open_file(tmp_path) -> None:
    before = open_files()
    for _ in range(3):
        with suppress(DataError):
            read_file(tmp_path, limit=10, error=DataError)
    assert open_files() == before


def test_reading_is_bounded(tmp_path) -> None:
    save(tmp_path / "file", b"x" * (1 << 20))
    assert len(read_file(tmp_path / "file", limit=1 << 20)) == 1 << 20
    save(tmp_path / "file", b"x" * ((1 << 20) + 1))
    with pytest.raises(DataError, match="larger than 1 MiB"):
        read_file(tmp_path / "file", limit=1 << 20, error=DataError)


def test_an_error_while_reading_is_the_callers(tmp_path) -> None:
    save(tmp_path / "file", b"x")

    def fail() -> None:
        with open_file(tmp_path / "file", error=DataError):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(DataError, match="input/output error"):
        fail()
