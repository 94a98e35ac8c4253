"""The part of `Driver` that pycuda lacks or must not be asked for, on the driver library itself."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from edge_runtime.cuda.driver import CAPTURE_RELAXED, HostMemory
from edge_runtime.cuda.result import device_error, is_lost, library
from edge_runtime.errors import DeviceError

_INT = ctypes.c_int
_UNSIGNED = ctypes.c_uint
_LONG = ctypes.c_ulonglong
_SIZE = ctypes.c_size_t
_HANDLE = ctypes.c_void_p
_ADDRESS = ctypes.c_void_p
_OUT = ctypes.c_void_p  # of what the call fills in
_NOT_READY = 600  # CUDA_ERROR_NOT_READY

# Types of the parameters, from cuda.h, under the names that its macros stand for.
_PARAMETERS: dict[str, tuple[type, ...]] = {
    "cuCtxPushCurrent_v2": (_HANDLE,),
    "cuCtxPopCurrent_v2": (_OUT,),
    "cuCtxGetCurrent": (_OUT,),
    "cuCtxSetCurrent": (_HANDLE,),
    "cuCtxSynchronize": (),
    "cuStreamSynchronize": (_HANDLE,),
    "cuStreamWaitEvent": (_HANDLE, _HANDLE, _UNSIGNED),
    "cuEventCreate": (_OUT, _UNSIGNED),
    "cuEventDestroy_v2": (_HANDLE,),
    "cuEventRecord": (_HANDLE, _HANDLE),
    "cuEventSynchronize": (_HANDLE,),
    "cuEventQuery": (_HANDLE,),
    "cuEventElapsedTime": (_OUT, _HANDLE, _HANDLE),
    "cuMemcpyHtoDAsync_v2": (_ADDRESS, _ADDRESS, _SIZE, _HANDLE),
    "cuMemcpyDtoHAsync_v2": (_ADDRESS, _ADDRESS, _SIZE, _HANDLE),
    "cuMemcpyDtoDAsync_v2": (_ADDRESS, _ADDRESS, _SIZE, _HANDLE),
    "cuStreamBeginCapture_v2": (_HANDLE, _INT),
    "cuStreamEndCapture": (_HANDLE, _OUT),
    "cuGraphInstantiateWithFlags": (_OUT, _HANDLE, _LONG),
    "cuGraphLaunch": (_HANDLE, _HANDLE),
    "cuGraphDestroy": (_HANDLE,),
    "cuGraphExecDestroy": (_HANDLE,),
}


def _bind(name: str) -> Callable[..., int]:
    function = library()[name]
    function.argtypes = _PARAMETERS[name]
    function.restype = _INT
    return function


class Libcuda:
    """All of `Driver` but making streams and memory; handles are ints.

    Attributes:
        context: The `CUcontext` that `push` makes current; set by who inherits.
        may_be_lost: Whether an error said that the context is lost.
    """

    context: int

    def __init__(self) -> None:
        self.may_be_lost = False
        self._push = _bind("cuCtxPushCurrent_v2")
        self._pop = _bind("cuCtxPopCurrent_v2")
        self._get_current = _bind("cuCtxGetCurrent")
        self._set_current = _bind("cuCtxSetCurrent")
        self._synchronize = _bind("cuCtxSynchronize")
        self._synchronize_stream = _bind("cuStreamSynchronize")
        self._wait_event = _bind("cuStreamWaitEvent")
        self._create_event = _bind("cuEventCreate")
        self._destroy_event = _bind("cuEventDestroy_v2")
        self._record_event = _bind("cuEventRecord")
        self._synchronize_event = _bind("cuEventSynchronize")
        self._query_event = _bind("cuEventQuery")
        self._elapsed = _bind("cuEventElapsedTime")
        self._copy_to_device = _bind("cuMemcpyHtoDAsync_v2")
        self._copy_to_host = _bind("cuMemcpyDtoHAsync_v2")
        self._copy_on_device = _bind("cuMemcpyDtoDAsync_v2")
        self._begin_capture = _bind("cuStreamBeginCapture_v2")
        self._end_capture = _bind("cuStreamEndCapture")
        self._instantiate = _bind("cuGraphInstantiateWithFlags")
        self._launch = _bind("cuGraphLaunch")
        self._destroy_graph = _bind("cuGraphDestroy")
        self._destroy_executable = _bind("cuGraphExecDestroy")

    def push(self) -> None:
        """See `Driver`."""
        if code := self._push(self.context):
            raise self._failed(code, "cuCtxPushCurrent")

    def pop(self) -> None:
        """See `Driver`."""
        if code := self._pop(None):
            raise self._failed(code, "cuCtxPopCurrent")

    def get_current(self) -> int | None:
        """The context that is current in this thread."""
        context = ctypes.c_void_p()
        if code := self._get_current(ctypes.byref(context)):
            raise self._failed(code, "cuCtxGetCurrent")
        return context.value

    def set_current(self, context: int | None) -> None:
        """Replaces the current context; None takes it away."""
        if code := self._set_current(context):
            raise self._failed(code, "cuCtxSetCurrent")

    def synchronize(self) -> None:
        """See `Driver`."""
        if code := self._synchronize():
            raise self._failed(code, "cuCtxSynchronize")

    def synchronize_stream(self, stream: int) -> None:
        """See `Driver`."""
        if code := self._synchronize_stream(stream):
            raise self._failed(code, "cuStreamSynchronize")

    def wait_event(self, stream: int, event: int) -> None:
        """See `Driver`."""
        if code := self._wait_event(stream, event, 0):
            raise self._failed(code, "cuStreamWaitEvent")

    def create_event(self, flags: int) -> int:
        """See `Driver`."""
        event = ctypes.c_void_p()
        if code := self._create_event(ctypes.byref(event), flags):
            raise self._failed(code, "cuEventCreate")
        return event.value or 0

    def destroy_event(self, event: int) -> None:
        """See `Driver`."""
        if code := self._destroy_event(event):
            raise self._failed(code, "cuEventDestroy")

    def record_event(self, event: int, stream: int) -> None:
        """See `Driver`."""
        if code := self._record_event(event, stream):
            raise self._failed(code, "cuEventRecord")

    def record_foreign(self, event: int, stream: int) -> None:
        """See `Driver`."""
        self.record_event(event, stream)

    def synchronize_event(self, event: int) -> None:
        """See `Driver`."""
        if code := self._synchronize_event(event):
            raise self._failed(code, "cuEventSynchronize")

    def query_event(self, event: int) -> bool:
        """See `Driver`."""
        code = self._query_event(event)
        if code not in (0, _NOT_READY):
            raise self._failed(code, "cuEventQuery")
        return code == 0

    def elapsed(self, start: int, end: int) -> float:
        """See `Driver`."""
        milliseconds = ctypes.c_float()
        if code := self._elapsed(ctypes.byref(milliseconds), start, end):
            raise self._failed(code, "cuEventElapsedTime")
        return milliseconds.value

    def copy_to_device(
        self, target: int, source: HostMemory, offset: int, size: int, stream: int
    ) -> None:
        """See `Driver`."""
        if code := self._copy_to_device(target, source.address + offset, size, stream):
            raise self._failed(code, "cuMemcpyHtoDAsync")

    def copy_to_host(
        self, target: HostMemory, offset: int, source: int, size: int, stream: int
    ) -> None:
        """See `Driver`."""
        if code := self._copy_to_host(target.address + offset, source, size, stream):
            raise self._failed(code, "cuMemcpyDtoHAsync")

    def copy_on_device(self, target: int, source: int, size: int, stream: int) -> None:
        """See `Driver`."""
        if code := self._copy_on_device(target, source, size, stream):
            raise self._failed(code, "cuMemcpyDtoDAsync")

    def begin_capture(self, stream: int) -> None:
        """See `Driver`."""
        if code := self._begin_capture(stream, CAPTURE_RELAXED):
            raise self._failed(code, "cuStreamBeginCapture")

    def end_capture(self, stream: int) -> int:
        """See `Driver`."""
        graph = ctypes.c_void_p()
        if code := self._end_capture(stream, ctypes.byref(graph)):
            raise self._failed(code, "cuStreamEndCapture")
        return graph.value or 0

    def destroy_graph(self, graph: int) -> None:
        """See `Driver`."""
        if code := self._destroy_graph(graph):
            raise self._failed(code, "cuGraphDestroy")

    def instantiate(self, graph: int) -> int:
        """See `Driver`."""
        executable = ctypes.c_void_p()
        if code := self._instantiate(ctypes.byref(executable), graph, 0):
            raise self._failed(code, "cuGraphInstantiate")
        return executable.value or 0

    def launch(self, executable: int, stream: int) -> None:
        """See `Driver`."""
        if code := self._launch(executable, stream):
            raise self._failed(code, "cuGraphLaunch")

    def destroy_executable(self, executable: int) -> None:
        """See `Driver`."""
        if code := self._destroy_executable(executable):
            raise self._failed(code, "cuGraphExecDestroy")

    def _failed(self, code: int, call: str) -> DeviceError:
        error = device_error(code, call)
        self.may_be_lost |= is_lost(error)
        return error
