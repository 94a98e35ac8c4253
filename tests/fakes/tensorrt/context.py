"""IExecutionContext: addresses, memory and `execute_async_v3`; `shapes` has the rest.

[doc] is NVIDIA's C++ API reference for IExecutionContext and IOutputAllocator. A call that is
refused returns False and logs an ERROR, as in the real library.
"""

from __future__ import annotations

import ctypes
import sys
import traceback
import weakref
from typing import Any

import numpy as np

from tests.fakes.tensorrt.classes import behaviour
from tests.fakes.tensorrt.graph import ARRAYS, Tensor
from tests.fakes.tensorrt.jobs import Bound, Job, run
from tests.fakes.tensorrt.shapes import USAGE, Shapes

ALIGNMENT = 256  # [doc] of every address in device memory


@behaviour("IExecutionContext")
class Context(Shapes):
    """Runs an engine's inferences."""

    error_recorder = None
    temporary_allocator = None
    profiler = None
    debug_sync = False
    enqueue_emits_profile = True
    nvtx_verbosity = "LAYER_NAMES_ONLY"
    persistent_cache_limit = 0
    name = ""

    def __init__(self, engine: Any, strategy: str) -> None:
        super().__init__(engine)
        self._engine = engine.as_facade()  # keep_alive: the engine lives as long.
        self._loose = any(t.data_dependent for t in self._tensors.values())
        self.user_managed = strategy == "USER_MANAGED"
        self._own_memory = self._scratch = 0
        self._allocators: dict[str, weakref.ref[Any]] = {}
        self._event = self._unfinished = 0
        self._captured: list[Job] = []

    def load(self) -> bool:
        """Allocates activation memory, unless the caller brings it; whether there was enough."""
        if not self.user_managed:
            self._own_memory = self.library.driver.allocate(self.engine_impl.device_memory_size_v2)
            self._scratch = self._own_memory
        return self.user_managed or self._own_memory != 0

    def destroyed(self) -> None:
        """[doc] Must not happen while its work is pending."""
        if self._unfinished and not self.library.driver.idle():
            self.library.violation("An execution context was destroyed while its work was pending.")
        for job in self._captured:
            job.orphan()
        if self._own_memory:
            self.library.driver.free(self._own_memory)
            self._own_memory = 0

    def job_done(self) -> None:
        with self.library.lock:
            self._unfinished -= 1

    @property
    def engine(self) -> Any:
        return self._engine

    # Addresses and memory.

    def set_tensor_address(self, name: str, memory: int) -> bool:
        tensor = self._tensors.get(name)
        if tensor is None:
            return self.error("setTensorAddress", f"{USAGE} (Given invalid tensor name: {name}.)")
        if memory % ALIGNMENT and not tensor.is_shape:
            return self.error(
                "setTensorAddress",
                f"{USAGE} (the address {memory:#x} of {name} is not {ALIGNMENT}-byte aligned)",
            )
        if self._addresses.get(name) != memory:
            self._addresses[name] = memory
            self._prepared = None
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        """The bindings do not keep the allocator alive: the caller does."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.is_input:
            return self.error("setOutputAllocator", f"{USAGE} (Given invalid tensor name: {name}.)")
        self._prepared = None
        if output_allocator is None:
            self._allocators.pop(name, None)
        else:
            self._allocators[name] = weakref.ref(output_allocator)
        return True

    def get_output_allocator(self, name: str) -> Any:
        return self._allocators[name]() if name in self._allocators else None

    def set_device_memory(self, memory: int, size: int) -> None:
        if not self.user_managed or size < self.engine_impl.device_memory_size_v2:
            self.error("setDeviceMemoryV2", f"{USAGE} ({size} bytes, or not USER_MANAGED)")
        elif memory % ALIGNMENT:
            self.error("setDeviceMemoryV2", f"{USAGE} ({memory:#x} is not aligned)")
        else:
            self._scratch = memory
            self._prepared = None

    @property
    def device_memory(self) -> int:
        return self._scratch

    @device_memory.setter
    def device_memory(self, memory: int) -> None:
        self.set_device_memory(memory, self.engine_impl.device_memory_size_v2)

    def update_device_memory_size_for_shapes(self) -> int:
        return int(self.engine_impl.device_memory_size_v2)

    def set_aux_streams(self, aux_streams: list[int]) -> None:
        """The fake's engines use none."""

    def set_input_consumed_event(self, event: int) -> bool:
        """[doc] Recorded by every enqueue when it has read its inputs; 0 takes it away."""
        self._event = event
        return True

    def get_input_consumed_event(self) -> int:
        return self._event

    # Running.

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Enqueues an inference. Works on a snapshot: addresses may be set anew at once."""
        library, options = self.library, self.library.options
        driver, call = library.driver, "enqueueV3"
        if not stream_handle:
            self._default_stream(call, stream_handle)
        if options.fail_enqueue:
            options.fail_enqueue -= 1
            if not options.fail_enqueue:
                return self.error(call, "Error Code 1: Cuda Runtime (injected)")
        prepared = self._prepared or self._prepare(stream_handle)
        if prepared is None:
            return False
        bound, values, ranges = prepared
        settled = not (self._fresh or self._loose or self.profiler)
        if settled and options.null:
            failed = driver.launch(stream_handle, None, 0, ranges, options.seconds)
            if not (failed or self._event):
                return True
        capturing = driver.capturing(stream_handle)
        if not settled:
            # What must synchronise breaks a capture [doc: enqueue once before capturing].
            if capturing and driver.synchronize(stream_handle):
                return self.error(
                    call,
                    "Error Code 1: Cuda Runtime (operation not permitted when stream is capturing)",
                )
            self._fresh = False
        if options.null and not settled:
            failed = driver.launch(stream_handle, None, 0, ranges, options.seconds)
        elif not options.null:
            job = Job(self, bound, values, self._scratch, capturing)
            if capturing:
                self._captured.append(job)
            else:
                with library.lock:
                    self._unfinished += 1
            failed = driver.launch(stream_handle, run, job.number, ranges, options.seconds)
            if failed:
                job.captured = False
                job.done() if not capturing else job.forget()
        if not failed and self._event:
            failed = driver.record(self._event, stream_handle)
        if not failed and self._profiled:
            failed = driver.synchronize(stream_handle)
            self.report_to_profiler()
        if failed:
            return self.error(call, f"Error Code 1: Cuda Driver (error {failed})")
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        """TensorRT-RTX: whether an enqueue would do no more than what a graph can hold."""
        return not (self._fresh or self._loose or self._profiled or self._prepared is None)

    @property
    def _profiled(self) -> bool:
        return self.profiler is not None and self.enqueue_emits_profile

    def report_to_profiler(self) -> bool:
        """[doc] Of the last inference, where `enqueue_emits_profile` is off."""
        if self.profiler is None:
            return False
        for node in self.engine_impl.graph.model.graph.node:
            if node.op_type != "Constant":
                self.profiler.report_layer_time(node.name or node.output[0], 0.01)
        return True

    def _prepare(self, stream: int) -> Any:
        """Checks and collects all that an enqueue needs; kept until something changes."""
        call = "enqueueV3"
        missing = self._missing()
        if missing:
            self.error(
                call,
                f"{USAGE} (Parameter check failed, condition: allInputDimensionsSpec"
                f"ified. Not specified: {', '.join(missing)})",
            )
            return None
        if not self._scratch:
            self.error(call, f"{USAGE} (USER_MANAGED, and no device memory was set)")
            return None
        if self._loose and self.library.driver.synchronize(stream):
            self.error(
                call, "Error Code 1: Cuda Runtime (cannot synchronise for data-dependent shapes)"
            )
            return None
        values, shapes = self._values(), self._infer()
        if shapes is None:
            return None
        if self._loose:
            shapes = self._compute_shapes(values)
        bound = []
        for tensor in self._tensors.values():
            shape = self._shapes[tensor.name] if tensor.is_input else shapes[tensor.name]
            address = self._address(tensor, shape, stream)
            if address is None:
                return None
            bound.append((tensor, shape, address))
        prepared = bound, values, self._ranges(bound)
        if not self._host and not self._allocators:
            self._prepared = prepared
        return prepared

    def _ranges(self, bound: list[Bound]) -> Any:
        reads = [(a, t.nbytes(s)) for t, s, a in bound if t.is_input and not t.is_shape]
        writes = [(a, t.nbytes(s)) for t, s, a in bound if not (t.is_input or t.is_shape)]
        writes.append((self._scratch, int(self.engine_impl.device_memory_size_v2)))
        return self.library.driver.ranges([r for r in reads if r[1]], [w for w in writes if w[1]])

    def _compute_shapes(self, values: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        """Data-dependent shapes: the inference itself says, so the stream was synchronised."""
        feeds = dict(values)
        for tensor in self.engine_impl.graph.inputs:
            if tensor.name not in feeds:
                shape = self._shapes[tensor.name]
                address = self._addresses.get(tensor.name, 0)
                data = ctypes.string_at(address, tensor.nbytes(shape)) if address else b""
                feeds[tensor.name] = np.frombuffer(data, ARRAYS[tensor.dtype]).reshape(shape)
        return {name: array.shape for name, array in self.engine_impl.graph.run(feeds).items()}

    def _address(self, tensor: Tensor, shape: tuple[int, ...], stream: int) -> int | None:
        """Where a tensor lies; None, and why in the log, where that is nowhere."""
        call, address = "enqueueV3", self._addresses.get(tensor.name, 0)
        if tensor.name in self._allocators:
            return self._reallocate(tensor, shape, address, stream)
        if tensor.data_dependent:
            self.error(
                call,
                f"{USAGE} (output {tensor.name} has a data-dependent shape and no "
                "output allocator)",
            )
            return None
        if not address:
            kind = "input" if tensor.is_input else "output"
            self.error(
                call,
                f"{USAGE} (Parameter check failed. Neither address or allocator is set for {kind} "
                f"tensor {tensor.name}. Call setTensorAddress or setOutputAllocator before "
                "enqueue/execute.)",
            )
            return None
        return address

    def _reallocate(
        self, tensor: Tensor, shape: tuple[int, ...], memory: int, stream: int
    ) -> int | None:
        """[doc] Asks for memory, then says the shape, both before the enqueue returns.

        [src] 10 and newer call reallocate_output_async, and reallocate_output where the caller's
        class has no such method. An exception is printed, and counts as a null pointer.
        """
        allocator = self._allocators[tensor.name]()
        if allocator is None:
            self.library.violation(f"The output allocator of {tensor.name!r} was destroyed.")
            return None
        arguments = (tensor.name, memory, max(tensor.nbytes(shape), 1), ALIGNMENT)
        try:
            if hasattr(allocator, "reallocate_output_async"):
                address = allocator.reallocate_output_async(*arguments, stream)
            else:
                address = allocator.reallocate_output(*arguments)
            address = int(address)
        except Exception:  # noqa: BLE001 -- as the bindings do
            traceback.print_exc(file=sys.stderr)
            address = 0
        if not address:
            self.error("enqueueV3", f"Error Code 2: OutOfMemory (no memory for {tensor.name})")
            return None
        allocator.notify_shape(tensor.name, self.library.types.classes["Dims"](list(shape)))
        return address
