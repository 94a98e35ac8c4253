"""Whether two benchmarks may be compared: how they were measured, on what, in which state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_runtime.bench.result import BenchResult
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.strict_json import Value
from edge_runtime.telemetry.clocks import ClockRange
from edge_runtime.telemetry.conditions import Conditions


def differences(old: BenchResult, new: BenchResult) -> list[str]:
    """What makes the figures of two results figures of different things, a phrase each.

    Bundles, models, precisions, backends and versions of software may differ: they are what one
    compares. All else must be the same: protocol and its settings, inputs, device, threads, and
    what is recorded of power mode, clocks and battery.

    Raises:
        DataError: The conditions of one are not what `telemetry` writes.
    """
    found = _apart("protocol", old.protocol, new.protocol)
    found += _settings("setting", old.parameters, new.parameters)
    found += _settings("shape of input", _shapes(old), _shapes(new))
    for name in ("batch", "streams", "threads", "device"):
        found += _apart(name, getattr(old.subject, name), getattr(new.subject, name))
    before, after = _conditions(old, "old"), _conditions(new, "new")
    if before is None or after is None:
        return found + _apart(
            "conditions", *("recorded" if side else "not recorded" for side in (before, after))
        )
    for name in ("cpu", "cores", "jetson"):
        if name != "cpu" or before.board.cpu != old.subject.device:  # Said already, as device.
            found += _apart(name, getattr(before.board, name), getattr(after.board, name))
    found += _apart("power mode", _mode(before), _mode(after))
    found += _settings("clocks of", _clocks(before), _clocks(after))
    found += _apart("on battery", before.on_battery, after.on_battery)
    return found


def check_comparable(old: BenchResult, new: BenchResult, *, force: bool = False) -> list[str]:
    """The `differences`, which are refused unless `force`.

    Raises:
        ConfigError: There are some.
        DataError: As `differences`.
    """
    found = differences(old, new)
    if found and not force:
        raise ConfigError(
            f"{old.subject.bundle} of {old.created} and {new.subject.bundle} of {new.created} were "
            f"not measured alike: {'; '.join(found)}. Measure both alike, or compare them all the "
            "same with --force (force=True)."
        )
    return found


def remarks(old: BenchResult, new: BenchResult) -> list[str]:
    """What else to know of the two: versions that differ, and runs that are not valid."""
    found = []
    if old.version != new.version:
        found.append(f"edge_runtime {old.version} and {new.version}.")
    before, after = _conditions(old, "old"), _conditions(new, "new")
    if before is not None and after is not None:
        for name in sorted(before.versions.keys() | after.versions.keys()):
            first, second = before.versions.get(name), after.versions.get(name)
            if first != second:
                found.append(f"{name} {first or 'none'} and {second or 'none'}.")
    for side, result in (("old", old), ("new", new)):
        found += [f"The {side} run: {w}" for w in result.warnings if w.startswith("INVALID")]
    return found


def _conditions(result: BenchResult, side: str) -> Conditions | None:
    if not result.conditions:
        return None
    where = f"the {side} result's conditions"
    return Conditions.from_json(Value(dict(result.conditions), where, DataError))


def _shapes(result: BenchResult) -> dict[str, str]:
    return {name: "x".join(map(str, shape)) for name, shape in result.subject.shapes.items()}


def _mode(conditions: Conditions) -> str | None:
    mode = conditions.power_mode
    return None if mode is None else mode.name or str(mode.number)


def _clocks(conditions: Conditions) -> dict[str, str]:
    return {clock.part: _range(clock) for clock in conditions.clocks}


def _range(clock: ClockRange) -> str:
    governor = f", {clock.governor}" if clock.governor else ""
    if clock.locked:
        return f"locked at {clock.low_mhz:g} MHz{governor}"
    return f"{clock.low_mhz:g} to {clock.high_mhz:g} MHz{governor}"


def _settings(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [
        phrase
        for name in sorted(old.keys() | new.keys())
        for phrase in _apart(f"{what} {name}", old.get(name), new.get(name))
    ]


def _apart(what: str, old: object, new: object) -> list[str]:
    if old == new:
        return []
    first, second = ("not there" if side is None else str(side) for side in (old, new))
    return [f"{what} {first} and {second}"]
