"""A line of NVIDIA's tegrastats as a reading, whatever the board and the release that wrote it.

The fields are those of the Jetson Linux Developer Guide, "tegrastats Utility". How they differ was
taken from lines that real boards wrote, as quoted in the tests of DataDog/datadog-agent (jetson)
and henrygd/beszel (gpu) and in public logs of AGX Thor.
"""

from __future__ import annotations

import re

from edge_runtime.errors import DataError
from edge_runtime.telemetry.readings import Reading

_NUMBER = r"-?\d{1,9}(?:\.\d{1,9})?"
_EDGE = r"(?<!\S)"  # Fields are apart by spaces: IRAM is not RAM.
_MEMORY = re.compile(rf"{_EDGE}(RAM|SWAP) +(\d{{1,12}})/(\d{{1,12}})([kKMG]?B)\b")
_CORES = re.compile(rf"{_EDGE}CPU +\[([^\[\]]*)\]")
_CORE = re.compile(r"(\d{1,3})%(?:@(\d{1,6}))?")
_ENGINE = re.compile(
    rf"{_EDGE}(EMC_FREQ|GR3D_FREQ) +(?=[\d@])"
    r"(?:(\d{1,3})%)?(?:@(?:\[([\d, ]{1,99})\]|(\d{1,6})))?(?!\S)"
)
_ZONE = re.compile(rf"{_EDGE}([A-Za-z][\w.-]*)@({_NUMBER})C(?![^\s/])")
_RAIL = re.compile(rf"{_EDGE}([A-Za-z][\w.+-]*) +({_NUMBER})(mW(?:/\S*)?|/{_NUMBER})(?!\S)")
"""In mW: now, and after slashes the average and the peak. Old releases write no unit; a number
alone without a unit is a clock, such as that of APE."""

_NOT_CONNECTED = "NC"
_COLDEST = -100.0  # A zone that is off says -256.
_BYTES = {"B": 1, "kB": 1 << 10, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_LONGEST = 1 << 16


def parse_line(line: str, *, seconds: float) -> Reading:
    """What a line of tegrastats says. Fields that are not known are left out.

    Args:
        line: The line, with or without the date that newer releases begin it with.
        seconds: When it was read, on the clock of `time.perf_counter`.

    Raises:
        DataError: It is no line of tegrastats: it has neither the field RAM nor the field CPU.
    """
    memory = {name: fields for name, *fields in _MEMORY.findall(line[:_LONGEST])}
    cores = _CORES.search(line)
    if len(line) > _LONGEST or not (memory or cores):
        shown = line if len(line) <= 80 else f"{line[:77]}..."
        raise DataError(
            f"{shown!r} is no line of tegrastats: it must have a field such as RAM 1024/7620MB or "
            "CPU [5%@729,off]."
        )
    engines = {name: _engine(*values) for name, *values in _ENGINE.findall(line)}
    temperatures = {zone: float(celsius) for zone, celsius in _ZONE.findall(line)}
    power = {rail: float(milli) / 1000 for rail, milli, _ in _RAIL.findall(line)}
    loads, clocks = _cores(cores[1] if cores else "")
    return Reading(
        seconds,
        power={rail: watts for rail, watts in power.items() if rail != _NOT_CONNECTED} or None,
        temperatures={z: celsius for z, celsius in temperatures.items() if celsius > _COLDEST}
        or None,
        gpu_load=engines.get("GR3D_FREQ", (None, None))[0],
        gpu_mhz=engines.get("GR3D_FREQ", (None, None))[1],
        cpu_loads=loads,
        cpu_mhz=clocks,
        emc_load=engines.get("EMC_FREQ", (None, None))[0],
        emc_mhz=engines.get("EMC_FREQ", (None, None))[1],
        memory_used=_bytes(memory.get("RAM"), 0),
        memory_total=_bytes(memory.get("RAM"), 1),
        swap_used=_bytes(memory.get("SWAP"), 0),
    )


def _bytes(field: list[str] | None, which: int) -> int | None:
    return int(field[which]) * _BYTES[field[2]] if field else None


def _engine(percent: str, clocks: str, clock: str) -> tuple[float | None, float | None]:
    """Load and MHz; of several clocks, those of a GPU's clusters, the highest."""
    numbers = re.findall(r"\d{1,6}", clocks or clock)
    return _share(percent), max(map(float, numbers), default=None)


def _cores(field: str) -> tuple[tuple[float | None, ...] | None, tuple[float | None, ...] | None]:
    """Load and MHz of each core; None for one that is off."""
    found = [_CORE.fullmatch(core.strip()) for core in field.split(",")] if field.strip() else []
    loads = tuple(_share(core[1]) if core else None for core in found)
    clocks = tuple(float(core[2]) if core and core[2] else None for core in found)
    return loads or None, clocks if any(clock is not None for clock in clocks) else None


def _share(percent: str) -> float | None:
    return int(percent) / 100 if percent and int(percent) <= 100 else None
