"""What both bindings promise: copies, streams, events, errors."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest
from cuda.bindings.driver import CUresult

from edge_runtime.cuda.device import Device, open_device
from edge_runtime.cuda.memory import DeviceBuffer, PinnedBuffer
from edge_runtime.cuda.stream import Event, Stream
from edge_runtime.errors import DeviceError
from tests.software_gpu.gpu import KERNEL, SoftwareGpu

SIZE = 4096


class Rig:
    """One of each thing, closed at the end."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.stream = device.create_stream()
        self.event = device.create_event()
        self.memory = device.allocate(SIZE)
        self.source = device.allocate_pinned(SIZE)
        self.target = device.allocate_pinned(SIZE)
        self.source.array[:] = np.arange(SIZE) % 251
        self.target.array[:] = 255

    def close(self) -> None:
        for thing in (self.stream, self.event, self.memory, self.source, self.target):
            thing.close()


@pytest.fixture
def rig(device: Device):
    rig = Rig(device)
    yield rig
    rig.close()


def test_info_is_what_the_driver_says(gpu: SoftwareGpu, driver: str) -> None:
    gpu.identity(
        name="Pretend", capability=(12, 1), integrated=False, memory=3 << 30, version=13020
    )
    info = open_device(driver).info
    open_device(driver).close()
    assert info.name == "Pretend"
    assert info.compute_capability == "sm121"
    assert info.memory == 3 << 30
    assert info.integrated is False
    assert info.maps_host_memory is True
    assert info.driver_version == 13020


def test_bytes_go_there_and_back(rig: Rig) -> None:
    with rig.device.current():
        rig.device.copy_to_device(rig.memory.address, rig.source, SIZE, rig.stream)
        rig.device.copy_to_host(rig.target, rig.memory.address, SIZE, rig.stream)
        rig.stream.synchronize()
    np.testing.assert_array_equal(rig.target.array, rig.source.array)


def test_copies_are_asynchronous(gpu: SoftwareGpu, rig: Rig) -> None:
    gpu.mode("lazy")
    with rig.device.current():
        rig.device.copy_to_device(rig.memory.address, rig.source, SIZE, rig.stream)
        rig.device.copy_to_host(rig.target, rig.memory.address, SIZE, rig.stream)
        assert (rig.target.array == 255).all()
        rig.source.array[:] = 9  # what is read is what is there when the copy runs
        rig.stream.synchronize()
    assert (rig.target.array == 9).all()
    assert "pageable" not in gpu.calls()


def test_a_copy_takes_the_bytes_at_its_offset_only(rig: Rig) -> None:
    with rig.device.current():
        rig.device.copy_to_device(rig.memory.address + 8, rig.source, 16, rig.stream, offset=100)
        rig.device.copy_to_host(rig.target, rig.memory.address + 8, 16, rig.stream, offset=32)
        rig.stream.synchronize()
    np.testing.assert_array_equal(rig.target.array[32:48], rig.source.array[100:116])
    assert (rig.target.array[:32] == 255).all()
    assert (rig.target.array[48:] == 255).all()


def test_copies_on_the_device(rig: Rig) -> None:
    other = rig.device.allocate(SIZE)
    with rig.device.current():
        rig.device.copy_to_device(rig.memory.address, rig.source, SIZE, rig.stream)
        rig.device.copy_on_device(other.address, rig.memory.address, SIZE, rig.stream)
        rig.device.copy_to_host(rig.target, other.address, SIZE, rig.stream)
        rig.stream.synchronize()
    other.close()
    np.testing.assert_array_equal(rig.target.array, rig.source.array)


@pytest.mark.parametrize(("size", "offset"), [(SIZE + 1, 0), (1, SIZE), (8, -8)])
def test_a_copy_beyond_its_buffer_is_refused(rig: Rig, size: int, offset: int) -> None:
    with rig.device.current():
        with pytest.raises(ValueError, match="not inside of"):
            rig.device.copy_to_device(
                rig.memory.address, rig.source, size, rig.stream, offset=offset
            )
        with pytest.raises(ValueError, match="not inside of"):
            rig.device.copy_to_host(rig.target, rig.memory.address, size, rig.stream, offset=offset)


def test_an_event_marks_a_point_in_its_stream(gpu: SoftwareGpu, rig: Rig) -> None:
    gpu.mode("lazy")
    other = rig.device.create_stream()
    with rig.device.current():
        rig.device.copy_to_device(rig.memory.address, rig.source, SIZE, rig.stream)
        rig.event.record(rig.stream)
        assert not rig.event.is_done()
        other.wait_event(rig.event)
        rig.device.copy_to_host(rig.target, rig.memory.address, SIZE, other)
        other.synchronize()
        assert rig.event.is_done()
    other.close()
    np.testing.assert_array_equal(rig.target.array, rig.source.array)


def test_waiting_for_an_event_waits_for_what_is_before_it(gpu: SoftwareGpu, rig: Rig) -> None:
    gpu.mode("lazy")
    with rig.device.current():
        rig.device.copy_to_device(rig.memory.address, rig.source, SIZE, rig.stream)
        rig.device.copy_to_host(rig.target, rig.memory.address, SIZE, rig.stream)
        rig.event.record(rig.stream)
        rig.event.synchronize()
    np.testing.assert_array_equal(rig.target.array, rig.source.array)


