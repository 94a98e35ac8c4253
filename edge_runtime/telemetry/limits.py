"""What limits a benchmark now, a sentence each, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from edge_runtime.telemetry.clocks import spans
from edge_runtime.telemetry.conditions import Conditions

_NEAR = 5.0
"""Degrees C below a throttle point at which a benchmark soon meets it: our choice."""

_BUSY = 0.5
"""Processes that want a core, on average of the last minute, from which other work is named: our
choice; a quiet machine has 0.0 to 0.2."""

_SWAPPED = 64 << 20
"""Bytes swapped out from which memory was scarce: our choice; some MiB are there on most boards."""


def limits(conditions: Conditions) -> list[str]:
    """One line for each thing that makes figures lower or less steady than they could be.

    Only what is known to limit is named; what cannot be read is not.
    """
    return [
        *_power(conditions),
        *_clocks(conditions),
        *_heat(conditions),
        *_load(conditions),
    ]


def _is_jetson(conditions: Conditions) -> bool:
    return conditions.board.jetson is not None or conditions.board.l4t is not None


def _power(conditions: Conditions) -> Iterator[str]:
    mode = conditions.power_mode
    if mode and mode.largest is not None and mode.largest != mode.number:
        yield (
            f"Power mode {mode.name or mode.number} caps clocks and cores; the largest is "
            f"{mode.names[mode.largest]}. To change it: sudo nvpmodel -m {mode.largest}"
        )
    if conditions.on_battery:
        yield "The machine runs on its battery, which lowers clocks. Plug it in."


def _clocks(conditions: Conditions) -> Iterator[str]:
    free = [clock for clock in conditions.clocks if not clock.locked]
    if _is_jetson(conditions):
        if free:
            ranges = ", ".join(spans(free))
            yield (
                f"Clocks are not locked ({ranges}): figures depend on how long the board was idle. "
                "To lock them: sudo jetson_clocks"
            )
        return
    slow = sorted(
        {clock.governor for clock in free if clock.governor not in (None, "performance")} - {None}
    )
    if slow:
        yield (
            f"The CPU's clock follows the load (governor {', '.join(map(str, slow))}). To keep it "
            "high: sudo cpupower frequency-set -g performance"
        )
    capped = [c for c in conditions.clocks if c.most_mhz and c.high_mhz < 0.99 * c.most_mhz]
    for clock in capped[:1]:
        yield (
            f"The clock of {clock.part} is capped at {clock.high_mhz:.0f} of "
            f"{clock.most_mhz:.0f} MHz. To lift it: sudo cpupower frequency-set -u "
            f"{clock.most_mhz:.0f}MHz"
        )


def _heat(conditions: Conditions) -> Iterator[str]:
    now = conditions.now
    if now.throttled:
        yield (
            f"Something is slowed down right now ({', '.join(now.throttled)}). Let the machine "
            "cool down, improve its cooling, or choose a smaller power mode."
        )
    points = conditions.throttle_points
    near = {
        zone: celsius
        for zone, celsius in (now.temperatures or {}).items()
        if zone in points and celsius > points[zone] - _NEAR
    }
    if near and not now.throttled:
        zone = max(near, key=lambda name: near[name] - points[name])
        yield (
            f"Zone {zone} is at {near[zone]:.0f} degrees C, and is throttled from "
            f"{points[zone]:.0f} on. Let it cool down, or improve its cooling."
        )
    events = {name: number for name, number in (now.over_current or {}).items() if number}
    if events:
        counts = ", ".join(f"{name}: {number}" for name, number in events.items())
        yield (
            f"Since it was started, the board cut its clocks because it drew too much ({counts}). "
            "Use the power supply that it came with, or a smaller power mode."
        )


def _load(conditions: Conditions) -> Iterator[str]:
    now = conditions.now
    if now.load_average and now.load_average[0] >= _BUSY:
        yield (
            f"Other programs run: {now.load_average[0]:.1f} of them wanted a core during the last "
            f"minute, and there are {conditions.board.cores}. Find them with top and end them."
        )
    if now.swap_used is not None and now.swap_used >= _SWAPPED:
        yield (
            f"{now.swap_used >> 20} MiB are swapped out: memory was scarce, and what is swapped "
            "in costs time. Close what is not needed, or restart the machine."
        )
