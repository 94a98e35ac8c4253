"""Sessions on a GPU: many threads, closing in the middle, faults at random, going on without it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_runtime
from edge_runtime.backends import registry
from edge_runtime.backends.cpu import CpuRuntime
from edge_runtime.backends.registry import Choice
from edge_runtime.backends.tensorrt.context import TensorRTContext
from edge_runtime.backends.tensorrt.runtime import TensorRTEngine, TensorRTRuntime
from edge_runtime.config import BuildConfig
from edge_runtime.errors import DeviceError, InferenceError, SessionClosedError
from edge_runtime.gpu_config import GpuConfig
from edge_runtime.session import Session
from tests.software_gpu.runtime.conftest import BATCHES, Bench, affine, ramp

THREADS = 8
CALLS = 150


def on_cpu() -> Session:
    return Session(CpuRuntime().load(affine().SerializeToString()), backend="cpu", contexts=2)


def session(bench: Bench, contexts: int = 1, config: GpuConfig | None = None) -> Session:
    engine = bench.engine(affine(), [BATCHES], config)
    bench.opened.remove(engine)  # The session closes it.
    return Session(engine, backend="tensorrt", contexts=contexts)


CONFIGS = [GpuConfig(), GpuConfig(cuda_graphs=True), GpuConfig(share_memory=True)]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("contexts", [1, 3])
def test_many_threads_share_a_session(bench: Bench, contexts: int, config: GpuConfig) -> None:
    with session(bench, contexts, config) as shared, ThreadPoolExecutor(THREADS) as threads:

        def many(seed: int) -> None:
            for turn in range(CALLS):
                x = ramp(1 + (seed + turn // 10) % 5, seed * 1000 + turn)
                np.testing.assert_array_equal(shared.run({"x": x})["y"], 2 * x + 1)

        list(threads.map(many, range(THREADS)))


def test_each_thread_may_have_a_session_of_its_own(bench: Bench) -> None:
    opened = [session(bench) for _ in range(THREADS)]

    def many(seed: int) -> None:
        with opened[seed] as own:
            for turn in range(CALLS):
                x = ramp(1 + turn % 3, seed * 1000 + turn)
                np.testing.assert_array_equal(own.run({"x": x})["y"], 2 * x + 1)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(many, range(THREADS)))


def test_an_engine_makes_one_context_at_a_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = bench.engine(affine(), [BATCHES])
    real = bench.trt.ICudaEngine.create_execution_context
    counts = [0, 0]  # At the moment, and at most.

    def create(*arguments: object) -> object:
        counts[0] += 1
        counts[1] = max(counts)
        time.sleep(0.002)
        counts[0] -= 1
        return real(*arguments)

    monkeypatch.setattr(bench.trt.ICudaEngine, "create_execution_context", create)
    with ThreadPoolExecutor(THREADS) as threads:
        bench.opened.extend(threads.map(lambda _: engine.create_context(), range(THREADS)))
    assert counts == [0, 1]


@pytest.mark.usefixtures("mode")
def test_futures_come_back_right_and_close_waits_for_them(bench: Bench) -> None:
    opened = session(bench, contexts=3)
    inputs = [ramp(1 + index % 4, index) for index in range(30)]
    futures = [opened.submit({"x": x}) for x in inputs]
    opened.close()
    for x, future in zip(inputs, futures, strict=True):
        np.testing.assert_array_equal(future.result()["y"], 2 * x + 1)
    with pytest.raises(SessionClosedError):
        opened.run({"x": ramp(1)})


def test_a_session_may_be_closed_while_threads_use_it(bench: Bench) -> None:
    opened = session(bench, contexts=2)
    started = threading.Barrier(THREADS + 1)

    def use(seed: int) -> int:
        started.wait()
        for turn in range(10_000):
            x = ramp(2, seed + turn)
            try:
                y = opened.run({"x": x})["y"]
            except SessionClosedError:
                return turn
            np.testing.assert_array_equal(y, 2 * x + 1)
        return -1

    with ThreadPoolExecutor(THREADS) as threads:
        futures = [threads.submit(use, seed) for seed in range(THREADS)]
        started.wait()
        opened.close()
        assert all(future.result() >= 0 for future in futures)


def test_a_failing_gpu_raises_unless_asked_otherwise(bench: Bench) -> None:
    with session(bench) as opened:
        opened.run({"x": ramp(1)})
        bench.gpu.lose_device()
        for _ in range(2):
            with pytest.raises(DeviceError):
                opened.run({"x": ramp(1)})
        assert isinstance(opened.submit({"x": ramp(1)}).exception(), DeviceError)
        assert opened.backend == "tensorrt"


def test_a_session_goes_on_on_the_cpu_if_asked(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    engine = bench.engine(affine(), [BATCHES])
    bench.opened.remove(engine)
    with Session(engine, backend="tensorrt", contexts=3, fallback=on_cpu) as opened:
        inputs = [ramp(2, index) for index in range(40)]
        with caplog.at_level(logging.WARNING), ThreadPoolExecutor(4) as threads:
            futures = []
            for index, x in enumerate(inputs):
                if index == 20:
                    bench.gpu.lose_device()
                futures.append(threads.submit(opened.run, {"x": x}))
            for x, future in zip(inputs, futures, strict=True):
                np.testing.assert_array_equal(future.result()["y"], 2 * x + 1)
        assert opened.backend == "cpu"
        said = [
            record.getMessage() for record in caplog.records if "goes on" in record.getMessage()
        ]
        assert len(said) == 1
        assert "on cpu" in said[0]
        with pytest.raises(DeviceError):
            opened.run_on_device({"x": ramp(1)})
    with pytest.raises(SessionClosedError):
        opened.run({"x": ramp(1)})


def test_only_a_failing_gpu_makes_a_session_go_on_without_it(bench: Bench) -> None:
    engine = bench.engine(affine(), [BATCHES])
    bench.opened.remove(engine)
    with Session(engine, backend="tensorrt", fallback=on_cpu) as opened:
        refusing = bench.refusing("IExecutionContext", "execute_async_v3", False)
        with refusing, pytest.raises(InferenceError, match="the reason"):
            opened.run({"x": ramp(1)})
        assert opened.backend == "tensorrt"


def test_a_session_that_is_being_closed_does_not_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = bench.engine(affine(), [BATCHES])
    bench.opened.remove(engine)
    started, closing = threading.Event(), threading.Event()
    instead: list[Session] = []

    def fallback() -> Session:
        instead.append(on_cpu())
        return instead[0]

    def wait(context: TensorRTContext) -> None:
        started.set()
        assert closing.wait(30)
        context.close()
        raise DeviceError(719, "CUDA_ERROR_LAUNCH_FAILED", "cuEventSynchronize")

    monkeypatch.setattr(TensorRTContext, "wait", wait)
    opened = Session(engine, backend="tensorrt", fallback=fallback)
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(opened.run, {"x": ramp(1)})
        assert started.wait(30)
        closed = threads.submit(opened.close)
        while not opened._closed:
            time.sleep(0.001)
        closing.set()
        closed.result()
        assert isinstance(running.exception(), DeviceError)
    assert instead == []


@pytest.fixture
def loaded(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Session]:
    """`edge_runtime.load` on a machine that has TensorRT."""
    (tmp_path / "net.onnx").write_bytes(affine().SerializeToString())
    built = edge_runtime.build(
        tmp_path / "net.onnx", BuildConfig(backend="cpu"), output=tmp_path / "net.edge"
    )
    plan = bench.plan(affine(), [BATCHES])
    real = registry.choose, registry.open_engine

    def choose(bundle: Any, device: str, *settings: Any) -> Choice:
        return (
            real[0](bundle, device, *settings)
            if device == "cpu"
            else Choice("tensorrt", "plan", ())
        )

    def open_engine(bundle: Any, choice: Choice, *, gpu: GpuConfig, **settings: Any) -> Any:
        if choice.plan is None:
            return real[1](bundle, choice, gpu=gpu, **settings)
        return TensorRTRuntime(bench.trt, bench.device, gpu).load(plan.data, key=plan.key)

    monkeypatch.setattr(registry, "choose", choose)
    monkeypatch.setattr(registry, "open_engine", open_engine)
    return partial(edge_runtime.load, built.path, device="tensorrt")


def test_load_goes_on_on_the_cpu_if_asked(bench: Bench, loaded: Callable[..., Session]) -> None:
    asked = GpuConfig(on_device_error="cpu")
    with loaded() as plain, loaded(gpu=asked, contexts=2) as opened:
        for each in (plain, opened):
            np.testing.assert_array_equal(each.run({"x": ramp(2)})["y"], 2 * ramp(2) + 1)
        bench.gpu.lose_device()
        np.testing.assert_array_equal(opened.run({"x": ramp(3)})["y"], 2 * ramp(3) + 1)
        assert opened.backend == "cpu"
        with pytest.raises(DeviceError):
            plain.run({"x": ramp(3)})


def test_load_leaves_nothing_where_it_fails(
    bench: Bench, loaded: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[TensorRTEngine] = []
    real = TensorRTEngine.close
    monkeypatch.setattr(TensorRTEngine, "close", lambda self: (closed.append(self), real(self)))
    bench.gpu.fail("cuStreamCreate", nth=2, error=2)
    with pytest.raises(DeviceError):
        loaded(contexts=3)
    assert len(closed) == 1
    assert bench.gpu.live() == []


@pytest.mark.parametrize("seed", range(4))
def test_faults_at_random_give_errors_and_never_wrong_bytes(bench: Bench, seed: int) -> None:
    dice = random.Random(seed)
    calls = [
        "cuMemcpyHtoDAsync",
        "cuMemcpyDtoHAsync",
        "cuEventRecord",
        "cuMemAlloc",
        "cuMemHostAlloc",
    ]
    failed = []
    with session(bench, contexts=3) as shared, ThreadPoolExecutor(THREADS) as threads:

        def many(number: int) -> None:
            for turn in range(CALLS):
                x = ramp(1 + (number + turn) % 7, number * 1000 + turn)
                try:
                    y = shared.run({"x": x})["y"]
                except DeviceError as error:
                    failed.append(error)
                else:
                    np.testing.assert_array_equal(y, 2 * x + 1)
                if dice.random() < 0.05:
                    bench.gpu.fail(dice.choice(calls), nth=dice.randint(1, 9), error=2)

        list(threads.map(many, range(THREADS)))
        assert failed
        assert {error.code for error in failed} == {2}
        for call in calls:
            bench.gpu.fail(call, nth=0)
        np.testing.assert_array_equal(shared.run({"x": ramp(3)})["y"], 2 * ramp(3) + 1)


def test_a_session_that_cannot_make_all_its_contexts_leaves_none(bench: Bench) -> None:
    engine = bench.engine(affine(), [BATCHES])
    live = bench.gpu.live()
    bench.gpu.fail("cuStreamCreate", nth=3, error=2)
    with pytest.raises(DeviceError):
        Session(engine, backend="tensorrt", contexts=4)
    assert bench.gpu.live() == live
