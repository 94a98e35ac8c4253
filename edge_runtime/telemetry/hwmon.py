"""Power, over-current events and fan of a board, from its hardware monitors in /sys/class/hwmon.

The files and their units are Linux's: https://docs.kernel.org/hwmon/sysfs-interface.html,
https://docs.kernel.org/hwmon/ina3221.html, https://docs.kernel.org/hwmon/ina238.html.
Which monitors a Jetson has: Jetson Linux Developer Guide, "Platform Power and Performance".
None of it has been seen on a device by this project yet.
"""

from __future__ import annotations

from pathlib import Path

from edge_runtime.telemetry.readings import Reading
from edge_runtime.telemetry.sysfs import find, read_number, read_text

_HWMON = "sys/class/hwmon/hwmon*"
_NOT_CONNECTED = "NC"
_THOR_RAILS = {"VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"}


class PowerMonitors:
    """The ina3221 and ina238 of a board; their files are looked for once.

    An ina3221 measures three rails, each a voltage in mV and a current in mA, which the device tree
    names. An ina238 measures one, in uW, and its driver names none. On Thor, whose four rails are
    the three of an ina3221 and VIN, an ina238 without a name is therefore VIN; elsewhere it is
    called by the chip.

    Args:
        root: Where the file tree begins.
    """

    def __init__(self, root: Path) -> None:
        self._products: dict[str, tuple[str, str]] = {}
        self._powers: dict[str, str] = {}
        unnamed: list[tuple[str, Path]] = []
        for monitor in find(root, _HWMON):
            chip = read_text(monitor / "name") or ""
            if chip.startswith("ina3221"):
                self._add_channels(monitor)
            elif chip.startswith(("ina237", "ina238")) and (monitor / "power1_input").exists():
                label = read_text(monitor / "label") or read_text(monitor / "power1_label")
                if label:
                    self._powers[label] = str(monitor / "power1_input")
                else:
                    unnamed.append((chip, monitor / "power1_input"))
        is_thor = len(unnamed) == 1 and set(self._products) == _THOR_RAILS
        for number, (chip, path) in enumerate(unnamed):
            name = "VIN" if is_thor else f"{chip}#{number}" if number else chip
            self._powers[name] = str(path)

    def __bool__(self) -> bool:
        return bool(self._products or self._powers)

    def read(self, seconds: float) -> Reading:
        """Power by rail now."""
        power = {}
        for rail, (volts, amperes) in self._products.items():
            milli = read_number(volts), read_number(amperes)
            if milli[0] is not None and milli[1] is not None:
                power[rail] = milli[0] * milli[1] / 1e6
        for rail, path in self._powers.items():
            micro = read_number(path)
            if micro is not None:
                power[rail] = micro / 1e6
        return Reading(seconds, power=power or None)

    def _add_channels(self, monitor: Path) -> None:
        for channel in (1, 2, 3):
            label = read_text(monitor / f"in{channel}_label")
            if label and label != _NOT_CONNECTED:
                files = monitor / f"in{channel}_input", monitor / f"curr{channel}_input"
                self._products[label] = str(files[0]), str(files[1])


class OverCurrentEvents:
    """Counters of the events in which a Jetson cut its clocks because it drew too much.

    They are the files `oc*_event_cnt` (Jetson Linux Developer Guide, "Platform Power and
    Performance", over-current throttling).

    Args:
        root: Where the file tree begins.
    """

    def __init__(self, root: Path) -> None:
        self._files = {
            path.name.partition("_")[0]: str(path) for path in find(root, f"{_HWMON}/oc*_event_cnt")
        }

    def read(self, seconds: float) -> Reading:
        """The counters now."""
        counts = {name: read_number(path) for name, path in self._files.items()}
        known = {name: number for name, number in counts.items() if number is not None}
        return Reading(seconds, over_current=known or None)


def read_fan(root: Path) -> float | None:
    """How strongly the first fan is driven, 0 to 1; None where none is to be seen."""
    for path in find(root, f"{_HWMON}/pwm1"):
        duty = read_number(path)
        if duty is not None and 0 <= duty <= 255:
            return duty / 255
    return None
