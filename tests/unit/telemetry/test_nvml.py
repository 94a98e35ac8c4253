"""NVML through a pretended library, which has no more than what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_runtime.board import read_board
from edge_runtime.telemetry.nvml import NvmlGpu, open_nvml
from edge_runtime.telemetry.readings import Reading
from tests.unit.telemetry.trees import LAPTOP, ORIN, THOR, Files, lay


class NVMLError(Exception):
    pass


class PretendedNvml:
    """The functions of nvidia-ml-py that are used, by their names and arguments there.

    Args:
        lacks: Functions that answer "not supported".
        reasons: Why the clocks are lower.
    """

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_GRAPHICS = 0
    nvmlClocksEventReasonGpuIdle = 1  # noqa: N815
    nvmlClocksEventReasonSwPowerCap = 4  # noqa: N815
    nvmlClocksEventReasonHwSlowdown = 8  # noqa: N815
    nvmlClocksEventReasonSwThermalSlowdown = 32  # noqa: N815
    nvmlClocksEventReasonHwThermalSlowdown = 64  # noqa: N815
    nvmlClocksEventReasonHwPowerBrakeSlowdown = 128  # noqa: N815

    def __init__(self, *lacks: str, reasons: int = 1) -> None:
        self._lacks = lacks
        self._reasons = reasons
        self.users = 0

    def _answer(self, function: str, value: Any) -> Any:
        if function != "nvmlInit":
            assert self.users == 1, f"{function} before nvmlInit or after nvmlShutdown"
        if function in self._lacks:
            raise NVMLError("Not Supported")
        return value

    def nvmlInit(self) -> None:  # noqa: N802
        self._answer("nvmlInit", None)
        self.users += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._answer("nvmlShutdown", None)
        self.users -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        assert index == 0
        return self._answer("nvmlDeviceGetHandleByIndex", "a GPU")

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:  # noqa: N802
        assert handle == "a GPU"
        return self._answer("nvmlDeviceGetUtilizationRates", SimpleNamespace(gpu=37, memory=4))

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        assert (handle, sensor) == ("a GPU", self.NVML_TEMPERATURE_GPU)
        return self._answer("nvmlDeviceGetTemperature", 61)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        assert handle == "a GPU"
        return self._answer("nvmlDeviceGetPowerUsage", 42500)

    def nvmlDeviceGetClockInfo(self, handle: str, type: int) -> int:  # noqa: A002, N802
        assert (handle, type) == ("a GPU", self.NVML_CLOCK_GRAPHICS)
        return self._answer("nvmlDeviceGetClockInfo", 1575)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802
        assert handle == "a GPU"
        return self._answer("nvmlDeviceGetCurrentClocksEventReasons", self._reasons)


DISCRETE = {**LAPTOP, "dev/nvidia0": "", "dev/nvidiactl": ""}
FULL = Reading(
    1.0,
    power={"NVML_GPU": 42.5},
    temperatures={"nvml_gpu": 61.0},
    gpu_load=0.37,
    gpu_mhz=1575.0,
    throttled=(),
)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[Files, PretendedNvml], NvmlGpu | None]:
    """Opens NVML on a machine of these files."""
    return lambda files, library: open_nvml(read_board(lay(tmp_path, files)), library)


def test_a_discrete_gpu_tells_all(opened: Callable[..., NvmlGpu]) -> None:
    library = PretendedNvml()
    gpu = opened(DISCRETE, library)
    assert gpu.read(1.0) == FULL
    assert FULL.total_watts is None
    gpu.close()
    assert library.users == 0


def test_thor_tells_what_it_knows(opened: Callable[..., NvmlGpu]) -> None:
    gpu = opened(THOR, PretendedNvml("nvmlDeviceGetClockInfo"))
    reading = gpu.read(1.0)
    assert (reading.gpu_mhz, reading.gpu_load) == (None, 0.37)


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        ("nvmlDeviceGetUtilizationRates", {"gpu_load"}),
        ("nvmlDeviceGetTemperature", {"temperatures"}),
        ("nvmlDeviceGetPowerUsage", {"power"}),
        ("nvmlDeviceGetClockInfo", {"gpu_mhz"}),
        ("nvmlDeviceGetCurrentClocksEventReasons", {"throttled"}),
    ],
)
def test_what_it_does_not_support_is_left_out_alone(
    opened: Callable[..., NvmlGpu], function: str, fields: set[str]
) -> None:
    plain = opened(DISCRETE, PretendedNvml(function)).read(1.0).to_json()
    assert {name for name, value in FULL.to_json().items() if plain[name] != value} == fields


def test_what_slows_it_down_is_named_and_idleness_is_not(opened: Callable[..., NvmlGpu]) -> None:
    gpu = opened(DISCRETE, PretendedNvml(reasons=1 | 4 | 64))
    assert gpu.read(1.0).throttled == ("nvml SwPowerCap", "nvml HwThermalSlowdown")


@pytest.mark.parametrize(
    "files",
    [{**ORIN, "dev/nvidia0": ""}, LAPTOP, {**ORIN, "dev/nvhost-gpu": ""}, {"dev/nvidiactl": ""}],
)
def test_orin_and_machines_without_a_gpu_are_not_asked(
    opened: Callable[..., object], files: Files
) -> None:
    library = PretendedNvml()
    assert opened(files, library) is None
    assert library.users == 0


def test_without_a_driver_or_a_gpu_there_is_no_source(opened: Callable[..., object]) -> None:
    assert opened(DISCRETE, PretendedNvml("nvmlInit")) is None
    library = PretendedNvml("nvmlDeviceGetHandleByIndex")
    assert opened(DISCRETE, library) is None
    assert library.users == 0


def test_the_pretended_library_has_what_nvidias_has() -> None:
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    pretended = {name for name in vars(PretendedNvml) if not name.startswith("_")}
    assert pretended <= set(dir(pynvml))
    for name, value in vars(PretendedNvml).items():
        if isinstance(value, int):
            assert getattr(pynvml, name) == value
    with pytest.raises(pynvml.NVMLError):
        pynvml.nvmlDeviceGetHandleByIndex(0)
