"""A clock that stands still unless somebody works or sleeps, and what works by it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_runtime.bench.loops import Clock
from edge_runtime.errors import InferenceError
from edge_runtime.tensors import Feeds, Outputs, TensorSpec


class FakeTime:
    """Time that passes when it is told to.

    Attributes:
        clock: It, as loops take it.
        ns: What time it is.
    """

    def __init__(self) -> None:
        self.ns = 5_000_000_000
        self.clock = Clock(now=lambda: self.ns, sleep=self.pass_by)

    def pass_by(self, seconds: float) -> None:
        self.ns += max(round(seconds * 1e9), 500)  # So that waiting without sleep ends.


class FakeEngine:
    """An engine whose n-th inference takes the n-th of some milliseconds, which come round."""

    on_device = False
    inputs: Sequence[TensorSpec] = (TensorSpec("x", "float32", (-1, 4)),)
    outputs: Sequence[TensorSpec] = (TensorSpec("y", "float32", (-1, 4)),)

    def __init__(self, time: FakeTime, *milliseconds: float) -> None:
        self.time = time
        self.milliseconds = milliseconds
        self.fed: list[float] = []
        self.closed = 0
        self.fails_at = -1

    def create_context(self) -> FakeEngine:
        return self

    def enqueue(self, feeds: Feeds) -> None:
        if len(self.fed) == self.fails_at:
            raise InferenceError("No more.")
        self.time.pass_by(self.milliseconds[len(self.fed) % len(self.milliseconds)] / 1000)
        self.fed.append(float(feeds["x"].flat[0]))

    def wait(self) -> Outputs:
        return {"y": np.zeros((1, 4), np.float32)}

    def close(self) -> None:
        self.closed += 1


def feeds(count: int = 3) -> list[Feeds]:
    """float32 [1, 4], told apart by their value."""
    return [{"x": np.full((1, 4), index, np.float32)} for index in range(count)]
