"""One moment of a machine: power, heat, clocks, load and memory, as far as they are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edge_runtime.strict_json import Value
from edge_runtime.telemetry.fields import (
    by_name,
    count,
    listed,
    maybe,
    number,
    optional,
    positive,
    share,
    text,
)

_WHOLE_INPUT = ("VDD_IN", "VIN")
_ORIN_INPUTS = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of a moment. What no sensor says is None.

    Attributes:
        seconds: The moment, on the clock of `time.perf_counter`.
        power: Power by rail, in W; below 0 where a monitor says so.
        temperatures: By thermal zone, in degrees C. Zones that are off are left out.
        gpu_load: Share of the time in which the GPU was busy, 0 to 1.
        gpu_mhz: Its clock.
        cpu_loads: Share of the time in which each core was busy, 0 to 1; None for one that is off.
        cpu_mhz: The clock of each core; None for one that is off.
        emc_load: Share of the bandwidth of a Jetson's memory that is used, 0 to 1.
        emc_mhz: Clock of its memory controller.
        memory_used: Bytes of the main memory that nobody else could have.
        memory_total: Its size, in bytes.
        swap_used: Bytes that are swapped out.
        throttled: What slows the machine down right now, by the name that the kernel or NVML has
            for it; empty if nothing does.
        over_current: Over-current events since the machine was started, by event.
        load_average: Processes that want a core, on average of the last 1, 5 and 15 minutes.
    """

    seconds: float
    power: Mapping[str, float] | None = None
    temperatures: Mapping[str, float] | None = None
    gpu_load: float | None = None
    gpu_mhz: float | None = None
    cpu_loads: tuple[float | None, ...] | None = None
    cpu_mhz: tuple[float | None, ...] | None = None
    emc_load: float | None = None
    emc_mhz: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    swap_used: int | None = None
    throttled: tuple[str, ...] | None = None
    over_current: Mapping[str, int] | None = None
    load_average: tuple[float, ...] | None = None

    @property
    def total_watts(self) -> float | None:
        """Power of the whole module, in W; None where its rails do not tell.

        Orin Nano and NX measure it as VDD_IN, Thor as VIN; on AGX Orin it is the sum of its three
        inputs VDD_GPU_SOC, VDD_CPU_CV and VIN_SYS_5V0 (Jetson Linux Developer Guide, "Platform
        Power and Performance", the tables of power rails).
        """
        power = self.power or {}
        for rail in _WHOLE_INPUT:
            if rail in power:
                return power[rail]
        if all(rail in power for rail in _ORIN_INPUTS):
            return round(sum(power[rail] for rail in _ORIN_INPUTS), 6)
        return None

    def to_json(self) -> dict[str, Any]:
        """The reading as plain JSON values, `total_watts` among them."""
        plain = {name: _plain(value) for name, value in asdict(self).items()}
        return {**plain, "total_watts": self.total_watts}

    @classmethod
    def from_json(cls, value: Value) -> Reading:
        """The reading that `to_json` wrote.

        Raises:
            EdgeRuntimeError: That of `value`: a key is missing, unknown or of the wrong type, or
                the total power is not that of the rails.
        """
        found = value.fields(*_READERS, "total_watts")
        reading = cls(**{name: read(found[name]) for name, read in _READERS.items()})
        if optional(found["total_watts"], number) != reading.total_watts:
            found["total_watts"].fail(f"does not fit .power, which makes it {reading.total_watts}")
        return reading


_READERS: dict[str, Any] = {
    "seconds": number,
    "power": maybe(lambda value: by_name(value, number)),
    "temperatures": maybe(lambda value: by_name(value, number)),
    "gpu_load": maybe(share),
    "gpu_mhz": maybe(positive),
    "cpu_loads": maybe(lambda value: listed(value, maybe(share))),
    "cpu_mhz": maybe(lambda value: listed(value, maybe(positive))),
    "emc_load": maybe(share),
    "emc_mhz": maybe(positive),
    "memory_used": maybe(count),
    "memory_total": maybe(count),
    "swap_used": maybe(count),
    "throttled": maybe(lambda value: listed(value, text)),
    "over_current": maybe(lambda value: by_name(value, count)),
    "load_average": maybe(lambda value: listed(value, positive)),
}


def merged(seconds: float, parts: Iterable[Reading]) -> Reading:
    """One reading of several: the first that knows a value has it; rails, zones and events add up.

    Args:
        seconds: The moment of the whole.
        parts: Readings of the same moment, those that are trusted most first.
    """
    values: dict[str, Any] = {}
    for part in parts:
        for name in _MEASURED:
            value = getattr(part, name)
            if value is not None:
                known = values.get(name)
                values[name] = value if known is None else _both(name, known, value)
    return Reading(seconds, **values)


_MEASURED = tuple(name for name in _READERS if name != "seconds")


def _both(name: str, first: Any, second: Any) -> Any:
    if isinstance(first, dict):
        return {**second, **first}
    # Two sources name the same cores, but name different things that throttle.
    return tuple(dict.fromkeys(first + second)) if name == "throttled" else first


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
