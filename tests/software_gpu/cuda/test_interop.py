"""Device arrays of other libraries, by DLPack and by `__cuda_array_interface__`."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from edge_runtime.cuda import dlpack
from edge_runtime.cuda.array import DeviceArray
from edge_runtime.cuda.device import Device
from edge_runtime.cuda.interop import DeviceView, is_device_array, view
from edge_runtime.cuda.stream import Stream
from edge_runtime.errors import FeedError
from tests.software_gpu.gpu import SoftwareGpu


class ByInterface:
    """An array of a library that has only `__cuda_array_interface__`."""

    def __init__(self, **interface: Any) -> None:
        self.__cuda_array_interface__ = {
            "shape": (2, 3),
            "typestr": "<f4",
            "data": (4096, False),
            "version": 3,
        } | interface


class ByDlpack:
    """An array of a library that has DLPack; it notes what it was asked."""

    def __init__(
        self, memory: DeviceArray, *, kind: Any = dlpack.CUDA, ordinal: int = 0, old: bool = False
    ) -> None:
        self.memory, self.kind, self.ordinal, self.old = memory, kind, ordinal, old
        self.asked: list[dict[str, Any]] = []

    def __dlpack_device__(self) -> tuple[Any, int]:
        return self.kind, self.ordinal

    def __dlpack__(self, **asked: Any) -> object:
        if self.old and "max_version" in asked:
            raise TypeError("unexpected keyword argument 'max_version'")
        self.asked.append(asked)
        capsule = self.memory.__dlpack__(max_version=asked.get("max_version"))
        dlpack._tensor(capsule).device = dlpack._Device(int(self.kind), self.ordinal)
        return capsule


@pytest.fixture
def stream(device: Device):
    stream = device.create_stream()
    with device.current():
        yield stream
    stream.close()


@pytest.fixture
def memory(device: Device):
    memory = DeviceArray(device.allocate(24), (2, 3), "float32", device)
    yield memory
    memory.close()


def at(value: object, stream: Stream, device: Device) -> tuple[object, ...]:
    found = view(value, stream, device)
    assert isinstance(found, DeviceView)
    return found.address, found.shape, found.dtype, found.contiguous


def test_what_is_a_device_array(memory: DeviceArray) -> None:
    assert is_device_array(memory)
    assert is_device_array(ByInterface())
    for kind in (dlpack.CUDA, dlpack.CUDA_HOST, dlpack.CUDA_MANAGED):
        assert is_device_array(ByDlpack(memory, kind=kind))
    for other in (np.zeros(2), [1.0], 3, None, "x", ByDlpack(memory, kind=dlpack.CPU)):
        assert not is_device_array(other)


@pytest.mark.parametrize("old", [False, True])
def test_dlpack_is_read_for_our_stream(
    memory: DeviceArray, stream: Stream, device: Device, old: bool
) -> None:
    theirs = ByDlpack(memory, old=old)
    assert at(theirs, stream, device) == (memory.address, (2, 3), np.float32, True)
    asked = {"stream": stream.handle} | ({} if old else {"max_version": (1, 0)})
    assert theirs.asked == [asked]


def test_pinned_memory_by_dlpack_knows_no_stream(
    memory: DeviceArray, stream: Stream, device: Device
) -> None:
    theirs = ByDlpack(memory, kind=dlpack.CUDA_HOST)
    assert at(theirs, stream, device)[0] == memory.address
    assert theirs.asked[0]["stream"] is None


def test_a_view_keeps_the_memory_and_nothing_after_it(
    gpu: SoftwareGpu, memory: DeviceArray, stream: Stream, device: Device
) -> None:
    for value in (ByDlpack(memory), memory):
        found = view(value, stream, device)
        if value is memory:
            memory.close()
        assert any(f"{found.address:#x}" in thing for thing in gpu.live())
    address = f"{found.address:#x}"
    del found
    assert not any(address in thing for thing in gpu.live())


def test_ones_own_array_costs_no_capsule(
    memory: DeviceArray, stream: Stream, device: Device
) -> None:
    assert at(memory, stream, device) == (memory.address, (2, 3), np.float32, True)


@pytest.mark.parametrize(
    ("strides", "contiguous"),
    [
        (None, True),
        ((12, 4), True),
        ((24, 4), False),
        ((4, 8), False),
        ((-12, 4), False),
    ],
)
def test_the_interfaces_strides(
    stream: Stream, device: Device, strides: tuple[int, ...] | None, contiguous: bool
) -> None:
    found = at(ByInterface(strides=strides), stream, device)
    assert found == (4096, (2, 3), np.float32, contiguous)


@pytest.mark.parametrize(
    ("shape", "strides", "contiguous"),
    [((1, 3), (999, 4), True), ((2, 1), (4, 999), True), ((0, 3), (1, 1), True), ((), (), True)],
)
def test_strides_that_do_not_matter(
    stream: Stream, device: Device, shape: tuple[int, ...], strides: tuple[int, ...], contiguous
) -> None:
    found = view(ByInterface(shape=shape, strides=strides), stream, device)
    assert found.contiguous is contiguous
    assert found.shape == shape


def test_version_2_without_a_stream(stream: Stream, device: Device) -> None:
    value = ByInterface(version=2, typestr="|b1", shape=[3])
    assert at(value, stream, device) == (4096, (3,), np.bool_, True)


def test_dlpack_strides_and_offset(
    memory: DeviceArray, stream: Stream, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    capsule = memory.__dlpack__()
    tensor = dlpack._tensor(capsule)
    tensor.byte_offset = 4
    tensor.shape[0], tensor.shape[1] = 3, 2
    strides = (ctypes.c_int64 * 2)(1, 3)  # Older numpys leave them out.
    tensor.strides = ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64))
    theirs = ByDlpack(memory)
    monkeypatch.setattr(ByDlpack, "__dlpack__", lambda *_, **__: capsule)
    found = at(theirs, stream, device)
    assert found == (memory.address + 4, (3, 2), np.float32, False)


@pytest.mark.parametrize("producer", ["stream", None])
def test_our_stream_waits_for_the_producers(
    gpu: SoftwareGpu, device: Device, stream: Stream, producer: str | None
) -> None:
    gpu.mode("lazy")
    theirs, buffer = device.create_stream(), device.allocate(64)
    source, target = device.allocate_pinned(64), device.allocate_pinned(64)
    source.array[:] = 9
    device.copy_to_device(buffer.address, source, 64, theirs)
    if producer is None:  # complete
        theirs.synchronize()
    value = ByInterface(
        data=(buffer.address, True),
        shape=(16,),
        stream=theirs.handle if producer else None,
    )
    before = gpu.calls()
    found = view(value, stream, device)
    waits = gpu.calls().get("cuStreamWaitEvent", 0) - before.get("cuStreamWaitEvent", 0)
    device.copy_to_host(target, found.address, 64, stream)
    stream.synchronize()
    assert waits == (1 if producer else 0)
    assert (target.array == 9).all()
    for thing in (theirs, buffer, source, target):
        thing.close()


def test_ones_own_stream_is_not_waited_for(
    gpu: SoftwareGpu, stream: Stream, device: Device
) -> None:
    view(ByInterface(stream=stream.handle), stream, device)
    assert "cuStreamWaitEvent" not in gpu.calls()


@pytest.mark.parametrize(
    "value",
    [
        ByInterface(stream=0),
        ByInterface(mask=ByInterface()),
    ],
)
def test_interfaces_that_cannot_be(value: object, stream: Stream, device: Device) -> None:
    with pytest.raises(FeedError) as found:
        view(value, stream, device, tensor="image")
    assert found.value.tensor == "image"


def test_another_gpus_array(memory: DeviceArray, stream: Stream, device: Device) -> None:
    with pytest.raises(FeedError) as found:
        view(ByDlpack(memory, ordinal=1), stream, device, tensor="image")
    assert found.value.tensor == "image"
    assert "GPU 1" in found.value.found


@pytest.mark.parametrize(
    ("code", "bits", "lanes"), [(4, 16, 1), (2, 32, 4), (3, 64, 1), (1, 4, 1), (2, 8, 1)]
)
def test_element_types_that_numpy_lacks(
    memory: DeviceArray,
    stream: Stream,
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    bits: int,
    lanes: int,
) -> None:
    capsule = memory.__dlpack__()
    dtype = dlpack._tensor(capsule).dtype
    dtype.code, dtype.bits, dtype.lanes = code, bits, lanes
    monkeypatch.setattr(ByDlpack, "__dlpack__", lambda *_, **__: capsule)
    with pytest.raises(FeedError):
        view(ByDlpack(memory), stream, device)


def test_a_producer_that_refuses(memory: DeviceArray, stream: Stream, device: Device) -> None:
    class Refusing(ByDlpack):
        def __dlpack__(self, **_: object) -> object:
            raise BufferError("it requires a gradient")

    with pytest.raises(FeedError, match="requires a gradient"):
        view(Refusing(memory), stream, device)


def test_what_is_no_capsule(memory: DeviceArray, stream: Stream, device: Device) -> None:
    class Odd(ByDlpack):
        def __dlpack__(self, **_: object) -> object:
            return 5

    with pytest.raises(FeedError):
        view(Odd(memory), stream, device)
