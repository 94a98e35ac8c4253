"""The four Protocols that every backend implements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from edge_runtime.backends.layer_times import LayerTime as LayerTime
from edge_runtime.bundle.manifest import PlanKey as PlanKey
from edge_runtime.config import OptimizationProfile
from edge_runtime.cuda.array import DeviceArray
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import DeviceFeeds, Outputs, TensorSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """A serialised engine and what it was built for.

    Attributes:
        key: What it was built for.
        data: Its bytes.
        verdict: What the builder made of the graph, as plain JSON; see `tensorrt.verdict`. None
            where it could not be asked, as without a GPU.
    """

    key: PlanKey
    data: bytes = field(repr=False)
    verdict: Mapping[str, Any] | None = field(default=None, repr=False)


class Builder(Protocol):
    """Turns a graph whose precision is already written in it into a plan."""

    @property
    def key(self) -> PlanKey:
        """What `build` builds for."""

    def build(
        self,
        graph: bytes,
        profiles: Sequence[OptimizationProfile],
        progress: Progress = silent,
    ) -> Plan:
        """Builds a plan from a serialised ONNX model without external data.

        Raises:
            BuildError: The library refused; its ERROR lines are in the message.
        """


class ExecutionContext(Protocol):
    """One stream and its buffers; at most one inference is in flight in it."""

    def enqueue(self, feeds: DeviceFeeds) -> None:
        """Starts an inference on feeds that `check_feeds` has passed.

        Arrays in host memory are staged before this returns: the caller may overwrite them at once.
        Those on the GPU must stay as they are until `wait` returns.
        """

    def wait(self) -> Outputs:
        """Waits for what was enqueued and returns its outputs, which belong to the caller."""

    def run_on_device(self, feeds: DeviceFeeds) -> dict[str, DeviceArray]:
        """Runs an inference whose outputs stay in the GPU's memory; they belong to the caller.

        Raises:
            BackendUnavailableError: The backend has no such memory.
        """

    def layer_times(self, feeds: DeviceFeeds, *, runs: int = 1) -> list[LayerTime]:
        """Times each layer in some inferences, in the order of the layers; slower ever after."""

    def close(self) -> None:
        """Frees what the context holds. Calling it again does nothing."""


class QueryTimes(NamedTuple):
    """When the parts of a query on a GPU began and how long they took, all in milliseconds.

    The host's part counts from the moment at which the timing began on the host's clock, the
    others from the same moment on the GPU's.

    Attributes:
        enqueue_start: When the host began to enqueue the engine's work.
        enqueue: How long it took for that.
        h2d_start: When the copy to the GPU began; without copies, as `compute_start`.
        h2d: How long that took; None without copies.
        compute_start: When the engine's work began.
        compute: How long it took.
        d2h_start: When the copy from the GPU began; without copies, when the engine was done.
        d2h: How long that took; None without copies.
    """

    enqueue_start: float
    enqueue: float
    h2d_start: float
    h2d: float | None
    compute_start: float
    compute: float
    d2h_start: float
    d2h: float | None


class TimedQueries(Protocol):
    """The same inference again and again, timed by the GPU's clock; see `TimedEngine.timed`.

    Attributes:
        began: When the timing began, in seconds of `time.perf_counter`.
    """

    began: float

    def enqueue(self) -> None:
        """Starts a query, if there is room for one: at most two are in flight."""

    def wait(self) -> QueryTimes | None:
        """Waits for the query before the latest one; None where there is none."""

    def drain(self) -> list[QueryTimes]:
        """Waits for all that is in flight."""

    def close(self) -> None:
        """Frees what only the timing needs. Calling it again does nothing."""


class Engine(Protocol):
    """A loaded model, shared by threads."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """The inputs, in the model's order."""

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """The outputs, in the model's order."""

    @property
    def on_device(self) -> bool:
        """Whether inputs may lie in a GPU's memory, and outputs stay there."""

    def create_context(self) -> ExecutionContext:
        """A new context. May be called from any thread."""

    def close(self) -> None:
        """Frees the engine, after all its contexts. Calling it again does nothing."""


@runtime_checkable
class TimedEngine(Engine, Protocol):
    """An engine on a GPU, whose inferences can be timed by the GPU's own clock."""

    def timed(self, feeds: DeviceFeeds, *, transfers: bool) -> TimedQueries:
        """Prepares an inference that is then repeated on the same inputs, as trtexec does.

        Args:
            feeds: Arrays in host memory that `check_feeds` has passed.
            transfers: Whether each query copies its inputs to the GPU and its outputs back.
        """


class Runtime(Protocol):
    """Loads what a bundle holds for its backend."""

    def load(self, data: bytes, *, graph: Callable[[], bytes] | None = None) -> Engine:
        """Loads a plan, or for the CPU a graph, whose digest the bundle vouches for.

        Args:
            data: The plan or graph.
            graph: Reads the bundle's graph; called where an engine needs it later on.
        """
