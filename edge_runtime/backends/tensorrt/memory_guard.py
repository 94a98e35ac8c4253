"""Estimates what a build takes, and lowers its limits or refuses it rather than be killed.

On a Jetson CPU and GPU share one memory, so a build that takes too much does not fail: the kernel
kills it. What is counted, in bytes, for weights of W bytes:

    host    256 MiB + 3.5 W what the process grows by, which holds the graph already. Measured with
                            TensorRT-RTX 1.7 on x86-64, W = 268 MB: 3.3 W at the peak, of which the
                            parser's copy is one and the finished plan another.
    device  W + workspace   only where the GPU shares the memory: the plan's own copy of the
                            weights, and what the layer that is timed may use. An estimate: no
                            Jetson has been measured.

`MemAvailable` of /proc/meminfo is what there is, or less in a container with a limit of its own.
Swap counts for the host's part alone: the GPU's memory cannot be swapped.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import BuildError

_LOGGING = logging.getLogger("edge_runtime.tensorrt")
_MIB = 2**20
_HOST_BASE = 256 * _MIB
_HOST_FACTOR = 3.5
_LEAST_WORKSPACE = 64 * _MIB
"""Below this a large share of convolutions finds no kernel."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the builder may use.

    Attributes:
        workspace: Most bytes of the memory pool `WORKSPACE`; None leaves it to TensorRT.
        tactics: Most bytes of the pool `TACTIC_DRAM`, all that a kernel takes while it is timed;
            None leaves it to TensorRT.
        notes: What was lowered and why, a sentence each.
    """

    workspace: int | None = None
    tactics: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemoryGuard:
    """Compares what a build takes with what the machine has.

    Attributes:
        shared: Whether the GPU uses the host's memory, as a Jetson's does.
        root: Where the machine's file tree begins.
    """

    shared: bool = False
    root: Path = Path("/")

    def limits(self, weights: int, workspace: int | None) -> Limits:
        """What a build may use.

        Args:
            weights: Bytes of the graph's weights.
            workspace: Most bytes of workspace that were asked for; None for no limit.

        Raises:
            BuildError: Even with the least workspace, the build does not fit.
        """
        memory = read_memory(self.root)
        if memory is None:
            return Limits(workspace)
        available, swap = memory
        host = _HOST_BASE + int(_HOST_FACTOR * weights)
        least = min(workspace or _LEAST_WORKSPACE, _LEAST_WORKSPACE)
        device = weights + least if self.shared else 0
        # The GPU's part comes first: nothing of it can be swapped.
        if device > available or host + device > available + swap:
            raise BuildError(
                f"Building a plan of {_mib(weights)} of weights takes about {_mib(host + device)} "
                f"of memory; {_mib(available)} are available, and {_mib(swap)} of swap. Close "
                "other programs, stop the desktop (sudo systemctl isolate multi-user.target) or "
                "add swap."
            )
        if not self.shared:
            return Limits(workspace)
        room = max(available - host - weights, least)
        if workspace is not None and workspace <= room:
            return Limits(workspace, room)
        if workspace is None:
            # TensorRT's own limit is all of the memory, as if nothing else were in it.
            return Limits(room, room)
        note = (
            f"The workspace was lowered from {_mib(workspace)} to {_mib(room)}: "
            f"{_mib(available)} of memory are available, and the build takes about "
            f"{_mib(host + weights)} beside it. The plan may be slower than it could be."
        )
        _LOGGING.warning("%s", note)
        return Limits(room, room, (note,))


def read_memory(root: Path = Path("/")) -> tuple[int, int] | None:
    """Bytes of memory that can be had without swapping, and of free swap.

    None where the system does not say, as outside Linux.
    """
    text = _read(root / "proc/meminfo")
    available, swap = _field(text, "MemAvailable"), _field(text, "SwapFree")
    if available is None:
        return None
    group = root / "sys/fs/cgroup"
    limit, used = _read(group / "memory.max").strip(), _read(group / "memory.current").strip()
    if limit.isdecimal() and used.isdecimal():
        cached = re.search(r"^inactive_file (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
        free = int(limit) - int(used) + (int(cached[1]) if cached else 0)
        available = min(available, max(free, 0))
    return available, swap or 0


def count_oom_kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has killed for want of memory since it started."""
    found = re.search(r"^oom_kill (\d+)$", _read(root / "proc/vmstat"), re.MULTILINE)
    group = _read(root / "sys/fs/cgroup/memory.events")
    inside = re.search(r"^oom_kill (\d+)$", group, re.MULTILINE)
    return sum(int(match[1]) for match in (found, inside) if match)


def _field(meminfo: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _read(path: Path) -> str:
    """The text of a file; empty if there is none, as of a container's limit outside one."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _mib(size: int) -> str:
    return f"{round(size / _MIB)} MiB"
