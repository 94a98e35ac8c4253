"""The four Protocols that every backend implements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edge_runtime.bundle.manifest import PlanKey as PlanKey
from edge_runtime.config import OptimizationProfile
from edge_runtime.tensors import Feeds, Outputs, TensorSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """A serialised engine and what it was built for."""

    key: PlanKey
    data: bytes = field(repr=False)


class Builder(Protocol):
    """Turns a graph whose precision is already written in it into a plan."""

    @property
    def key(self) -> PlanKey:
        """What `build` builds for."""

    def build(self, graph: bytes, profile: OptimizationProfile) -> Plan:
        """Builds a plan from a serialised ONNX model without external data.

        Raises:
            BuildError: The library refused; its ERROR lines are in the message.
        """


class ExecutionContext(Protocol):
    """One stream and its buffers; at most one inference is in flight in it."""

    def enqueue(self, feeds: Feeds) -> None:
        """Starts an inference on feeds that `check_feeds` has passed.

        Inputs are staged before this returns: the caller may overwrite them at once.
        """

    def wait(self) -> Outputs:
        """Waits for what was enqueued and returns its outputs, which belong to the caller."""

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

    def create_context(self) -> ExecutionContext:
        """A new context. May be called from any thread."""

    def close(self) -> None:
        """Frees the engine, after all its contexts. Calling it again does nothing."""


class Runtime(Protocol):
    """Loads what a bundle holds for its backend."""

    def load(self, data: bytes) -> Engine:
        """Loads a plan, or for the CPU a graph, whose digest the bundle vouches for."""
