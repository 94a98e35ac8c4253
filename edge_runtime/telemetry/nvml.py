"""NVML's readings of a discrete GPU or of Thor's, through nvidia-ml-py where that is installed.

On Orin, NVML starts and knows the GPU's name, but answers every question with "not supported", also
in JetPack 7.2.1 (HazyResearch/intelligence-per-watt#40, rbonghi/jetson_stats#867); on Thor it knows
load, temperature and power, but no clock and no memory (rbonghi/jetson_stats#698, #732, #885). So
Orin is not asked, and every value may be missing. Functions and units:
https://docs.nvidia.com/deploy/nvml-api/. None of it has been seen on a device by this project yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from edge_runtime.board import Board
from edge_runtime.telemetry.readings import Reading

RAIL = "NVML_GPU"
"""The rail by which the power that NVML measures is called: the GPU's, not the machine's."""

ZONE = "nvml_gpu"

_SLOWDOWNS = (
    "SwPowerCap",
    "HwSlowdown",
    "SwThermalSlowdown",
    "HwThermalSlowdown",
    "HwPowerBrakeSlowdown",
)
"""The reasons for a lower clock that are neither idleness nor a setting of the user."""


class NvmlGpu:
    """The first GPU that NVML knows.

    Args:
        library: The module `pynvml` of nvidia-ml-py; `nvmlInit` has been called.

    Raises:
        NVMLError: NVML knows no GPU.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._gpu = library.nvmlDeviceGetHandleByIndex(0)

    def read(self, seconds: float) -> Reading:
        """Load, clock, temperature, power and what slows the GPU down now."""
        nvml, gpu = self._library, self._gpu
        load = self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
        celsius = self._ask(lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))
        milliwatts = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(gpu))
        reasons = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu))
        mhz = self._ask(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_GRAPHICS))
        return Reading(
            seconds,
            power=None if milliwatts is None else {RAIL: milliwatts / 1000},
            temperatures=None if celsius is None else {ZONE: float(celsius)},
            gpu_load=load / 100 if load is not None and 0 <= load <= 100 else None,
            gpu_mhz=None if mhz is None else float(mhz),
            throttled=None if reasons is None else self._slowdowns(reasons),
        )

    def close(self) -> None:
        """Gives NVML back."""
        self._library.nvmlShutdown()

    def _ask(self, question: Callable[[], int]) -> int | None:
        """The answer; None where this GPU or driver has none."""
        try:
            return question()
        except self._library.NVMLError:
            return None

    def _slowdowns(self, reasons: int) -> tuple[str, ...]:
        return tuple(
            f"nvml {name}"
            for name in _SLOWDOWNS
            if reasons & getattr(self._library, f"nvmlClocksEventReason{name}")
        )


def open_nvml(board: Board, library: Any = None) -> NvmlGpu | None:
    """The GPU of a board on which NVML can be of use; None on Orin, without a GPU or without NVML.

    Args:
        board: The machine.
        library: What to use for `pynvml`; none means to import it.
    """
    has_gpu = any(re.fullmatch(r"/dev/nvidia\d+", node) for node in board.gpu_nodes)
    if not has_gpu or (board.jetson and "Thor" not in board.jetson):
        return None
    nvml = library or _import_nvml()
    if nvml is None:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # Its library is not here, or not that of the driver.
        return None
    try:
        return NvmlGpu(nvml)
    except nvml.NVMLError:
        nvml.nvmlShutdown()
        return None


def _import_nvml() -> Any:
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    return pynvml
