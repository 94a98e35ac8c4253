"""The loops that are timed: one query after the other, all at once, or as they arrive.

They hold only what a measurement needs: clocks are read, two numbers are stored. Arrays are there
before, nothing is printed, and the garbage collector rests; see `quiet`.
"""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Nanoseconds = npt.NDArray[np.int64]
Query = Callable[[Any], Any]

_ROOM = 1 << 16
"""Queries for which there is room from the start."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, which tests replace.

    Attributes:
        now: Nanoseconds since some moment.
        sleep: Lets that many seconds pass, or some more.
    """

    now: Callable[[], int] = time.perf_counter_ns
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a closed loop goes on, by trtexec's rule.

    Attributes:
        warmup: Seconds in which the queries that begin are not counted.
        duration: Seconds after that in which queries begin.
        queries: Queries to count at least, however long they take.
    """

    warmup: float
    duration: float
    queries: int


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """When calls began and ended, in nanoseconds of the clock.

    Attributes:
        began: When the loop began.
        start: int64[n].
        end: int64[n].
        marks: int64[k, n], k moments inside of each call.
        warmup: Calls before these, which are not among them.
    """

    began: int

    start: Nanoseconds
    end: Nanoseconds
    marks: Nanoseconds
    warmup: int


@contextmanager
def quiet() -> Iterator[None]:
    """Lets the garbage collector rest; afterwards it is as it was."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def one_by_one(
    query: Query, items: Sequence[Any], pace: Pace, clock: Clock, *, marks: int = 0
) -> Calls:
    """Runs queries one after the other; the items come round.

    Args:
        query: The call to time, with an item. If `marks`, it returns as many nanoseconds.
        items: What is queried.
        pace: How long.
        clock: The time.
        marks: Moments inside of a call.
    """
    now = clock.now
    warmup, limit = round(pace.warmup * 1e9), round((pace.warmup + pace.duration) * 1e9)
    times = np.zeros((2 + marks, _ROOM), np.int64)
    starts, ends = times[0], times[1]
    count = skipped = elapsed = 0
    begin = now()
    while count < pace.queries + skipped or elapsed < limit:
        if count == times.shape[1]:
            times = np.concatenate([times, np.zeros_like(times)], axis=1)
            starts, ends = times[0], times[1]
        item = items[count % len(items)]
        start = now()
        found = query(item)
        end = now()
        starts[count] = start
        ends[count] = end
        if marks:
            times[2:, count] = found
        del found  # What a call returns is freed here, not while the next one is timed.
        elapsed = start - begin
        if elapsed < warmup:
            skipped += 1
        count += 1
    counted = times[:, skipped:count]
    return Calls(begin, counted[0], counted[1], counted[2:], skipped)


def side_by_side(queries: Sequence[Query], items: Sequence[Any], pace: Pace, clock: Clock) -> Calls:
    """As `one_by_one`, with a thread for each of `queries`.

    Raises:
        Exception: What the first query to fail has raised.
    """
    found: list[Calls] = []
    failures: list[BaseException] = []
    stopped = threading.Event()

    def work(query: Query) -> None:
        def stoppable(item: Any) -> Any:
            if stopped.is_set():
                raise InterruptedError
            return query(item)

        try:
            found.append(one_by_one(stoppable, items, pace, clock))
        except BaseException as error:  # What one has raised ends all.
            failures.append(error)
            stopped.set()
            raise

    try:
        _together([partial(work, query) for query in queries])
    except BaseException:
        stopped.set()  # Ctrl-C is raised in this thread.
        if failures:
            raise failures[0] from None
        raise
    start = np.concatenate([calls.start for calls in found])
    end = np.concatenate([calls.end for calls in found])
    order = np.argsort(start, kind="stable")
    warmup = sum(calls.warmup for calls in found)
    began = min(calls.began for calls in found)
    return Calls(began, start[order], end[order], np.zeros((0, len(order)), np.int64), warmup)


def all_at_once(
    query: Query, items: Sequence[Any], count: int, clock: Clock, *, streams: int
) -> Calls:
    """Runs `count` queries, as many at a time as there are streams; all are due at once."""
    return as_they_arrive(query, items, np.zeros(count, np.int64), clock, streams=streams)


def as_they_arrive(
    query: Query, items: Sequence[Any], due: Nanoseconds, clock: Clock, *, streams: int
) -> Calls:
    """Runs each query when it is due, or as soon after that as a stream is free.

    Each stream's thread takes the next query, waits until it is due and runs it: those that had to
    wait keep their order.

    Args:
        query: The call to time, with an item; called from several threads.
        items: What is queried; they come round.
        due: int64[n], nanoseconds from the start on, ascending.
        clock: The time.
        streams: How many run at a time.

    Returns:
        When calls really began, and ended, in the order in which they were due.
    """
    now, sleep = clock.now, clock.sleep
    count = len(due)
    starts, ends = np.zeros(count, np.int64), np.zeros(count, np.int64)
    moments = due.tolist()
    ticket = itertools.count()  # Taking a number is one step for Python's threads.
    last = [count]
    begin = now()

    def work() -> None:
        while (index := next(ticket)) < last[0]:
            moment = begin + moments[index]
            while (left := moment - now()) > 0:
                # A sleep ends some 60 microseconds late; the last ones only let others go first.
                sleep(max(left - 150_000, 0) / 1e9)
            start = now()
            query(items[index % len(items)])
            ends[index] = now()
            starts[index] = start

    try:
        _together([work] * streams)
    except BaseException:
        last[0] = 0  # The other streams end with what they are at.
        raise
    return Calls(begin, starts, ends, np.zeros((0, count), np.int64), 0)


def _together(works: Sequence[Callable[[], None]]) -> None:
    """Runs each in a thread of its own, the only one in this one; raises what the first raised."""
    if len(works) == 1:
        works[0]()
        return
    errors: list[BaseException] = []
    gate = threading.Barrier(len(works))

    def guarded(work: Callable[[], None]) -> None:
        try:
            gate.wait()
            work()
        except BaseException as error:  # noqa: BLE001  # It is raised in the caller's thread.
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
