"""Missing waits are found in every run, whether or not the work happened to be done in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.software_gpu.calls import SIZE, Calls, Frame, broken
from tests.software_gpu.gpu import KERNEL, SoftwareGpu


@pytest.fixture(params=["lazy", "late", "timed"])
def mode(gpu: SoftwareGpu, request: pytest.FixtureRequest) -> str:
    """Each mode, as fast as it can be: the work is mostly done when somebody looks."""
    gpu.mode(request.param, lag_us=0)
    return str(request.param)


@pytest.fixture
def other(calls: Calls) -> Iterator[int]:
    """A second stream."""
    stream = calls.stream()
    yield stream
    calls.await_stream(stream)
    calls.destroy(streams=(stream,))


def test_two_streams_and_no_event(
    gpu: SoftwareGpu, calls: Calls, frame: Frame, other: int, mode: str
) -> None:
    calls.copy_in(frame.memory, frame.source, SIZE, frame.stream)
    calls.copy_out(frame.target, frame.memory + 8, 8, other)
    calls.do("cuCtxSynchronize")
    broken(gpu, "race: reads 8 bytes")


def test_two_streams_in_order(
    gpu: SoftwareGpu, calls: Calls, frame: Frame, other: int, mode: str
) -> None:
    third = calls.stream()
    calls.copy_in(frame.memory, frame.source, SIZE, frame.stream)
    calls.record(frame.event, frame.stream)
    calls.do("cuStreamWaitEvent", other, frame.event, 0)
    calls.record(frame.event, other)
    calls.do("cuStreamWaitEvent", third, frame.event, 0)  # By way of another stream.
    calls.copy_out(frame.target, frame.memory, SIZE, third)
    calls.await_stream(third)
    calls.copy_in(frame.memory, frame.source, SIZE, frame.stream)  # The host has waited.
    calls.await_stream(frame.stream)
    assert frame.arrived()
    calls.destroy(streams=(third,))


def test_an_event_recorded_too_early(
    gpu: SoftwareGpu, calls: Calls, frame: Frame, other: int, mode: str
) -> None:
    calls.record(frame.event, frame.stream)
    calls.copy_in(frame.memory, frame.source, SIZE, frame.stream)
    calls.do("cuStreamWaitEvent", other, frame.event, 0)
    gpu.launch(other, None, writes=[(frame.memory, SIZE)])
    calls.do("cuCtxSynchronize")
    broken(gpu, "race: writes 1024 bytes")


def test_reading_from_two_streams_is_no_race(
    gpu: SoftwareGpu, calls: Calls, frame: Frame, other: int, mode: str
) -> None:
    half = SIZE // 2
    calls.copy_out(frame.target, frame.memory, half, frame.stream)
    calls.copy_out(frame.target + half, frame.memory, half, other)
    calls.do("cuCtxSynchronize")


def test_a_staging_buffer_used_again_before_its_copy_is_known_to_have_ended(
    gpu: SoftwareGpu, calls: Calls, frame: Frame, other: int, mode: str
) -> None:
    frame.run()
    calls.do("cuEventSynchronize", frame.event)
    gpu.launch(other, None, writes=[(frame.target, SIZE)])
    calls.copy_out(frame.target, frame.memory, SIZE, frame.stream)
    calls.do("cuCtxSynchronize")
    broken(gpu, "race: writes 1024 bytes")


@pytest.mark.parametrize("victim", ["memory", "stream"])
def test_giving_back_what_nobody_waited_for_although_it_is_done(
    gpu: SoftwareGpu, calls: Calls, frame: Frame, victim: str
) -> None:
    gpu.mode("late", lag_us=0)
    stream, memory = calls.stream(), calls.memory(SIZE)
    calls.copy_in(memory, frame.source, SIZE, stream)
    while not gpu.idle():
        threading.Event().wait(0.001)
    if victim == "memory":
        calls.free(memory=(memory,))
        calls.await_stream(stream)
        calls.destroy(streams=(stream,))
    else:
        calls.destroy(streams=(stream,))
        calls.free(memory=(memory,))
    broken(gpu, "pending")


def test_a_query_and_a_host_function_tell_the_host(
    gpu: SoftwareGpu, calls: Calls, frame: Frame, other: int
) -> None:
    gpu.mode("late", lag_us=0)
    frame.run()
    while calls.code("cuEventQuery", frame.event):
        threading.Event().wait(0.001)
    gpu.launch(other, None, writes=[(frame.target, SIZE)])
    told = threading.Event()
    tell = KERNEL(lambda _: told.set())
    calls.do("cuLaunchHostFunc", other, tell, 0)
    assert told.wait(10)
    frame.run()
    calls.await_stream(frame.stream)


def test_branches_of_a_graph_that_use_the_same_bytes(
    gpu: SoftwareGpu, calls: Calls, frame: Frame, other: int
) -> None:
    forked = calls.event()
    calls.do("cuStreamBeginCapture_v2", frame.stream, 2)
    calls.record(forked, frame.stream)
    calls.do("cuStreamWaitEvent", other, forked, 0)
    calls.copy_in(frame.memory, frame.source, SIZE, frame.stream)
    calls.copy_out(frame.target, frame.memory, SIZE, other)
    calls.record(forked, other)
    calls.do("cuStreamWaitEvent", frame.stream, forked, 0)
    calls.do("cuStreamEndCapture", frame.stream, place := calls.place())
    calls.do("cuGraphDestroy", place._obj.value)
    calls.destroy(events=(forked,))
    broken(gpu, "race: nodes 0 and 1")


def test_steady_work_keeps_no_history(gpu: SoftwareGpu, calls: Calls, frame: Frame) -> None:
    gpu.mode("late", lag_us=0)
    for _ in range(2000):  # Nothing is waited for: each use covers the one before.
        frame.run()
    calls.await_stream(frame.stream)
    assert frame.arrived()
