"""The real pycuda and cuda-bindings run on the software GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest

from tests.software_gpu.calls import Calls
from tests.software_gpu.gpu import KERNEL, SoftwareGpu

COUNT = 256


@pytest.fixture
def pycuda(gpu: SoftwareGpu) -> Iterator[ModuleType]:
    """pycuda.driver with the primary context pushed."""
    driver = pytest.importorskip("pycuda.driver", reason="pycuda is not installed")
    driver.init()
    context = driver.Device(0).retain_primary_context()
    context.push()
    yield driver
    context.pop()


@pytest.fixture
def bindings(gpu: SoftwareGpu) -> Iterator[Callable[..., object]]:
    """Calls a function of cuda.bindings.driver, the primary context pushed."""
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")

    def call(name: str, *arguments: object) -> object:
        code, *values = getattr(driver, name)(*arguments)
        assert code == driver.CUresult.CUDA_SUCCESS, (name, code)
        return values[0] if len(values) == 1 else tuple(values)

    call("cuInit", 0)
    call("cuCtxPushCurrent", call("cuDevicePrimaryCtxRetain", 0))
    yield call
    call("cuCtxPopCurrent")
    call("cuDevicePrimaryCtxRelease", 0)


@KERNEL
def double(address: int | None) -> None:
    """Doubles `COUNT` floats in place."""
    floats = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_float * COUNT).from_address(address or 0))
    floats *= 2


@pytest.mark.parametrize("mode", ["lazy", "late", "timed"])
def test_pycuda(gpu: SoftwareGpu, pycuda: ModuleType, mode: str) -> None:
    gpu.mode(mode)
    stream, event = pycuda.Stream(1), pycuda.Event(pycuda.event_flags.DISABLE_TIMING)
    memory = pycuda.mem_alloc(4 * COUNT)
    source = pycuda.pagelocked_empty((COUNT,), np.float32)
    target = pycuda.pagelocked_empty((COUNT,), np.float32)
    source[:] = np.arange(COUNT)
    pycuda.memcpy_htod_async(memory, source, stream)
    ends = [(int(memory), 4 * COUNT)]
    assert gpu.launch(stream.handle, double, int(memory), ends, ends) == 0
    pycuda.memcpy_dtoh_async(target, memory, stream)
    event.record(stream)
    event.synchronize()
    np.testing.assert_array_equal(target, 2 * np.arange(COUNT))
    assert "pageable" not in gpu.calls()


def test_pycuda_says_the_drivers_errors(gpu: SoftwareGpu, pycuda: ModuleType) -> None:
    assert pycuda.Device(0).name() == "Software GPU"
    assert pycuda.Device(0).compute_capability() == (8, 7)
    assert pycuda.get_driver_version() == 12060
    gpu.fail("cuStreamCreate", error=999)
    with pytest.raises(pycuda.Error, match="cuStreamCreate failed: unknown error"):
        pycuda.Stream(1)
    with pytest.raises(pycuda.LogicError, match="not supported"):
        pycuda.module_from_file("no code runs here")


def test_pycuda_may_allocate_while_a_python_kernel_waits_for_the_interpreter(
    gpu: SoftwareGpu, pycuda: ModuleType
) -> None:
    gpu.mode("late", lag_us=0)
    stream = pycuda.Stream(1)
    ran: list[int] = []
    note = KERNEL(lambda number: ran.append(number or 0))
    for number in range(1, 201):
        gpu.launch(stream.handle, note, number)
        kept = (
            pycuda.Stream(1),
            pycuda.Event(),
            pycuda.mem_alloc(64),
            pycuda.pagelocked_empty(8, np.int8),
        )
        del kept
    stream.synchronize()
    assert ran == list(range(1, 201))


@pytest.mark.parametrize("mode", ["lazy", "late", "timed"])
def test_cuda_bindings(gpu: SoftwareGpu, bindings: Callable[..., object], mode: str) -> None:
    gpu.mode(mode)
    size = 4 * COUNT
    stream, event = bindings("cuStreamCreate", 1), bindings("cuEventCreate", 2)
    memory = bindings("cuMemAlloc", size)
    source, target = bindings("cuMemHostAlloc", size, 0), bindings("cuMemHostAlloc", size, 2)
    assert int(bindings("cuMemHostGetDevicePointer", target, 0)) == target
    floats = [
        np.ctypeslib.as_array((np.ctypeslib.ctypes.c_float * COUNT).from_address(int(at)))
        for at in (source, target)
    ]
    floats[0][:] = np.arange(COUNT)
    bindings("cuMemcpyHtoDAsync", memory, source, size, stream)
    ends = [(int(memory), size)]
    assert gpu.launch(int(stream), double, int(memory), ends, ends) == 0
    bindings("cuMemcpyDtoHAsync", target, memory, size, stream)
    bindings("cuEventRecord", event, stream)
    bindings("cuEventSynchronize", event)
    np.testing.assert_array_equal(floats[1], 2 * np.arange(COUNT))
    for call, thing in [
        ("cuStreamDestroy", stream), ("cuEventDestroy", event), ("cuMemFree", memory),
        ("cuMemFreeHost", source), ("cuMemFreeHost", target),
    ]:  # fmt: skip
        bindings(call, thing)


def test_cuda_bindings_graphs(gpu: SoftwareGpu, bindings: Callable[..., object]) -> None:
    from cuda.bindings import driver

    stream = bindings("cuStreamCreate", 1)
    ran: list[int] = []
    note = KERNEL(lambda number: ran.append(number or 0))
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
    bindings("cuStreamBeginCapture", stream, mode)
    gpu.launch(int(stream), note, 1)
    status = bindings("cuStreamIsCapturing", stream)
    assert status == driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE
    assert bindings("cuStreamGetCaptureInfo", stream)[0] == status
    gpu.launch(int(stream), note, 2)
    graph = bindings("cuStreamEndCapture", stream)
    assert bindings("cuGraphGetNodes", graph)[1] == 2
    parameters = driver.CUDA_GRAPH_INSTANTIATE_PARAMS()
    runs = [
        bindings("cuGraphInstantiate", graph, 0),
        bindings("cuGraphInstantiateWithParams", graph, parameters),
    ]
    for run in runs:
        bindings("cuGraphUpload", run, stream)
        bindings("cuGraphLaunch", run, stream)
    bindings("cuStreamSynchronize", stream)
    assert ran == [1, 2, 1, 2]
    for run in runs:
        bindings("cuGraphExecDestroy", run)
    bindings("cuGraphDestroy", graph)
    bindings("cuStreamDestroy", stream)


def test_cuda_bindings_asks_what_an_address_is(
    gpu: SoftwareGpu, bindings: Callable[..., object]
) -> None:
    from cuda.bindings import driver

    kinds = driver.CUpointer_attribute
    memory_type = kinds.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
    ordinal = kinds.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    memory, pinned = bindings("cuMemAlloc", 64), bindings("cuMemHostAlloc", 64, 0)
    for address, kind in ((int(memory) + 8, 2), (pinned, 1)):
        assert (
            bindings("cuPointerGetAttribute", kinds.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address)
            == kind
        )
        ordinal = kinds.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        assert bindings("cuPointerGetAttribute", ordinal, address) == 0
    assert [int(value) for value in bindings("cuMemGetAddressRange", memory)] == [int(memory), 64]
    code, _ = driver.cuPointerGetAttribute(memory_type, 12345)
    assert code == driver.CUresult.CUDA_ERROR_INVALID_VALUE
    bindings("cuMemFree", memory)
    bindings("cuMemFreeHost", pinned)


def test_a_function_of_a_newer_driver_is_not_found(gpu: SoftwareGpu) -> None:
    calls = Calls(gpu)
    for name, version, code in [
        (b"cuMemAlloc", 12060, 0), (b"cuMemAlloc", 13000, 500), (b"cuNoSuchThing", 12000, 500),
        (b"cuStreamGetCaptureInfo", 12030, 0), (b"cuEventElapsedTime", 2000, 0),
    ]:  # fmt: skip
        assert calls.code("cuGetProcAddress_v2", name, calls.place(), version, 0, None) == code
    forms = set()
    for version in (10010, 11030, 12030):  # They take different parameters.
        place = calls.place()
        calls.do("cuGetProcAddress_v2", b"cuStreamGetCaptureInfo", place, version, 0, None)
        forms.add(place._obj.value)
    assert len(forms) == 3


def test_every_error_has_a_name(gpu: SoftwareGpu, bindings: Callable[..., object]) -> None:
    from cuda.bindings import driver

    for code in driver.CUresult:
        assert bindings("cuGetErrorName", code) == code.name.encode()
        assert bindings("cuGetErrorString", code)
