"""trtexec's protocol on a CPU, by a clock that stands still unless the engine works."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.bench.advice import warnings
from edge_runtime.bench.protocols import Trtexec, protocol
from edge_runtime.bench.result import Samples
from edge_runtime.bench.trtexec import run_trtexec
from edge_runtime.errors import FeedError, InferenceError
from tests.unit.bench.clocks import FakeEngine, FakeTime, feeds


def trtexec(name: str = "trtexec10", **settings: object) -> Trtexec:
    made = protocol(name, settings)
    assert isinstance(made, Trtexec)
    return made


def test_a_call_is_all_that_a_cpu_has() -> None:
    fake = FakeTime()
    engine = FakeEngine(fake, 1, 3)
    measured = run_trtexec(engine, feeds(), trtexec(warmup=0.1, duration=1.0), fake.clock)
    samples = measured.samples
    for series in (samples.enqueue, samples.compute):
        np.testing.assert_array_equal(series, samples.latency)
    assert samples.h2d is samples.d2h is samples.compute_start is None
    assert measured.warmup == 50
    assert set(samples.latency) == {1, 3}
    assert samples.start[0] == 0
    assert measured.walltime == samples.start[-1] + samples.latency[-1] / 1000
    assert measured.began == 5.1
    assert engine.fed[:4] == [0, 1, 2, 0]
    assert engine.closed == 1


def test_a_slow_network_is_run_ten_times() -> None:
    fake = FakeTime()
    measured = run_trtexec(FakeEngine(fake, 5000), feeds(), trtexec(), fake.clock)
    assert len(measured.samples) == 10
    assert measured.warmup == 1
    assert measured.walltime == 50


def test_feeds_that_do_not_fit_are_refused_before_anything_runs() -> None:
    fake = FakeTime()
    engine = FakeEngine(fake, 1)
    with pytest.raises(FeedError):
        run_trtexec(engine, [*feeds(), {"x": np.zeros((1, 5), np.float32)}], trtexec(), fake.clock)
    assert engine.fed == []


def test_an_engine_that_fails_lets_go_of_its_contexts() -> None:
    fake = FakeTime()
    engine = FakeEngine(fake, 1)
    engine.fails_at = 7
    with pytest.raises(InferenceError):
        run_trtexec(engine, feeds(), trtexec(), fake.clock)
    assert engine.closed == 1


def gpu(h2d: float, compute: float, d2h: float, enqueue: float) -> Samples:
    """1000 queries of these medians, in milliseconds, that do not vary."""
    ones = np.ones(1000)
    return Samples(
        start=np.arange(1000.0),
        latency=ones * (h2d + compute + d2h),
        enqueue=ones * enqueue,
        h2d=ones * h2d,
        compute=ones * compute,
        d2h=ones * d2h,
        compute_start=np.arange(1000.0),
    )


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ((0.1, 1.0, 0.1, 0.8), []),  # Not above the limit.
        ((0.1, 1.0, 0.1, 0.81), ["Enqueue Time"]),
        ((0.99, 1.0, 0.1, 0.1), []),
        ((1.0, 1.0, 0.1, 0.1), ["host-to-device"]),
        ((0.1, 1.0, 1.0, 0.1), ["device-to-host"]),
        ((2.0, 1.0, 2.0, 2.0), ["Enqueue Time", "host-to-device", "device-to-host"]),
    ],
)
def test_trtexecs_warnings_come_at_its_limits(
    times: tuple[float, float, float, float], words: list[str]
) -> None:
    found = warnings(trtexec(), gpu(*times))
    assert len(found) == len(words)
    for word, warning in zip(words, found, strict=True):
        assert word in warning


@pytest.mark.parametrize(
    ("name", "spread", "unstable"),
    [
        ("trtexec10", 0.009, False),
        ("trtexec10", 0.011, True),
        ("trtexec11", 0.024, False),
        ("trtexec11", 0.026, True),
    ],
)
def test_an_unstable_compute_time_is_said(name: str, spread: float, unstable: bool) -> None:
    compute = np.tile([1 - spread, 1 + spread], 500)  # Its variation is the spread.
    samples = Samples(start=np.arange(1000.0), latency=compute, enqueue=compute, compute=compute)
    found = warnings(trtexec(name), samples)
    assert [f"{100 * spread:.4g}%" in warning for warning in found] == [True] * unstable


def test_a_cpus_call_is_not_called_bound_by_itself() -> None:
    times = np.ones(1000)
    samples = Samples(start=np.arange(1000.0), latency=times, enqueue=times, compute=times)
    assert warnings(trtexec(), samples) == []


@pytest.mark.parametrize(("count", "percent", "few"), [(661, 99, True), (662, 99, False)])
def test_too_few_queries_are_said(count: int, percent: float, few: bool) -> None:
    times = np.ones(count)
    found = warnings(
        trtexec(percentile=percent), Samples(start=np.arange(float(count)), latency=times)
    )
    assert [("662" in warning) for warning in found] == [True] * few
