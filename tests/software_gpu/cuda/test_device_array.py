"""A DeviceArray as its owner and other libraries see it: memory, lifetime, DLPack."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from edge_runtime.cuda import dlpack
from edge_runtime.cuda.array import DeviceArray
from edge_runtime.cuda.device import Device
from edge_runtime.cuda.memory import DeviceBuffer
from tests.software_gpu.gpu import SoftwareGpu

TYPES = ["float32", "float16", "float64", "int8", "uint8", "int32", "int64", "bool", "complex64"]


def on_device(device: Device, value: np.ndarray, release=None) -> DeviceArray:
    """A copy of `value` in device memory."""
    buffer = device.allocate(max(value.nbytes, 1))
    staging = device.allocate_pinned(max(value.nbytes, 1))
    stream = device.create_stream()
    staging.array[: value.nbytes] = np.frombuffer(value.tobytes(), np.uint8)
    with device.current():
        device.copy_to_device(buffer.address, staging, value.nbytes, stream)
        stream.synchronize()
    stream.close()
    staging.close()
    return DeviceArray(buffer, value.shape, value.dtype, device, release)


@pytest.fixture
def array(device: Device) -> Iterator[DeviceArray]:
    """float32 [2, 3], 0 to 5."""
    array = on_device(device, np.arange(6, dtype=np.float32).reshape(2, 3))
    yield array
    array.close()


class Consumer:
    """Takes a capsule over as the standard says: renames it, and calls its deleter at the end."""

    def __init__(self, capsule: object, versioned: bool) -> None:
        name = b"dltensor_versioned" if versioned else b"dltensor"
        self.capsule_name = self._name(capsule)
        assert self.capsule_name == name.decode()
        self.pointer = dlpack._pointer(capsule, name)
        rename = ctypes.pythonapi.PyCapsule_SetName
        rename.argtypes = (ctypes.py_object, ctypes.c_char_p)
        self.used = b"used_" + name  # the capsule does not copy it
        assert rename(capsule, self.used) == 0
        self.deleter_at = 16 if versioned else 56

    @staticmethod
    def _name(capsule: object) -> str:
        name = ctypes.pythonapi.PyCapsule_GetName
        name.argtypes, name.restype = (ctypes.py_object,), ctypes.c_char_p
        return name(capsule).decode()

    def delete(self) -> None:
        deleter = ctypes.c_void_p.from_address(self.pointer + self.deleter_at).value
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(deleter)(self.pointer)


def memory_of(gpu: SoftwareGpu) -> list[str]:
    return [thing for thing in gpu.live() if "device memory" in thing]


def test_what_it_says_about_itself(array: DeviceArray) -> None:
    assert array.shape == (2, 3)
    assert array.dtype == np.float32
    assert array.nbytes == 24
    assert array.__cuda_array_interface__ == {
        "shape": (2, 3),
        "typestr": "<f4",
        "data": (array.address, False),
        "strides": None,
        "stream": None,
        "version": 3,
    }
    assert array.__dlpack_device__() == (2, 0)


def test_a_copy_in_host_memory(array: DeviceArray) -> None:
    host = array.to_host()
    array.close()
    assert host.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 1), (0, 4)])
@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 2)])
def test_dlpack_says_it_all(device: Device, dtype: str, shape, version) -> None:
    value = np.ones(shape, dtype)
    array = on_device(device, value) if value.nbytes else empty(device, shape, dtype)
    read = dlpack.read(array.__dlpack__(max_version=version))
    assert read.device == (2, 0)
    assert read.shape == shape
    assert read.dtype == value.dtype
    if value.nbytes:
        assert read.address == array.address
    array.close()


def empty(device: Device, shape: tuple[int, ...], dtype: str) -> DeviceArray:
    return DeviceArray(device.allocate(1), shape, dtype, device)


def test_an_empty_array(device: Device) -> None:
    array = empty(device, (0, 4), "float32")
    assert array.nbytes == 0
    assert array.__cuda_array_interface__["data"] == (0, False)
    assert array.to_host().shape == (0, 4)
    array.close()


@pytest.mark.parametrize("versioned", [False, True])
def test_what_dlpack_took_keeps_the_memory(
    gpu: SoftwareGpu, array: DeviceArray, versioned: bool
) -> None:
    version = (1, 0) if versioned else None
    consumer = Consumer(array.__dlpack__(max_version=version), versioned)
    array.close()
    gc.collect()
    assert len(memory_of(gpu)) == 1
    thread = threading.Thread(target=consumer.delete)
    thread.start()
    thread.join()
    assert memory_of(gpu) == []


def test_a_capsule_that_nobody_took_frees_nothing_else(
    gpu: SoftwareGpu, array: DeviceArray
) -> None:
    capsule = array.__dlpack__()
    del capsule
    assert len(memory_of(gpu)) == 1
    capsule = array.__dlpack__(max_version=(1, 0))
    array.close()
    assert len(memory_of(gpu)) == 1
    del capsule
    assert memory_of(gpu) == []


def test_a_capsule_dropped_by_an_exception_leaves_it_alone(
    gpu: SoftwareGpu, array: DeviceArray
) -> None:
    def fail(capsule: object) -> None:
        raise KeyError("mine")

    capsules = [array.__dlpack__()]
    array.close()
    with pytest.raises(KeyError, match="mine"):
        fail(capsules.pop())
    gc.collect()
    assert memory_of(gpu) == []


def test_the_deleter_runs_where_python_never_was(gpu: SoftwareGpu, array: DeviceArray) -> None:
    """As in a thread of PyTorch's autograd: the deleter is handed to pthread_create."""
    consumer = Consumer(array.__dlpack__(), versioned=False)
    array.close()
    deleter = ctypes.c_void_p.from_address(consumer.pointer + consumer.deleter_at)
    libc = ctypes.CDLL(None)
    thread = ctypes.c_ulong()
    assert (
        libc.pthread_create(ctypes.byref(thread), None, deleter, ctypes.c_void_p(consumer.pointer))
        == 0
    )
    assert libc.pthread_join(thread, None) == 0
    assert memory_of(gpu) == []


