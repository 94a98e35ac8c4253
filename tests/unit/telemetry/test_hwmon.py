"""Power, over-current events and fan from trees of /sys/class/hwmon."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.telemetry.hwmon import OverCurrentEvents, PowerMonitors, read_fan
from edge_runtime.telemetry.readings import Reading
from tests.unit.telemetry.trees import HWMON, ORIN, THOR, ina238, ina3221, lay, without


def test_rails_of_an_orin_are_volts_times_amperes(tmp_path: Path) -> None:
    reading = PowerMonitors(lay(tmp_path, ORIN)).read(1.0)
    assert reading.power == pytest.approx(
        {
            "VDD_GPU_SOC": 3.17312,
            "VDD_CPU_CV": 0.79328,
            "VIN_SYS_5V0": 4.4928,
            "VDDQ_VDD2_1V8AO": 0.29952,
        }
    )
    assert reading.total_watts == pytest.approx(3.17312 + 0.79328 + 4.4928)


def test_the_monitor_of_a_thor_that_has_no_name_is_its_input(tmp_path: Path) -> None:
    reading = PowerMonitors(lay(tmp_path, THOR)).read(1.0)
    assert reading.power == pytest.approx(
        {"VDD_GPU": 1.956, "VDD_CPU_SOC_MSS": 5.88, "VIN_SYS_5V0": 5.635, "VIN": 19.78}
    )
    assert reading.total_watts == 19.78


@pytest.mark.parametrize(
    ("files", "rails"),
    [
        (ina238(0, 5_000_000), {"ina238"}),
        ({**ina238(0, 5_000_000), **ina238(1, 6_000_000)}, {"ina238", "ina238#1"}),
        ({**THOR, **ina238(9, 6_000_000)}, {"ina238", "ina238#1"}),
        ({**ORIN, **ina238(9, 6_000_000)}, {"ina238"}),
        ({**ina238(0, 5_000_000), f"{HWMON}/hwmon0/label": "VIN\n"}, {"VIN"}),
        ({**ina238(0, 5_000_000), f"{HWMON}/hwmon0/power1_label": "VDD_8V\n"}, {"VDD_8V"}),
    ],
)
def test_a_monitor_without_a_name_is_no_boards_input_elsewhere(
    tmp_path: Path, files: dict[str, str | int], rails: set[str]
) -> None:
    power = PowerMonitors(lay(tmp_path, files)).read(1.0).power or {}
    inputs = {"VDD_GPU_SOC", "VDD_CPU_CV", "VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"}
    assert set(power) - inputs - {"VDDQ_VDD2_1V8AO"} == rails


def test_a_rail_that_does_not_answer_is_left_out_and_may_come_back(tmp_path: Path) -> None:
    root = lay(tmp_path, ina3221(0, {"VDD_IN": (5000, 1000), "VDD_SOC": (5000, 200)}))
    monitors = PowerMonitors(root)
    current = root / HWMON / "hwmon0/curr2_input"
    current.write_text("")
    assert monitors.read(1.0).power == {"VDD_IN": 5.0}
    current.write_text("-20\n")
    assert monitors.read(1.0).power == {"VDD_IN": 5.0, "VDD_SOC": -0.1}


def test_a_machine_without_monitors_has_no_power(tmp_path: Path) -> None:
    files = {f"{HWMON}/hwmon0/name": "coretemp\n", f"{HWMON}/hwmon0/temp1_input": 40000}
    assert not PowerMonitors(lay(tmp_path, files))
    assert PowerMonitors(lay(tmp_path, files)).read(1.0) == Reading(1.0)
    assert PowerMonitors(lay(tmp_path, ORIN))


def test_over_current_events_are_counted_by_name(tmp_path: Path) -> None:
    root = lay(tmp_path, {**ORIN, f"{HWMON}/hwmon1/oc3_event_cnt": 7})
    assert OverCurrentEvents(root).read(1.0).over_current == {"oc1": 0, "oc3": 7}
    (root / HWMON / "hwmon1/oc1_event_cnt").unlink()
    assert OverCurrentEvents(root).read(1.0).over_current == {"oc3": 7}


def test_without_counters_nothing_is_said_of_over_current(tmp_path: Path) -> None:
    assert OverCurrentEvents(lay(tmp_path, THOR)).read(1.0).over_current is None


@pytest.mark.parametrize(("duty", "share"), [(51, 0.2), (0, 0.0), (255, 1.0), (256, None)])
def test_the_fan_is_driven_by_a_share(tmp_path: Path, duty: int, share: float | None) -> None:
    assert read_fan(lay(tmp_path, {**ORIN, f"{HWMON}/hwmon0/pwm1": duty})) == share


def test_a_board_without_a_fan_has_none(tmp_path: Path) -> None:
    assert read_fan(lay(tmp_path, without(ORIN, "pwm1"))) is None
