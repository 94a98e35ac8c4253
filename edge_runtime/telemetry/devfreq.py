"""Clock and load of a Jetson's GPU, from /sys/class/devfreq.

The files are Linux's (Documentation/ABI/testing/sysfs-class-devfreq, in Hz); `device/load`, in
thousandths, is that of NVIDIA's nvgpu driver, and Thor, which has another driver, lacks it. None of
it has been seen on a device by this project yet.
"""

from __future__ import annotations

from pathlib import Path

from edge_runtime.telemetry.readings import Reading
from edge_runtime.telemetry.sysfs import find, read_number

_PATTERNS = ("gpu-gpc-*", "*.gpu", "*.ga10b", "*.gv11b", "*.gp10b")
"""Thor; Orin and Nano; Orin, Xavier and TX2 by the name that older releases had for the chip."""


def find_gpu(root: Path) -> Path | None:
    """The folder of the GPU: `gpu-gpc-0` on Thor, `17000000.gpu` on Orin; None if there is none."""
    folders = (
        folder for pattern in _PATTERNS for folder in find(root, f"sys/class/devfreq/{pattern}")
    )
    return next(folders, None)


class GpuClock:
    """The GPU of a Jetson; its files are looked for once.

    Args:
        root: Where the file tree begins.
    """

    def __init__(self, root: Path) -> None:
        folder = find_gpu(root)
        self._clock = str(folder / "cur_freq") if folder else None
        self._load = str(folder / "device/load") if folder else None

    def read(self, seconds: float) -> Reading:
        """Clock and load now."""
        hertz = read_number(self._clock) if self._clock else None
        load = read_number(self._load) if self._load else None
        return Reading(
            seconds,
            gpu_mhz=None if hertz is None or hertz < 0 else hertz / 1e6,
            gpu_load=load / 1000 if load is not None and 0 <= load <= 1000 else None,
        )
