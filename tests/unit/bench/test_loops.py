"""The timed loops: how long they go on, what they count, and what they leave as it was."""

from __future__ import annotations

import gc
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.bench import loops
from edge_runtime.bench.loops import (
    Clock,
    Pace,
    all_at_once,
    as_they_arrive,
    one_by_one,
    quiet,
    side_by_side,
)
from tests.unit.bench.clocks import FakeTime


@given(
    lasting=st.lists(st.integers(1, 80), min_size=1, max_size=5),
    warmup=st.integers(0, 200),
    duration=st.integers(1, 300),
    queries=st.integers(1, 20),
)
def test_a_closed_loop_keeps_trtexecs_rule(
    lasting: list[int], warmup: int, duration: int, queries: int
) -> None:
    fake = FakeTime()
    asked: list[int] = []

    def query(milliseconds: int) -> None:
        asked.append(milliseconds)
        fake.pass_by(milliseconds / 1000)

    begin = fake.ns
    pace = Pace(warmup / 1000, duration / 1000, queries)
    calls = one_by_one(query, lasting, pace, fake.clock)
    # The same by hand: each call begins where the one before has ended.
    length = np.array(asked) * 1_000_000
    start = begin + np.cumsum(length) - length
    counted = start - begin >= warmup * 1_000_000
    np.testing.assert_array_equal(calls.start, start[counted])
    np.testing.assert_array_equal(calls.end - calls.start, length[counted])
    assert calls.warmup == len(start) - len(calls.start)
    assert len(calls.start) >= queries
    last = calls.start[-1] - begin
    assert last >= (warmup + duration) * 1_000_000 or len(calls.start) == queries
    # It ends with the first call that makes both true.
    if len(calls.start) > queries:
        assert calls.start[-2] - begin < (warmup + duration) * 1_000_000
    assert asked == [lasting[index % len(lasting)] for index in range(len(asked))]


def test_marks_are_kept_with_their_calls() -> None:
    fake = FakeTime()

    def query(_: object) -> list[int]:
        fake.pass_by(0.001)
        middle = fake.ns
        fake.pass_by(0.002)
        return [middle]

    calls = one_by_one(query, [0], Pace(0.01, 0.05, 3), fake.clock, marks=1)
    np.testing.assert_array_equal(calls.marks[0] - calls.start, 1_000_000)
    np.testing.assert_array_equal(calls.end - calls.marks[0], 2_000_000)


def test_there_is_room_for_more_queries_than_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_ROOM", 4)
    fake = FakeTime()
    calls = one_by_one(lambda _: fake.pass_by(0.001), [0], Pace(0, 0.1, 1), fake.clock)
    assert len(calls.start) == 101
    assert (np.diff(calls.start) == 1_000_000).all()


@given(gaps=st.lists(st.integers(0, 5000), min_size=1, max_size=30), lasting=st.integers(1, 3000))
def test_a_query_waits_for_its_time_and_for_those_before_it(gaps: list[int], lasting: int) -> None:
    fake = FakeTime()
    due = np.cumsum(gaps) * 1000
    calls = as_they_arrive(lambda _: fake.pass_by(lasting / 1e6), [0], due, fake.clock, streams=1)
    free = 0
    for index, moment in enumerate(due):
        start = calls.start[index] - calls.began
        assert start >= max(moment, free)
        assert start - max(moment, free) < 1000  # Nanoseconds that the fake sleep is late.
        free = calls.end[index] - calls.began
        assert free - start == lasting * 1000


def test_streams_work_side_by_side() -> None:
    running, most = 0, 0
    lock = threading.Lock()
    both = threading.Barrier(2, timeout=20)

    def query(_: object) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()
        with lock:
            running -= 1

    calls = all_at_once(query, [0], 10, Clock(), streams=2)
    assert most == 2
    assert (calls.end >= calls.start).all()
    assert len(calls.start) == 10


def test_loops_side_by_side_are_put_in_order() -> None:
    queries = [lambda _: time.sleep(0.001), lambda _: time.sleep(0.002)]
    calls = side_by_side(queries, [0], Pace(0.002, 0.01, 4), Clock())
    assert len(calls.start) >= 8
    assert (np.diff(calls.start) >= 0).all()


@pytest.mark.parametrize("streams", [1, 3])
def test_what_a_query_raises_ends_the_run(streams: int) -> None:
    done = 0

    def query(item: int) -> None:
        nonlocal done
        if item == 5:
            raise ValueError("five")
        done += 1

    with pytest.raises(ValueError, match="five"):
        all_at_once(query, range(100_000), 100_000, Clock(), streams=streams)
    assert done < 100_000


def test_what_one_of_several_loops_raises_ends_all() -> None:
    others = 0

    def wrong(_: object) -> None:
        raise ValueError("wrong")

    def right(_: object) -> None:
        nonlocal others
        others += 1
        time.sleep(0.001)

    with pytest.raises(ValueError, match="wrong"):
        side_by_side([right, wrong], [0], Pace(0, 600, 1), Clock())
    assert others < 10_000


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_rests_and_is_as_it_was(enabled: bool) -> None:
    before = gc.isenabled(), gc.get_freeze_count()
    try:
        (gc.enable if enabled else gc.disable)()
        with suppress(ValueError), quiet():
            assert not gc.isenabled()
            raise ValueError
        assert gc.isenabled() == enabled
        assert gc.get_freeze_count() == 0 == before[1]
    finally:
        (gc.enable if before[0] else gc.disable)()
