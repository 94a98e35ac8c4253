"""Capture, and graphs that replay what was captured."""

from __future__ import annotations

import ctypes
import threading

import pytest

from tests.software_gpu.calls import SIZE, Calls, Frame, broken, read, write
from tests.software_gpu.gpu import KERNEL, SoftwareGpu

GLOBAL, THREAD_LOCAL, RELAXED = range(3)


def begin(calls: Calls, stream: int, mode: int = THREAD_LOCAL) -> None:
    """Begins a capture."""
    calls.do("cuStreamBeginCapture_v2", stream, mode)


def end(calls: Calls, stream: int) -> int:
    """Ends it and returns an executable graph."""
    graph = ctypes.c_uint64()
    calls.do("cuStreamEndCapture", stream, ctypes.byref(graph))
    made = calls.make("cuGraphInstantiateWithFlags", graph.value, 0)
    calls.do("cuGraphDestroy", graph.value)
    return made


def captured(frame: Frame) -> int:
    """A graph of the frame's two copies."""
    begin(frame.calls, frame.stream)
    frame.copies()
    return end(frame.calls, frame.stream)


@pytest.mark.parametrize("mode", ["lazy", "late", "timed"])
def test_a_graph_replays_what_was_captured(gpu: SoftwareGpu, frame: Frame, mode: str) -> None:
    gpu.mode(mode)
    write(frame.target, bytes(SIZE))
    graph = captured(frame)
    frame.calls.await_stream(frame.stream)
    assert read(frame.target, SIZE) == bytes(SIZE)  # Capturing runs nothing.
    for value in b"ab":
        write(frame.source, bytes([value]) * SIZE)
        frame.calls.do("cuGraphLaunch", graph, frame.stream)
        frame.calls.await_stream(frame.stream)
        assert read(frame.target, SIZE) == bytes([value]) * SIZE
    frame.calls.do("cuGraphExecDestroy", graph)


def test_a_fork_joins_through_events(gpu: SoftwareGpu, calls: Calls) -> None:
    gpu.mode("late", lag_us=0)
    ran: list[int] = []
    note = KERNEL(lambda number: ran.append(number or 0))
    one, two, forked, joined = calls.stream(), calls.stream(), calls.event(), calls.event()
    begin(calls, one)
    gpu.launch(one, note, 1)
    calls.record(forked, one)
    calls.do("cuStreamWaitEvent", two, forked, 0)
    gpu.launch(one, note, 2)
    gpu.launch(two, note, 3)
    calls.record(joined, two)
    calls.do("cuStreamWaitEvent", one, joined, 0)
    gpu.launch(one, note, 4)
    graph = end(calls, one)
    orders = set()
    for _ in range(40):
        ran.clear()
        calls.do("cuGraphLaunch", graph, one)
        calls.await_stream(one)
        orders.add(tuple(ran))
    assert orders == {(1, 2, 3, 4), (1, 3, 2, 4)}  # Branches have no order of their own.
    calls.do("cuGraphExecDestroy", graph)
    calls.destroy(streams=(one, two), events=(forked, joined))


def test_a_fork_that_does_not_join(gpu: SoftwareGpu, calls: Calls) -> None:
    one, two, forked = calls.stream(), calls.stream(), calls.event()
    begin(calls, one)
    gpu.launch(one, None)
    calls.record(forked, one)
    calls.do("cuStreamWaitEvent", two, forked, 0)
    gpu.launch(two, None)
    assert calls.code("cuStreamEndCapture", one, calls.place()) == 904
    assert calls.code("cuEventSynchronize", forked) == 907
    calls.destroy(streams=(one, two), events=(forked,))


def test_a_wait_for_work_outside_spoils_a_capture(
    gpu: SoftwareGpu, calls: Calls, frame: Frame
) -> None:
    other = calls.stream()
    calls.record(frame.event, other)
    begin(calls, frame.stream)
    assert calls.code("cuStreamWaitEvent", frame.stream, frame.event, 0) == 905
    assert calls.code("cuStreamEndCapture", frame.stream, calls.place()) == 901
    calls.await_stream(other)
    calls.destroy(streams=(other,))


@pytest.mark.parametrize("call", ["cuStreamSynchronize", "cuStreamQuery", "cuCtxSynchronize"])
def test_waiting_spoils_a_capture(gpu: SoftwareGpu, frame: Frame, call: str) -> None:
    calls = frame.calls
    begin(calls, frame.stream, RELAXED)
    assert calls.code(call, frame.stream) == 900
    assert gpu.launch(frame.stream, None) == 901
    assert calls.code("cuStreamEndCapture", frame.stream, calls.place()) == 901
    assert gpu.launch(frame.stream, None) == 0
    calls.await_stream(frame.stream)


