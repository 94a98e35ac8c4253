"""LoadGen, the real one, on sessions: each sample is answered, with the session's own bytes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.bench.loadgen_log import read_answers
from edge_runtime.bench.protocols import Scenario, protocol
from edge_runtime.bench.result import Samples
from edge_runtime.bench.trtexec import Measured
from edge_runtime.errors import ConfigError, InferenceError
from edge_runtime.session import Session
from edge_runtime.tensors import TensorSpec

pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen is not installed")

from edge_runtime.bench.loadgen import (
    LoadGenTest,
    Rehearsal,
    own_figure,
    rehearse,
    run_loadgen,
)

SPEC = TensorSpec("x", "int64", (1,))
FEEDS = [{"x": np.array([index])} for index in range(23)]
QUICK = Rehearsal(fastest=0.004, slow=0.5, best_rate=150_000, least_rate=5_000)


class Engine:
    """Answers with two tensors that tell which sample it was; remembers who asked."""

    on_device = False
    inputs: Sequence[TensorSpec] = (SPEC,)
    outputs: Sequence[TensorSpec] = (SPEC,)

    def __init__(self, failing: int | None = None, seconds: float = 0.0) -> None:
        self.asked: Counter[int] = Counter()
        self.threads: set[str] = set()
        self.failing, self.seconds = failing, seconds
        self.busy = self.most = 0
        self._lock = threading.Lock()

    def create_context(self) -> Context:
        return Context(self)

    def close(self) -> None:
        pass


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def enqueue(self, feeds: Any) -> None:
        self.index = int(feeds["x"][0])

    def wait(self) -> dict[str, np.ndarray]:
        engine = self.engine
        with engine._lock:
            engine.asked[self.index] += 1
            engine.threads.add(threading.current_thread().name)
            engine.busy += 1
            engine.most = max(engine.most, engine.busy)
        if engine.seconds:
            time.sleep(engine.seconds)
        with engine._lock:
            engine.busy -= 1
        if self.index == engine.failing:
            raise InferenceError("planted")
        return {"a": np.float32([self.index, -1]), "b": np.array(self.index, np.int64)}

    def close(self) -> None:
        pass


def opened(engine: Engine, streams: int = 1) -> Session:
    return Session(engine, backend="cpu", contexts=streams)  # type: ignore[arg-type]


def scenario(name: str, **given: Any) -> Scenario:
    # Multi-stream's 700 queries take less, so that LoadGen must have made up more of them.
    seconds = 0.4 if name == "multi-stream" else 0.05
    plain: dict[str, Any] = {"min_duration": seconds, "min_queries": 700, **given}
    if name == "server":
        plain = {"target_qps": 8000.0, "target_latency": 5000.0, **plain}
    found = protocol(name, plain)
    assert isinstance(found, Scenario)
    return found


NAMES = ("single-stream", "multi-stream", "offline", "server")


@pytest.fixture(params=[(name, streams) for name in NAMES for streams in (1, 2)], ids=str)
def how(request: pytest.FixtureRequest) -> Iterator[Scenario]:
    name, streams = request.param
    return scenario(name, **({} if name == "single-stream" else {"streams": streams}))


def test_a_run_is_valid_and_counts_what_the_session_ran(how: Scenario, tmp_path: Path) -> None:
    engine = Engine()
    with opened(engine, how.streams) as session:
        report = run_loadgen(session, FEEDS, LoadGenTest(protocol=how, rehearsal=QUICK), tmp_path)
    assert report.valid, report.reasons
    assert (report.scenario, report.mode) == (how.name, "performance")
    ran = sum(engine.asked.values())
    samples = {"multi-stream": 8 * report.queries, "offline": ran}.get(how.name, report.queries)
    assert ran == samples
    assert ran >= how.min_queries
    assert engine.most <= how.streams
    assert report.figure(how.percentile) > 0


def test_accuracy_asks_for_each_sample_and_keeps_its_bytes(how: Scenario, tmp_path: Path) -> None:
    engine = Engine()
    test = LoadGenTest(protocol=how, rehearsal=QUICK, mode="accuracy")
    with opened(engine, how.streams) as session:
        report = run_loadgen(session, FEEDS, test, tmp_path)
    assert (report.mode, report.valid) == ("accuracy", True)
    answers = read_answers(tmp_path)
    # A last query of multi-stream is filled up with samples that were there before.
    assert {index for index, _ in answers} == set(range(len(FEEDS)))
    for index, data in answers:
        assert data == np.float32([index, -1]).tobytes() + np.int64(index).tobytes()


def test_a_failing_inference_ends_the_run_and_is_raised(how: Scenario, tmp_path: Path) -> None:
    engine = Engine(failing=3)
    before = threading.active_count()
    with opened(engine, how.streams) as session, pytest.raises(InferenceError, match="planted"):
        run_loadgen(session, FEEDS, LoadGenTest(protocol=how, rehearsal=QUICK), tmp_path)
    assert engine.asked[3] <= how.streams  # Nothing is run after it.
    assert threading.active_count() == before
    with opened(Engine(), how.streams) as session:  # LoadGen itself can go on.
        test = LoadGenTest(protocol=how, rehearsal=QUICK)
        assert run_loadgen(session, FEEDS, test, tmp_path).valid


def test_a_run_that_cannot_be_valid_is_not(tmp_path: Path) -> None:
    how = scenario("server", target_latency=1.0, target_qps=200.0, min_queries=100)
    with opened(Engine(seconds=0.004)) as session:
        report = run_loadgen(session, FEEDS, LoadGenTest(protocol=how, rehearsal=QUICK), tmp_path)
    assert not report.valid
    assert "the latency is above its bound" in report.reasons
    assert report.overdue == report.queries

    slow = replace(QUICK, fastest=1000.0)  # So that LoadGen makes up too few queries.
    how = scenario("single-stream", min_queries=100, min_duration=5.0)
    with opened(Engine()) as session:
        report = run_loadgen(session, FEEDS, LoadGenTest(protocol=how, rehearsal=slow), tmp_path)
    assert not report.valid
    assert report.reasons[0] == "it was too short"
    assert any("expected latency" in reason for reason in report.reasons)


def test_no_file_of_the_current_directory_changes_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "audit.config").write_text("*.*.mode = 1\n*.*.min_query_count = 5000\n")
    monkeypatch.chdir(tmp_path)
    how = scenario("single-stream", min_queries=100)
    with opened(Engine(seconds=0.001)) as session:
        test = LoadGenTest(protocol=how, rehearsal=QUICK)
        report = run_loadgen(session, FEEDS, test, tmp_path / "logs")
    assert 100 <= report.queries < 5000


def test_the_rehearsal_knows_the_fastest_call_and_the_rate_of_all_streams() -> None:
    class Clock:  # A call takes 2 ms of a time that passes only in calls.
        time = 0

        def now(self) -> int:
            return self.time

        def sleep(self, seconds: float) -> None:
            raise AssertionError("nothing is to wait for")

    clock = Clock()

    class Timed(Engine):
        def create_context(self) -> Context:
            outer = super().create_context()
            outer.wait = self.answer  # type: ignore[method-assign]
            return outer

        def answer(self) -> dict[str, np.ndarray]:
            clock.time += 2_000_000
            return {}

    with opened(Timed()) as session:
        found = rehearse(session, FEEDS, streams=1, seconds=0.1, clock=clock)  # type: ignore[arg-type]
    assert (found.fastest, found.slow) == (2.0, 2.0)
    assert found.best_rate == pytest.approx(500)
    assert found.least_rate == pytest.approx(500)


def test_own_figures_are_computed_as_loadgens() -> None:
    latency = np.arange(1.0, 101.0)[::-1]
    measured = Measured(Samples(start=np.arange(100.0), latency=latency), 0.0, 50.0, 0)
    assert own_figure(scenario("single-stream"), measured) == 91.0  # LoadGen's sorted[90].
    assert own_figure(scenario("multi-stream"), measured) == 100.0
    assert own_figure(scenario("offline"), measured) == 2.0
    assert own_figure(scenario("offline"), measured, batch=4) == 8.0
    assert own_figure(scenario("server"), measured) == 99 / 50


def test_what_loadgen_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="mode is 'fast'"):
        LoadGenTest(protocol=scenario("offline"), rehearsal=QUICK, mode="fast")
    with pytest.raises(ConfigError, match=r"percentile is 98\.5; LoadGen reports 50, 90"):
        LoadGenTest(protocol=scenario("single-stream", percentile=98.5), rehearsal=QUICK)
