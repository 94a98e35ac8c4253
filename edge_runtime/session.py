"""Opens a bundle and runs it: a pool of execution contexts behind `run` and `submit`."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

from edge_runtime.backends import registry
from edge_runtime.backends.base import Engine, ExecutionContext, LayerTime
from edge_runtime.bundle import Bundle
from edge_runtime.choices import member, settings
from edge_runtime.config import CpuMode
from edge_runtime.cuda.array import DeviceArray
from edge_runtime.cuda.interop import is_device_array
from edge_runtime.errors import ConfigError, DeviceError, SessionClosedError
from edge_runtime.gpu_config import DeviceErrorPolicy, GpuConfig
from edge_runtime.tensors import DeviceFeeds, Outputs, TensorSpec, check_feeds

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class Session:
    """A loaded model that any number of threads may use at once.

    Open one with `load`. `contexts` inferences run at a time; further ones wait their turn.

    Attributes:
        inputs: The inputs, in the model's order.
        outputs: The outputs, in the model's order.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        backend: str,
        contexts: int = 1,
        fallback: Callable[[], Session] | None = None,
    ) -> None:
        """Opens a session on an engine, which it closes when it is closed.

        Args:
            engine: What runs.
            backend: Its backend's name.
            contexts: Inferences that may run at a time.
            fallback: Opens what runs instead, once the GPU has failed; None lets the error out.
        """
        if contexts < 1:
            raise ConfigError(f"contexts is {contexts}; at least one is needed to run anything.")
        self._backend = backend
        self.inputs: Sequence[TensorSpec] = engine.inputs
        self.outputs: Sequence[TensorSpec] = engine.outputs
        self._engine = engine
        self._is_on_device = is_device_array if engine.on_device else None
        self._contexts = contexts
        self._idle: SimpleQueue[ExecutionContext | None] = SimpleQueue()
        made: list[ExecutionContext] = []
        try:
            for _ in range(contexts):
                made.append(engine.create_context())
        except BaseException:
            for context in made:
                context.close()
            raise
        for context in made:
            self._idle.put(context)
        self._lock = threading.Lock()
        self._workers: ThreadPoolExecutor | None = None
        self._fallback = fallback
        self._instead: Session | None = None
        self._closed = False

    @property
    def backend(self) -> str:
        """Which backend runs it now, such as `cpu`."""
        return self._backend if self._instead is None else self._instead.backend

    def run(self, feeds: DeviceFeeds) -> Outputs:
        """Runs one inference and waits for it.

        Args:
            feeds: One array for each input, of exactly its type and shape. They stay the caller's.
                On a GPU, arrays that lie in its memory are taken too (`__cuda_array_interface__` or
                DLPack) and read in place.

        Returns:
            One new array for each output, by name; they are the caller's.

        Raises:
            FeedError: An input is missing, unknown, or of another type or shape.
            InferenceError: The model could not run on these inputs.
            DeviceError: The GPU failed, and the session was not to go on without it.
            SessionClosedError: The session is closed.
        """
        check_feeds(self.inputs, feeds, self._is_on_device)
        return self._run_checked(feeds)

    def run_on_device(self, feeds: DeviceFeeds) -> dict[str, DeviceArray]:
        """Runs one inference, waits for it, and leaves the outputs in the GPU's memory.

        Args:
            feeds: As `run`.

        Returns:
            An array on the GPU for each output, by name. They are the caller's, other libraries
            take them without a copy, and they may outlive the session.

        Raises:
            BackendUnavailableError: The session runs on the CPU.
            FeedError: As `run`.
            InferenceError: As `run`.
            DeviceError: The GPU failed.
            SessionClosedError: The session is closed.
        """
        check_feeds(self.inputs, feeds, self._is_on_device)
        return self._with_context(lambda context: context.run_on_device(feeds))

    def layer_times(self, feeds: DeviceFeeds, *, runs: int = 1) -> list[LayerTime]:
        """Runs inferences in a context of its own and times each layer.

        A CPU loads the graph once more for it, so that the session itself stays as fast as it was.

        Args:
            feeds: As `run`.
            runs: How many inferences; the first ones are slow.

        Returns:
            The layers in the order in which they ran. They are timed one by one, so that their sum
            is more than an inference takes.

        Raises:
            BundleError: The bundle was replaced or damaged since the session was opened.
            FeedError: As `run`.
            InferenceError: As `run`.
            DeviceError: The GPU failed.
            SessionClosedError: The session is closed.
        """
        check_feeds(self.inputs, feeds, self._is_on_device)
        if self._closed:
            raise SessionClosedError
        context = self._engine.create_context()
        try:
            return context.layer_times(feeds, runs=runs)
        finally:
            context.close()

    def submit(self, feeds: DeviceFeeds) -> Future[Outputs]:
        """Starts one inference and returns at once.

        The feeds are read on a worker thread: leave them alone until the future is done.

        Returns:
            A future of what `run` would return or raise. Wrong feeds raise here and now.
        """
        check_feeds(self.inputs, feeds, self._is_on_device)
        with self._lock:
            if self._closed:
                raise SessionClosedError
            if self._workers is None:
                self._workers = ThreadPoolExecutor(self._contexts, "edge-runtime")
            return self._workers.submit(self._run_checked, feeds)

    def close(self) -> None:
        """Lets what is in flight finish, then frees everything. Calling it again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._workers is not None:
            self._workers.shutdown()
        for _ in range(self._contexts):
            context = self._idle.get()
            if context is not None:
                context.close()
        self._idle.put(None)  # Whoever still waits for a context finds this and passes it on.
        self._engine.close()
        if self._instead is not None:
            self._instead.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        inputs = ", ".join(f"{spec.name}: {spec}" for spec in self.inputs)
        return f"<Session on {self.backend}: {inputs}>"

    def _run_checked(self, feeds: DeviceFeeds) -> Outputs:
        if self._instead is None:
            try:
                return self._with_context(lambda context: _run(context, feeds))
            except DeviceError as error:
                self._replace(error)
        assert self._instead is not None
        return self._instead.run(feeds)

    def _with_context(self, use: Callable[[ExecutionContext], _Result]) -> _Result:
        context = self._idle.get()
        if context is None:
            self._idle.put(None)
            raise SessionClosedError
        try:
            return use(context)
        finally:
            self._idle.put(context)

    def _replace(self, error: DeviceError) -> None:
        """Goes on without the GPU if that was asked for; raises the error if not."""
        if self._fallback is None:
            raise error
        with self._lock:
            if self._closed:
                raise error
            if self._instead is None:
                self._instead = self._fallback()
                _log.warning("%s The session goes on on %s.", error, self._instead.backend)


def load(
    source: str | os.PathLike[str] | Bundle,
    *,
    device: str = "auto",
    contexts: int = 1,
    threads: int = 0,
    gpu: GpuConfig | Mapping[str, Any] | None = None,
    cpu_mode: CpuMode | str = CpuMode.EXACT,
) -> Session:
    """Opens a bundle for inference.

    Args:
        source: A bundle or its path.
        device: `cpu`, `openvino`, `tensorrt` or `tensorrt-rtx`, which is used or refused; or
            `auto`, which takes the best GPU that this machine and the bundle have, else `cpu`, and
            logs why better ones were passed over.
        contexts: Inferences that may run at a time. With two or more on a GPU, the copies of one
            overlap with the work of another.
        threads: CPU threads that one inference uses; 0 means one for each core.
        gpu: How a GPU is used: a `GpuConfig`, or some of its settings by name, such as
            `{"cuda_graphs": True, "on_device_error": "cpu"}`.
        cpu_mode: How an INT8 bundle runs where it is a CPU that runs it: `exact` computes what a
            GPU does; `fast` takes the bundle's second graph, if it was built with one, which is
            quicker and not quite the same.

    Returns:
        An open session; close it, or use it in a `with` statement.

    Raises:
        BundleError: The file is not a sound bundle.
        BackendUnavailableError: The device that was asked for cannot run this bundle here, or the
            bundle has no graph for `cpu_mode`.
        ConfigError: A setting is not one, or asks for what the GPU or the plan does not have.
        DeviceError: The GPU failed.
    """
    bundle = source if isinstance(source, Bundle) else Bundle.open(source)
    gpu = settings(GpuConfig, gpu, "gpu")
    mode = member(CpuMode, cpu_mode, "cpu_mode")
    choice = registry.choose(bundle, device, gpu, mode)
    for reason in choice.passed_over:
        _log.info("%s", reason)
    engine = registry.open_engine(bundle, choice, threads=threads, gpu=gpu, cpu_mode=mode)

    def on_cpu() -> Session:
        return load(bundle, device="cpu", contexts=contexts, threads=threads, cpu_mode=mode)

    goes_on = gpu.on_device_error is DeviceErrorPolicy.CPU and choice.plan is not None
    try:
        return Session(
            engine,
            backend=choice.backend,
            contexts=contexts,
            fallback=on_cpu if goes_on else None,
        )
    except BaseException:
        engine.close()
        raise


def _run(context: ExecutionContext, feeds: DeviceFeeds) -> Outputs:
    context.enqueue(feeds)
    return context.wait()
