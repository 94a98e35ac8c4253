"""The driver through cuda-bindings, NVIDIA's own Python binding (part of cuda-python)."""

from __future__ import annotations

from typing import Any

from cuda.bindings import driver as cuda

from edge_runtime.cuda.driver import (
    CAPTURE_RELAXED,
    STREAM_NON_BLOCKING,
    DeviceInfo,
    HostMemory,
)
from edge_runtime.cuda.libcuda import Libcuda
from edge_runtime.cuda.result import device_error

_OK = cuda.CUresult.CUDA_SUCCESS
_NOT_READY = cuda.CUresult.CUDA_ERROR_NOT_READY
_CAPTURE_MODE = cuda.CUstreamCaptureMode(CAPTURE_RELAXED)

# Bound once: these are called for every inference.
_push = cuda.cuCtxPushCurrent
_pop = cuda.cuCtxPopCurrent
_copy_to_device = cuda.cuMemcpyHtoDAsync
_copy_to_host = cuda.cuMemcpyDtoHAsync
_copy_on_device = cuda.cuMemcpyDtoDAsync
_record = cuda.cuEventRecord
_query = cuda.cuEventQuery
_synchronize_event = cuda.cuEventSynchronize
_synchronize_stream = cuda.cuStreamSynchronize
_wait_event = cuda.cuStreamWaitEvent
_launch = cuda.cuGraphLaunch


def _checked(call: str, *arguments: Any) -> Any:
    """What `call` returns beside its CUresult: nothing, a value or a tuple."""
    result, *values = getattr(cuda, call)(*arguments)
    if result is not _OK:
        raise device_error(int(result), call)
    return values[0] if len(values) == 1 else tuple(values)


