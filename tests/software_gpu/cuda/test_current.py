"""Whose context is current: ours inside of `current()`, and outside whatever was before."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator

import pytest

from edge_runtime.cuda.device import Device
from edge_runtime.errors import DeviceError
from tests.software_gpu.gpu import SoftwareGpu

# pycuda is imported by the tests: it opens libcuda at once, and that must be the software GPU.


def current(gpu: SoftwareGpu) -> int:
    """The context that is current in this thread, 0 if none is."""
    context = ctypes.c_void_p()
    assert gpu.function("cuCtxGetCurrent")(ctypes.byref(context)) == 0
    return context.value or 0


def pop(gpu: SoftwareGpu) -> None:
    assert gpu.function("cuCtxPopCurrent_v2")(None) == 0


def ours(gpu: SoftwareGpu, device: Device) -> int:
    with device.current():
        return current(gpu)


def use(device: Device) -> None:
    """All that touches contexts: making, using, capturing, closing, dropping."""
    stream, event = device.create_stream(), device.create_event()
    memory, pinned = device.allocate(64), device.allocate_pinned(64, mapped=True)
    device.memory_info()
    with device.current():
        device.copy_to_device(memory.address, pinned, 64, stream)
        inside = device.allocate(64)
        event.record(stream)
        event.synchronize()
        inside.close()
        stream.synchronize()
    with device.capture(stream) as captured:
        device.copy_to_device(memory.address, pinned, 64, stream)
    captured.graph.close()
    for thing in (stream, event, memory):
        thing.close()


@pytest.fixture
def primary(device: Device, gpu: SoftwareGpu) -> int:
    """Our context."""
    return ours(gpu, device)


@pytest.fixture
def another(gpu: SoftwareGpu, device: Device) -> Iterator[int]:
    """A context of somebody else, made current by cuCtxSetCurrent, as PyTorch does."""
    context = ctypes.c_void_p()
    assert gpu.function("cuCtxCreate_v2")(ctypes.byref(context), 0, 0) == 0
    pop(gpu)
    assert gpu.function("cuCtxSetCurrent")(context) == 0
    yield context.value or 0
    assert gpu.function("cuCtxSetCurrent")(None) == 0
    assert gpu.function("cuCtxDestroy_v2")(context) == 0


def test_nothing_is_current_outside(gpu: SoftwareGpu, device: Device) -> None:
    assert current(gpu) == 0
    use(device)
    assert current(gpu) == 0


def test_nests(gpu: SoftwareGpu, device: Device, primary: int) -> None:
    with device.current():
        use(device)
        with device.current(), device.current():
            use(device)
            assert current(gpu) == primary
        assert current(gpu) == primary
    assert current(gpu) == 0


def test_an_exception_inside_pops_too(gpu: SoftwareGpu, device: Device) -> None:
    with pytest.raises(ZeroDivisionError), device.current(), device.current():
        _ = 1 // 0
    assert current(gpu) == 0


def test_one_context_in_many_threads(gpu: SoftwareGpu, device: Device, primary: int) -> None:
    found: list[int] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        with device.current():
            barrier.wait()
            found.append(current(gpu))
            barrier.wait()
            use(device)
        found.append(current(gpu))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0] * 4 + [primary] * 4


def test_anothers_context_is_current_again_afterwards(
    gpu: SoftwareGpu, device: Device, primary: int, another: int
) -> None:
    use(device)
    assert current(gpu) == another
    with device.current():
        assert current(gpu) == primary
        use(device)
        assert current(gpu) == primary
    assert current(gpu) == another


def test_the_drop_of_a_thing_restores_anothers_context(
    gpu: SoftwareGpu, device: Device, another: int
) -> None:
    things = [device.create_stream(), device.allocate(64), device.allocate_pinned(64)]
    things.clear()
    assert current(gpu) == another
    assert not any("memory" in thing or "stream" in thing for thing in gpu.live())


@pytest.mark.parametrize("kind", ["made", "primary"])
def test_an_application_with_a_pycuda_context(
    gpu: SoftwareGpu, device: Device, primary: int, kind: str
) -> None:
    import pycuda.driver

    pycuda.driver.init()
    gpu_device = pycuda.driver.Device(0)
    if kind == "made":  # as pycuda.autoinit
        context = gpu_device.make_context()
    else:  # as pycuda.autoprimaryctx
        context = gpu_device.retain_primary_context()
        context.push()
    try:
        use(device)
        assert current(gpu) == context.handle
        with device.current():
            assert current(gpu) == primary
            use(device)
            assert current(gpu) == primary
        assert current(gpu) == context.handle
        theirs = pycuda.driver.mem_alloc(64)  # pycuda's own stack is as it was, too
        theirs.free()
        with pytest.raises(ZeroDivisionError), device.current():
            _ = 1 // 0
        assert current(gpu) == context.handle
    finally:
        pycuda.driver.Context.pop()
        if kind == "made":
            context.detach()
        else:
            leave_retained(context)
    assert current(gpu) == 0


def leave_retained(context: object) -> None:
    """pycuda's `detach` of a primary context leaves it pushed; the process's end releases it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(context))


def test_pycuda_pushed_inside_of_ours(gpu: SoftwareGpu, device: Device, primary: int) -> None:
    import pycuda.driver

    pycuda.driver.init()
    context = pycuda.driver.Device(0).make_context()
    pycuda.driver.Context.pop()
    with device.current():
        context.push()
        use(device)
        assert current(gpu) == context.handle
        pycuda.driver.Context.pop()
        assert current(gpu) == primary
    context.detach()
    assert current(gpu) == 0


@pytest.mark.parametrize("call", ["cuMemAlloc", "cuStreamCreate", "cuEventCreate"])
def test_a_call_that_fails_restores_too(
    gpu: SoftwareGpu, device: Device, primary: int, another: int, call: str
) -> None:
    make = {
        "cuMemAlloc": lambda: device.allocate(64),
        "cuStreamCreate": device.create_stream,
        "cuEventCreate": device.create_event,
    }[call]
    for inside in (False, True):
        gpu.fail(call, error=304)
        if inside:
            with device.current():
                with pytest.raises(DeviceError):
                    make()
                assert current(gpu) == primary
        else:
            with pytest.raises(DeviceError):
                make()
        assert current(gpu) == another


def test_a_failing_pop_is_an_error_but_hides_none(gpu: SoftwareGpu, device: Device) -> None:
    gpu.fail("cuCtxPopCurrent", error=304)
    with pytest.raises(DeviceError), device.current():
        pass
    pop(gpu)
    gpu.fail("cuCtxPopCurrent", error=304)
    with pytest.raises(ZeroDivisionError), device.current():
        _ = 1 // 0
    pop(gpu)
    assert current(gpu) == 0


@pytest.mark.parametrize("fails", [False, True])
def test_making_something_leaves_ours_current_under_pycuda(
    gpu: SoftwareGpu, device: Device, primary: int, fails: bool
) -> None:
    """Even under an application's pycuda context, which pycuda itself would make current."""
    import pycuda.driver

    pycuda.driver.init()
    context = pycuda.driver.Device(0).make_context()
    driver = device.context.driver
    with device.current():
        if fails:
            gpu.fail("cuMemAlloc", error=304)
            with pytest.raises(DeviceError):
                driver.allocate(64)
        else:
            memory, _ = driver.allocate(64)
            assert current(gpu) == primary
            driver.free(memory)
        assert current(gpu) == primary
    pycuda.driver.Context.pop()
    context.detach()
