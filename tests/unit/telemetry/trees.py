"""File trees of machines, after what their kernels' documentation says that they show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Files = dict[str, str | int]

HWMON, THERMAL, DEVFREQ = "sys/class/hwmon", "sys/class/thermal", "sys/class/devfreq"
CPU = "sys/devices/system/cpu"


def ina3221(number: int, rails: Mapping[str, tuple[int, int]]) -> Files:
    """A monitor of rails, each with mV and mA."""
    folder = f"{HWMON}/hwmon{number}"
    files: Files = {f"{folder}/name": "ina3221\n"}
    for channel, (rail, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        files[f"{folder}/in{channel}_label"] = f"{rail.partition('#')[0]}\n"
        files[f"{folder}/in{channel}_input"] = millivolts
        files[f"{folder}/curr{channel}_input"] = milliamperes
    # The driver's own sum of the voltages across the shunts.
    return {**files, f"{folder}/in7_label": "sum of shunt voltages\n", f"{folder}/in7_input": 9}


def ina238(number: int, microwatts: int) -> Files:
    folder = f"{HWMON}/hwmon{number}"
    return {f"{folder}/name": "ina238\n", f"{folder}/power1_input": microwatts}


def zones(temperatures: Mapping[str, int], *, passive: int | None = None) -> Files:
    files: Files = {}
    for number, (name, milli) in enumerate(temperatures.items()):
        folder = f"{THERMAL}/thermal_zone{number}"
        files |= {f"{folder}/type": f"{name}\n", f"{folder}/temp": milli}
        if passive is not None:
            files |= {
                f"{folder}/trip_point_0_type": "critical\n",
                f"{folder}/trip_point_0_temp": passive + 5500,
                f"{folder}/trip_point_1_type": "passive\n",
                f"{folder}/trip_point_1_temp": passive,
                f"{folder}/trip_point_2_type": "active\n",
                f"{folder}/trip_point_2_temp": 30000,
            }
    return files


def cooling(states: Mapping[str, int]) -> Files:
    files: Files = {}
    for number, (name, state) in enumerate(states.items()):
        folder = f"{THERMAL}/cooling_device{number}"
        files |= {f"{folder}/type": f"{name}\n", f"{folder}/cur_state": state}
    return files


def cores(on: int, off: int = 0, *, low: int = 729600, governor: str = "schedutil") -> Files:
    """Cores with a clock of 729.6 MHz of 2201.6."""
    files: Files = {f"{CPU}/present": f"0-{on + off - 1}\n"}
    for core in range(on):
        files[f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq"] = 729600
    for policy in range(0, on, 4):
        folder = f"{CPU}/cpufreq/policy{policy}"
        files |= {
            f"{folder}/scaling_min_freq": low,
            f"{folder}/scaling_max_freq": 2201600,
            f"{folder}/cpuinfo_max_freq": 2201600,
            f"{folder}/scaling_governor": f"{governor}\n",
        }
    return files


def stat(*ticks: tuple[int, int, int]) -> str:
    """/proc/stat of cores given as number, busy ticks and idle ticks."""
    lines = [f"cpu{core} {busy} 0 0 {idle} 0 0 0 0 0 0\n" for core, busy, idle in ticks]
    return "cpu  1 0 0 1 0 0 0 0 0 0\n" + "".join(lines) + "intr 1 0 0\nctxt 5\n"


PROC: Files = {
    "proc/stat": stat(*((core, 10, 90) for core in range(8))),
    "proc/meminfo": "MemTotal:       64349976 kB\nMemFree:         1024 kB\n"
    "MemAvailable:   60000000 kB\nSwapTotal:      1000 kB\nSwapFree:         400 kB\n",
    "proc/loadavg": "0.12 0.34 0.56 2/345 6789\n",
}

GPU = f"{DEVFREQ}/17000000.gpu"
EMC = "sys/kernel/debug/bpmp/debug/clk/emc"

ORIN: Files = {
    **PROC,
    **ina3221(
        3, {"VDD_GPU_SOC": (19832, 160), "VDD_CPU_CV": (19832, 40), "VIN_SYS_5V0": (4992, 900)}
    ),
    **ina3221(4, {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (4992, 60), "NC#2": (0, 0)}),
    **zones({"cpu-thermal": 48500, "gpu-thermal": 45062, "tj-thermal": 48500}, passive=99000),
    **cooling({"pwm-fan": 2, "cpu-throttle-alert": 0, "gpu-throttle-alert": 0}),
    **cores(8, off=4),
    f"{GPU}/cur_freq": 611000000,
    f"{GPU}/min_freq": 306000000,
    f"{GPU}/max_freq": 1300500000,
    f"{GPU}/available_frequencies": "306000000 611000000 1300500000\n",
    f"{GPU}/governor": "nvhost_podgov\n",
    f"{GPU}/device/load": 640,
    f"{EMC}/rate": 2133000000,
    f"{EMC}/min_rate": 204000000,
    f"{EMC}/max_rate": 3199000000,
    f"{EMC}/mrq_rate_locked": 0,
    f"{HWMON}/hwmon0/name": "pwmfan\n",
    f"{HWMON}/hwmon0/pwm1": 51,
    f"{HWMON}/hwmon1/name": "soctherm_oc\n",
    f"{HWMON}/hwmon1/oc1_event_cnt": 0,
    f"{HWMON}/hwmon1/oc3_event_cnt": 0,
    "var/lib/nvpmodel/status": "pmode:0000\n",
    "etc/nvpmodel.conf": "# POWER_MODEL_DEFINITION\n< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE "
    "CORE_0 1\n< POWER_MODEL ID=1 NAME=MODE_15W >\n< POWER_MODEL ID=2 NAME=MODE_30W >\n"
    "< PM_CONFIG DEFAULT=2 >\n",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
}

THOR: Files = {
    **PROC,
    **ina3221(
        1, {"VDD_GPU": (12000, 163), "VDD_CPU_SOC_MSS": (12000, 490), "VIN_SYS_5V0": (5000, 1127)}
    ),
    **ina238(2, 19780000),
    **cores(8),
    f"{DEVFREQ}/gpu-gpc-0/cur_freq": 314000000,
    f"{DEVFREQ}/gpu-gpc-1/cur_freq": 315000000,
    f"{DEVFREQ}/gpu-nvd-0/cur_freq": 316000000,
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "dev/nvidia0": "",
}

LAPTOP: Files = {
    **PROC,
    **zones({"acpitz": 41000, "x86_pkg_temp": 52000, "acpitz ": 30000}, passive=95000),
    **cooling({"Processor": 0, "Fan": 1, "TCC Offset": 3, "intel_powerclamp": -1}),
    **cores(8, low=400000, governor="powersave"),
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/BAT0/status": "Discharging\n",
    "sys/class/power_supply/hidpp_battery_0/type": "Battery\n",
    "sys/class/power_supply/hidpp_battery_0/scope": "Device\n",
    "sys/class/power_supply/hidpp_battery_0/status": "Discharging\n",
}

MACHINES = {"orin": ORIN, "thor": THOR, "laptop": LAPTOP}


def lay(root: Path, files: Mapping[str, str | int]) -> Path:
    """Writes the files below `root`, which it gives."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else f"{content}\n", encoding="utf-8")
    return root


def without(files: Mapping[str, str | int], *parts: str) -> Files:
    """The files whose names have none of the parts."""
    return {name: text for name, text in files.items() if not any(part in name for part in parts)}