class CudaPythonDriver:
    """`Driver` on cuda-bindings 12 or 13; handles are its objects, or addresses as ints.

    Args:
        ordinal: Which GPU, counted as the driver does.
    """

    name = "cuda-bindings"

    def __init__(self, ordinal: int) -> None:
        _checked("cuInit", 0)
        device = _checked("cuDeviceGet", ordinal)
        self.info = _info(device)
        self._libcuda = Libcuda()
        self._context = int(_checked("cuDevicePrimaryCtxRetain", device))

    def push(self) -> None:
        """See `Driver`."""
        (result,) = _push(self._context)
        if result is not _OK:
            raise device_error(int(result), "cuCtxPushCurrent")

    def pop(self) -> None:
        """See `Driver`."""
        result = _pop()[0]
        if result is not _OK:
            raise device_error(int(result), "cuCtxPopCurrent")

    def synchronize(self) -> None:
        """See `Driver`."""
        _checked("cuCtxSynchronize")

    def memory_info(self) -> tuple[int, int]:
        """See `Driver`."""
        free, total = _checked("cuMemGetInfo")
        return int(free), int(total)

    def create_stream(self) -> tuple[Any, int]:
        """See `Driver`."""
        stream = _checked("cuStreamCreate", STREAM_NON_BLOCKING)
        return stream, int(stream)

    def destroy_stream(self, stream: Any) -> None:
        """See `Driver`."""
        _checked("cuStreamDestroy", stream)

    def synchronize_stream(self, stream: Any) -> None:
        """See `Driver`."""
        (result,) = _synchronize_stream(stream)
        if result is not _OK:
            raise device_error(int(result), "cuStreamSynchronize")

    def wait_event(self, stream: Any, event: Any) -> None:
        """See `Driver`."""
        (result,) = _wait_event(stream, event, 0)
        if result is not _OK:
            raise device_error(int(result), "cuStreamWaitEvent")

    def create_event(self, flags: int) -> Any:
        """See `Driver`."""
        return _checked("cuEventCreate", flags)

    def destroy_event(self, event: Any) -> None:
        """See `Driver`."""
        _checked("cuEventDestroy", event)

    def record_event(self, event: Any, stream: Any) -> None:
        """See `Driver`."""
        (result,) = _record(event, stream)
        if result is not _OK:
            raise device_error(int(result), "cuEventRecord")

    def record_foreign(self, event: Any, stream: int) -> None:
        """See `Driver`."""
        self.record_event(event, cuda.CUstream(stream))

    def synchronize_event(self, event: Any) -> None:
        """See `Driver`."""
        (result,) = _synchronize_event(event)
        if result is not _OK:
            raise device_error(int(result), "cuEventSynchronize")

    def query_event(self, event: Any) -> bool:
        """See `Driver`."""
        (result,) = _query(event)
        if result is _OK:
            return True
        if result is _NOT_READY:
            return False
        raise device_error(int(result), "cuEventQuery")

    def elapsed(self, start: Any, end: Any) -> float:
        """See `Driver`."""
        # Not through cuda-bindings 13: it wants cuEventElapsedTime_v2, new in the driver of 12.8.
        return self._libcuda.elapsed(int(start), int(end))

    def allocate(self, size: int) -> tuple[Any, int]:
        """See `Driver`."""
        memory = _checked("cuMemAlloc", size)
        return memory, int(memory)

    def free(self, memory: Any) -> None:
        """See `Driver`."""
        _checked("cuMemFree", memory)

    def allocate_host(self, size: int, flags: int) -> tuple[Any, int]:
        """See `Driver`."""
        address = int(_checked("cuMemHostAlloc", size, flags))
        return address, address

    def free_host(self, memory: Any) -> None:
        """See `Driver`."""
        _checked("cuMemFreeHost", memory)

    def device_address(self, memory: Any) -> int:
        """See `Driver`."""
        return int(_checked("cuMemHostGetDevicePointer", memory, 0))

    def copy_to_device(
        self, target: int, source: HostMemory, offset: int, size: int, stream: Any
    ) -> None:
        """See `Driver`."""
        (result,) = _copy_to_device(target, source.address + offset, size, stream)
        if result is not _OK:
            raise device_error(int(result), "cuMemcpyHtoDAsync")

    def copy_to_host(
        self, target: HostMemory, offset: int, source: int, size: int, stream: Any
    ) -> None:
        """See `Driver`."""
        (result,) = _copy_to_host(target.address + offset, source, size, stream)
        if result is not _OK:
            raise device_error(int(result), "cuMemcpyDtoHAsync")

    def copy_on_device(self, target: int, source: int, size: int, stream: Any) -> None:
        """See `Driver`."""
        (result,) = _copy_on_device(target, source, size, stream)
        if result is not _OK:
            raise device_error(int(result), "cuMemcpyDtoDAsync")

    def begin_capture(self, stream: Any) -> None:
        """See `Driver`."""
        _checked("cuStreamBeginCapture", stream, _CAPTURE_MODE)

    def end_capture(self, stream: Any) -> Any:
        """See `Driver`."""
        return _checked("cuStreamEndCapture", stream)

    def destroy_graph(self, graph: Any) -> None:
        """See `Driver`."""
        _checked("cuGraphDestroy", graph)

    def instantiate(self, graph: Any) -> Any:
        """See `Driver`."""
        return _checked("cuGraphInstantiate", graph, 0)

    def launch(self, executable: Any, stream: Any) -> None:
        """See `Driver`."""
        (result,) = _launch(executable, stream)
        if result is not _OK:
            raise device_error(int(result), "cuGraphLaunch")

    def destroy_executable(self, executable: Any) -> None:
        """See `Driver`."""
        _checked("cuGraphExecDestroy", executable)


def _info(device: Any) -> DeviceInfo:
    attributes = cuda.CUdevice_attribute

    def attribute(number: Any) -> int:
        return int(_checked("cuDeviceGetAttribute", number, device))

    major = attribute(attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
    minor = attribute(attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
    name: bytes = _checked("cuDeviceGetName", 256, device)
    return DeviceInfo(
        name=name.partition(b"\0")[0].decode("utf-8", "replace"),
        compute_capability=f"sm{major}{minor}",
        memory=int(_checked("cuDeviceTotalMem", device)),
        integrated=attribute(attributes.CU_DEVICE_ATTRIBUTE_INTEGRATED) == 1,
        maps_host_memory=attribute(attributes.CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY) == 1,
        driver_version=int(_checked("cuDriverGetVersion")),
    )
