"""What is closed or dropped is freed: in any thread, in the right context, when nothing uses it."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable

import numpy as np
import pytest

from edge_runtime.cuda.array import DeviceArray
from edge_runtime.cuda.device import Device, open_device
from edge_runtime.cuda.memory import DeviceBuffer
from tests.software_gpu.gpu import KERNEL, SoftwareGpu

SIZE = 1 << 12


def in_thread(work: Callable[[], None]) -> None:
    """Runs `work` in a new thread; an exception in it fails the test."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def everything(device: Device) -> list[object]:
    """One of each kind of thing."""
    stream = device.create_stream()
    with device.capture(stream) as captured:
        pass
    other = device.create_stream()
    with device.current():
        other.wait_foreign(stream.handle)
        other.synchronize()
    return [
        stream,
        other,
        captured.graph,
        device.create_event(),
        device.allocate(SIZE),
        device.allocate_pinned(SIZE),
        device.allocate_pinned(SIZE, mapped=True),
    ]


def close(things: list[object]) -> None:
    for thing in things:
        thing.close()


def test_close_frees_and_may_be_called_again(gpu: SoftwareGpu, device: Device) -> None:
    things = everything(device)
    assert len(gpu.live()) == len(things) + 1  # and the event by which `other` waits
    close(things)
    assert gpu.live() == []
    calls = gpu.calls()
    close(things)
    assert gpu.calls() == calls


def test_made_here_closed_in_a_thread(gpu: SoftwareGpu, device: Device) -> None:
    things = everything(device)
    in_thread(lambda: close(things))
    assert gpu.live() == []


def test_made_in_a_thread_that_ended_closed_here(gpu: SoftwareGpu, device: Device) -> None:
    things: list[object] = []
    in_thread(lambda: things.extend(everything(device)))
    close(things)
    assert gpu.live() == []


