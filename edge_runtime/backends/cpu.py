"""The CPU backend: ONNX Runtime on the bundle's graphs, in arithmetic that does not saturate.

On x86 CPUs without VNNI, ONNX Runtime's fused INT8 kernels add pairs of products in 16 bits and
saturate: on one and the same file that costs points of accuracy that no GPU loses. `EXACT` keeps it
from fusing Q/DQ pairs, so that every INT8 layer computes on the dequantized values in FP32, which
holds their products exactly and agrees on every CPU. The fast graph of a bundle cannot saturate
even when fused, since its weights have 7 bits: it runs with ONNX Runtime's own settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edge_runtime.backends.layer_times import LayerTime, layer_times
from edge_runtime.backends.onnx_graph import first_refused, read_graph, with_versions
from edge_runtime.backends.ort_profile import Kernel, computed_nodes, inferences
from edge_runtime.cuda.array import DeviceArray
from edge_runtime.errors import BackendUnavailableError, InferenceError, ModelError
from edge_runtime.tensors import Array, Feeds, Outputs, TensorSpec

EXACT = {"session.disable_quant_qdq": "1"}
"""Session settings under which INT8 arithmetic does not saturate."""

VERSION = onnxruntime.__version__

CpuSession: TypeAlias = onnxruntime.InferenceSession

_ORT_TYPES = {
    "float": "float32",
    "double": "float64",
    "string": "object",
    **{f"{kind}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    "float16": "float16",
    "bool": "bool",
}
"""numpy's names of ONNX Runtime's element types, of those that it hands out as numpy arrays."""

_ORT_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
_LOAD_ERRORS = (*_ORT_ERRORS, UnicodeDecodeError)  # A reason may quote what is no UTF-8.

_SOURCE = re.compile(r"/\S+:\d+ \S.*?\)(?:::<lambda\(\S*\)>| const)? (?:\[with [^]]*\] )?(?=\S)")
"""The place in ONNX Runtime's own source, and the signature of the function there."""

_TOO_NEW = (  # In the order in which ONNX Runtime looks at them.
    ("ir", "IR version", r"IR version: (\d+), max supported IR version: (\d+)"),
    ("opset", "operator set", r"Opset (\d+) is under .* domain ai\.onnx is till opset (\d+)"),
)


class CpuRuntime:
    """Loads graphs into ONNX Runtime.

    Args:
        threads: Threads that one inference uses; 0 means one for each core.
        fast: Whether the graphs are of the form whose fused INT8 kernels cannot saturate.
    """

    def __init__(self, *, threads: int = 0, fast: bool = False) -> None:
        self._threads = threads
        self._fast = fast

    def load(self, data: bytes, *, graph: Callable[[], bytes] | None = None) -> CpuEngine:
        """Loads a serialised ONNX model without external data.

        Args:
            data: The model.
            graph: Reads the same bytes again where layers are to be timed. Without it, the engine
                keeps `data` for that.

        Raises:
            ModelError: ONNX Runtime cannot run the graph; its reason is in the message.
        """
        session = open_session(data, threads=self._threads, exact=not self._fast)
        return CpuEngine(session, _Source(graph or (lambda: data), self._threads, not self._fast))


@dataclass(frozen=True, slots=True)
class _Source:
    """The graph of an engine and how it was loaded, to load it once more with a profiler."""

    read: Callable[[], bytes]
    threads: int
    exact: bool


class CpuEngine:
    """A graph in ONNX Runtime, whose session serves any number of threads at a time."""

    on_device = False

    def __init__(self, session: CpuSession, source: _Source) -> None:
        self._session: CpuSession | None = session
        self._source = source
        self.inputs: Sequence[TensorSpec] = tuple(map(_spec, session.get_inputs()))
        self.outputs: Sequence[TensorSpec] = tuple(map(_spec, session.get_outputs()))

    def create_context(self) -> CpuContext:
        """A new context on the shared session."""
        if self._session is None:
            raise InferenceError("This engine is closed.")
        return CpuContext(self._session, self._source)

    def close(self) -> None:
        """Drops the session; it is freed with its last context."""
        self._session = None


