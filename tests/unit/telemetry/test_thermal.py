"""Temperatures and throttling from trees of /sys/class/thermal."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.telemetry.readings import Reading
from edge_runtime.telemetry.thermal import Thermal, read_throttle_points
from tests.unit.telemetry.trees import LAPTOP, ORIN, THERMAL, cooling, lay, zones


def test_zones_are_named_as_tegrastats_names_them(tmp_path: Path) -> None:
    reading = Thermal(lay(tmp_path, ORIN)).read(1.0)
    assert reading.temperatures == {"cpu": 48.5, "gpu": 45.062, "tj": 48.5}
    assert reading.throttled == ()


@pytest.mark.parametrize("temperature", ["-256000", "-274000", "", "unknown"])
def test_a_zone_that_is_off_is_left_out(tmp_path: Path, temperature: str) -> None:
    root = lay(tmp_path, {**ORIN, f"{THERMAL}/thermal_zone1/temp": temperature})
    assert Thermal(root).read(1.0).temperatures == {"cpu": 48.5, "tj": 48.5}


def test_frost_is_a_temperature(tmp_path: Path) -> None:
    root = lay(tmp_path, zones({"CPU-therm": -12500}))
    assert Thermal(root).read(1.0).temperatures == {"CPU": -12.5}


def test_zones_of_one_name_are_told_apart(tmp_path: Path) -> None:
    root = lay(tmp_path, LAPTOP)
    assert Thermal(root).read(1.0).temperatures == {
        "acpitz": 41.0,
        "x86_pkg_temp": 52.0,
        "acpitz#2": 30.0,
    }


def test_what_slows_down_is_named_and_a_fan_is_not(tmp_path: Path) -> None:
    states = {"pwm-fan": 3, "cpu-throttle-alert": 1, "gpu-throttle-alert": 0, "cpufreq-cpu0": 2}
    assert Thermal(lay(tmp_path, cooling(states))).read(1.0).throttled == (
        "cpu-throttle-alert",
        "cpufreq-cpu0",
    )


def test_a_laptops_settings_do_not_count_as_throttling(tmp_path: Path) -> None:
    root = lay(tmp_path, LAPTOP)
    thermal = Thermal(root)
    assert thermal.read(1.0).throttled == ()
    (root / THERMAL / "cooling_device0/cur_state").write_text("2\n")
    assert thermal.read(1.0).throttled == ("Processor",)


def test_without_zones_nothing_is_known(tmp_path: Path) -> None:
    assert Thermal(tmp_path).read(1.0) == Reading(1.0)
    assert Thermal(lay(tmp_path, cooling({"Fan": 1}))).read(1.0) == Reading(1.0)


def test_throttling_begins_at_the_lowest_point_that_is_set(tmp_path: Path) -> None:
    files = zones({"cpu-thermal": 40000, "gpu-thermal": 40000}, passive=99000)
    files |= {
        f"{THERMAL}/thermal_zone1/trip_point_3_type": "hot\n",
        f"{THERMAL}/thermal_zone1/trip_point_3_temp": 90000,
        f"{THERMAL}/thermal_zone1/trip_point_4_type": "passive\n",
        f"{THERMAL}/thermal_zone1/trip_point_4_temp": 0,
        f"{THERMAL}/thermal_zone2/type": "soc-thermal\n",
    }
    assert read_throttle_points(lay(tmp_path, files)) == {"cpu": 99.0, "gpu": 90.0}
