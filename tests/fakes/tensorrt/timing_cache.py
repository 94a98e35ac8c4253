"""ITimingCache: what a builder has measured, of one version on one device.

[doc] A cache of another device or version is refused by `set_timing_cache` and `combine` unless
`ignore_mismatch`; EDITABLE_TIMING_CACHE's keys have no behaviour here. [ran] RTX: no-ops that warn.
"""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.tensorrt.classes import Behaviour, behaviour
from tests.fakes.tensorrt.values import HostMemory

MAGIC = b"faketimingcache\0"
RTX_WARNING = (
    "Use Deprecated in TensorRT-RTX 1.2. Timing cache operations are no-ops in TensorRT-RTX. "
    "instead."
)


@behaviour("ITimingCache")
class TimingCache(Behaviour):
    """Attributes: `device`, `version` and `entries`: names of layers with made-up times."""

    def __init__(self, library: Any, data: bytes) -> None:
        super().__init__(library)
        self.device, self.version = library.driver.architecture, library.label
        self.entries: dict[str, float] = {}
        if data:
            content = json.loads(data[len(MAGIC) :])
            self.device, self.version = content["device"], content["version"]
            self.entries = content["entries"]

    def fits(self, other: TimingCache) -> bool:
        """Whether both are of the same device and version."""
        return (self.device, self.version) == (other.device, other.version)

    def warn(self) -> None:
        if self.library.rtx:
            self.library.deprecated(RTX_WARNING)

    def serialize(self) -> HostMemory:
        self.warn()
        content = {"device": self.device, "version": self.version, "entries": self.entries}
        return HostMemory(self.library, MAGIC + json.dumps(content, sort_keys=True).encode())

    def combine(self, input_cache: TimingCache, ignore_mismatch: bool) -> bool:
        self.warn()
        if input_cache is self:
            self.library.violation("ITimingCache.combine with itself; TensorRT-RTX hangs [ran].")
            return False
        if not ignore_mismatch and not self.fits(input_cache):
            return False
        self.entries.update(input_cache.entries)
        return True

    def reset(self) -> bool:
        self.warn()
        self.entries.clear()
        return True