class CpuContext:
    """Runs one inference at a time. The work is done inside `enqueue`: a CPU has no stream."""

    def __init__(self, session: CpuSession, source: _Source) -> None:
        self._session = session
        self._source = source
        self._names = [output.name for output in session.get_outputs()]
        self._outputs: Outputs | None = None
        self._aliases: list[str] | None = None

    def enqueue(self, feeds: Feeds) -> None:
        """Computes the outputs of `feeds`.

        Raises:
            InferenceError: A layer cannot combine the sizes it was given.
        """
        arrays = run_session(self._session, self._names, feeds)
        outputs: Outputs = dict(zip(self._names, arrays, strict=True))
        if self._aliases is None:  # It is the graph that decides it, so the first run shows it.
            self._aliases = [
                name
                for name, array in outputs.items()
                if any(np.may_share_memory(array, feed) for feed in feeds.values())
            ]
        for name in self._aliases:  # ONNX Runtime 1.23 hands out an input that is an output too.
            outputs[name] = outputs[name].copy()
        self._outputs = outputs

    def wait(self) -> Outputs:
        """Returns the outputs of the last `enqueue`, once."""
        outputs, self._outputs = self._outputs, None
        if outputs is None:
            raise InferenceError("Nothing was enqueued in this context.")
        return outputs

    def run_on_device(self, feeds: Feeds) -> dict[str, DeviceArray]:  # noqa: ARG002
        """Refused: there is no GPU.

        Raises:
            BackendUnavailableError: Always.
        """
        raise BackendUnavailableError(
            "The CPU backend has no GPU memory to leave outputs in; call run()."
        )

    def layer_times(self, feeds: Feeds, *, runs: int = 1) -> list[LayerTime]:
        """Times each layer in a session of its own, which is loaded for it and dropped.

        ONNX Runtime measures in whole microseconds, and measuring adds some to each layer.

        Raises:
            InferenceError: As `enqueue`.
        """
        source = self._source
        data = source.read()
        options = _options(source.threads, exact=source.exact)
        with TemporaryDirectory(prefix="edge-runtime-") as folder:
            optimized = Path(folder, "optimized.onnx")
            options.optimized_model_filepath = str(optimized)
            profile = _profile(data, options, feeds, runs, Path(folder))
            nodes = computed_nodes(read_graph(data), read_graph(optimized.read_bytes()))
        times = [[(kernel.name, kernel.microseconds / 1000) for kernel in run] for run in profile]
        return layer_times(times, nodes)

    def close(self) -> None:
        """Nothing to free: the session belongs to the engine."""


def open_session(
    graph: bytes | str,
    *,
    threads: int = 0,
    exact: bool = True,
    lean: bool = False,
    small: bool = False,
) -> CpuSession:
    """A session on the CPU, of a serialised model or the path of one.

    Args:
        graph: The model.
        threads: Threads that one inference uses; 0 means one for each core.
        exact: False leaves ONNX Runtime's own defaults, whose INT8 kernels may saturate.
        lean: For one of many sessions in turn: let idle threads sleep, not spin.
        small: Keep the weights in the layout that they have: needs less memory to load, and runs
            a little slower.

    Raises:
        ModelError: ONNX Runtime cannot run the graph; the message names the node, where it is one.
    """
    options = _options(threads, exact=exact)
    if lean:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if small:
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = level
    try:
        return _open(graph, options)
    except _LOAD_ERRORS as error:
        line = _line(error)
        reason = line if isinstance(graph, str) else _located(graph, line)
        raise ModelError(f"ONNX Runtime cannot load the graph: {reason}") from error


def run_session(session: CpuSession, outputs: Sequence[str], feeds: Feeds) -> list[Array]:
    """Runs a session and returns the named outputs, which belong to the caller.

    Raises:
        InferenceError: A layer cannot combine the sizes it was given.
    """
    try:
        arrays: list[Array] = session.run(outputs, feeds)
    except _ORT_ERRORS as error:
        raise InferenceError(f"The model could not run on these inputs: {_line(error)}") from error
    return arrays


