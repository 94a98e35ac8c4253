"""The software GPU's work runs when it should, and its memory is watched."""

from __future__ import annotations

import ctypes
import threading

import pytest

from tests.software_gpu.calls import SIZE, CallError, Calls, Frame, broken, read, write
from tests.software_gpu.gpu import KERNEL, SoftwareGpu

# When work runs.


@pytest.mark.parametrize("mode", ["lazy", "late", "timed"])
def test_work_runs_in_order_and_is_done_after_a_wait(
    gpu: SoftwareGpu, frame: Frame, mode: str
) -> None:
    gpu.mode(mode)
    for wait in ("cuStreamSynchronize", "cuEventSynchronize", "cuCtxSynchronize"):
        write(frame.target, bytes(SIZE))
        frame.run()
        handles = {"cuStreamSynchronize": (frame.stream,), "cuEventSynchronize": (frame.event,)}
        frame.calls.do(wait, *handles.get(wait, ()))
        assert frame.arrived()


def test_lazy_work_runs_only_for_what_waits(gpu: SoftwareGpu, calls: Calls, frame: Frame) -> None:
    gpu.mode("lazy")
    other = Frame(calls)
    other.run()
    frame.run()
    calls.do("cuEventSynchronize", frame.event)
    assert frame.arrived()
    assert not other.arrived()
    calls.do("cuStreamWaitEvent", frame.stream, other.event, 0)
    calls.await_stream(frame.stream)
    assert other.arrived()
    other.close()


def test_a_lazy_query_runs_one_piece(gpu: SoftwareGpu, frame: Frame) -> None:
    gpu.mode("lazy")
    frame.run()
    codes = [frame.calls.code("cuEventQuery", frame.event) for _ in range(3)]
    assert codes == [600, 600, 0]
    assert frame.arrived()


def test_late_work_is_not_done_at_once(gpu: SoftwareGpu, frame: Frame) -> None:
    gpu.mode("late", lag_us=100_000)
    frame.run()
    threading.Event().wait(0.01)
    assert not frame.arrived()
    assert frame.calls.code("cuStreamQuery", frame.stream) == 600
    frame.calls.await_stream(frame.stream)
    assert frame.arrived()


def test_late_streams_overtake_each_other(gpu: SoftwareGpu, calls: Calls) -> None:
    gpu.mode("late", lag_us=2000)
    order: list[int] = []
    note = KERNEL(lambda number: order.append(number or 0))
    streams = [calls.stream() for _ in range(2)]
    for number in range(1, 21):
        gpu.launch(streams[number % 2], note, number)
    calls.do("cuCtxSynchronize")
    assert sorted(order) == list(range(1, 21))
    assert order != sorted(order)
    assert [n for n in order if n % 2] == list(range(1, 21, 2))  # Each stream keeps its order.
    calls.destroy(streams=tuple(streams))


def test_a_wait_holds_to_the_record_that_it_found(gpu: SoftwareGpu, calls: Calls) -> None:
    gpu.mode("lazy")
    ran: list[int] = []
    note = KERNEL(lambda number: ran.append(number or 0))
    one, two, event = calls.stream(), calls.stream(), calls.event()
    gpu.launch(one, note, 1)
    calls.record(event, one)
    calls.do("cuStreamWaitEvent", two, event, 0)
    gpu.launch(one, note, 2)
    calls.record(event, one)
    gpu.launch(two, note, 3)
    calls.await_stream(two)
    assert ran == [1, 3]
    calls.do("cuEventSynchronize", event)
    assert ran == [1, 3, 2]
    calls.destroy(streams=(one, two), events=(event,))


def test_the_time_model_adds_up_within_a_stream_and_overlaps_engines(
    gpu: SoftwareGpu, calls: Calls
) -> None:
    gpu.mode("timed")
    gpu.times(h2d_gbps=1, d2h_gbps=1, launch_us=100, copy_us=50)
    size = 1_000_000  # 1 ms, and 0.05 ms for the copy.
    streams = [calls.stream() for _ in range(3)]
    start, *ends = [calls.event(0) for _ in range(4)]
    memory, host = [calls.memory(size) for _ in streams], [calls.pinned(size) for _ in streams]
    gate = calls.stream()  # All begin at one moment, however long the calls took.
    gpu.launch(gate, None, seconds=0.5)
    calls.record(start, gate)
    for number, stream in enumerate(streams):
        calls.do("cuStreamWaitEvent", stream, start, 0)
        calls.copy_in(memory[number], host[number], size, stream)
        gpu.launch(stream, None, seconds=0.0039)
        calls.copy_out(host[number], memory[number], size, stream)
        calls.record(ends[number], stream)
    calls.do("cuCtxSynchronize")
    spans = [_elapsed(calls, start, end) for end in ends]
    assert spans == pytest.approx([6.1, 10.1, 14.1], abs=1e-3)
    calls.destroy(streams=(gate, *streams), events=(start, *ends))
    calls.free(memory=tuple(memory), pinned=tuple(host))


def _elapsed(calls: Calls, start: int, end: int) -> float:
    out = ctypes.c_float()
    calls.do("cuEventElapsedTime", ctypes.byref(out), start, end)
    return out.value


