"""Inferences in any order, in any shape, from and to any memory, some of which fail."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from edge_runtime.backends.tensorrt.context import TensorRTContext
from edge_runtime.cuda.array import DeviceArray
from edge_runtime.errors import DeviceError, FeedError
from edge_runtime.gpu_config import GpuConfig
from tests.software_gpu.gpu import SoftwareGpu
from tests.software_gpu.runtime.conftest import Bench, several

STEPS = 120
PROFILES = [
    {"a": "1x3,2x3,3x3", "b": "1x3,2x3,3x3"},
    {"a": "2x3,4x3,150x3", "b": "2x3,4x3,150x3"},
]
ROWS = (1, 2, 2, 2, 3, 5, 5, 150)
CONFIGS = {
    "plain": GpuConfig(),
    "graphs": GpuConfig(cuda_graphs=True),
    "shared": GpuConfig(share_memory=True),
    "mapped": GpuConfig(mapped=True),
    "all": GpuConfig(cuda_graphs=True, share_memory=True, mapped=True, spin=True),
}
CALLS = (
    "cuMemcpyHtoDAsync",
    "cuMemcpyDtoHAsync",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuCtxPushCurrent",
    "cuStreamBeginCapture",
    "cuGraphInstantiate",
    "cuGraphLaunch",
    "cuMemAlloc",
    "cuMemHostAlloc",
)


@dataclass
class Player:
    """Plays with some contexts of one engine, and knows what they have to answer."""

    bench: Bench
    contexts: list[TensorRTContext]
    dice: random.Random
    expected: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    kept: list[tuple[DeviceArray, np.ndarray]] = field(default_factory=list)

    def feeds(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Feeds, of which some are on the GPU, and what comes of them."""
        rows = self.dice.choice(ROWS)
        feeds: dict[str, Any] = {}
        values: dict[str, np.ndarray] = {}
        for name in "ab":
            there = [pair for pair in self.kept if pair[1].shape[0] == rows]
            if there and self.dice.random() < 0.3:
                feeds[name], values[name] = self.dice.choice(there)
            else:
                low = self.dice.randint(-99, 99)
                values[name] = np.arange(low, low + rows * 3, dtype=np.float32).reshape(rows, 3)
                feeds[name] = values[name].copy()
        a, b = values["a"], values["b"]
        return feeds, {"sum": a + b, "gap": a - b}

    def step(self) -> None:
        number = self.dice.randrange(len(self.contexts))
        context = self.contexts[number]
        if number in self.expected:
            expected = self.expected.pop(number)
            self.check(context.wait(), expected)
            return
        feeds, expected = self.feeds()
        if self.dice.random() < 0.2:
            on_device = context.run_on_device(feeds)
            self.kept.extend((on_device[name], expected[name]) for name in expected)
        else:
            self.expected[number] = expected
            try:
                context.enqueue(feeds)
            except DeviceError:
                del self.expected[number]
                raise
        for feed in feeds.values():
            if isinstance(feed, np.ndarray):
                feed[:] = 12345
        if len(self.kept) > 6 and not self.expected:
            array, value = self.kept.pop(self.dice.randrange(len(self.kept)))
            np.testing.assert_array_equal(array.to_host(), value)
            array.close()
        if self.dice.random() < 0.05 and number not in self.expected:
            with pytest.raises(FeedError):
                context.enqueue({"a": np.ones((151, 3), np.float32), "b": np.ones((151, 3))})

    def check(self, found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
        assert list(found) == list(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)

    def finish(self) -> None:
        for number, expected in self.expected.items():
            self.check(self.contexts[number].wait(), expected)
        for array, value in self.kept:
            np.testing.assert_array_equal(array.to_host(), value)
            array.close()


def player(bench: Bench, config: GpuConfig, seed: int) -> Player:
    engine = bench.engine(several(), PROFILES, config)
    contexts = [engine.create_context() for _ in range(3)]
    bench.opened.extend(contexts)
    return Player(bench, contexts, random.Random(seed))


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("config", CONFIGS)
def test_answers_are_right_in_any_order(bench: Bench, config: str) -> None:
    playing = player(bench, CONFIGS[config], seed=1)
    for _ in range(STEPS):
        playing.step()
    playing.finish()


@pytest.mark.parametrize("config", CONFIGS)
def test_answers_are_right_where_some_calls_fail(
    bench: Bench, gpu: SoftwareGpu, config: str
) -> None:
    """An error is the injected one; whatever was not told to have failed is right."""
    gpu.mode("lazy")
    playing = player(bench, CONFIGS[config], seed=2)
    failed = 0
    for _ in range(2 * STEPS):
        call = playing.dice.choice(CALLS)
        if playing.dice.random() < 0.3:
            gpu.fail(call, nth=playing.dice.randint(1, 3), error=999)
        try:
            playing.step()
        except DeviceError as error:
            assert (error.code, error.call.removesuffix("WithFlags")) == (999, call)
            failed += 1
        gpu.fail(call, nth=0)
    assert failed > 3
    playing.finish()