@pytest.mark.parametrize(
    ("mode", "here", "there"), [(GLOBAL, 900, 900), (THREAD_LOCAL, 900, 0), (RELAXED, 0, 0)]
)
def test_allocating_while_capturing(
    gpu: SoftwareGpu, calls: Calls, frame: Frame, mode: int, here: int, there: int
) -> None:
    codes: list[int] = []
    context = calls.make("cuCtxGetCurrent")

    def allocate() -> None:
        calls.do("cuCtxPushCurrent_v2", context)
        codes.append(calls.code("cuMemAlloc_v2", calls.place(), 8))
        calls.do("cuCtxPopCurrent_v2", None)

    for expected, inside in ((there, False), (here, True)):
        begin(calls, frame.stream, mode)
        if inside:
            allocate()
        else:
            thread = threading.Thread(target=allocate)
            thread.start()
            thread.join()
        assert codes.pop() == expected
        code = calls.code("cuStreamEndCapture", frame.stream, place := calls.place())
        assert code == (901 if expected else 0)
        if not code:
            calls.do("cuGraphDestroy", place._obj.value)
    gpu.abandon()  # Of the memory, and with it of the frame.
    frame.forget()


def test_a_capture_ends_where_it_began(gpu: SoftwareGpu, calls: Calls, frame: Frame) -> None:
    assert calls.code("cuStreamEndCapture", frame.stream, calls.place()) == 401
    begin(calls, frame.stream)
    codes: list[int] = []
    context = calls.make("cuCtxGetCurrent")

    def finish() -> None:
        calls.do("cuCtxPushCurrent_v2", context)
        codes.append(calls.code("cuStreamEndCapture", frame.stream, calls.place()))
        calls.do("cuCtxPopCurrent_v2", None)

    thread = threading.Thread(target=finish)
    thread.start()
    thread.join()
    assert codes == [908]
    assert calls.code("cuStreamBeginCapture_v2", frame.stream, RELAXED) == 401
    calls.do("cuGraphExecDestroy", end(calls, frame.stream))


def test_a_graph_of_memory_that_was_freed(gpu: SoftwareGpu, calls: Calls, frame: Frame) -> None:
    memory, frame.memory = frame.memory, calls.memory(SIZE)
    begin(calls, frame.stream)
    calls.copy_in(memory, frame.source, SIZE, frame.stream)
    graph = end(calls, frame.stream)
    calls.free(memory=(memory,))
    calls.do("cuGraphLaunch", graph, frame.stream)
    assert calls.code("cuStreamSynchronize", frame.stream) == 700
    broken(gpu, "memory that was freed")
    gpu.reset()
    frame.forget()


@pytest.mark.parametrize("mode", ["lazy", "late"])
def test_destroying_a_graph_that_runs(
    gpu: SoftwareGpu, calls: Calls, frame: Frame, mode: str
) -> None:
    gpu.mode(mode, lag_us=20_000)
    graph = captured(frame)
    calls.do("cuGraphLaunch", graph, frame.stream)
    calls.do("cuGraphExecDestroy", graph)
    calls.await_stream(frame.stream)
    assert frame.arrived()
    assert calls.code("cuGraphLaunch", graph, frame.stream) == 400
    broken(gpu, "destroyed while it runs", "after it was destroyed")


def test_freeing_what_a_running_graph_uses(gpu: SoftwareGpu, calls: Calls, frame: Frame) -> None:
    gpu.mode("lazy")
    graph = captured(frame)
    calls.do("cuGraphLaunch", graph, frame.stream)
    calls.free(memory=(frame.memory,))
    assert calls.code("cuStreamSynchronize", frame.stream) == 700
    broken(gpu, "while work that uses it is pending", "memory that was freed")
    gpu.reset()
    frame.forget()


def test_launches_of_one_graph_do_not_overlap(gpu: SoftwareGpu, calls: Calls) -> None:
    gpu.mode("late", lag_us=500)
    now: list[int] = []
    peak: list[int] = []

    def enter(_: int | None) -> None:
        now.append(1)
        peak.append(len(now))
        threading.Event().wait(0.002)
        now.pop()

    kernel = KERNEL(enter)
    one, two = calls.stream(), calls.stream()
    begin(calls, one)
    gpu.launch(one, kernel)
    graph = end(calls, one)
    for _ in range(5):
        calls.do("cuGraphLaunch", graph, one)
        calls.do("cuGraphLaunch", graph, two)
    calls.do("cuCtxSynchronize")
    assert peak == [1] * 10
    calls.do("cuGraphExecDestroy", graph)
    calls.destroy(streams=(one, two))


def test_a_forgotten_capture_is_a_leak(gpu: SoftwareGpu, calls: Calls) -> None:
    stream = calls.stream()
    begin(calls, stream)
    assert [line for line in gpu.live() if line.startswith("graph ")]
    calls.destroy(streams=(stream,))
    broken(gpu, "destroyed while it captures")
    assert not [line for line in gpu.live() if line.startswith("graph ")]
