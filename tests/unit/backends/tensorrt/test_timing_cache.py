"""The file of kernel timings: kept, merged, and put aside when it is of no use."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.backends.tensorrt.timing_cache import TimingCacheFile, timing_cache_path


class Cache:
    """An ITimingCache: timings by kernel, as JSON, with the GPU's name."""

    def __init__(self, plain: dict[str, Any]) -> None:
        self.gpu = plain["gpu"]
        self.times = dict(plain["times"])

    def serialize(self) -> bytes:
        return json.dumps({"gpu": self.gpu, "times": self.times}, sort_keys=True).encode()

    def combine(self, input_cache: Cache, ignore_mismatch: bool) -> bool:
        if input_cache.gpu != self.gpu and not ignore_mismatch:
            return False
        self.times = {**input_cache.times, **self.times}
        return True


class Config:
    """An IBuilderConfig of one GPU."""

    def __init__(self, gpu: str = "orin", *, takes: bool = True) -> None:
        self.gpu = gpu
        self.cache: Cache | None = None
        self.takes = takes

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Cache | None:
        if not serialized_timing_cache:
            return Cache({"gpu": self.gpu, "times": {}})
        try:
            return Cache(json.loads(serialized_timing_cache))
        except ValueError:
            return None

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        if not self.takes or (cache.gpu != self.gpu and not ignore_mismatch):
            return False
        self.cache = cache
        return True


def build(path: Path, *kernels: str, gpu: str = "orin") -> dict[str, float]:
    """A build that measures these kernels. Returns what it knew before."""
    file, config = TimingCacheFile(path), Config(gpu)
    cache = file.attach(config)
    assert config.cache is cache
    before = dict(cache.times)
    cache.times.update(dict.fromkeys(kernels, 1.0))
    file.save(config, cache)
    return before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "a.cache"


def test_the_next_build_knows_what_this_one_measured(path: Path) -> None:
    assert build(path, "a") == {}
    assert build(path, "b") == {"a": 1.0}
    assert build(path) == {"a": 1.0, "b": 1.0}


def test_builds_that_run_at_once_keep_each_others_timings(path: Path) -> None:
    first, second = TimingCacheFile(path), TimingCacheFile(path)
    one, two = Config(), Config()
    for file, config, kernel in ((first, one, "a"), (second, two, "b")):
        file.attach(config).times[kernel] = 1.0
    first.save(one, one.cache)
    second.save(two, two.cache)
    assert build(path) == {"a": 1.0, "b": 1.0}


def test_many_writers_lose_nothing(path: Path) -> None:
    threads = [threading.Thread(target=build, args=(path, f"k{i}")) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(build(path)) == {f"k{i}" for i in range(16)}
    assert [p.name for p in path.parent.iterdir() if p.suffix == ".tmp"] == []


def test_nothing_is_written_where_nothing_is_new(path: Path) -> None:
    build(path, "a")
    before = path.stat().st_ino
    build(path)
    assert path.stat().st_ino == before


def damaged(data: bytes) -> list[bytes]:
    return [data[:-1], data + b" ", data[:50], b"", data.replace(b"orin", b"arin"), b"x" + data]


@pytest.mark.parametrize("kind", range(6))
def test_a_damaged_file_is_put_aside_with_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture, kind: int
) -> None:
    build(path, "a")
    data = damaged(path.read_bytes())[kind]
    path.write_bytes(data)
    assert build(path, "b") == {}
    assert path.with_name("a.cache.damaged").read_bytes() == data
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "a.cache is of no use, as it is damaged" in caplog.text
    assert build(path) == {"b": 1.0}


def test_a_file_of_another_gpu_is_put_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build(path, "a", gpu="thor")
    assert build(path, "b") == {}
    assert "TensorRT does not take it" in caplog.text
    assert build(path) == {"b": 1.0}


def test_another_builds_file_that_cannot_be_combined_is_put_aside(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, config = TimingCacheFile(path), Config()
    cache = file.attach(config)
    cache.times["a"] = 1.0
    build(path, "b", gpu="thor")
    file.save(config, cache)
    assert "cannot be combined" in caplog.text
    assert build(path) == {"a": 1.0}


def test_a_tensorrt_without_timing_cache_builds_without(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, config = TimingCacheFile(path), Config(takes=False)
    assert file.attach(config) is None
    file.save(config, None)
    assert not path.parent.exists()
    assert "takes no timing cache" in caplog.text


def test_a_folder_that_cannot_be_written_loses_timings_not_the_build(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert build(tmp_path / "file" / "a.cache", "a") == {}
    assert "timings of this build are lost" in caplog.text
    assert "EDGE_RUNTIME_CACHE" in caplog.text


def test_a_cache_that_is_a_folder_is_not_used(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.mkdir(parents=True)
    assert build(path, "a") == {}
    assert "not used" in caplog.text
    assert "lost" in caplog.text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_file_is_either_taken_or_put_aside(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.cache"
    path.write_bytes(data)
    assert build(path, "a") == {}
    assert build(path) == {"a": 1.0}


def test_each_version_and_gpu_has_its_own_file() -> None:
    paths = {
        timing_cache_path(version, device, {"HOME": "/h"})
        for version in ("10.3.0", "10.13.3.9")
        for device in ("sm87 Orin", "sm87 Orin Nano", "sm110 Thor")
    }
    assert len(paths) == 6
    assert {path.parent for path in paths} == {Path("/h/.cache/edge-runtime/timing")}


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"EDGE_RUNTIME_CACHE": "/e", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/e"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x"),
        ({"XDG_CACHE_HOME": "x", "HOME": "/h"}, "/h/.cache"),
        ({"XDG_CACHE_HOME": "", "EDGE_RUNTIME_CACHE": "", "HOME": "/h"}, "/h/.cache"),
    ],
)
def test_the_cache_is_where_the_user_keeps_such_files(
    environment: dict[str, str], folder: str
) -> None:
    path = timing_cache_path("11.4.0", "sm87 NVIDIA Orin/(8)\n", environment)
    assert path == Path(folder, "edge-runtime", "timing", "11.4.0-sm87-NVIDIA-Orin-8.cache")
