"""Capturing work once and launching it again."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

from edge_runtime.cuda.device import Device
from edge_runtime.errors import DeviceError
from tests.software_gpu.gpu import SoftwareGpu

SIZE = 256


class Copies:
    """Two copies through the device, to be captured."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.stream = device.create_stream()
        self.memory = device.allocate(SIZE)
        self.source = device.allocate_pinned(SIZE)
        self.target = device.allocate_pinned(SIZE)
        self.source.array[:] = 1
        self.target.array[:] = 0

    def enqueue(self, *, then: Callable[[], object] = lambda: None) -> None:
        self.device.copy_to_device(self.memory.address, self.source, SIZE, self.stream)
        self.device.copy_to_host(self.target, self.memory.address, SIZE, self.stream)
        then()

    def close(self) -> None:
        for thing in (self.stream, self.memory, self.source, self.target):
            thing.close()


@pytest.fixture
def copies(device: Device):
    copies = Copies(device)
    yield copies
    copies.close()


def test_captured_work_runs_when_it_is_launched(copies: Copies) -> None:
    device, stream = copies.device, copies.stream
    with device.capture(stream) as captured:
        copies.enqueue()
    with device.current():
        stream.synchronize()
        assert (copies.target.array == 0).all()
        for value in (5, 6):
            copies.source.array[:] = value
            captured.graph.launch(stream)
            stream.synchronize()
            assert (copies.target.array == value).all()
    captured.graph.close()


def test_a_graph_takes_in_other_streams_that_wait_for_it(copies: Copies) -> None:
    device, stream = copies.device, copies.stream
    other, fork, join = device.create_stream(), device.create_event(), device.create_event()
    with device.capture(stream) as captured:
        device.copy_to_device(copies.memory.address, copies.source, SIZE, stream)
        fork.record(stream)
        other.wait_event(fork)
        device.copy_to_host(copies.target, copies.memory.address, SIZE, other)
        join.record(other)
        stream.wait_event(join)
    with device.current():
        captured.graph.launch(stream)
        stream.synchronize()
    for thing in (captured.graph, other, fork, join):
        thing.close()
    np.testing.assert_array_equal(copies.target.array, copies.source.array)


def test_an_exception_inside_ends_the_capture_and_leaves_nothing(
    gpu: SoftwareGpu, copies: Copies
) -> None:
    before = gpu.live()
    with pytest.raises(ZeroDivisionError), copies.device.capture(copies.stream) as captured:
        copies.enqueue(then=lambda: 1 // 0)
    assert not hasattr(captured, "graph")
    assert gpu.live() == before
    with copies.device.current():  # The stream runs things again.
        copies.enqueue()
        copies.stream.synchronize()
    assert (copies.target.array == 1).all()


def test_what_cannot_be_captured_is_an_error(gpu: SoftwareGpu, copies: Copies) -> None:
    before = gpu.live()
    with pytest.raises(DeviceError) as found, copies.device.capture(copies.stream):
        copies.enqueue(then=copies.stream.synchronize)
    assert found.value.name == "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
    assert gpu.live() == before
    with copies.device.current():
        copies.stream.synchronize()


@pytest.mark.parametrize(
    "call", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"]
)
def test_a_capture_that_fails_leaves_nothing(gpu: SoftwareGpu, copies: Copies, call: str) -> None:
    before = gpu.live()
    gpu.fail(call, error=304)
    with pytest.raises(DeviceError) as found, copies.device.capture(copies.stream):
        copies.enqueue()
    assert found.value.code == 304
    assert found.value.call == call.removesuffix("WithFlags")
    if call == "cuStreamEndCapture":  # The injected fault left the stream in its capture.
        gpu.abandon()
        gpu.reset()
    else:
        assert gpu.live() == before


def test_a_launch_that_fails_is_an_error(gpu: SoftwareGpu, copies: Copies) -> None:
    with copies.device.capture(copies.stream) as captured:
        copies.enqueue()
    gpu.fail("cuGraphLaunch", error=304)
    with copies.device.current(), pytest.raises(DeviceError) as found:
        captured.graph.launch(copies.stream)
    captured.graph.close()
    assert (found.value.code, found.value.call) == (304, "cuGraphLaunch")


def test_a_closed_graph_is_not_launched(copies: Copies) -> None:
    with copies.device.capture(copies.stream) as captured:
        copies.enqueue()
    captured.graph.close()
    captured.graph.close()
    with copies.device.current(), pytest.raises(ValueError, match="is closed"):
        captured.graph.launch(copies.stream)


def test_what_is_dropped_during_a_capture_is_freed_after_it(
    gpu: SoftwareGpu, copies: Copies
) -> None:
    dropped = copies.device.allocate(SIZE)
    address = f"{dropped.address:#x}"
    with copies.device.capture(copies.stream) as captured:
        copies.enqueue()
        del dropped
        gc.collect()
        assert any(address in thing for thing in gpu.live())
    captured.graph.close()
    assert not any(address in thing for thing in gpu.live())


def test_capture_leaves_no_context_behind(gpu: SoftwareGpu, copies: Copies) -> None:
    with copies.device.capture(copies.stream) as captured:
        copies.enqueue()
    captured.graph.close()
    assert not any("pushed" in thing for thing in gpu.live())
