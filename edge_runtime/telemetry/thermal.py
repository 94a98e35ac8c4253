"""Temperatures, what is throttled for them and where that begins, from /sys/class/thermal.

Files, units (thousandths of a degree C) and types of trip points are Linux's:
https://docs.kernel.org/driver-api/thermal/sysfs-api.html. Jetsons name the cooling devices that cut
clocks `*-throttle-alert` (Jetson Linux Developer Guide, "Platform Power and Performance", thermal
management), which has not been seen on a device by this project; others are named by Linux's own
drivers: `Processor`, `cpufreq-*`, `devfreq-*`, `intel_powerclamp`.
"""

from __future__ import annotations

import re
from pathlib import Path

from edge_runtime.telemetry.readings import Reading
from edge_runtime.telemetry.sysfs import find, read_number, read_text

_ZONES = "sys/class/thermal/thermal_zone*"
_COOLING = "sys/class/thermal/cooling_device*"
_SLOWS_DOWN = re.compile(r"throttle|cpufreq|devfreq|^Processor$|powerclamp", re.IGNORECASE)
"""Cooling devices that cost speed. Fans do not, and `TCC Offset` is a setting."""

_COLDEST = -100.0
"""A Jetson's zone that is off says -256, and a zone of Linux without a value -274."""

_LIMITS = ("passive", "hot", "critical")


class Thermal:
    """Thermal zones and the cooling devices that slow something down; looked for once.

    Args:
        root: Where the file tree begins.
    """

    def __init__(self, root: Path) -> None:
        self._zones = {name: str(zone / "temp") for name, zone in _named_zones(root).items()}
        self._cooling = [
            (name, str(device / "cur_state"))
            for device in find(root, _COOLING)
            if _SLOWS_DOWN.search(name := read_text(device / "type") or "")
        ]

    def read(self, seconds: float) -> Reading:
        """Temperatures and what is throttled now."""
        temperatures = {}
        for zone, path in self._zones.items():
            celsius = _celsius(path)
            if celsius is not None:
                temperatures[zone] = celsius
        states = [(name, read_number(path)) for name, path in self._cooling]
        known = [(name, state) for name, state in states if state is not None]
        throttled = dict.fromkeys(name for name, state in known if state > 0)
        return Reading(
            seconds,
            temperatures=temperatures or None,
            throttled=tuple(throttled) if known else None,
        )


def read_throttle_points(root: Path) -> dict[str, float]:
    """The temperature at which each zone begins to be throttled, in degrees C.

    That is its lowest trip point of type passive, hot or critical. Zones without one are left out.
    """
    points = {}
    for name, zone in _named_zones(root).items():
        limits = [
            celsius
            for kind in find(zone, "trip_point_*_type")
            if read_text(kind) in _LIMITS
            and (celsius := _celsius(zone / kind.name.replace("_type", "_temp"))) is not None
            and celsius > 0  # A trip point that is not set is 0 or below.
        ]
        if limits:
            points[name] = min(limits)
    return points


def _named_zones(root: Path) -> dict[str, Path]:
    """Zones by their type, without the ending that all of a Jetson's have."""
    zones: dict[str, Path] = {}
    for zone in find(root, _ZONES):
        name = re.sub(r"[-_]therm(al)?$", "", read_text(zone / "type") or "") or zone.name
        zones[f"{name}#{zone.name[12:]}" if name in zones else name] = zone
    return zones


def _celsius(path: str | Path) -> float | None:
    milli = read_number(path)
    return None if milli is None or milli / 1000 < _COLDEST else milli / 1000