def test_a_stream_waits_for_another_librarys(gpu: SoftwareGpu, rig: Rig) -> None:
    gpu.mode("lazy")
    foreign = rig.device.create_stream()
    with rig.device.current():
        rig.device.copy_to_device(rig.memory.address, rig.source, SIZE, foreign)
        rig.stream.wait_foreign(foreign.handle)
        rig.device.copy_to_host(rig.target, rig.memory.address, SIZE, rig.stream)
        rig.stream.synchronize()
    foreign.close()
    np.testing.assert_array_equal(rig.target.array, rig.source.array)


def test_events_with_timing_measure(gpu: SoftwareGpu, device: Device, rig: Rig) -> None:
    gpu.mode("timed")
    start, end = device.create_event(timing=True), device.create_event(timing=True)
    with device.current():
        start.record(rig.stream)
        gpu.launch(rig.stream.handle, 0, seconds=0.02)
        end.record(rig.stream)
        end.synchronize()
        assert end.milliseconds_since(start) >= 20
    start.close()
    end.close()


def test_events_without_timing_do_not(rig: Rig) -> None:
    other = rig.device.create_event()
    with rig.device.current():
        rig.event.record(rig.stream)
        other.record(rig.stream)
        other.synchronize()
        with pytest.raises(DeviceError) as found:
            other.milliseconds_since(rig.event)
    other.close()
    assert found.value.call == "cuEventElapsedTime"


def test_streams_never_wait_for_the_default_stream(gpu: SoftwareGpu, rig: Rig) -> None:
    flags = ctypes.c_uint()
    with rig.device.current():
        gpu.function("cuStreamGetFlags")(ctypes.c_void_p(rig.stream.handle), ctypes.byref(flags))
    assert flags.value == 1  # CU_STREAM_NON_BLOCKING


@pytest.mark.parametrize(
    ("timing", "spin", "flags"),
    [(False, True, 2), (True, True, 0), (False, False, 3), (True, False, 1)],
)
def test_how_an_event_waits_is_told_the_driver(
    device: Device, monkeypatch: pytest.MonkeyPatch, timing: bool, spin: bool, flags: int
) -> None:
    driver = device.context.driver
    create, told = driver.create_event, []
    monkeypatch.setattr(driver, "create_event", lambda flags: told.append(flags) or create(flags))
    device.create_event(timing=timing, spin=spin).close()
    assert told == [flags]  # CU_EVENT_BLOCKING_SYNC 1, CU_EVENT_DISABLE_TIMING 2


def test_a_mapped_buffer_is_worked_on_without_a_copy(gpu: SoftwareGpu, rig: Rig) -> None:
    buffer = rig.device.allocate_pinned(64, mapped=True)
    buffer.array[:] = 1

    def double(_: int | None) -> None:
        buffer.array[:] *= 2

    kernel = KERNEL(double)
    with rig.device.current():
        address = buffer.device_address
        code = gpu.launch(rig.stream.handle, kernel, 0, [(address, 64)], [(address, 64)])
        rig.stream.synchronize()
    assert code == 0
    assert (buffer.array == 2).all()
    buffer.close()


@pytest.mark.parametrize("mapped", [False, True])
def test_the_driver_is_told_whether_to_map(gpu: SoftwareGpu, device: Device, mapped: bool) -> None:
    flags = ctypes.c_uint()
    buffer = device.allocate_pinned(64, mapped=mapped)
    with device.current():
        get = gpu.function("cuMemHostGetFlags")
        assert get(ctypes.byref(flags), ctypes.c_void_p(buffer.address)) == 0
    buffer.close()
    assert (flags.value & 2 != 0) is mapped  # CU_MEMHOSTALLOC_DEVICEMAP


def test_a_plain_pinned_buffer_has_no_device_address(rig: Rig) -> None:
    with pytest.raises(ValueError, match="mapped=True"):
        _ = rig.source.device_address


def test_memory_info_counts_what_is_allocated(gpu: SoftwareGpu, device: Device) -> None:
    gpu.memory(1 << 30)
    free, total = device.memory_info()
    buffer = device.allocate(1 << 20)
    less, _ = device.memory_info()
    buffer.close()
    assert total == 1 << 30
    assert free - less >= 1 << 20
    assert device.memory_info()[0] == free


def test_out_of_memory_names_itself(gpu: SoftwareGpu, device: Device) -> None:
    gpu.memory(1 << 20)
    with pytest.raises(DeviceError) as found:
        device.allocate(1 << 21)
    error = found.value
    assert (error.code, error.name, error.call) == (2, "CUDA_ERROR_OUT_OF_MEMORY", "cuMemAlloc")
    assert gpu.live() == []


def test_a_failed_kernel_is_seen_by_who_waits(gpu: SoftwareGpu, rig: Rig) -> None:
    gpu.mode("lazy")
    gpu.fail_launch(error=700)
    with rig.device.current():
        gpu.launch(rig.stream.handle, 0)
        rig.event.record(rig.stream)
        with pytest.raises(DeviceError) as found:
            rig.event.synchronize()
    assert found.value.code == 700
    assert found.value.name == "CUDA_ERROR_ILLEGAL_ADDRESS"


