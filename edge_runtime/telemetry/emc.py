"""Clock of a Jetson's memory controller (EMC). Its files are in debugfs, which only root reads.

They are those that NVIDIA's script jetson_clocks reads and writes (package nvidia-l4t-tools), in
Hz. They have not been seen on a device by this project yet.
"""

from __future__ import annotations

from pathlib import Path

from edge_runtime.telemetry.readings import Reading
from edge_runtime.telemetry.sysfs import read_number

EMC = Path("sys/kernel/debug/bpmp/debug/clk/emc")


class MemoryClock:
    """The memory controller's clock.

    Args:
        root: Where the file tree begins.
    """

    def __init__(self, root: Path) -> None:
        path = root / EMC / "rate"
        self._rate = str(path) if read_number(path) is not None else None

    def read(self, seconds: float) -> Reading:
        """The clock now."""
        hertz = read_number(self._rate) if self._rate else None
        return Reading(seconds, emc_mhz=None if hertz is None or hertz < 0 else hertz / 1e6)
