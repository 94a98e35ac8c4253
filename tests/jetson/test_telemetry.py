"""The files from which power, temperature and clocks are read are there and make sense.

They are Linux's own: hwmon (voltage in mV, current in mA, power in uW), thermal zones (mdeg C) and
devfreq (Hz). https://docs.kernel.org/hwmon/sysfs-interface.html
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SYS = Path("/sys/class")


def test_temperatures_are_those_of_a_board_that_runs() -> None:
    found = {}
    for zone in (SYS / "thermal").glob("thermal_zone*"):
        try:
            found[(zone / "type").read_text().strip()] = int((zone / "temp").read_text()) / 1000
        except OSError:  # A part that is off has no temperature.
            continue
    assert any(10 < celsius < 110 for celsius in found.values()), found


def test_power_is_that_of_a_board_that_runs() -> None:
    watts = {}
    for monitor in (SYS / "hwmon").glob("hwmon*"):
        name = (monitor / "name").read_text().strip()
        if name.startswith("ina3221"):
            for current in monitor.glob("curr[1-3]_input"):
                volt = monitor / current.name.replace("curr", "in")
                milli = int(current.read_text()) * int(volt.read_text())
                watts[f"{name} {current.name}"] = milli / 1e6
        elif name.startswith("ina2"):
            for power in monitor.glob("power*_input"):
                watts[f"{name} {power.name}"] = int(power.read_text()) / 1e6
    assert watts, "no power monitor (ina3221, ina238) in /sys/class/hwmon"
    assert 0.5 < sum(watts.values()) < 300, watts


def test_the_gpu_has_a_clock() -> None:
    names = [path.name for path in (SYS / "devfreq").iterdir()]
    clocks = [SYS / "devfreq" / name / "cur_freq" for name in names if "gpu" in name]
    assert clocks, f"no GPU in /sys/class/devfreq: {names}"
    for clock in clocks:
        assert 0 < int(clock.read_text()) < 5e9


def test_the_power_mode_has_a_name() -> None:
    if shutil.which("nvpmodel") is None:
        pytest.skip("there is no nvpmodel")
    said = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, check=True).stdout
    assert "NV Power Mode" in said
