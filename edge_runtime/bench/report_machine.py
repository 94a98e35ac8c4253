"""The machine in a benchmark's report: what its sensors said while it ran, and its conditions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from edge_runtime.bench.report_axes import Scale
from edge_runtime.bench.report_charts import COLOURS, Point, Unit, lines
from edge_runtime.bench.result import BenchResult
from edge_runtime.errors import DataError
from edge_runtime.pages import datum, rounded, shortened
from edge_runtime.strict_json import Value
from edge_runtime.telemetry.clocks import spans
from edge_runtime.telemetry.conditions import Conditions
from edge_runtime.telemetry.readings import Reading
from edge_runtime.text import file_size

WATTS, CELSIUS, MEGAHERTZ = Unit("W"), Unit("°C"), Unit("MHz")
PERCENT, GIGABYTES = Unit("%", 100.0, top=100.0), Unit("GB", 1e-9)

_MOST_LINES = 2 * COLOURS
_MOST_NAMES = 24

Rows = list[tuple[str, str]]
"""What something is called and what it is; the second as HTML."""

_Values = Mapping[str, float | None]


def readings(result: BenchResult) -> list[Reading]:
    """What was read while the benchmark ran, in seconds from its start; empty without telemetry.

    Raises:
        DataError: The result's telemetry is not in the form that `telemetry` writes.
    """
    plain = result.telemetry.get("readings", [])
    where = Value(plain, "telemetry", DataError, ".readings")
    return [Reading.from_json(item) for item in where.items()]


def telemetry(found: Sequence[Reading], seconds: Scale, walltime: float) -> str:
    """A chart for each kind of sensor that said anything; empty where none did.

    Args:
        found: The readings, in the order of time.
        seconds: From left to right.
        walltime: Up to which second queries were measured.
    """
    charts: list[tuple[str, Unit, Callable[[Reading], _Values]]] = [
        ("Power", WATTS, _power),
        ("Temperature", CELSIUS, lambda reading: reading.temperatures or {}),
        ("Clock", MEGAHERTZ, _clocks),
        ("Load", PERCENT, _loads),
        ("Memory", GIGABYTES, _memory),
    ]
    drawn = []
    for title, unit, values in charts:
        series = _series([(reading.seconds, values(reading)) for reading in found])
        if series:
            some = dict(list(series.items())[:_MOST_LINES])
            drawn.append(lines(title, some, unit, seconds, walltime))
            if len(series) > len(some):
                left = len(series) - len(some)
                drawn.append(f'<p class="soft">{left} more in the JSON.</p>')
    return "".join([*drawn, *_events(found)])


def conditions(result: BenchResult) -> Rows:
    """What of the machine decides the figures; what is not known is left out.

    Raises:
        DataError: The result's conditions are not in the form that `telemetry` writes.
    """
    rows: Rows = []
    if result.conditions:
        plain = dict(result.conditions)
        rows = _conditions(Conditions.from_json(Value(plain, "conditions", DataError)))
    for name, load in (("before", result.load_before), ("after", result.load_after)):
        if load is not None:
            values = ", ".join(datum(value, rounded(value)) for value in load)
            rows.append((f"Load average {name}", f"{values} processes, over 1, 5 and 15 min"))
    return rows


def _conditions(found: Conditions) -> Rows:
    board, mode = found.board, found.power_mode
    memory = None if board.memory is None else datum(board.memory, file_size(board.memory))
    points = (
        f"{shortened(zone)} {CELSIUS.shown(at)}" for zone, at in found.throttle_points.items()
    )
    versions = (
        f"{shortened(name)} {shortened(version)}"
        for name, version in found.versions.items()
        if version is not None
    )
    on_battery = {None: None, True: "on battery, which lowers clocks", False: "not on battery"}
    rows: list[tuple[str, str | None]] = [
        ("Board", _text(board.jetson)),
        ("CPU", _text(board.cpu)),
        ("Cores", f"{datum(board.cores, str(board.cores))} ({shortened(board.architecture)})"),
        ("CPU features", _few(map(shortened, board.features))),
        ("Memory", memory),
        ("JetPack", _text(board.jetpack)),
        ("Jetson Linux", _text(board.l4t)),
        ("GPU driver", _text(board.gpu_driver)),
        ("Power mode", None if mode is None else shortened(mode.name or f"number {mode.number}")),
        ("Clocks may be", _few(map(shortened, spans(found.clocks)))),
        ("Governors", _few(shortened(name) for name in _governors(found))),
        ("Fan", None if found.fan is None else PERCENT.shown(found.fan)),
        ("Supply", on_battery[found.on_battery]),
        ("Throttled from", _few(points)),
        ("Throttled before it began", _few(map(shortened, found.now.throttled or ()))),
        ("Python", shortened(found.python)),
        ("Libraries", _few(versions)),
        ("Commit of the folder", _text(found.commit)),
    ]
    return [(name, value) for name, value in rows if value]


def _governors(found: Conditions) -> list[str]:
    return sorted({clock.governor for clock in found.clocks if clock.governor is not None})


def _power(reading: Reading) -> _Values:
    return {"whole module": reading.total_watts, **(reading.power or {})}


def _clocks(reading: Reading) -> _Values:
    cores = _cores(reading.cpu_mhz, ("slowest core", "middle core", "fastest core"))
    return {"GPU": reading.gpu_mhz, "memory controller": reading.emc_mhz, **cores}


def _loads(reading: Reading) -> _Values:
    cores = _cores(reading.cpu_loads, ("idlest core", "middle core", "busiest core"))
    return {"GPU": reading.gpu_load, "memory bandwidth": reading.emc_load, **cores}


def _memory(reading: Reading) -> _Values:
    return {"used": reading.memory_used, "swapped out": reading.swap_used}


def _cores(values: Sequence[float | None] | None, names: tuple[str, str, str]) -> _Values:
    """The least, the middle and the most of the cores that are on: none is computed."""
    known = sorted(value for value in values or () if value is not None)
    if not known:
        return {}
    low, middle, high = names
    found = {high: known[-1], low: known[0]}
    return found if len(known) < 3 else {**found, middle: known[len(known) // 2]}


def _series(moments: Sequence[tuple[float, _Values]]) -> dict[str, list[Point]]:
    """The values by name, NaN where one is not known; names without any are left out."""
    names = dict.fromkeys(
        name for _, values in moments for name, value in values.items() if value is not None
    )
    found: dict[str, list[Point]] = {name: [] for name in names}
    for second, values in moments:
        for name, points in found.items():
            value = values.get(name)
            points.append((second, math.nan if value is None else value))
    return found


def _events(found: Sequence[Reading]) -> list[str]:
    """What slowed the machine down while it ran."""
    moments: dict[str, list[float]] = {}
    for reading in found:
        for name in reading.throttled or ():
            moments.setdefault(name, []).append(reading.seconds)
    said = [
        f"Throttled: {shortened(name)}, seen from {_second(at[0])} to {_second(at[-1])}."
        for name, at in moments.items()
    ]
    counts = [reading.over_current for reading in found if reading.over_current is not None]
    if counts:
        said += [
            f"Over-current events of {shortened(name)} since the machine was started: "
            f"{datum(counts[0][name], str(counts[0][name]))} before, "
            f"{datum(after, str(after))} after."
            for name, after in counts[-1].items()
            if after > counts[0].get(name, after)
        ]
    return [f'<p class="warning">{line}</p>' for line in said[:_MOST_NAMES]]


def _second(value: float) -> str:
    return datum(value, f"{value:.3g} s")


def _text(text: str | None) -> str | None:
    return shortened(text) if text else None


def _few(texts: Iterable[str]) -> str:
    """Joined, no more of them than one reads."""
    known = list(texts)
    more = f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
    return ", ".join(known[:_MOST_NAMES]) + more