# Memory.


def test_memory_begins_as_garbage_and_ends_as_poison(gpu: SoftwareGpu, calls: Calls) -> None:
    first, second = calls.memory(SIZE), calls.memory(SIZE)
    assert read(first, SIZE) != bytes(SIZE)
    assert read(first, SIZE) != read(second, SIZE)
    calls.free(memory=(first, second))
    assert read(first, SIZE) == b"\xdb" * SIZE
    third = calls.memory(SIZE)
    assert third not in (first, second)
    calls.free(memory=(third,))


def test_memory_runs_out(gpu: SoftwareGpu, calls: Calls) -> None:
    gpu.memory(3 * SIZE)
    memory, pinned = calls.memory(SIZE), calls.pinned(SIZE)  # It is one memory on this GPU.
    with pytest.raises(CallError, match="returned 2"):
        calls.memory(SIZE + 1)
    calls.free(memory=(memory, calls.memory(SIZE)), pinned=(pinned,))
    calls.free(memory=(calls.memory(3 * SIZE),))


@pytest.mark.parametrize(
    ("offset", "size", "words"),
    [
        (0, SIZE + 1, "leaves"),
        (1, SIZE, "leaves"),
        (SIZE + 64, 1, "not memory"),
        (8, 2**64 - 1, "leaves"),
    ],
)
def test_copies_keep_to_their_memory(
    gpu: SoftwareGpu, calls: Calls, frame: Frame, offset: int, size: int, words: str
) -> None:
    host = calls.pinned(2 * SIZE)
    code = calls.code("cuMemcpyHtoDAsync_v2", frame.memory + offset, host, size, frame.stream)
    assert code == 1
    broken(gpu, words)
    calls.free(pinned=(host,))


def test_a_kernel_outside_of_memory_breaks_the_context(gpu: SoftwareGpu, frame: Frame) -> None:
    assert gpu.launch(frame.stream, None, reads=[(frame.memory, SIZE + 1)]) == 0
    assert frame.calls.code("cuStreamSynchronize", frame.stream) == 700
    assert frame.calls.code("cuMemGetInfo_v2", None, None) == 700
    assert frame.calls.code("cuMemFree_v2", frame.memory) == 700
    assert gpu.live() == [line for line in gpu.live() if line.startswith("context pushed")]
    broken(gpu, "its source of 1025 bytes at offset 0 leaves")
    gpu.reset()
    frame.forget()


def test_a_misaligned_engine_address_is_found(gpu: SoftwareGpu, calls: Calls, frame: Frame) -> None:
    gpu.launch(frame.stream, None, writes=[(frame.memory + 128, 8)], alignment=256)
    assert calls.code("cuStreamSynchronize", frame.stream) == 716
    broken(gpu, "not aligned to 256")
    gpu.reset()
    frame.forget()


@pytest.mark.parametrize("mode", ["lazy", "late"])
@pytest.mark.parametrize("victim", ["memory", "source", "target"])
def test_freeing_what_pending_work_uses(
    gpu: SoftwareGpu, calls: Calls, mode: str, victim: str
) -> None:
    gpu.mode(mode, lag_us=20_000)
    frame = Frame(calls)
    frame.run()
    call = "cuMemFree_v2" if victim == "memory" else "cuMemFreeHost"
    assert calls.code(call, getattr(frame, victim)) == 0
    assert calls.code("cuStreamSynchronize", frame.stream) == 700
    broken(gpu, "is freed while work that uses it is pending", "that was freed")
    gpu.reset()


def test_freeing_twice_and_foreign_addresses(gpu: SoftwareGpu, calls: Calls) -> None:
    memory = calls.memory(SIZE)
    calls.free(memory=(memory,))
    assert [calls.code("cuMemFree_v2", address) for address in (memory, memory + 8, 12345)] == [
        1,
        1,
        1,
    ]
    pinned = calls.pinned(SIZE)
    assert calls.code("cuMemFree_v2", pinned) == 1
    calls.free(pinned=(pinned,))
    broken(gpu, "freed twice", "no such memory", "no such memory", "no such memory")


def test_bytes_written_beyond_the_end_are_found(gpu: SoftwareGpu, calls: Calls) -> None:
    memory = calls.memory(SIZE)
    write(memory + SIZE, b"x")
    calls.free(memory=(memory,))
    broken(gpu, "written beyond its end")


def test_copies_of_pageable_memory_are_staged_and_counted(
    gpu: SoftwareGpu, calls: Calls, frame: Frame
) -> None:
    gpu.mode("lazy")
    host = ctypes.create_string_buffer(b"a" * SIZE, SIZE)
    address = ctypes.addressof(host)
    calls.copy_in(frame.memory, address, SIZE, frame.stream)
    host.raw = b"b" * SIZE  # The driver has its copy already.
    calls.copy_out(frame.target, frame.memory, SIZE, frame.stream)
    calls.await_stream(frame.stream)
    assert read(frame.target, SIZE) == b"a" * SIZE
    calls.copy_out(address, frame.memory, SIZE, frame.stream)
    assert host.raw == b"a" * SIZE  # It waited.
    assert gpu.calls()["pageable"] == 2
