"""The sampler covers its block and loses no error; energy is the area under the power."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.telemetry.readings import Reading
from edge_runtime.telemetry.sampler import Sampler, energy_joules
from tests.unit.telemetry.trees import ORIN, lay


class Scripted:
    """A source whose readings are counted, and whose n-th fails if told so."""

    def __init__(self, *, fails_at: int = 0, error: type[BaseException] = DataError) -> None:
        self.reads = 0
        self.closed = 0
        self.twice = threading.Event()
        self._fails_at = fails_at
        self._error = error

    def read(self, seconds: float) -> Reading:
        assert not self.closed
        self.reads += 1
        if self.reads > 2:
            self.twice.set()
        if self.reads == self._fails_at:
            self.twice.set()
            raise self._error("the sensor is gone")
        return Reading(seconds, power={"VIN": 10.0 + self.reads})

    def close(self) -> None:
        self.closed += 1


def test_the_readings_cover_the_block_and_come_in_order() -> None:
    source = Scripted()
    with Sampler(interval=0.005, sources=[source]) as sampler:
        begun = time.perf_counter()
        assert source.twice.wait(60)
        ended = time.perf_counter()
    readings = sampler.readings
    assert readings[0].seconds <= begun
    assert readings[-1].seconds >= ended
    assert all(a.seconds < b.seconds for a, b in pairwise(readings))
    assert len(readings) == source.reads >= 4
    joules = energy_joules(readings, begun, ended)
    assert joules is not None
    assert 10 * (ended - begun) < joules < (10 + source.reads) * (ended - begun)
    assert source.closed == 1


def test_a_block_shorter_than_the_interval_is_covered_too() -> None:
    with Sampler(interval=3600, sources=[Scripted()]) as sampler:
        now = time.perf_counter()
        assert len(sampler.readings) == 1
    assert len(sampler.readings) == 2
    assert energy_joules(sampler.readings, now, now) == 0.0


def test_several_sources_make_one_reading(tmp_path: Path) -> None:
    class Second(Scripted):
        def read(self, seconds: float) -> Reading:
            return Reading(seconds, power={"VIN": 1.0, "X": 2.0}, gpu_load=0.5)

    with Sampler(interval=3600, sources=[Scripted(), Second()]) as sampler:
        pass
    assert sampler.readings[0].power == {"VIN": 11.0, "X": 2.0}
    assert sampler.readings[0].gpu_load == 0.5


@pytest.mark.parametrize("error", [DataError, ZeroDivisionError])
def test_what_fails_in_the_thread_is_raised_when_the_block_ends(
    error: type[BaseException],
) -> None:
    source = Scripted(fails_at=2, error=error)
    with (
        pytest.raises(error, match="the sensor is gone"),
        Sampler(interval=0.001, sources=[source]),
    ):
        assert source.twice.wait(60)
    assert source.closed == 1
    assert source.reads == 2


def test_what_fails_last_is_raised_as_well() -> None:
    source = Scripted(fails_at=2)
    with pytest.raises(DataError), Sampler(interval=3600, sources=[source]):
        pass
    assert source.closed == 1


def test_what_fails_first_keeps_the_block_from_running() -> None:
    source = Scripted(fails_at=1)
    ran = False
    with pytest.raises(DataError), Sampler(interval=3600, sources=[source]):
        ran = True
    assert not ran
    assert source.closed == 1


def test_an_error_of_the_block_goes_first() -> None:
    source = Scripted(fails_at=2)
    found: dict[str, str] = {}
    with pytest.raises(KeyError, match="mine"), Sampler(interval=0.001, sources=[source]):
        found["mine" if source.twice.wait(60) else "late"]
    assert source.closed == 1


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    with Sampler(interval=0.001, sources=[Scripted()]):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
def test_an_interval_must_be_above_0(interval: float) -> None:
    with pytest.raises(ConfigError, match="interval"):
        Sampler(interval=interval)


def test_a_board_is_read_from_its_files(tmp_path: Path) -> None:
    with Sampler(interval=0.001, root=lay(tmp_path, ORIN)) as sampler:
        pass
    reading = sampler.readings[-1]
    assert reading.total_watts == pytest.approx(8.4592)
    assert (reading.gpu_load, reading.emc_mhz) == (0.64, 2133.0)
    assert reading.temperatures
    assert reading.over_current == {"oc1": 0, "oc3": 0}
    assert reading.throttled == ()
    assert reading.cpu_mhz
    assert reading.memory_total


@settings(max_examples=30)  # Each lays a tree of files.
@given(kept=st.sets(st.sampled_from(sorted(ORIN))), garbage=st.binary(max_size=30))
def test_a_board_that_lacks_any_of_its_sensors_still_gives_readings(
    tmp_path_factory: pytest.TempPathFactory, kept: set[str], garbage: bytes
) -> None:
    root = lay(tmp_path_factory.mktemp("board"), {name: ORIN[name] for name in kept})
    for name in sorted(kept)[::3]:
        (root / name).write_bytes(garbage)
    with Sampler(interval=3600, root=root) as sampler:
        pass
    assert len(sampler.readings) == 2


def test_this_machine_is_read() -> None:
    with Sampler(interval=0.01) as sampler:
        pass
    assert sampler.readings[-1].memory_total


# Energy.


def at(seconds: float, watts: float | None) -> Reading:
    return Reading(seconds, power=None if watts is None else {"VDD_IN": watts})


RAMP = [at(0.0, 0.0), at(1.0, 10.0), at(3.0, 30.0), at(4.0, 0.0)]


@pytest.mark.parametrize(
    ("start", "end", "joules"),
    [
        (0.0, 4.0, 5 + 40 + 15),
        (0.0, 1.0, 5),
        (0.5, 1.0, 3.75),
        (1.5, 2.5, 20),
        (0.5, 3.5, 3.75 + 40 + 11.25),
        (2.0, 2.0, 0),
        (-0.1, 1.0, None),
        (3.0, 4.1, None),
    ],
)
def test_energy_is_the_area_under_the_power(start: float, end: float, joules: float | None) -> None:
    found = energy_joules(RAMP, start, end)
    assert found == (None if joules is None else pytest.approx(joules))


def test_energy_is_unknown_where_power_is() -> None:
    gap = [*RAMP[:2], at(2.0, None), *RAMP[2:]]
    assert energy_joules(gap, 0.0, 1.0) == 5
    assert energy_joules(gap, 0.0, 1.5) is None
    assert energy_joules(gap, 3.0, 4.0) == 15
    assert energy_joules([], 0.0, 0.0) is None


def test_an_interval_that_ends_before_it_begins_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="before it begins"):
        energy_joules(RAMP, 2.0, 1.0)


@given(
    st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 100)), min_size=2, max_size=8),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
)
def test_energies_of_parts_add_up(steps: list[tuple[float, float]], cuts: list[float]) -> None:
    seconds, readings = 0.0, []
    for step, watts in steps:
        seconds += step
        readings.append(at(seconds, watts))
    span = readings[-1].seconds - readings[0].seconds
    a, b, c = sorted(readings[0].seconds + cut * span * 0.999 for cut in cuts)
    energy: Callable[[float, float], float] = lambda x, y: energy_joules(readings, x, y) or 0.0  # noqa: E731
    assert energy(a, b) + energy(b, c) == pytest.approx(energy(a, c), abs=1e-6)
    powers = [watts for _, watts in steps]
    assert min(powers) * (c - a) - 1e-6 <= energy(a, c) <= max(powers) * (c - a) + 1e-6
