"""The four Protocols that every backend implements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

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

    def layer_times(self, feeds: DeviceFeeds) -> list[tuple[str, float]]:
        """Runs an inference and returns each layer's name and milliseconds; slower ever after.

        Raises:
            BackendUnavailableError: The backend does not time layers.
        """

    def close(self) -> None:
        """Frees what the context holds. Calling it again does nothing."""


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


class Runtime(Protocol):
    """Loads what a bundle holds for its backend."""

    def load(self, data: bytes) -> Engine:
        """Loads a plan, or for the CPU a graph, whose digest the bundle vouches for."""
