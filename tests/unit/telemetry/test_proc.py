"""Load, clocks and memory from trees of /proc and cpufreq."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.telemetry.proc import Processor
from edge_runtime.telemetry.readings import Reading
from tests.unit.telemetry.trees import CPU, LAPTOP, ORIN, PROC, lay, stat


def test_memory_swap_and_load_are_those_of_proc(tmp_path: Path) -> None:
    reading = Processor(lay(tmp_path, PROC)).read(1.0)
    assert reading.memory_total == 64349976 * 1024
    assert reading.memory_used == (64349976 - 60000000) * 1024
    assert reading.swap_used == 600 * 1024
    assert reading.load_average == (0.12, 0.34, 0.56)


def test_loads_are_those_since_the_reading_before(tmp_path: Path) -> None:
    root = lay(tmp_path, ORIN)
    processor = Processor(root)
    assert processor.read(1.0).cpu_loads is None
    changed = stat((0, 60, 140), (1, 10, 190), (2, 110, 90), (3, 10, 90), (4, 10, 80), (5, 20, 90))
    (root / "proc/stat").write_text(changed)
    assert processor.read(2.0).cpu_loads == (0.5, 0.0, 1.0, 0.0, 0.0, 1.0, *[None] * 6)
    (root / "proc/stat").write_text(stat((0, 60, 240), (6, 5, 5)))
    assert processor.read(3.0).cpu_loads == (0.0, *[None] * 11)


def test_waiting_for_a_disk_is_no_load_and_guests_count_once(tmp_path: Path) -> None:
    files = {"proc/stat": "cpu0 0 0 0 0 0 0 0 0 0 0\n", f"{CPU}/present": "0\n"}
    root = lay(tmp_path, files)
    processor = Processor(root)
    processor.read(1.0)
    (root / "proc/stat").write_text("cpu0 10 5 5 60 20 0 0 0 10 5\n")
    assert processor.read(2.0).cpu_loads == (0.2,)


def test_cores_that_are_off_have_no_clock(tmp_path: Path) -> None:
    assert Processor(lay(tmp_path, ORIN)).read(1.0).cpu_mhz == (*[729.6] * 8, *[None] * 4)


def test_a_core_may_come_back(tmp_path: Path) -> None:
    processor = Processor(lay(tmp_path, ORIN))
    lay(tmp_path, {f"{CPU}/cpu9/cpufreq/scaling_cur_freq": 1510400})
    assert (processor.read(1.0).cpu_mhz or ())[9] == 1510.4


def test_a_virtual_machine_has_no_clocks(tmp_path: Path) -> None:
    reading = Processor(lay(tmp_path, PROC)).read(1.0)
    assert reading.cpu_mhz is None


@pytest.mark.parametrize(("present", "count"), [("0", 1), ("0-1,4-5", 6), ("", 8)])
def test_cores_are_those_that_the_machine_has(tmp_path: Path, present: str, count: int) -> None:
    processor = Processor(lay(tmp_path, {**PROC, f"{CPU}/present": present}))
    processor.read(1.0)
    assert len(processor.read(2.0).cpu_loads or ()) == count


def test_each_file_may_be_missing(tmp_path: Path) -> None:
    assert Processor(tmp_path).read(1.0) == Reading(1.0)
    for number, name in enumerate(PROC):
        root = lay(tmp_path / str(number), {k: v for k, v in LAPTOP.items() if k != name})
        reading = Processor(root).read(1.0)
        assert (reading.memory_total is None) == ("meminfo" in name)
        assert (reading.load_average is None) == ("loadavg" in name)


def test_this_machine_has_memory_and_loads() -> None:
    processor = Processor(Path("/"))
    processor.read(1.0)
    reading = processor.read(2.0)
    assert reading.memory_total
    assert 0 < (reading.memory_used or 0) < reading.memory_total
    assert reading.cpu_loads