def trace(graph: bytes, feeds: Feeds) -> list[Kernel]:
    """Runs a model once, node by node as it is written, and says what each took and made.

    Args:
        graph: A serialised model that `open_session` takes.
        feeds: Its inputs.

    Returns:
        The nodes of the main graph in the order in which they ran, with the element type, as numpy
        calls it, and the shape of each input and output that is there. Nothing is kept of values.

    Raises:
        ModelError: ONNX Runtime cannot run the graph.
        InferenceError: A layer cannot combine the sizes it was given.
    """
    options = _options(1, exact=True)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Weights that it lays out anew at loading are missing among the inputs.
    options.add_session_config_entry("session.disable_prepacking", "1")
    with TemporaryDirectory(prefix="edge-runtime-") as folder:
        (kernels,) = _profile(graph, options, feeds, 1, Path(folder))
    return [kernel.with_types(_ORT_TYPES) for kernel in kernels]


def _profile(
    data: bytes, options: onnxruntime.SessionOptions, feeds: Feeds, runs: int, folder: Path
) -> list[list[Kernel]]:
    """The nodes of each of some inferences; the profile is written to `folder`."""
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    try:
        session = _open(data, options)
    except _LOAD_ERRORS as error:
        raise ModelError(f"ONNX Runtime cannot load the graph: {_line(error)}") from error
    names = [output.name for output in session.get_outputs()]
    try:
        for _ in range(runs):
            run_session(session, names, feeds)
    finally:
        written = Path(session.end_profiling())
    events: list[dict[str, Any]] = json.loads(written.read_bytes())
    return inferences(events)


def _options(threads: int, *, exact: bool = False) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # What it would print to stderr is in the exceptions.
    options.intra_op_num_threads = threads
    for key, value in EXACT.items() if exact else ():
        options.add_session_config_entry(key, value)
    return options


def _open(graph: bytes | str, options: onnxruntime.SessionOptions) -> CpuSession:
    session = onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    # It keeps the bytes, a copy of all weights, for a change of providers that never comes.
    session._model_bytes = None
    return session


def _located(graph: bytes, line: str) -> str:
    """Why a graph is refused, with the node that it is about.

    ONNX Runtime names none, or one inside of the function that a node stands for, or stops before
    it looks at any since the graph's version is too new.
    """
    if not read_graph(graph).nodes:
        return line
    hint = ""
    for version, what, pattern in _TOO_NEW:
        if found := re.search(pattern, line):
            hint = (
                f"the graph has {what} {found[1]}, and ONNX Runtime {VERSION} knows none after "
                f"{found[2]}: export the model with that, or update ONNX Runtime"
            )
            graph = with_versions(graph, **{version: int(found[2])})
            line = _refusal(graph) or ""
    try:
        node, line = first_refused(graph, _refusal)
    except LookupError:
        return hint or line
    return f"node {node}: {line}" + (f" ({hint})" if hint else "")


def _refusal(graph: bytes) -> str | None:
    """Why a graph, as it stands, cannot be loaded."""
    options = _options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        _open(graph, options)
    except _LOAD_ERRORS as error:
        return _line(error)
    return None


def _spec(argument: onnxruntime.NodeArg) -> TensorSpec:
    """A `NodeArg` says `tensor(float)`, and None or a name where a dimension is dynamic."""
    kind = argument.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _ORT_TYPES:
        raise ModelError(
            f"Tensor {argument.name!r} is {kind}, which numpy arrays cannot hold. Keep the model's "
            "inputs and outputs FP32; --precision bf16 makes the inside BF16."
        )
    shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)
    return TensorSpec(argument.name, _ORT_TYPES[kind], shape)


def _line(error: Exception) -> str:
    """ONNX Runtime's message without its codes and its own sources' paths and signatures."""
    text = str(error)
    if isinstance(error, UnicodeDecodeError):
        text = error.object.decode(errors="backslashreplace")
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(_SOURCE, "", text, count=1)
    return " ".join(text.split()) or "it does not say why."
