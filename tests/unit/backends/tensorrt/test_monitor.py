"""Progress and cancelling, driven as TensorRT drives an `IProgressMonitor`."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import types
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.backends.tensorrt.monitor import Watch, watching

Call = tuple[str, int, int]


class IProgressMonitor:
    """TensorRT's base class, which must have been initialised."""

    def __init__(self) -> None:
        self.ready = True


TRT: Any = types.ModuleType("fake_tensorrt")
TRT.IProgressMonitor = IProgressMonitor


def drive(progress: Any, counts: list[int] | None = None, steps: int = 4, inner: int = 2) -> None:
    """A build of nested phases, which adds to `counts` how many steps it made."""
    count = 0
    counts = [] if counts is None else counts
    with watching(TRT, "Building", progress) as (monitor, _):
        assert monitor.ready
        monitor.phase_start("outer", None, steps)
        for step in range(steps):
            monitor.phase_start("inner", "outer", inner)
            for inner_step in range(inner):
                count += 1
                if not monitor.step_complete("inner", inner_step):
                    monitor.phase_finish("inner")
                    monitor.phase_finish("outer")
                    counts.append(count)
                    return
            monitor.phase_finish("inner")
            monitor.step_complete("outer", step)
        monitor.phase_finish("outer")
    counts.append(count)


def test_the_share_grows_through_nested_phases() -> None:
    calls: list[Call] = []
    counts: list[int] = []
    drive(lambda *call: calls.append(call), counts)
    assert counts == [8]
    assert {(what, total) for what, _, total in calls} == {("Building", 100)}
    shares = [done for _, done, _ in calls]
    assert shares == sorted(shares)
    assert set(shares) == {0, 12, 25, 37, 50, 62, 75, 87, 100}


def test_an_error_of_the_callback_ends_the_build_and_is_raised() -> None:
    calls: list[Call] = []

    def progress(*call: Any) -> None:
        calls.append(call)
        if call[1] >= 25:
            raise ZeroDivisionError("mine")

    counts: list[int] = []
    with pytest.raises(ZeroDivisionError, match="mine"):
        drive(progress, counts)
    assert calls[-1][1] == 25
    assert counts == [2]


def test_an_error_when_a_phase_starts_ends_the_build_at_the_next_step() -> None:
    ran = []

    def progress(*call: Any) -> None:
        ran.append(call)
        raise ZeroDivisionError

    counts: list[int] = []
    with pytest.raises(ZeroDivisionError):
        drive(progress, counts)
    assert (len(ran), counts) == (1, [1])


def test_ctrl_c_ends_the_build_at_the_next_step_and_is_raised_outside_the_callbacks() -> None:
    steps = []

    def progress(what: str, done: int, total: int) -> None:
        steps.append(done)
        if done == 50:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        drive(progress)
    assert steps[-1] == 50
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_in_tensorrts_own_code_is_not_swallowed_with_a_callback() -> None:
    # Python's handler runs where the next Python code does: as the callback begins.
    interrupt = partial(getattr(ctypes.CDLL(None), "raise"), int(signal.SIGINT))
    results: list[object] = []

    def tensorrt(monitor: Any) -> None:
        step = partial(monitor.step_complete, "inner", 0)
        with suppress(KeyboardInterrupt):
            results.extend(map(partial.__call__, [interrupt, step]))

    with pytest.raises(KeyboardInterrupt), watching(TRT, "x", lambda *_: None) as (monitor, _):
        tensorrt(monitor)
    assert results == [0, False]


def test_ctrl_c_after_the_last_step_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt), watching(TRT, "x", lambda *_: None):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_handler_of_ones_own_stays_in_place() -> None:
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        with watching(TRT, "x", lambda *_: None):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1]


def test_a_build_in_a_thread_touches_no_signal_handler() -> None:
    counts: list[int] = []
    thread = threading.Thread(target=drive, args=(lambda *_: None, counts))
    thread.start()
    thread.join()
    assert counts == [8]


names = st.sampled_from(["a", "b", "c"])
events = st.one_of(
    st.tuples(st.just("start"), names, names, st.integers(0, 3)),
    st.tuples(st.just("step"), names, st.integers(0, 5)),
    st.tuples(st.just("finish"), names),
)


@given(st.lists(events, max_size=30))
def test_no_order_of_calls_confuses_it(order: list[tuple[Any, ...]]) -> None:
    shares: list[int] = []
    watch = Watch("x", lambda _, done, __: shares.append(done))
    for name, *arguments in order:
        assert getattr(watch, name)(*arguments) in (None, True)
    watch.check()
    assert shares == sorted(shares)
    assert all(0 <= share <= 100 for share in shares)
