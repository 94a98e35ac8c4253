"""A second CPU backend: OpenVINO on the bundle's graphs, in arithmetic that does not saturate.

OpenVINO computes the INT8 layers of a Q/DQ graph on integers. On x86 CPUs without dot products it
then adds pairs of products in 16 bits and saturates, as ONNX Runtime's kernels do. Its unlisted
setting `LP_TRANSFORMS_MODE` keeps it from that: INT8 layers then compute on the dequantized values
in FP32. It is set for the exact graph where the CPU has no dot products; the fast graph needs it
nowhere.

OpenVINO may choose BF16 or FP16 for FP32 layers on CPUs that have them: it is told not to. It
computes 64-bit integers in 32 bits and FP64 in FP32, both without a word: inputs are checked for
the one, and refused for the other.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import openvino

from edge_runtime.backends.layer_times import LayerTime, layer_times
from edge_runtime.backends.onnx_graph import OnnxGraph, first_refused, read_graph
from edge_runtime.board import read_board
from edge_runtime.cuda.array import DeviceArray
from edge_runtime.errors import BackendUnavailableError, FeedError, InferenceError, ModelError
from edge_runtime.tensors import Array, Feeds, Outputs, TensorSpec

_SETTINGS = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    "ENABLE_CPU_PINNING": False,
}
_WITHOUT_INT8 = {"LP_TRANSFORMS_MODE": "NO"}

_TYPES = {
    **{f"{kind[0]}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    "f16": "float16",
    "f32": "float32",
    "boolean": "bool",
}
"""numpy's names of OpenVINO's element types, of those that it computes as they are."""

_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
"""Precisions by the last part of what OpenVINO calls an implementation, as `jit_avx2_I8`."""

_LARGEST = 2**31
_MOST_SHAPES = 4096
_SOURCE = re.compile(
    r"(Exception from|Check '[^']*' failed at) \S+:\d+:|FrontEnd API failed with \w+:"
    r"|Caught exception:"
)
"""Places in OpenVINO's own source."""

_NODE = re.compile(r"While validating node '\w+::(\w+) ([^ (']+)")


@cache
def _core() -> openvino.Core:
    """The one core of this process, which stays.

    A core that loads the CPU plugin gives the thread another stack for signals, and where it goes,
    gives back the one that it found. Of two that go in the order in which they came, the second
    gives back what the first has freed: the next Ctrl-C ends the process by a segmentation fault.
    """
    return openvino.Core()


class OpenVinoRuntime:
    """Loads graphs into OpenVINO.

    Args:
        threads: Threads that one inference uses; 0 means one for each core.
        fast: Whether the graphs are of the form whose INT8 arithmetic saturates on no CPU.
    """

    def __init__(self, *, threads: int = 0, fast: bool = False) -> None:
        self._settings: dict[str, Any] = dict(_SETTINGS)
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        if not fast and not read_board().has_int8_dot_products:
            self._settings.update(_WITHOUT_INT8)

    def load(self, data: bytes, *, graph: Callable[[], bytes] | None = None) -> OpenVinoEngine:
        """Loads a serialised ONNX model without external data.

        Args:
            data: The model.
            graph: Reads the same bytes again where layers are to be timed. Without it, the engine
                keeps `data` for that.

        Raises:
            ModelError: OpenVINO cannot run the graph, or would compute it in other types; names the
                node or tensor.
        """
        try:
            model, compiled = self._compile(data)
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot load the graph: {self._located(data, _line(error))}"
            ) from error
        read = graph or (lambda: data)
        return OpenVinoEngine(model, compiled, read_graph(data), lambda: self._profiled(read()))

    def _compile(self, data: bytes) -> tuple[openvino.Model, openvino.CompiledModel]:
        model = _core().read_model(data)
        return model, _core().compile_model(model, "CPU", self._settings)

    def _profiled(self, data: bytes) -> _Profiled:
        """The model once more, so that it counts time."""
        settings = {**self._settings, "PERF_COUNT": True}
        compiled = _core().compile_model(_core().read_model(data), "CPU", settings)
        return _Profiled(compiled.create_infer_request(), _computed_nodes(compiled, data))

    def _refusal(self, data: bytes) -> str | None:
        try:
            self._compile(data)
        except RuntimeError as error:
            return _line(error)
        return None

    def _located(self, data: bytes, line: str) -> str:
        """Why a graph is refused, with the node that it is about."""
        try:
            node, line = first_refused(data, self._refusal)
        except LookupError:
            return line
        return f"node {node}: {line}"


