"""What limits a benchmark: named with what to do, and only where it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.telemetry.conditions import read_conditions
from edge_runtime.telemetry.limits import limits
from tests.unit.telemetry.trees import (
    CPU,
    EMC,
    GPU,
    HWMON,
    LAPTOP,
    ORIN,
    THERMAL,
    THOR,
    Files,
    cores,
    lay,
    without,
)

MODE = "var/lib/nvpmodel/status"
LOCKED: Files = {
    **ORIN,
    **cores(8, low=2201600),
    f"{GPU}/min_freq": 1300500000,
    f"{EMC}/mrq_rate_locked": 1,
}
QUIET_LAPTOP: Files = {
    **without(LAPTOP, "power_supply"),
    **cores(8, low=400000, governor="performance"),
}
BUSY = {"proc/loadavg": "2.51 0.34 0.56 2/345 6789\n"}
SWAPPED = {"proc/meminfo": "MemTotal: 9 kB\nSwapTotal: 900000 kB\nSwapFree: 700000 kB\n"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ()),
        (LOCKED, ()),
        (QUIET_LAPTOP, ()),
        (without(LOCKED, "hwmon", "thermal", "proc/"), ()),
        ({**LOCKED, MODE: "pmode:0001"}, (("MODE_15W", "largest is MAXN", "nvpmodel -m 0"),)),
        ({**without(LOCKED, "nvpmodel.conf"), MODE: "pmode:0001"}, ()),
        (
            ORIN,
            (
                (
                    "GPU 306-1300 MHz, EMC 204-3199 MHz, CPU 730-2202 MHz",
                    "sudo jetson_clocks",
                ),
            ),
        ),
        ({**LOCKED, f"{GPU}/min_freq": 306000000}, (("(GPU 306-1300 MHz)",),)),
        (THOR, (("(CPU 730-2202 MHz)",),)),
        (
            without(LAPTOP, "power_supply"),
            (("governor powersave", "cpupower frequency-set -g performance"),),
        ),
        (
            {**QUIET_LAPTOP, f"{CPU}/cpufreq/policy4/scaling_max_freq": 1100800},
            (("cpu4 is capped at 1101 of 2202 MHz",),),
        ),
        (
            {**QUIET_LAPTOP, "sys/class/power_supply/BAT0/type": "Battery"}
            | {"sys/class/power_supply/BAT0/status": "Discharging"},
            (("battery", "Plug it in"),),
        ),
        ({**LOCKED, f"{THERMAL}/thermal_zone2/temp": 94001}, (("Zone tj is at 94", "from 99"),)),
        ({**LOCKED, f"{THERMAL}/thermal_zone2/temp": 93999}, ()),
        (
            {**LOCKED, f"{THERMAL}/thermal_zone2/temp": 99500}
            | {f"{THERMAL}/cooling_device1/cur_state": 1},
            (("slowed down right now (cpu-throttle-alert)", "cool"),),
        ),
        ({**LOCKED, f"{HWMON}/hwmon1/oc3_event_cnt": 7}, (("(oc3: 7)", "power supply"),)),
        ({**LOCKED, **BUSY}, (("2.5 of them", "top"),)),
        ({**LOCKED, **SWAPPED}, (("195 MiB are swapped out", "Close"),)),
        ({**ORIN, **BUSY, MODE: "pmode:2"}, (("MODE_30W",), ("not locked",), ("Other programs",))),
    ],
)
def test_each_limit_is_one_line_with_what_to_do(
    tmp_path: Path, files: Files, words: tuple[tuple[str, ...], ...]
) -> None:
    found = limits(read_conditions(lay(tmp_path, files), folder=None))
    assert len(found) == len(words), found
    for line, expected in zip(found, words, strict=True):
        assert "\n" not in line
        assert [word for word in expected if word not in line] == [], line


def test_this_machine_has_limits_or_none() -> None:
    assert all(isinstance(line, str) for line in limits(read_conditions(folder=None)))
