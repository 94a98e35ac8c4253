"""The conditions of a benchmark: what of the machine decides its figures, at one moment."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.board import Board, read_board
from edge_runtime.strict_json import Value
from edge_runtime.telemetry.clocks import ClockRange, read_clock_ranges
from edge_runtime.telemetry.fields import (
    by_name,
    count,
    listed,
    maybe,
    number,
    share,
    text,
    truth,
)
from edge_runtime.telemetry.git import read_commit
from edge_runtime.telemetry.hwmon import read_fan
from edge_runtime.telemetry.power_mode import PowerMode, read_power_mode
from edge_runtime.telemetry.readings import Reading
from edge_runtime.telemetry.sources import KernelFiles
from edge_runtime.telemetry.sysfs import find, read_text
from edge_runtime.telemetry.thermal import read_throttle_points
from edge_runtime.telemetry.versions import installed_versions


@dataclass(frozen=True, slots=True)
class Conditions:
    """What of a machine decides the figures of a benchmark. What is not known is None or empty.

    Attributes:
        board: What the machine is.
        python: Version of the interpreter.
        versions: Version by library; None where it is not installed.
        commit: The git commit of the working directory, with `-dirty` if files differ from it.
        power_mode: That of a Jetson.
        clocks: Between which clocks GPU, memory and cores may move.
        fan: How strongly the fan is driven, 0 to 1.
        on_battery: Whether a battery is being discharged; None without a battery.
        throttle_points: The temperature at which each zone begins to be throttled, in degrees C.
        now: Power, temperatures, load and memory at that moment.
    """

    board: Board
    python: str
    versions: Mapping[str, str | None]
    commit: str | None
    power_mode: PowerMode | None
    clocks: tuple[ClockRange, ...]
    fan: float | None
    on_battery: bool | None
    throttle_points: Mapping[str, float]
    now: Reading

    def to_json(self) -> dict[str, Any]:
        """The conditions as plain JSON values."""
        return {
            "board": self.board.to_json(),
            "python": self.python,
            "versions": dict(self.versions),
            "commit": self.commit,
            "power_mode": self.power_mode.to_json() if self.power_mode else None,
            "clocks": [clock.to_json() for clock in self.clocks],
            "fan": self.fan,
            "on_battery": self.on_battery,
            "throttle_points": dict(self.throttle_points),
            "now": self.now.to_json(),
        }

    @classmethod
    def from_json(cls, value: Value) -> Conditions:
        """The conditions that `to_json` wrote.

        Raises:
            EdgeRuntimeError: That of `value`: a key is missing, unknown or of the wrong type.
        """
        found = value.fields(*_READERS)
        return cls(**{name: read(found[name]) for name, read in _READERS.items()})


def read_conditions(
    root: Path = Path("/"), *, folder: Path | None = Path(), now: Reading | None = None
) -> Conditions:
    """Reads the conditions; all but the commit is read from files.

    Args:
        root: Where the machine's file tree begins; versions are those of this interpreter.
        folder: Whose git commit is recorded; None runs no git.
        now: A reading that was just made, as a sampler's first, which may know more than files
            tell; None makes one from files.
    """
    return Conditions(
        board=read_board(root),
        python=platform.python_version(),
        versions=installed_versions(),
        commit=read_commit(folder) if folder is not None else None,
        power_mode=read_power_mode(root),
        clocks=read_clock_ranges(root),
        fan=read_fan(root),
        on_battery=_read_battery(root),
        throttle_points=read_throttle_points(root),
        now=now or KernelFiles(root).read(time.perf_counter()),
    )


def _read_battery(root: Path) -> bool | None:
    """Whether a battery of the machine itself is discharged (ABI/testing/sysfs-class-power)."""
    supplies = [
        supply
        for supply in find(root, "sys/class/power_supply/*")
        if read_text(supply / "type") == "Battery"
        and read_text(supply / "scope") != "Device"  # That of a mouse, say.
    ]
    if not supplies:
        return None
    return any(read_text(supply / "status") == "Discharging" for supply in supplies)


def _board(value: Value) -> Board:
    found = value.fields(*_BOARD_READERS)
    return Board(**{name: read(found[name]) for name, read in _BOARD_READERS.items()})


def _texts(value: Value) -> tuple[str, ...]:
    return listed(value, text)


_BOARD_READERS: dict[str, Any] = {
    "architecture": text,
    "cpu": maybe(text),
    "cores": count,
    "features": _texts,
    "memory": maybe(count),
    "jetson": maybe(text),
    "l4t": maybe(text),
    "jetpack": maybe(text),
    "gpu_nodes": _texts,
    "gpu_driver": maybe(text),
    "libcuda": maybe(text),
    "system_tensorrt": maybe(text),
}

_READERS: dict[str, Any] = {
    "board": _board,
    "python": text,
    "versions": lambda value: by_name(value, maybe(text)),
    "commit": maybe(text),
    "power_mode": maybe(PowerMode.from_json),
    "clocks": lambda value: listed(value, ClockRange.from_json),
    "fan": maybe(share),
    "on_battery": maybe(truth),
    "throttle_points": lambda value: by_name(value, number),
    "now": Reading.from_json,
}
