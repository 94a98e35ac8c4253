"""Opens a bundle and runs it: a pool of execution contexts behind `run` and `submit`."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType

from edge_runtime.backends import registry
from edge_runtime.backends.base import Engine, ExecutionContext
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ConfigError, SessionClosedError
from edge_runtime.tensors import Feeds, Outputs, TensorSpec, check_feeds

_log = logging.getLogger(__name__)


class Session:
    """A loaded model that any number of threads may use at once.

    Open one with `load`. `contexts` inferences run at a time; further ones wait their turn.

    Attributes:
        backend: Which backend runs it, such as `cpu`.
        inputs: The inputs, in the model's order.
        outputs: The outputs, in the model's order.
    """

    def __init__(self, engine: Engine, *, backend: str, contexts: int = 1) -> None:
        if contexts < 1:
            raise ConfigError(f"contexts is {contexts}; at least one is needed to run anything.")
        self.backend = backend
        self.inputs: Sequence[TensorSpec] = engine.inputs
        self.outputs: Sequence[TensorSpec] = engine.outputs
        self._engine = engine
        self._contexts = contexts
        self._idle: SimpleQueue[ExecutionContext | None] = SimpleQueue()
        for _ in range(contexts):
            self._idle.put(engine.create_context())
        self._lock = threading.Lock()
        self._workers: ThreadPoolExecutor | None = None
        self._closed = False

    def run(self, feeds: Feeds) -> Outputs:
        """Runs one inference and waits for it.

        Args:
            feeds: One array for each input, of exactly its type and shape. They stay the caller's.

        Returns:
            One new array for each output, by name; they are the caller's.

        Raises:
            FeedError: An input is missing, unknown, or of another type or shape.
            InferenceError: The model could not run on these inputs.
            SessionClosedError: The session is closed.
        """
        check_feeds(self.inputs, feeds)
        return self._run_checked(feeds)

    def submit(self, feeds: Feeds) -> Future[Outputs]:
        """Starts one inference and returns at once.

        The feeds are read on a worker thread: leave them alone until the future is done.

        Returns:
            A future of what `run` would return or raise. Wrong feeds raise here and now.
        """
        check_feeds(self.inputs, feeds)
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

    def _run_checked(self, feeds: Feeds) -> Outputs:
        context = self._idle.get()
        if context is None:
            self._idle.put(None)
            raise SessionClosedError
        try:
            context.enqueue(feeds)
            return context.wait()
        finally:
            self._idle.put(context)


def load(
    source: str | os.PathLike[str] | Bundle,
    *,
    device: str = "auto",
    contexts: int = 1,
    threads: int = 0,
) -> Session:
    """Opens a bundle for inference.

    Args:
        source: A bundle or its path.
        device: `cpu`, `tensorrt` or `tensorrt-rtx`, which is used or refused; or `auto`, which
            takes the best that this machine and the bundle have, and logs why better ones were
            passed over.
        contexts: Inferences that may run at a time.
        threads: CPU threads that one inference uses; 0 means one for each core.

    Returns:
        An open session; close it, or use it in a `with` statement.

    Raises:
        BundleError: The file is not a sound bundle.
        BackendUnavailableError: The device that was asked for cannot run this bundle here.
    """
    bundle = source if isinstance(source, Bundle) else Bundle.open(source)
    backend, reasons = registry.choose(bundle, device)
    for reason in reasons:
        _log.info("%s", reason)
    engine = registry.open_engine(bundle, backend, threads=threads)
    return Session(engine, backend=backend, contexts=contexts)
