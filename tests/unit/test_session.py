"""The pool of contexts behind a session: how many run at a time, who waits, what closing does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path

import numpy as np
import pytest

import edge_runtime
from edge_runtime.backends.cpu import open_session
from edge_runtime.bundle import CPU_FAST_GRAPH
from edge_runtime.errors import (
    BackendUnavailableError,
    BundleError,
    ConfigError,
    FeedError,
    InferenceError,
    SessionClosedError,
)
from edge_runtime.session import Session, load
from edge_runtime.tensors import Feeds, Outputs, TensorSpec
from tests.models import NETS

SPEC = TensorSpec("x", "float32", (1,))
PATIENCE = 30.0  # Seconds until a test that hangs fails; none takes a hundredth of it.


class Gate:
    """An engine that doubles `x` when it is allowed to, and remembers how it was used."""

    inputs = (SPEC,)
    outputs = (SPEC,)
    on_device = False

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.lock = threading.Lock()
        self.contexts: list[GateContext] = []
        self.running = self.most = self.after_close = 0
        self.started = threading.Semaphore(0)
        self.closed: list[str] = []

    def create_context(self) -> GateContext:
        self.contexts.append(GateContext(self))
        return self.contexts[-1]

    def close(self) -> None:
        self.closed.append("engine")


class GateContext:
    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.value: np.ndarray | None = None
        self.is_closed = False

    def enqueue(self, feeds: Feeds) -> None:
        gate = self.gate
        assert self.value is None, "two inferences in one context"
        with gate.lock:
            gate.running += 1
            gate.most = max(gate.most, gate.running)
            gate.after_close += self.is_closed
        self.value = feeds["x"] * 2
        gate.started.release()
        if feeds["x"][0] < 0:
            with gate.lock:
                gate.running -= 1
            self.value = None
            raise InferenceError("negative")

    def wait(self) -> Outputs:
        assert self.gate.go.wait(PATIENCE)
        with self.gate.lock:
            self.gate.running -= 1
        value, self.value = self.value, None
        assert value is not None
        return {"x": value}

    def close(self) -> None:
        self.is_closed = True
        self.gate.closed.append("context")


def feed(value: float) -> dict[str, np.ndarray]:
    return {"x": np.array([value], np.float32)}


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.go.set()  # Whatever still waits may end.


def started(gate: Gate, count: int) -> None:
    """Waits until this many inferences more have begun."""
    for _ in range(count):
        assert gate.started.acquire(timeout=PATIENCE)


@pytest.mark.parametrize("contexts", [1, 3])
def test_as_many_run_at_a_time_as_there_are_contexts(gate: Gate, contexts: int) -> None:
    gate.go.clear()
    with Session(gate, backend="gate", contexts=contexts) as session:
        futures = [session.submit(feed(i)) for i in range(3 * contexts)]
        started(gate, contexts)
        gate.go.set()
        assert [f.result(PATIENCE)["x"][0] for f in futures] == [2 * i for i in range(3 * contexts)]
    assert gate.most == contexts == len(gate.contexts)


def test_run_from_many_threads_waits_for_a_context_and_mixes_nothing_up(gate: Gate) -> None:
    with Session(gate, backend="gate", contexts=2) as session, ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda i: session.run(feed(i))["x"][0], range(400)))
    assert results == [2 * i for i in range(400)]
    assert gate.most <= 2


def test_run_and_submit_share_the_contexts(gate: Gate) -> None:
    gate.go.clear()
    with Session(gate, backend="gate", contexts=2) as session:
        future = session.submit(feed(1))
        started(gate, 1)
        with ThreadPoolExecutor(1) as thread:
            other = thread.submit(session.run, feed(2))
            started(gate, 1)
            gate.go.set()
            assert other.result(PATIENCE)["x"][0] == 4
        assert future.result(PATIENCE)["x"][0] == 2


def test_submit_returns_before_the_work_is_done(gate: Gate) -> None:
    gate.go.clear()
    with Session(gate, backend="gate") as session:
        future = session.submit(feed(1))
        started(gate, 1)
        assert not future.done()
        gate.go.set()
        assert future.result(PATIENCE)["x"][0] == 2


def test_a_failure_reaches_its_caller_and_spares_the_context(gate: Gate) -> None:
    with Session(gate, backend="gate") as session:
        with pytest.raises(InferenceError, match="negative"):
            session.run(feed(-1))
        future = session.submit(feed(-1))
        with pytest.raises(InferenceError, match="negative"):
            future.result(PATIENCE)
        assert session.run(feed(3))["x"][0] == 6


def test_wrong_feeds_raise_at_once_and_take_no_context(gate: Gate) -> None:
    with Session(gate, backend="gate") as session:
        for call in (session.run, session.submit):
            with pytest.raises(FeedError):
                call({"y": np.ones(1, np.float32)})
        assert session.run(feed(3))["x"][0] == 6


def test_closing_lets_what_is_in_flight_finish(gate: Gate) -> None:
    gate.go.clear()
    session = Session(gate, backend="gate", contexts=2)
    futures: list[Future[Outputs]] = [session.submit(feed(i)) for i in range(6)]
    with ThreadPoolExecutor(2) as threads:
        started(gate, 2)  # Two run, four wait in the queue.
        running = threads.submit(session.close)
        assert not wait_for([running], 0.05).done  # It waits for them.
        gate.go.set()
        running.result(PATIENCE)
    assert [f.result(0)["x"][0] for f in futures] == [0, 2, 4, 6, 8, 10]
    assert gate.closed == ["context", "context", "engine"]
    assert gate.after_close == 0


def test_closing_waits_for_run_in_another_thread(gate: Gate) -> None:
    gate.go.clear()
    session = Session(gate, backend="gate")
    with ThreadPoolExecutor(2) as threads:
        answer = threads.submit(session.run, feed(5))
        started(gate, 1)
        closing = threads.submit(session.close)
        assert not wait_for([closing], 0.05).done
        assert gate.closed == []
        gate.go.set()
        closing.result(PATIENCE)
        assert answer.result(PATIENCE)["x"][0] == 10
    assert gate.closed == ["context", "engine"]


def test_many_that_wait_for_a_context_learn_that_it_is_closed(gate: Gate) -> None:
    gate.go.clear()
    session = Session(gate, backend="gate")
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(session.run, feed(1)) for _ in range(7)]
        started(gate, 1)
        closing = threads.submit(session.close)
        gate.go.set()
        closing.result(PATIENCE)
        errors = [answer.exception(PATIENCE) for answer in answers]
    assert {type(error) for error in errors} <= {type(None), SessionClosedError}
    assert None in errors
    assert gate.after_close == 0


def test_a_closed_session_says_so(gate: Gate) -> None:
    session = Session(gate, backend="gate", contexts=3)
    session.close()
    session.close()
    assert gate.closed == ["context"] * 3 + ["engine"]
    for call in (session.run, session.submit):
        with pytest.raises(SessionClosedError, match="closed"):
            call(feed(1))
    with pytest.raises(SessionClosedError), session:
        session.run(feed(1))


def test_a_session_closes_though_its_block_fails(gate: Gate) -> None:
    with pytest.raises(ZeroDivisionError), Session(gate, backend="gate"):
        _ = 1 / 0
    assert gate.closed == ["context", "engine"]


def test_a_session_needs_a_context(gate: Gate) -> None:
    with pytest.raises(ConfigError, match="contexts is 0"):
        Session(gate, backend="gate", contexts=0)


def test_a_session_shows_what_it_takes(gate: Gate) -> None:
    with Session(gate, backend="gate") as session:
        assert repr(session) == "<Session on gate: x: float32[1]>"


# Opening.


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "net.onnx").write_bytes(NETS["dense"]().SerializeToString())
    config = edge_runtime.BuildConfig(backend="cpu")
    return edge_runtime.build(folder / "net.onnx", config, output=folder / "net.edge").path


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_bundle_opens_by_path_or_object(bundle: Path, device: str) -> None:
    for source in (bundle, str(bundle), edge_runtime.Bundle.open(bundle)):
        with load(source, device=device, contexts=2, threads=1) as session:
            assert session.backend == "cpu"
            assert session.run({"x": np.ones((3, 24), np.float32)})["add"].shape == (3, 16)


def test_auto_logs_why_better_backends_were_passed_over(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "edge_runtime"):
        load(bundle).close()
    assert any("tensorrt" in message for message in caplog.messages)
    caplog.clear()
    with caplog.at_level(logging.INFO, "edge_runtime"):
        load(bundle, device="cpu").close()
    assert caplog.messages == []


@pytest.mark.parametrize("device", ["tensorrt", "tensorrt-rtx"])
def test_a_device_asked_for_by_name_never_falls_back(bundle: Path, device: str) -> None:
    with pytest.raises(BackendUnavailableError, match=device):
        load(bundle, device=device)


def test_a_device_that_does_not_exist_is_refused(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="cuda"):
        load(bundle, device="cuda")


def test_what_is_no_bundle_does_not_open(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        load(bundle.with_name("net.onnx"))
    with pytest.raises(BundleError):
        load(tmp_path / "missing.edge")
    damaged = bytearray(bundle.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.edge").write_bytes(damaged)
    with pytest.raises(BundleError):
        load(tmp_path / "damaged.edge")


# How a CPU runs INT8.


def int8_bundle(folder: Path, cpu_mode: str) -> edge_runtime.Bundle:
    proto = NETS["residual"]()
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    config = edge_runtime.BuildConfig(precision="int8", cpu_mode=cpu_mode, backend="cpu")
    return edge_runtime.build(
        folder / "net.onnx",
        config,
        output=folder / f"{cpu_mode}.edge",
        calibration=[picture(seed) for seed in range(4)],
    )


def picture(seed: int) -> Feeds:
    random = np.random.default_rng(seed)
    return {"x": random.standard_normal((1, 16, 8, 8), dtype=np.float32)}


def test_fast_runs_the_second_graph_and_exact_the_first(tmp_path: Path) -> None:
    bundle = int8_bundle(tmp_path, "fast")
    with load(bundle) as plain, load(bundle, cpu_mode="exact") as exact:
        expected = plain.run(picture(9))
        for name, values in exact.run(picture(9)).items():
            np.testing.assert_array_equal(values, expected[name])
    with load(bundle, cpu_mode="fast", threads=1) as fast:
        assert fast.backend == "cpu"
        for name, values in fast.run(picture(9)).items():
            error = np.linalg.norm(values - expected[name]) / np.linalg.norm(expected[name])
            assert 0 < error < 0.1, name
    direct = open_session(bundle.read(CPU_FAST_GRAPH), exact=False)
    with load(bundle, cpu_mode="fast") as fast:
        for name, values in fast.run(picture(9)).items():
            np.testing.assert_array_equal(values, direct.run([name], picture(9))[0])


def test_fast_is_refused_where_it_is_not_there(tmp_path: Path) -> None:
    bundle = int8_bundle(tmp_path, "exact")
    with pytest.raises(BackendUnavailableError, match=r"Build it again, with: .* --cpu-mode fast$"):
        load(bundle, cpu_mode="fast")
    with pytest.raises(ConfigError, match="device 'tensorrt-rtx' is no CPU"):
        load(bundle, device="tensorrt-rtx", cpu_mode="fast")
    with pytest.raises(ConfigError, match="cpu_mode is 'quick'; it must be one of exact, fast"):
        load(bundle, cpu_mode="quick")