@pytest.mark.parametrize("wanted", [{"copy": True}, {"dl_device": (1, 0)}, {"dl_device": (2, 1)}])
def test_dlpack_elsewhere_is_refused(array: DeviceArray, wanted: dict[str, object]) -> None:
    with pytest.raises(BufferError, match="to_host"):
        array.__dlpack__(**wanted)
    dlpack.read(array.__dlpack__(copy=False, dl_device=(2, 0), stream=2))


def test_numpy_does_not_take_it_for_host_memory(array: DeviceArray) -> None:
    with pytest.raises((BufferError, RuntimeError)):
        np.from_dlpack(array)
    with pytest.raises(TypeError, match="to_host"):
        np.asarray(array)


def test_closed_it_says_so(array: DeviceArray) -> None:
    array.close()
    array.close()
    for use in (
        lambda: array.address,
        lambda: array.__cuda_array_interface__,
        array.__dlpack__,
        array.to_host,
    ):
        with pytest.raises(ValueError, match="DeviceArray is closed"):
            use()


def test_dropped_it_is_freed(gpu: SoftwareGpu, device: Device) -> None:
    array = on_device(device, np.zeros(4))
    array.itself = array
    del array
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()
    assert gpu.live() == []


def test_its_buffer_goes_back_once(gpu: SoftwareGpu, device: Device) -> None:
    pool: list[DeviceBuffer] = []
    array = on_device(device, np.zeros(4), pool.append)
    capsule = array.__dlpack__()
    array.close()
    array.close()
    assert pool == []
    del capsule
    assert len(pool) == 1
    dropped = DeviceArray(pool.pop(), (4,), "float64", device, pool.append)
    del dropped
    assert len(pool) == 1
    pool.pop().close()
    assert gpu.live() == []


@pytest.mark.parametrize("by", ["dlpack", "cuda_array_interface"])
def test_its_buffer_goes_back_after_another_librarys_work(
    gpu: SoftwareGpu, device: Device, by: str
) -> None:
    """A consumer may drop what it took while its own stream still reads it."""
    gpu.mode("lazy")
    back: list[bool] = []
    array = on_device(device, np.zeros(4), lambda buffer: back.append(gpu.idle()) or buffer.close())
    taken = array.__dlpack__() if by == "dlpack" else array.__cuda_array_interface__
    theirs = device.create_stream()
    with device.current():
        assert gpu.launch(theirs.handle, 0, reads=[(array.address, 32)]) == 0
    array.close()
    del taken
    assert back == [True]
    theirs.close()


def test_our_own_arrays_go_back_without_waiting(gpu: SoftwareGpu, device: Device) -> None:
    array = on_device(device, np.zeros(4))
    array.close()
    assert "cuCtxSynchronize" not in gpu.calls()


def test_it_must_fit_its_buffer(device: Device) -> None:
    buffer = device.allocate(15)
    with pytest.raises(ValueError, match="16 bytes"):
        DeviceArray(buffer, (4,), "float32", device)
    buffer.close()


def test_a_failing_copy_to_host_leaves_nothing(gpu: SoftwareGpu, array: DeviceArray) -> None:
    before = gpu.live()
    for call in ("cuStreamCreate", "cuMemHostAlloc", "cuMemcpyDtoHAsync"):
        gpu.fail(call, error=304)
        with pytest.raises(Exception, match=f"{call} failed"):
            array.to_host()
        assert gpu.live() == before
