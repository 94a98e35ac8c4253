"""What a build is allowed on machines with this much memory, told by trees of files."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.backends.tensorrt.memory_guard import (
    Limits,
    MemoryGuard,
    count_oom_kills,
    read_memory,
)
from edge_runtime.errors import BuildError

MIB = 2**20
GIB = 2**30


def machine(root: Path, available: int, swap: int = 0, **group: str) -> Path:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "meminfo").write_text(
        f"MemTotal:       99999999 kB\nMemAvailable:   {available // 1024} kB\n"
        f"SwapCached:            1 kB\nSwapFree:       {swap // 1024} kB\n"
    )
    folder = root / "sys/fs/cgroup"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in group.items():
        (folder / f"memory.{name}").write_text(text)
    return root


def test_what_is_there_is_read_in_bytes(tmp_path: Path) -> None:
    assert read_memory(machine(tmp_path, 5 * GIB, 2 * GIB)) == (5 * GIB, 2 * GIB)


def test_a_containers_limit_counts_but_for_its_files(tmp_path: Path) -> None:
    group = {
        "max": f"{4 * GIB}\n",
        "current": f"{3 * GIB}\n",
        "stat": f"anon 1\ninactive_file {GIB}\n",
    }
    assert read_memory(machine(tmp_path, 8 * GIB, **group)) == (2 * GIB, 0)
    assert read_memory(machine(tmp_path, 8 * GIB, max="max\n")) == (8 * GIB, 0)


def test_a_system_that_does_not_say_limits_nothing(tmp_path: Path) -> None:
    assert read_memory(tmp_path) is None
    guard = MemoryGuard(shared=True, root=tmp_path)
    assert guard.limits(100 * GIB, None) == Limits()
    assert guard.limits(100 * GIB, 5) == Limits(workspace=5)


def test_with_a_gpu_of_its_own_memory_the_workspace_is_left_alone(tmp_path: Path) -> None:
    guard = MemoryGuard(root=machine(tmp_path, 2 * GIB))
    assert guard.limits(100 * MIB, None) == Limits()
    assert guard.limits(100 * MIB, 64 * GIB) == Limits(workspace=64 * GIB)


def test_on_shared_memory_the_builder_gets_what_is_left(tmp_path: Path) -> None:
    guard = MemoryGuard(shared=True, root=machine(tmp_path, 4 * GIB))
    room = 4 * GIB - 256 * MIB - 350 * MIB - 100 * MIB
    assert guard.limits(100 * MIB, None) == Limits(room, room)
    assert guard.limits(100 * MIB, GIB) == Limits(GIB, room)


def test_a_workspace_that_does_not_fit_is_lowered_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = MemoryGuard(shared=True, root=machine(tmp_path, GIB))
    with caplog.at_level(logging.WARNING):
        limits = guard.limits(100 * MIB, 8 * GIB)
    room = GIB - 706 * MIB
    assert (limits.workspace, limits.tactics) == (room, room)
    (note,) = limits.notes
    assert "lowered from 8192 MiB to 318 MiB" in note
    assert caplog.messages == [note]


@pytest.mark.parametrize("shared", [True, False])
def test_a_build_that_cannot_fit_is_refused_with_the_figures(tmp_path: Path, shared: bool) -> None:
    guard = MemoryGuard(shared=shared, root=machine(tmp_path, GIB, 128 * MIB))
    with pytest.raises(
        BuildError, match=r"1024 MiB of weights.* 1024 MiB are available"
    ) as refusal:
        guard.limits(GIB, None)
    assert "128 MiB of swap" in str(refusal.value)
    assert ("3840 MiB of memory", "4928 MiB of memory")[shared] in str(refusal.value)


def test_swap_helps_the_host_but_not_the_gpu(tmp_path: Path) -> None:
    guard = MemoryGuard(shared=True, root=machine(tmp_path, 600 * MIB, 8 * GIB))
    assert guard.limits(500 * MIB, None).workspace == 64 * MIB
    with pytest.raises(BuildError):
        guard.limits(550 * MIB, None)


def test_a_build_needs_memory_and_swap_to_the_last_mebibyte(tmp_path: Path) -> None:
    need = 256 + 350  # Of a GPU with memory of its own, for 100 MiB of weights.
    for available, swap in ((600, 6), (6, 600)):
        root = machine(tmp_path, available * MIB, swap * MIB)
        assert available + swap == need
        MemoryGuard(root=root).limits(100 * MIB, None)
        with pytest.raises(BuildError):
            MemoryGuard(root=root).limits(101 * MIB, None)


def test_a_small_workspace_that_was_asked_for_is_kept(tmp_path: Path) -> None:
    guard = MemoryGuard(shared=True, root=machine(tmp_path, 700 * MIB, 8 * GIB))
    assert guard.limits(500 * MIB, 1 * MIB).workspace == 1 * MIB


@given(
    st.integers(0, 64 * GIB),
    st.integers(0, 64 * GIB),
    st.integers(0, 8 * GIB),
    st.none() | st.integers(1, 128 * GIB),
)
def test_limits_are_never_more_than_there_is(
    tmp_path_factory: pytest.TempPathFactory,
    available: int,
    swap: int,
    weights: int,
    workspace: int | None,
) -> None:
    root = machine(tmp_path_factory.getbasetemp(), available, swap)
    try:
        limits = MemoryGuard(shared=True, root=root).limits(weights, workspace)
    except BuildError:
        assert available < 4.5 * weights + 512 * MIB
        return
    assert limits.workspace is not None
    assert limits.tactics is not None
    assert limits.workspace <= limits.tactics <= max(available, 1)
    assert limits.workspace <= (workspace or available)
    assert bool(limits.notes) == (workspace is not None and workspace > limits.workspace)


def test_the_kernels_kills_are_counted(tmp_path: Path) -> None:
    root = machine(tmp_path, GIB, events="low 0\noom 5\noom_kill 2\noom_group_kill 0\n")
    assert count_oom_kills(root) == 2
    (root / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 40\nswap_ra 0\n")
    assert count_oom_kills(root) == 42
    assert count_oom_kills(tmp_path / "nothing") == 0