@dataclass(frozen=True, slots=True)
class _Profiled:
    """A request that counts time, and the graph's nodes that each of its layers computes."""

    request: openvino.InferRequest
    nodes: Mapping[str, tuple[str, ...]]


class OpenVinoEngine:
    """A compiled graph, of which every context makes a request of its own."""

    on_device = False

    def __init__(
        self,
        model: openvino.Model,
        compiled: openvino.CompiledModel,
        graph: OnnxGraph,
        profiled: Callable[[], _Profiled],
    ) -> None:
        self._profiled = profiled
        self._compiled: openvino.CompiledModel | None = compiled
        self.inputs: Sequence[TensorSpec] = _specs(compiled.inputs, graph.inputs)
        self.outputs: Sequence[TensorSpec] = _specs(compiled.outputs, graph.outputs)
        self._shapes = _Shapes(model, self.inputs)
        read = {name for node in graph.walk() for name in node.inputs}
        for name in graph.inputs.keys() - read - {spec.name for spec in self.inputs}:
            raise ModelError(
                f"Input {name!r} is read by no node, and OpenVINO drops it. Use device 'cpu'."
            )

    def create_context(self) -> OpenVinoContext:
        """A new context on the shared graph."""
        if self._compiled is None:
            raise InferenceError("This engine is closed.")
        request = self._compiled.create_infer_request()
        return OpenVinoContext(request, self._shapes, self.inputs, self.outputs, self._profiled)

    def close(self) -> None:
        """Drops the graph; it is freed with its last context."""
        self._compiled = None


class _Shapes:
    """Refuses shapes of inputs that the layers cannot combine, before they run.

    OpenVINO's requests do so too, but on a single thread they lose the error, and what they leave
    are the outputs of the inference before.
    """

    def __init__(self, model: openvino.Model, inputs: Sequence[TensorSpec]) -> None:
        self._model = None if all(spec.is_static for spec in inputs) else model
        self._names = [spec.name for spec in inputs]
        self._known: set[tuple[tuple[int, ...], ...]] = set()
        self._lock = threading.Lock()

    def check(self, feeds: Feeds) -> None:
        """Infers the shapes of all layers, once for each combination of the inputs'.

        Raises:
            InferenceError: They do not go together.
        """
        if self._model is None:
            return
        shapes = tuple(feeds[name].shape for name in self._names)
        with self._lock:
            if shapes in self._known:
                return
            try:
                self._model.reshape({i: list(shape) for i, shape in enumerate(shapes)})
            except RuntimeError as error:
                raise InferenceError(
                    f"The model could not run on these inputs: {_line(error)}"
                ) from error
            if len(self._known) == _MOST_SHAPES:
                self._known.clear()
            self._known.add(shapes)


