"""Which sources of readings a machine has."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from edge_runtime.board import read_board
from edge_runtime.telemetry.devfreq import GpuClock
from edge_runtime.telemetry.emc import MemoryClock
from edge_runtime.telemetry.hwmon import OverCurrentEvents, PowerMonitors
from edge_runtime.telemetry.nvml import open_nvml
from edge_runtime.telemetry.proc import Processor
from edge_runtime.telemetry.readings import Reading, merged
from edge_runtime.telemetry.tegrastats_process import TegrastatsProcess
from edge_runtime.telemetry.thermal import Thermal


class Source(Protocol):
    """Something that can be asked again and again how the machine is."""

    def read(self, seconds: float) -> Reading:
        """What it knows; `seconds` is now."""

    def close(self) -> None:
        """Gives back what it holds."""


class KernelFiles:
    """All that the kernel's files tell: power, heat, clocks, load and memory.

    Args:
        root: Where the file tree begins.
    """

    def __init__(self, root: Path) -> None:
        self.power = PowerMonitors(root)
        self._readers = (
            self.power,
            Thermal(root),
            GpuClock(root),
            MemoryClock(root),
            Processor(root),
            OverCurrentEvents(root),
        )

    def read(self, seconds: float) -> Reading:
        """What they say now."""
        return merged(seconds, [reader.read(seconds) for reader in self._readers])

    def close(self) -> None:
        """Nothing is held."""


def open_sources(
    root: Path = Path("/"), *, interval: float = 0.2, tegrastats: str | None = None
) -> list[Source]:
    """The sources that this machine has, those that are trusted most first.

    The kernel's files come first. NVML is asked where it can know something. tegrastats is run on a
    Jetson whose power no file tells.

    Args:
        root: Where the file tree begins. Programs and NVML are those of this machine, and only
            asked if it is the machine's own.
        interval: Seconds between two readings.
        tegrastats: The program; none means the one on the path.

    Raises:
        DataError: tegrastats is there and does not work.
    """
    files = KernelFiles(root)
    board = read_board(root)
    sources: list[Source] = [files]
    nvml = open_nvml(board) if root == Path("/") else None
    if nvml:
        sources.append(nvml)
    is_jetson = board.jetson is not None or board.l4t is not None
    program = tegrastats or (shutil.which("tegrastats") if root == Path("/") else None)
    if is_jetson and not files.power and program:
        command = (program, "--interval", str(max(round(interval * 1000), 1)))
        try:
            sources.append(TegrastatsProcess(command, patience=max(5.0, 10 * interval)))
        except BaseException:
            close_all(sources)
            raise
    return sources


def close_all(sources: Iterable[Source]) -> None:
    """Closes every source, also if one of them fails to."""
    with ExitStack() as stack:
        for source in sources:
            stack.callback(source.close)
