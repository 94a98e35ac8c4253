"""LoadGen's scenarios, by a clock that stands still unless somebody works or sleeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_runtime.bench.protocols import Scenario, Server, protocol
from edge_runtime.bench.result import Samples
from edge_runtime.bench.scenarios import arrivals, run_scenario, validity
from edge_runtime.bench.trtexec import Measured
from edge_runtime.errors import ConfigError
from edge_runtime.session import Session
from tests.unit.bench.clocks import FakeEngine, FakeTime, feeds


def scenario(name: str, **settings: Any) -> Scenario:
    made = protocol(name, settings)
    assert isinstance(made, Scenario)
    return made


def run(how: Scenario, *milliseconds: float, batch: int = 1) -> tuple[Measured, FakeEngine]:
    fake = FakeTime()
    engine = FakeEngine(fake, *milliseconds)
    with Session(engine, backend="cpu", contexts=how.streams) as session:
        measured = run_scenario(session, feeds(), how, fake.clock, batch=batch)
    return measured, engine


def test_single_stream_waits_for_each_query() -> None:
    how = scenario("single-stream", min_duration=1.0)
    measured, _ = run(how, 10)
    np.testing.assert_allclose(measured.samples.latency, 10)
    np.testing.assert_allclose(np.diff(measured.samples.start), 0.01)
    assert measured.samples.start[-1] >= 1.0
    assert measured.walltime == pytest.approx(measured.samples.start[-1] + 0.01)
    assert validity(how, measured).valid


def test_multi_stream_asks_for_eight_samples_at_once() -> None:
    how = scenario("multi-stream", min_duration=1.0, min_queries=700)
    measured, engine = run(how, 1)
    np.testing.assert_allclose(measured.samples.latency, 8)
    assert len(engine.fed) == 8 * (len(measured.samples) + measured.warmup)
    assert engine.fed[:9] == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert len(measured.samples) == 700
    assert validity(how, measured).valid
    measured, engine = run(how, 1, batch=4)
    np.testing.assert_allclose(measured.samples.latency, 2)


def test_offline_is_long_enough_by_the_rate_of_its_warm_up() -> None:
    how = scenario("offline", min_duration=2.0)
    measured, _ = run(how, 4)
    assert len(measured.samples) == 550  # 2 s of 250 a second, and 10 %.
    assert measured.walltime == pytest.approx(2.2)
    assert validity(how, measured).valid


def test_offline_runs_again_where_the_warm_up_was_the_slower() -> None:
    how = scenario("offline", min_duration=2.0)
    slow = [40.0] * 8  # All of the warm-up and the first query of the first run.
    measured, engine = run(how, *slow, *[4.0] * 2000)
    assert validity(how, measured).valid
    assert len(measured.samples) >= 500
    assert measured.warmup == len(engine.fed) - len(measured.samples)


def test_a_server_counts_from_the_arrival_on() -> None:
    how = scenario("server", target_qps=100, target_latency=50, min_duration=6.0, seed=3)
    assert isinstance(how, Server)
    measured, _ = run(how, 8)
    due = arrivals(how) / 1e9
    np.testing.assert_array_equal(measured.samples.start, due)
    # One stream of 8 ms, first come, first served.
    free, expected = 0.0, []
    for moment in due:
        free = max(free, moment) + 0.008
        expected.append(1000 * (free - moment))
    np.testing.assert_allclose(measured.samples.latency, expected, atol=0.01)
    assert measured.samples.latency.max() > 16
    assert measured.walltime == pytest.approx(free, abs=1e-4)


def test_arrivals_are_a_poisson_process_that_a_seed_repeats() -> None:
    how = scenario("server", target_qps=2000, target_latency=1, min_duration=5.0)
    assert isinstance(how, Server)
    due = arrivals(how) / 1e9
    np.testing.assert_array_equal(due, arrivals(how) / 1e9)
    assert due[0] == 0
    assert due[-2] < 5 <= due[-1]
    gaps = np.diff(due)
    assert gaps.mean() == pytest.approx(1 / 2000, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # Exponential: both are the same.
    other = scenario("server", target_qps=2000, target_latency=1, min_duration=5.0, seed=1)
    assert isinstance(other, Server)
    assert not np.array_equal(due[:9], arrivals(other)[:9] / 1e9)


def test_there_are_as_many_arrivals_as_asked_for() -> None:
    how = scenario("server", target_qps=10, target_latency=1, min_duration=0.1, min_queries=500)
    assert isinstance(how, Server)
    assert len(arrivals(how)) == 500


def measured(latency: np.ndarray, seconds: float) -> Measured:
    start = np.linspace(0, seconds, len(latency))
    return Measured(Samples(start=start, latency=latency), 0.0, seconds, 0)


@pytest.mark.parametrize(
    ("name", "settings", "count", "seconds", "words"),
    [
        ("single-stream", {}, 100, 10.0, []),
        ("single-stream", {}, 100, 9.9, ["9.9 s"]),
        ("single-stream", {"min_queries": 60}, 63, 10.0, ["64"]),
        ("single-stream", {}, 99, 10.0, ["100 are the least"]),
        ("multi-stream", {}, 661, 10.0, ["662"]),
        ("offline", {"min_queries": 100}, 100, 10.0, []),
        ("offline", {}, 100, 9.0, ["9 s"]),
    ],
)
def test_loadgens_rules_decide_whether_a_run_counts(
    name: str, settings: dict[str, Any], count: int, seconds: float, words: list[str]
) -> None:
    judged = validity(scenario(name, **settings), measured(np.ones(count), seconds))
    assert judged.valid == (not words)
    assert len(judged.reasons) == len(words)
    for word, reason in zip(words, judged.reasons, strict=True):
        assert word in reason


@pytest.mark.parametrize(
    ("over", "count", "valid"), [(0, 458, False), (0, 459, True), (1, 661, False), (1, 662, True)]
)
def test_a_server_may_be_late_as_often_as_loadgen_lets_it(
    over: int, count: int, valid: bool
) -> None:
    how = scenario("server", target_qps=50, target_latency=5)
    latency = np.full(count, 5.0)  # At the bound is within it.
    latency[:over] = 5.001
    assert validity(how, measured(latency, 10.0)).valid == valid


def test_a_batch_that_does_not_go_with_the_scenario_is_refused() -> None:
    with pytest.raises(ConfigError, match="one sample"):
        run(scenario("single-stream"), 1, batch=2)
    with pytest.raises(ConfigError, match="divides"):
        run(scenario("multi-stream"), 1, batch=3)


@pytest.mark.parametrize("name", ["multi-stream", "offline", "server"])
def test_streams_share_the_work(name: str) -> None:
    settings = {"target_qps": 2000, "target_latency": 50} if name == "server" else {}
    how = scenario(name, streams=2, min_duration=0.02, min_queries=5, warmup=0.005, **settings)
    engine = FakeEngine(FakeTime(), 1)
    with Session(engine, backend="cpu", contexts=2) as session:
        found = run_scenario(session, feeds(), how)
    assert len(found.samples) >= 5
    assert (found.samples.latency > 0).all()
    assert (np.diff(found.samples.start) >= 0).all()
