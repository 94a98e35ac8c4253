"""The software GPU reports each broken rule, and fails when it is told to."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable

import pytest

from tests.software_gpu.calls import SIZE, CallError, Calls, Frame, broken
from tests.software_gpu.gpu import KERNEL, SoftwareGpu

# Handles and contexts.


def test_calls_need_a_context(gpu: SoftwareGpu) -> None:
    calls = Calls(gpu)
    calls.do("cuInit", 0)
    for call in ("cuMemAlloc_v2", "cuStreamCreate", "cuCtxSynchronize", "cuCtxPopCurrent_v2"):
        assert calls.code(call, None, 0) == 201
    assert len(gpu.violations(forget=True)) == 4


def test_what_is_of_another_context_is_refused(
    gpu: SoftwareGpu, calls: Calls, frame: Frame
) -> None:
    other = calls.make("cuCtxCreate_v2", 0, 0)
    assert calls.code("cuStreamSynchronize", frame.stream) == 400
    assert calls.code("cuMemFree_v2", frame.memory) == 201
    stream = calls.stream()
    assert calls.code("cuMemcpyHtoDAsync_v2", frame.memory, frame.source, SIZE, stream) == 1
    assert calls.code("cuEventRecord", frame.event, stream) == 400
    calls.do("cuCtxDestroy_v2", other)
    broken(gpu, "another context", "not its own", "memory of another", "another context")


@pytest.mark.parametrize("handle", [3, 4096, 2**63, 0xDEADBEEF])
def test_no_number_is_a_handle_by_chance(gpu: SoftwareGpu, calls: Calls, handle: int) -> None:
    for call in (
        "cuStreamSynchronize",
        "cuStreamDestroy_v2",
        "cuEventSynchronize",
        "cuGraphDestroy",
    ):
        assert calls.code(call, handle) == 400
    assert calls.code("cuCtxPushCurrent_v2", handle) == 201
    assert len(gpu.violations(forget=True)) == 5


def test_destroyed_handles_are_refused(gpu: SoftwareGpu, calls: Calls) -> None:
    stream, event = calls.stream(), calls.event()
    calls.destroy(streams=(stream,), events=(event,))
    assert calls.code("cuStreamSynchronize", stream) == 400
    assert calls.code("cuEventDestroy_v2", event) == 400
    broken(gpu, "after it was destroyed", "after it was destroyed")


@pytest.mark.parametrize("mode", ["lazy", "late"])
def test_destroying_a_stream_or_event_with_work_pending(
    gpu: SoftwareGpu, calls: Calls, mode: str
) -> None:
    gpu.mode(mode, lag_us=20_000)
    frame = Frame(calls)
    frame.run()
    calls.destroy(streams=(frame.stream,), events=(frame.event,))
    calls.do("cuCtxSynchronize")
    assert frame.arrived()  # The driver lets it end.
    calls.free(memory=(frame.memory,), pinned=(frame.source, frame.target))
    broken(gpu, "destroyed while work", "destroyed while its record")


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_the_default_stream_is_against_the_rules(
    gpu: SoftwareGpu, calls: Calls, frame: Frame, stream: int
) -> None:
    calls.copy_in(frame.memory, frame.source, SIZE, stream)
    calls.copy_out(frame.target, frame.memory, SIZE, stream)
    assert frame.arrived()
    broken(gpu, "default stream", "default stream")


def test_a_thread_that_ends_with_a_context_is_reported(gpu: SoftwareGpu, calls: Calls) -> None:
    context = calls.make("cuCtxGetCurrent")
    thread = threading.Thread(target=calls.do, args=("cuCtxPushCurrent_v2", context))
    thread.start()
    thread.join()
    # The system's thread may end a moment after Python's.
    for _ in range(1000):
        if gpu.violations():
            break
        threading.Event().wait(0.001)
    broken(gpu, "ended with 1 context(s) pushed")


def test_leaks_are_listed(gpu: SoftwareGpu, calls: Calls) -> None:
    before = gpu.live()
    stream, event, memory, pinned = calls.stream(), calls.event(), calls.memory(8), calls.pinned(8)
    made = [line.split(" ")[0] for line in gpu.live() if line not in before]
    assert sorted(made) == ["device", "event", "pinned", "stream"]
    calls.destroy(streams=(stream,), events=(event,))
    calls.free(memory=(memory,), pinned=(pinned,))
    assert gpu.live() == before


def test_nothing_works_in_the_child_of_a_fork(gpu: SoftwareGpu, calls: Calls, frame: Frame) -> None:
    gpu.mode("lazy")
    frame.run()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # It is just what is tested.
        child = os.fork()
    if not child:
        codes = [calls.code("cuInit", 0), calls.code("cuStreamSynchronize", frame.stream)]
        gpu.library.swgpu_drop_pending()
        os._exit(codes != [3, 3])
    assert os.waitpid(child, 0)[1] == 0
    calls.await_stream(frame.stream)
    assert frame.arrived()


# Faults.


def test_the_nth_call_fails_and_does_nothing(gpu: SoftwareGpu, calls: Calls) -> None:
    gpu.fail("cuMemAlloc", nth=2, error=2)
    first = calls.memory(SIZE)
    with pytest.raises(CallError, match="cuMemAlloc_v2 returned 2"):
        calls.memory(SIZE)
    calls.free(memory=(first, calls.memory(SIZE)))
    assert gpu.calls()["cuMemAlloc"] == 3
    gpu.fail("cuMemAlloc")
    gpu.fail("cuMemAlloc", nth=0)
    calls.free(memory=(calls.memory(SIZE),))


@pytest.mark.parametrize("lose", [
    lambda gpu: gpu.lose_device(),
    lambda gpu: gpu.fail("cuMemGetInfo", error=719, sticky=True),
    lambda gpu: gpu.fail_launch(),
])  # fmt: skip
@pytest.mark.parametrize("mode", ["lazy", "late"])
def test_after_a_sticky_error_nothing_works_until_reset(
    gpu: SoftwareGpu, calls: Calls, lose: Callable[[SoftwareGpu], None], mode: str
) -> None:
    gpu.mode(mode)
    frame = Frame(calls)
    lose(gpu)
    gpu.launch(frame.stream, None)
    calls.code("cuMemGetInfo_v2", None, None)
    assert calls.code("cuStreamSynchronize", frame.stream) == 719
    assert calls.code("cuStreamDestroy_v2", frame.stream) == 719
    assert calls.code("cuMemAlloc_v2", None, 8) == 719
    gpu.reset()
    calls.free(memory=(calls.memory(8),))
    assert calls.code("cuMemFree_v2", frame.memory) == 709  # It went with the device.


def test_a_host_function_may_not_call_the_driver(
    gpu: SoftwareGpu, calls: Calls, frame: Frame
) -> None:
    codes: list[int] = []
    function = KERNEL(lambda _: codes.append(calls.code("cuCtxSynchronize")))
    calls.do("cuLaunchHostFunc", frame.stream, function, 0)
    calls.await_stream(frame.stream)
    assert codes == [800]
    broken(gpu, "within a host function")
