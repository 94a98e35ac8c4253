"""Load, clock and memory as Linux itself counts them: /proc and cpufreq.

https://man7.org/linux/man-pages/man5/proc_stat.5.html and its siblings proc_meminfo, proc_loadavg;
https://docs.kernel.org/admin-guide/pm/cpufreq.html (clocks in kHz).
"""

from __future__ import annotations

import re
from pathlib import Path

from edge_runtime.telemetry.readings import Reading
from edge_runtime.telemetry.sysfs import read_number, read_text

_CORE = re.compile(r"^cpu(\d{1,4}) (\d{1,20}(?: \d{1,20})*)", re.MULTILINE)
_MEMORY = re.compile(r"^(MemTotal|MemAvailable|SwapTotal|SwapFree):\s+(\d{1,15}) kB", re.MULTILINE)
_IDLE = slice(3, 5)  # Idle, and idle while a disk is waited for.
_ALL = slice(0, 8)  # The times of guests, which follow, are in the first two already.
_MOST_CORES = 4096


class Processor:
    """Cores and main memory. Loads are those since the reading before, so the first has none.

    Args:
        root: Where the file tree begins.
    """

    def __init__(self, root: Path) -> None:
        self._stat, self._meminfo, self._loadavg = (
            str(root / "proc" / name) for name in ("stat", "meminfo", "loadavg")
        )
        cpu = root / "sys/devices/system/cpu"
        self._count = _count(read_text(cpu / "present") or "")
        if not self._count:
            self._count = 1 + max(self._times(), default=-1)
        clocks = [cpu / f"cpu{core}/cpufreq" for core in range(self._count)]
        # The folder of a core that is off may be gone and come back.
        self._clocks = [str(clock / "scaling_cur_freq") for clock in clocks]
        self._has_clocks = any(clock.exists() for clock in clocks)
        self._before: dict[int, tuple[int, int]] = {}

    def read(self, seconds: float) -> Reading:
        """Load, clocks and memory now."""
        memory = {
            name: int(kilo) * 1024 for name, kilo in _MEMORY.findall(read_text(self._meminfo) or "")
        }
        return Reading(
            seconds,
            cpu_loads=self._loads(),
            cpu_mhz=tuple(map(_mhz, self._clocks)) if self._has_clocks else None,
            memory_used=_less(memory.get("MemTotal"), memory.get("MemAvailable")),
            memory_total=memory.get("MemTotal"),
            swap_used=_less(memory.get("SwapTotal"), memory.get("SwapFree")),
            load_average=_averages(read_text(self._loadavg) or ""),
        )

    def _times(self) -> dict[int, tuple[int, int]]:
        """Ticks of each core that is on: busy, and all."""
        times = {}
        for core, numbers in _CORE.findall(read_text(self._stat) or ""):
            ticks = [int(number) for number in numbers.split()]
            every = sum(ticks[_ALL])
            if int(core) < _MOST_CORES:
                times[int(core)] = every - sum(ticks[_IDLE]), every
        return times

    def _loads(self) -> tuple[float | None, ...] | None:
        before, self._before = self._before, self._times()
        loads = [_load(before.get(core), self._before.get(core)) for core in range(self._count)]
        return tuple(loads) if before and self._before else None


def _load(before: tuple[int, int] | None, now: tuple[int, int] | None) -> float | None:
    """Busy share of the ticks between; None for a core that is or was off."""
    if before is None or now is None:
        return None
    busy, every = now[0] - before[0], now[1] - before[1]
    # The kernel lets a counter of a core's idle time run backwards at times (proc_stat(5)).
    return min(max(busy / every, 0.0), 1.0) if every > 0 else 0.0


def _count(present: str) -> int:
    """Cores of a list such as `0-11` (Documentation/ABI/testing/sysfs-devices-system-cpu)."""
    cores = [int(number) for number in re.findall(r"\d{1,5}", present)]
    return min(max(cores) + 1, _MOST_CORES) if cores else 0


def _mhz(path: str) -> float | None:
    kilohertz = read_number(path)
    return None if kilohertz is None or kilohertz < 0 else kilohertz / 1000


def _less(total: int | None, rest: int | None) -> int | None:
    return None if total is None or rest is None else max(total - rest, 0)


def _averages(loadavg: str) -> tuple[float, ...] | None:
    found = re.match(r"(\d{1,9}\.\d{1,9}) (\d{1,9}\.\d{1,9}) (\d{1,9}\.\d{1,9})", loadavg)
    return tuple(float(number) for number in found.groups()) if found else None