def test_closing_in_many_threads_at_once_frees_once(gpu: SoftwareGpu, device: Device) -> None:
    things = everything(device)
    threads = [threading.Thread(target=close, args=(things,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gpu.live() == []


def test_dropped_here_is_freed(gpu: SoftwareGpu, device: Device) -> None:
    things = everything(device)
    things.clear()
    assert gpu.live() == []


def test_dropped_in_a_thread_is_freed(gpu: SoftwareGpu, device: Device) -> None:
    things = everything(device)
    in_thread(things.clear)
    assert gpu.live() == []


def test_garbage_in_a_cycle_is_freed_by_whoever_collects(gpu: SoftwareGpu, device: Device) -> None:
    things = everything(device)
    things.append(things)
    del things
    in_thread(gc.collect)
    assert gpu.live() == []


def test_what_is_dropped_while_in_use_is_freed_after_its_use(
    gpu: SoftwareGpu, device: Device
) -> None:
    gpu.mode("lazy")
    stream, memory = device.create_stream(), device.allocate(SIZE)
    source, target = device.allocate_pinned(SIZE), device.allocate_pinned(SIZE)
    with device.current():
        device.copy_to_device(memory.address, source, SIZE, stream)
        device.copy_to_host(target, memory.address, SIZE, stream)
    del memory, source, target, stream
    assert gpu.live() == []


def test_arrays_of_a_pinned_buffer_outlive_it(gpu: SoftwareGpu, device: Device) -> None:
    buffer = device.allocate_pinned(SIZE)
    part = buffer.array[8:24].view(np.float32).reshape(2, 2)
    part[:] = 1.5
    buffer.close()
    del buffer
    gc.collect()
    assert part.tolist() == [[1.5, 1.5], [1.5, 1.5]]
    assert len(gpu.live()) == 1
    del part
    assert gpu.live() == []


def test_closing_a_pinned_buffer_does_not_wait_for_the_gpu(
    gpu: SoftwareGpu, device: Device
) -> None:
    buffer = device.allocate_pinned(SIZE)
    stream, memory = device.create_stream(), device.allocate(SIZE)
    buffer.close()
    memory.close()
    stream.close()
    assert "cuCtxSynchronize" not in gpu.calls()


def test_a_failing_free_is_logged_not_raised(
    gpu: SoftwareGpu, caplog: pytest.LogCaptureFixture
) -> None:
    """Of cuda-bindings; pycuda itself writes it to stderr."""
    memory = open_device("cuda-bindings").allocate(SIZE)
    gpu.fail("cuMemFree", error=304)
    memory.close()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "cuMemFree" in caplog.text
    gpu.abandon()


@pytest.mark.parametrize("drop", [False, True])
def test_after_a_lost_device_closing_is_quiet(
    gpu: SoftwareGpu,
    device: Device,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    drop: bool,
) -> None:
    things = everything(device)
    stream = things[0]
    gpu.lose_device()
    with device.current(), pytest.raises(Exception, match="CUDA_ERROR"):
        stream.synchronize()
    del stream
    with caplog.at_level(logging.INFO):
        if drop:
            things.clear()
        else:
            close(things)
    assert caplog.records == []
    assert capfd.readouterr().err == ""
    gpu.abandon()


def test_a_new_device_works_after_a_lost_one(gpu: SoftwareGpu, driver: str) -> None:
    lost = open_device(driver)
    kept = lost.allocate(SIZE)
    gpu.lose_device()
    kept.close()
    lost.close()
    gpu.abandon()
    gpu.reset()
    device = open_device(driver)
    memory = device.allocate(SIZE)
    memory.close()
    device.close()
    assert device is not lost


def test_nothing_is_freed_twice_when_a_closed_thing_is_dropped(
    gpu: SoftwareGpu, device: Device
) -> None:
    memory = device.allocate(SIZE)
    memory.close()
    del memory
    gc.collect()
    assert gpu.calls()["cuMemFree"] == 1


def test_freeing_among_running_work_of_others_disturbs_nothing(
    gpu: SoftwareGpu, device: Device
) -> None:
    """The collector frees in one thread, others copy and capture in theirs."""
    stop = threading.Event()
    wrong: list[object] = []

    def litter() -> None:
        while not stop.is_set():
            things: list[object] = [device.allocate(64), device.allocate_pinned(64)]
            things.append(things)
            del things
            gc.collect()

    def work(value: int) -> None:
        stream, memory = device.create_stream(), device.allocate(SIZE)
        source, target = device.allocate_pinned(SIZE), device.allocate_pinned(SIZE)
        try:
            for turn in range(10):
                with device.capture(stream) as captured:
                    device.copy_to_device(memory.address, source, SIZE, stream)
                    device.copy_to_host(target, memory.address, SIZE, stream)
                source.array[:] = value + turn
                with device.current():
                    captured.graph.launch(stream)
                    stream.synchronize()
                captured.graph.close()
                if not (target.array == value + turn).all():
                    wrong.append((value, turn))
        except Exception as error:
            wrong.append(error)
            raise
        finally:
            close([stream, memory, source, target])

    threads = [threading.Thread(target=work, args=(value,)) for value in (0, 100)]
    collector = threading.Thread(target=litter)
    for thread in (*threads, collector):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    collector.join()
    assert wrong == []


def test_a_kernel_may_collect_garbage(gpu: SoftwareGpu, device: Device) -> None:
    """As an engine of Python code does, in the driver's thread, without a context."""
    stream = device.create_stream()
    box: list[object] = [device.allocate(64)]
    kernel = KERNEL(lambda _: None)
    with device.current():
        gpu.launch(stream.handle, kernel)
        stream.synchronize()
    in_thread(box.clear)
    stream.close()
    assert gpu.live() == []


@pytest.mark.timeout(20)
def test_freeing_one_thing_may_drop_another(gpu: SoftwareGpu, device: Device) -> None:
    """As when the collector runs in the middle of a free."""
    more = [device.create_event(), device.allocate_pinned(64)]

    def release(buffer: DeviceBuffer) -> None:
        more.clear()
        buffer.close()

    array = DeviceArray(device.allocate(64), (16,), "float32", device, release)
    assert array.__cuda_array_interface__["data"] == (array.address, False)
    del array
    assert gpu.live() == []
