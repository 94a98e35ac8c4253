"""Between which clocks CPU, GPU and memory may move: locked, capped or free.

cpufreq: https://docs.kernel.org/admin-guide/pm/cpufreq.html (kHz). devfreq:
Documentation/ABI/testing/sysfs-class-devfreq (Hz). A Jetson's script jetson_clocks locks them by
raising the lowest clock to the highest (Jetson Linux Developer Guide, "Platform Power and
Performance", maximizing Jetson performance). The memory's files are those of `emc`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.strict_json import Value
from edge_runtime.telemetry.devfreq import find_gpu
from edge_runtime.telemetry.emc import EMC
from edge_runtime.telemetry.fields import optional, positive, text, truth
from edge_runtime.telemetry.sysfs import find, read_number, read_text

_POLICIES = "sys/devices/system/cpu/cpufreq/policy*"


@dataclass(frozen=True, slots=True)
class ClockRange:
    """Between which clocks a part of the machine may move.

    Attributes:
        part: `gpu`, `emc` (a Jetson's memory), or `cpu0` for the cores that share core 0's clock.
        low_mhz: The lowest that is allowed now.
        high_mhz: The highest that is allowed now.
        most_mhz: The highest that the hardware has, where it is known.
        governor: What chooses between them.
        locked: Whether there is but one clock left.
    """

    part: str
    low_mhz: float
    high_mhz: float
    most_mhz: float | None
    governor: str | None
    locked: bool

    def to_json(self) -> dict[str, Any]:
        """The range as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Value) -> ClockRange:
        """The range that `to_json` wrote.

        Raises:
            EdgeRuntimeError: That of `value`: a key is missing, unknown or of the wrong type.
        """
        found = value.fields("part", "low_mhz", "high_mhz", "most_mhz", "governor", "locked")
        return cls(
            part=found["part"].text(),
            low_mhz=positive(found["low_mhz"]),
            high_mhz=positive(found["high_mhz"]),
            most_mhz=optional(found["most_mhz"], positive),
            governor=optional(found["governor"], text),
            locked=truth(found["locked"]),
        )


def read_clock_ranges(root: Path = Path("/")) -> tuple[ClockRange, ...]:
    """The ranges of what can be read; memory's only by root."""
    policies = [_cpu(policy) for policy in find(root, _POLICIES)]
    return tuple(found for found in (_gpu(root), _emc(root), *policies) if found is not None)


def spans(clocks: Collection[ClockRange]) -> list[str]:
    """The ranges as people read them, such as `GPU 306-1300 MHz`; one for all cores.

    A clock that is locked is said to be.
    """
    lines = []
    for part in ("gpu", "emc", "cpu"):
        found = [clock for clock in clocks if clock.part.rstrip("0123456789") == part]
        if found:
            low = min(clock.low_mhz for clock in found)
            high = max(clock.high_mhz for clock in found)
            span = f"{low:.0f} MHz" if low == high else f"{low:.0f}-{high:.0f} MHz"
            locked = " (locked)" if all(clock.locked for clock in found) else ""
            lines.append(f"{part.upper()} {span}{locked}")
    return lines


def _cpu(policy: Path) -> ClockRange | None:
    low, high, most = (
        read_number(policy / name)
        for name in ("scaling_min_freq", "scaling_max_freq", "cpuinfo_max_freq")
    )
    governor = read_text(policy / "scaling_governor") or None
    return _range(policy.name.replace("policy", "cpu"), (low, high, most), 1000, governor)


def _gpu(root: Path) -> ClockRange | None:
    folder = find_gpu(root)
    if folder is None:
        return None
    steps = (read_text(folder / "available_frequencies") or "").split()
    most = max((int(step) for step in steps if step.isdecimal() and len(step) < 20), default=None)
    limits = read_number(folder / "min_freq"), read_number(folder / "max_freq"), most
    return _range("gpu", limits, 1, read_text(folder / "governor") or None)


def _emc(root: Path) -> ClockRange | None:
    low, most, rate, is_locked = (
        read_number(root / EMC / name)
        for name in ("min_rate", "max_rate", "rate", "mrq_rate_locked")
    )
    if is_locked:
        return _range("emc", (rate, rate, most), 1, None)
    return _range("emc", (low, most, most), 1, None)


def _range(
    part: str, limits: tuple[int | None, int | None, int | None], hertz: int, governor: str | None
) -> ClockRange | None:
    """The range of what is lowest, highest and possible, in units of `hertz`; None if not known."""
    low, high, most = limits
    if low is None or high is None or low < 0 or high < 0:
        return None
    top = None if most is None or most < 0 else most * hertz / 1e6
    return ClockRange(part, low * hertz / 1e6, high * hertz / 1e6, top, governor, low == high)