CALLS = {
    "cuMemcpyHtoDAsync": lambda r: r.device.copy_to_device(r.memory.address, r.source, 8, r.stream),
    "cuMemcpyDtoHAsync": lambda r: r.device.copy_to_host(r.target, r.memory.address, 8, r.stream),
    "cuMemcpyDtoDAsync": lambda r: r.device.copy_on_device(
        r.memory.address, r.memory.address + 8, 8, r.stream
    ),
    "cuEventRecord": lambda r: r.event.record(r.stream),
    "cuEventSynchronize": lambda r: r.event.synchronize(),
    "cuEventQuery": lambda r: r.event.is_done(),
    "cuEventElapsedTime": lambda r: r.event.milliseconds_since(r.event),
    "cuStreamSynchronize": lambda r: r.stream.synchronize(),
    "cuStreamWaitEvent": lambda r: r.stream.wait_event(r.event),
    "cuMemGetInfo": lambda r: r.device.memory_info(),
    "cuStreamCreate": lambda r: r.device.create_stream(),
    "cuEventCreate": lambda r: r.device.create_event(),
    "cuMemAlloc": lambda r: r.device.allocate(8),
    "cuMemHostAlloc": lambda r: r.device.allocate_pinned(8),
    "cuMemHostGetDevicePointer": lambda r: r.device.allocate_pinned(8, mapped=True),
    "cuCtxPushCurrent": lambda r: r.device.memory_info(),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_the_driver_says_is_never_ignored(gpu: SoftwareGpu, rig: Rig, call: str) -> None:
    before = gpu.live()
    with rig.device.current():
        gpu.fail(call, error=304)
        with pytest.raises(DeviceError) as found:
            CALLS[call](rig)
        rig.stream.synchronize()
    assert (found.value.code, found.value.name) == (304, "CUDA_ERROR_OPERATING_SYSTEM")
    assert found.value.call == call
    assert str(found.value) == f"{call} failed: CUDA_ERROR_OPERATING_SYSTEM (304)."
    assert gpu.live() == before  # a constructor that fails leaves nothing


@pytest.mark.parametrize("call", ["cuEventRecord", "cuStreamWaitEvent", "cuEventCreate"])
def test_waiting_for_another_librarys_stream_fails_cleanly(
    gpu: SoftwareGpu, rig: Rig, call: str
) -> None:
    with rig.device.current():
        gpu.fail(call, error=304)
        with pytest.raises(DeviceError) as found:
            rig.stream.wait_foreign(rig.stream.handle)
        rig.stream.synchronize()
    assert found.value.call == call


def test_every_result_of_the_driver_keeps_its_number_and_name(gpu: SoftwareGpu, rig: Rig) -> None:
    text = ctypes.c_char_p()
    named = gpu.function("cuGetErrorName")
    known = [result for result in CUresult if named(int(result), ctypes.byref(text)) == 0]
    assert len(known) > 90
    wrong = []
    with rig.device.current():
        for result in known[1:]:  # all but success
            gpu.fail("cuStreamCreate", error=int(result))
            try:
                rig.device.create_stream()
            except DeviceError as error:
                if (error.code, error.name) != (int(result), result.name):
                    wrong.append((result, error))
            else:
                wrong.append((result, None))
    assert wrong == []


def test_things_that_are_closed_are_not_used(rig: Rig) -> None:
    rig.close()
    rig.close()
    with rig.device.current():
        for use in (
            rig.stream.synchronize,
            rig.event.synchronize,
            lambda: rig.event.record(rig.stream),
            lambda: rig.device.copy_on_device(1, 2, 3, rig.stream),
        ):
            with pytest.raises(ValueError, match="is closed"):
                use()


def test_threads_use_one_device_at_once(device: Device) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        rig = Rig(device)
        try:
            for turn in range(20):
                rig.source.array[:] = number * 20 + turn
                with device.current():
                    device.copy_to_device(rig.memory.address, rig.source, SIZE, rig.stream)
                    device.copy_to_host(rig.target, rig.memory.address, SIZE, rig.stream)
                    rig.event.record(rig.stream)
                with device.current():
                    rig.event.synchronize()
                if not (rig.target.array == number * 20 + turn).all():
                    wrong.append((number, turn))
        finally:
            rig.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_opening_again_gives_the_same_device(device: Device, driver: str) -> None:
    assert open_device(driver) is device
    device.close()
    assert open_device(driver) is not device
    open_device(driver).close()


def test_public_types(rig: Rig) -> None:
    assert isinstance(rig.stream, Stream)
    assert isinstance(rig.event, Event)
    assert isinstance(rig.memory, DeviceBuffer)
    assert isinstance(rig.source, PinnedBuffer)
    assert rig.memory.size == rig.source.size == SIZE
    assert rig.memory.address % 256 == 0
    assert rig.source.array.dtype == np.uint8
    assert rig.source.array.shape == (SIZE,)
