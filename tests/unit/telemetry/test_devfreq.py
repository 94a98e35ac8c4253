"""Clock and load of a Jetson's GPU and memory, from trees of devfreq and debugfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.telemetry.devfreq import GpuClock, find_gpu
from edge_runtime.telemetry.emc import MemoryClock
from edge_runtime.telemetry.readings import Reading
from tests.unit.telemetry.trees import DEVFREQ, EMC, GPU, LAPTOP, ORIN, THOR, lay, without


def test_an_orin_tells_clock_and_load(tmp_path: Path) -> None:
    assert GpuClock(lay(tmp_path, ORIN)).read(1.0) == Reading(1.0, gpu_mhz=611.0, gpu_load=0.64)


def test_a_thor_tells_the_clock_of_its_first_cluster(tmp_path: Path) -> None:
    assert GpuClock(lay(tmp_path, THOR)).read(1.0) == Reading(1.0, gpu_mhz=314.0)


@pytest.mark.parametrize("name", ["17000000.ga10b", "17000000.gv11b", "57000000.gpu", "gpu-gpc-0"])
def test_other_names_of_a_gpu_are_known(tmp_path: Path, name: str) -> None:
    files = {f"{DEVFREQ}/{name}/cur_freq": 1, f"{DEVFREQ}/15340000.vic/cur_freq": 2}
    assert find_gpu(lay(tmp_path, files)) == tmp_path / DEVFREQ / name


@pytest.mark.parametrize("load", ["", "1001", "-1", "busy"])
def test_a_load_that_is_none_is_left_out(tmp_path: Path, load: str) -> None:
    root = lay(tmp_path, {**ORIN, f"{GPU}/device/load": load})
    assert GpuClock(root).read(1.0) == Reading(1.0, gpu_mhz=611.0)


def test_a_machine_without_a_gpu_has_no_clock(tmp_path: Path) -> None:
    assert GpuClock(lay(tmp_path, LAPTOP)).read(1.0) == Reading(1.0)
    assert find_gpu(tmp_path) is None


def test_memory_has_a_clock_for_root_only(tmp_path: Path) -> None:
    assert MemoryClock(lay(tmp_path / "a", ORIN)).read(1.0) == Reading(1.0, emc_mhz=2133.0)
    assert MemoryClock(lay(tmp_path / "b", without(ORIN, EMC))).read(1.0) == Reading(1.0)
