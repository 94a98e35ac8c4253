"""Runs inferences of a TensorRT engine on a CUDA stream of its own, one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, nullcontext, suppress
from functools import cache
from typing import Any

import numpy as np

from edge_runtime.backends.layer_times import LayerTime, layer_times
from edge_runtime.backends.tensorrt.bindings import Bindings
from edge_runtime.backends.tensorrt.logger import Recording, ThreadErrors
from edge_runtime.backends.tensorrt.resources import Resources, check, freeing, refusal
from edge_runtime.backends.tensorrt.timing import Work
from edge_runtime.cuda.array import DeviceArray
from edge_runtime.cuda.graph import Graph
from edge_runtime.cuda.interop import DeviceView, view
from edge_runtime.cuda.memory import DeviceBuffer
from edge_runtime.errors import DeviceError, FeedError, InferenceError
from edge_runtime.tensors import DeviceFeeds, Outputs


class TensorRTContext:
    """An execution context of TensorRT with its stream and buffers."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._device = device = resources.device
        self._errors = ThreadErrors(resources.trt)
        self._graph: Graph | None = None
        self._settled = False  # Whether an inference has run since shapes last changed.
        self._profiled = False
        self._busy = False
        self._closed = False
        self._kept: Mapping[str, DeviceView] = {}
        with ExitStack() as undo, device.current():
            self._stream = device.create_stream()
            undo.callback(self._stream.close)
            self._done = device.create_event(spin=resources.config.spin)
            undo.callback(self._done.close)
            with self._errors as log:
                self._vendor: Any = _create(resources, log)
            undo.pop_all()
        self._bindings = Bindings(resources, self._vendor)

    def enqueue(self, feeds: DeviceFeeds) -> None:
        """Copies the inputs and starts an inference on the stream.

        Args:
            feeds: Arrays of the right names and, where they are numpy arrays, types and ranks. An
                array on the GPU is read in place and must stay as it is until `wait` returns.

        Raises:
            FeedError: A shape is outside of the plan's optimization profiles, or an array on the
                GPU does not fit.
            InferenceError: TensorRT refused, or an inference is in flight already.
            DeviceError: The GPU or its driver failed.
        """
        self._start(feeds, None)

    def wait(self) -> Outputs:
        """Waits for the inference and returns new arrays, which are the caller's.

        Raises:
            InferenceError: Nothing was enqueued.
            DeviceError: The GPU failed.
        """
        received = self._finish(receive=True)
        return self._bindings.results(received)

    def run_on_device(self, feeds: DeviceFeeds) -> dict[str, DeviceArray]:
        """Runs an inference and leaves its outputs in the GPU's memory; they are the caller's.

        Raises:
            FeedError: As `enqueue`.
            InferenceError: As `enqueue`.
            DeviceError: The GPU or its driver failed.
        """
        pool = self._resources.pool
        targets: dict[str, DeviceBuffer] = {}
        try:
            self._start(feeds, targets)
            self._finish()
            shapes = self._bindings.shapes()
            with self._device.current():
                self._bindings.take_outputs(targets, self._stream)
        except BaseException:
            for buffer in targets.values():
                pool.give_back(buffer)
            raise
        outputs = {}
        for tensor in self._resources.interface.outputs:
            spec = tensor.spec
            # The pool did not give what TensorRT asked for, and would never hand it out again.
            release = None if spec.name in self._bindings.deferred else pool.give_back
            outputs[spec.name] = DeviceArray(
                targets[spec.name], shapes[spec.name], spec.dtype, self._device, release
            )
        return outputs

    def layer_times(self, feeds: DeviceFeeds, *, runs: int = 1) -> list[LayerTime]:
        """Runs inferences and returns each layer's milliseconds on the GPU.

        TensorRT measures layer by layer: their sum is more than an inference takes. The context is
        slower from then on.
        """
        profiler = _profiler_class(self._resources.trt)()
        self._vendor.profiler = profiler
        self._profiled = True  # Which waits for each layer, and so cannot be captured.
        self._drop_graph()
        times: list[list[tuple[str, float]]] = []
        for _ in range(runs):
            profiler.times = []
            self.enqueue(feeds)
            self.wait()
            times.append(profiler.times)
        return layer_times(times)

    def staged(self, feeds: DeviceFeeds) -> Work:
        """Runs an inference and hands out what repeats it: its inputs stay where they are.

        While that is used, nothing else may be run in the context.

        Raises:
            FeedError: As `enqueue`.
            InferenceError: As `enqueue`.
            DeviceError: The GPU or its driver failed.
        """
        self.enqueue(feeds)
        self.wait()
        return Work(
            device=self._device,
            stream=self._stream,
            bindings=self._bindings,
            errors=self._errors,
            enqueue=self._engine_work,
            spin=self._resources.config.spin,
        )

    def close(self) -> None:
        """Waits for what is in flight and frees everything. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        self._drain()
        self._drop_graph()
        self._busy = False
        self._kept = {}
        with freeing(self._device):
            self._vendor = None
            self._bindings.close()
        self._done.close()
        self._stream.close()
        del self._bindings, self._resources  # They hold the engine, which the caller frees next.

    def _start(self, feeds: DeviceFeeds, targets: dict[str, DeviceBuffer] | None) -> None:
        """Enqueues an inference; given `targets`, its outputs go there, and are allocated there."""
        if self._closed:
            raise InferenceError("This context is closed.")
        if self._busy:
            raise InferenceError("An inference is in flight in this context; call wait() first.")
        bindings, stream = self._bindings, self._stream
        try:
            with self._device.current(), self._errors as log:
                views = self._views(feeds)
                if bindings.prepare(feeds, views, stream, log):
                    self._drop_graph()
                bindings.begin()
                bindings.send(feeds, views, stream)
                self._run(views, targets, log)
                self._done.record(stream)
        except BaseException:
            self._drain()
            raise
        self._kept = views
        self._busy = True

    def _finish(self, *, receive: bool = False) -> Outputs:
        """Waits for what `_start` enqueued; the large outputs come on the way if asked for."""
        if not self._busy:
            raise InferenceError("Nothing was enqueued in this context.")
        try:
            with self._device.current():
                received = self._bindings.receive() if receive else {}
                self._done.synchronize()
        except BaseException:  # An interrupt too: nothing goes on behind the caller's back.
            self._drain()
            raise
        finally:
            self._busy = False
            self._kept = {}
        return received

    def _run(
        self,
        views: Mapping[str, DeviceView],
        targets: dict[str, DeviceBuffer] | None,
        log: Recording,
    ) -> None:
        """Runs on what has been sent, with inputs or outputs that may lie elsewhere on the GPU."""
        bindings = self._bindings
        addresses = {name: found.address for name, found in views.items()}
        if targets is not None:
            for name, size in bindings.output_sizes().items():
                targets[name] = self._resources.pool.take(size)
                addresses[name] = targets[name].address
        bindings.displace(addresses, log)
        self._engine_work(log, in_place=not addresses)
        if targets is None:
            bindings.download(self._stream)

    def _engine_work(self, log: Recording, *, in_place: bool = True) -> None:
        """Enqueues the engine's work, as a graph where it may be one."""
        if self._resources.config.cuda_graphs and in_place and not self._profiled:
            self._replay(log)
        else:
            self._execute(log)

    def _replay(self, log: Recording) -> None:
        """Enqueues the engine's work as a graph, once it has run plainly for these shapes.

        TensorRT wants that first run: it may wait for the GPU there, which cannot be captured.
        """
        if self._bindings.deferred:
            names = ", ".join(self._bindings.deferred)
            raise InferenceError(
                f"Only the data decides the shape of output {names}, so that the inference cannot "
                "be captured in a CUDA graph. Load the bundle without cuda_graphs."
            )
        if not self._settled:
            self._execute(log)
            self._settled = True
            return
        if self._graph is None:
            with self._device.capture(self._stream) as capture:
                done = self._vendor.execute_async_v3(self._stream.handle)
                check(done, log, "let itself be captured in a CUDA graph; load without cuda_graphs")
            self._graph = capture.graph
        with self._turn():
            self._graph.launch(self._stream)

    def _execute(self, log: Recording) -> None:
        """Enqueues the engine's work. If that fails, the GPU is asked whether it is at fault."""
        with self._turn():
            done = self._vendor.execute_async_v3(self._stream.handle)
        if not done:
            for memory in self._bindings.deferred.values():
                memory.raise_error()
            self._stream.synchronize()
            raise refusal(log, "run the engine")

    def _turn(self) -> Any:
        shared = self._resources.shared
        return nullcontext() if shared is None else shared.turn(self._stream)

    def _drop_graph(self) -> None:
        self._settled = False
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def _drain(self) -> None:
        """Waits until the stream has nothing left to do, whatever became of it."""
        with suppress(DeviceError), self._device.current():
            self._stream.synchronize()

    def _views(self, feeds: DeviceFeeds) -> dict[str, DeviceView]:
        """The inputs that lie on the GPU, checked as `check_feeds` checks numpy arrays."""
        views = {}
        for tensor in self._resources.interface.inputs:
            spec, feed = tensor.spec, feeds[tensor.spec.name]
            if isinstance(feed, np.ndarray):
                continue
            found = view(feed, self._stream, self._device, tensor=spec.name)
            right = found.dtype == np.dtype(spec.dtype) and spec.accepts(found.shape)
            if not right or not found.contiguous or tensor.on_host:
                place = "in host memory" if tensor.on_host else "C-contiguous on the GPU"
                order = "" if found.contiguous else " and not contiguous"
                raise FeedError(
                    spec.name,
                    expected=f"{spec} {place}",
                    found=f"{found.dtype}{list(found.shape)} on the GPU{order}",
                )
            views[spec.name] = found
        return views


def _create(resources: Resources, log: Recording) -> Any:
    """TensorRT's own context, with memory of its own or the shared block."""
    trt, engine, shared = resources.trt, resources.engine, resources.shared
    if shared is None:
        vendor = engine.create_execution_context()
    else:
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        vendor = engine.create_execution_context(strategy)
    check(vendor, log, "create an execution context")
    if shared is not None:
        vendor.set_device_memory(shared.buffer.address, shared.buffer.size)
    return vendor


@cache
def _profiler_class(trt: Any) -> Any:
    def init(self: Any) -> None:
        trt.IProfiler.__init__(self)
        self.times = []

    def report_layer_time(self: Any, layer_name: str, ms: float) -> None:
        self.times.append((layer_name, ms))

    members = {"__init__": init, "report_layer_time": report_layer_time}
    return type("LayerTimes", (trt.IProfiler,), members)