class OpenVinoContext:
    """Runs one inference at a time. The work is done inside `enqueue`: a CPU has no stream."""

    def __init__(
        self,
        request: openvino.InferRequest,
        shapes: _Shapes,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        profiled: Callable[[], _Profiled],
    ) -> None:
        self._request = request
        self._profiled = profiled
        self._shapes = shapes
        self._inputs = inputs
        self._outputs = outputs
        self._is_done = False

    def enqueue(self, feeds: Feeds) -> None:
        """Computes the outputs of `feeds`.

        Raises:
            FeedError: A 64-bit integer does not fit into 32 bits.
            InferenceError: A layer cannot combine the sizes it was given.
        """
        self._is_done = False
        self._run(self._request, feeds)
        self._is_done = True

    def _run(self, request: openvino.InferRequest, feeds: Feeds) -> None:
        self._shapes.check(feeds)
        for index, spec in enumerate(self._inputs):
            array = feeds[spec.name]
            _check_fits(spec, array)
            tensor = openvino.Tensor(array, shared_memory=False)  # A copy.
            request.set_input_tensor(index, tensor)
        try:
            request.start_async()  # On one thread, infer() would lose what a layer refuses.
            request.wait()
        except RuntimeError as error:
            raise InferenceError(
                f"The model could not run on these inputs: {_line(error)}"
            ) from error

    def wait(self) -> Outputs:
        """Returns copies of the outputs of the last `enqueue`, once."""
        if not self._is_done:
            raise InferenceError("Nothing was enqueued in this context.")
        self._is_done = False
        tensors = (self._request.get_output_tensor(index) for index in range(len(self._outputs)))
        return {
            spec.name: np.array(tensor.data)
            for spec, tensor in zip(self._outputs, tensors, strict=True)
        }

    def run_on_device(self, feeds: Feeds) -> dict[str, DeviceArray]:  # noqa: ARG002
        """Refused: there is no GPU.

        Raises:
            BackendUnavailableError: Always.
        """
        raise BackendUnavailableError(
            "The OpenVINO backend has no GPU memory to leave outputs in; call run()."
        )

    def layer_times(self, feeds: Feeds, *, runs: int = 1) -> list[LayerTime]:
        """Times each layer in a request of its own, of a model that is compiled for it and dropped.

        OpenVINO tells the mean of all inferences so far, in whole microseconds: the times of single
        inferences are worked out from these, the n-th to n microseconds, the mean of all to one.
        What it fused into another layer has no time.

        Raises:
            FeedError: As `enqueue`.
            InferenceError: As `enqueue`.
        """
        profiled = self._profiled()
        times: list[list[tuple[str, float]]] = []
        totals: dict[str, float] = {}
        precisions = {}
        for count in range(1, runs + 1):
            self._run(profiled.request, feeds)
            times.append([])
            for layer in profiled.request.profiling_info:
                if layer.status != openvino.ProfilingInfo.Status.EXECUTED:
                    continue
                name, before = layer.node_name, totals.get(layer.node_name, 0.0)
                totals[name] = max(before, count * layer.real_time.total_seconds() * 1000)
                times[-1].append((name, totals[name] - before))
                kind = layer.exec_type.rpartition("_")[2].lower()
                if kind in _PRECISIONS:
                    precisions[name] = _PRECISIONS[kind]
        return layer_times(times, profiled.nodes, precisions)

    def close(self) -> None:
        """Nothing to free: the request goes with the context."""


def _computed_nodes(compiled: openvino.CompiledModel, data: bytes) -> dict[str, tuple[str, ...]]:
    """The graph's nodes of each layer, which keeps the names of what was made into it."""
    labels = [node.label for node in read_graph(data).nodes]
    found = {}
    for layer in compiled.get_runtime_model().get_ops():
        facts = layer.get_rt_info()
        if "originalLayersNames" in facts:
            parts = set(str(facts["originalLayersNames"].value).split(","))
            found[layer.get_friendly_name()] = tuple(name for name in labels if name in parts)
    return found


def _specs(ports: Sequence[Any], names: Iterable[str]) -> tuple[TensorSpec, ...]:
    """The specs of inputs or outputs, named as in the graph: OpenVINO may know a tensor by many."""
    specs = []
    left = list(names)
    for port in ports:
        name = next(name for name in left if name in port.names)
        left.remove(name)
        kind = port.element_type.get_type_name()
        if kind not in _TYPES:
            raise ModelError(
                f"Tensor {name!r} is {kind}, which OpenVINO does not compute as it is. "
                "Use device 'cpu'."
            )
        shape = tuple(size.get_length() if size.is_static else -1 for size in port.partial_shape)
        specs.append(TensorSpec(name, _TYPES[kind], shape))
    return tuple(specs)


def _check_fits(spec: TensorSpec, array: Array) -> None:
    if spec.dtype not in ("int64", "uint64") or not array.size:
        return
    if array.max() >= _LARGEST or array.min() < -_LARGEST:
        raise FeedError(
            spec.name,
            expected=f"{spec.dtype} within 32 bits, in which OpenVINO computes",
            found=f"values from {array.min()} to {array.max()}",
            hint="Use device 'cpu'.",
        )


def _line(error: Exception) -> str:
    """OpenVINO's message without the places in its own source and its advertisement of a manual."""
    if found := _NODE.search(str(error)):
        return f"node {found[2]!r} ({found[1]}) cannot combine the sizes it was given."
    text = re.sub(_SOURCE, "", str(error)).partition("To facilitate the conversion")[0]
    return " ".join(text.split()) or "it does not say why."
