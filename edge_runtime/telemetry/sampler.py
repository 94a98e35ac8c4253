"""A thread that reads the machine's sensors while something else runs, and the energy used."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from edge_runtime.errors import ConfigError
from edge_runtime.telemetry.readings import Reading, merged
from edge_runtime.telemetry.sources import Source, close_all, open_sources


class Sampler:
    """Reads the machine's sensors every `interval` seconds, as long as its `with` block runs.

        with Sampler() as sampler:
            work()
        sampler.readings

    The first reading is made before the block runs and the last one after it, so the readings cover
    it. It is used once.

    Args:
        interval: Seconds from one reading to the next.
        root: Where the machine's file tree begins.
        sources: What to read, those that are trusted most first, and to close in the end; none
            means what this machine has.

    Raises:
        ConfigError: The interval is not above 0.
        EdgeRuntimeError: When the block is left: a source failed. An exception of the block itself
            goes first.
    """

    def __init__(
        self,
        *,
        interval: float = 0.2,
        root: Path = Path("/"),
        sources: Sequence[Source] | None = None,
    ) -> None:
        if not interval > 0:
            raise ConfigError(f"The sampler's interval is {interval} s; it must be above 0.")
        self._interval = interval
        self._root = root
        self._sources = sources
        self._readings: list[Reading] = []
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What was read so far, in the order of time."""
        return tuple(self._readings)

    def __enter__(self) -> Sampler:
        if self._sources is None:
            self._sources = open_sources(self._root, interval=self._interval)
        try:
            self._read()
            self._thread.start()
        except BaseException:
            close_all(self._sources)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        try:
            self._thread.join()
            if self._failure is None and error is None:
                self._read()
        finally:
            close_all(self._sources or ())
        if self._failure is not None and error is None:
            raise self._failure

    def _run(self) -> None:
        due = time.perf_counter() + self._interval
        try:
            while not self._stop.wait(max(due - time.perf_counter(), 0)):
                self._read()
                # A reading that took longer than the interval is not caught up with.
                due = max(due, time.perf_counter()) + self._interval
        except BaseException as error:  # noqa: BLE001 - it is raised where the block is left
            self._failure = error

    def _read(self) -> None:
        seconds = time.perf_counter()
        parts = [source.read(seconds) for source in self._sources or ()]
        self._readings.append(merged(seconds, parts))


def energy_joules(readings: Sequence[Reading], start: float, end: float) -> float | None:
    """Energy that the whole module used from `start` to `end`, in J, by the trapezoidal rule.

    Between two readings power is taken to change evenly, also where the interval begins and ends.

    Args:
        readings: In the order of time.
        start: When the interval begins, on the clock of `time.perf_counter`.
        end: When it ends.

    Returns:
        None where the readings do not cover the interval, or one that is needed has no total power.
    """
    if end < start:
        raise ValueError(f"the interval ends at {end}, before it begins at {start}")
    if not readings or readings[0].seconds > start or readings[-1].seconds < end:
        return None
    joules = 0.0
    for first, second in pairwise(readings):
        low, high = max(first.seconds, start), min(second.seconds, end)
        if low >= high:
            continue
        before, after = first.total_watts, second.total_watts
        if before is None or after is None:
            return None
        middle = ((low + high) / 2 - first.seconds) / (second.seconds - first.seconds)
        joules += (before + (after - before) * middle) * (high - low)
    return joules
