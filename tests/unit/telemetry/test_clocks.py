"""Clock ranges from trees of cpufreq, devfreq and debugfs."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.telemetry.clocks import ClockRange, read_clock_ranges
from tests.unit.telemetry.trees import CPU, EMC, GPU, LAPTOP, ORIN, THOR, cores, lay

POLICIES = [ClockRange(f"cpu{n}", 729.6, 2201.6, 2201.6, "schedutil", False) for n in (0, 4)]


def test_ranges_of_an_orin_that_is_left_alone(tmp_path: Path) -> None:
    assert read_clock_ranges(lay(tmp_path, ORIN)) == (
        ClockRange("gpu", 306.0, 1300.5, 1300.5, "nvhost_podgov", False),
        ClockRange("emc", 204.0, 3199.0, 3199.0, None, False),
        *POLICIES,
    )


def test_after_jetson_clocks_all_are_locked(tmp_path: Path) -> None:
    locked = {**ORIN, **cores(8, low=2201600), f"{GPU}/min_freq": 1300500000}
    locked |= {f"{EMC}/mrq_rate_locked": 1, f"{EMC}/rate": 3199000000}
    found = read_clock_ranges(lay(tmp_path, locked))
    assert [clock.part for clock in found] == ["gpu", "emc", "cpu0", "cpu4"]
    assert all(clock.locked for clock in found)
    assert [clock.low_mhz for clock in found] == [1300.5, 3199.0, 2201.6, 2201.6]


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    root = lay(tmp_path, THOR)
    (root / CPU / "cpufreq/policy0/scaling_max_freq").unlink()
    assert read_clock_ranges(root) == (POLICIES[1],)


def test_a_laptop_has_cores_only(tmp_path: Path) -> None:
    found = read_clock_ranges(lay(tmp_path, LAPTOP))
    assert {(clock.part, clock.governor) for clock in found} == {
        ("cpu0", "powersave"),
        ("cpu4", "powersave"),
    }
