"""Latencies as a busy machine makes them: correlated, in bursts, with heavy tails and drift."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edge_runtime.bench.result import BenchResult, Samples, Subject
from edge_runtime.bench.trtexec import Measured

DIGEST = "sha256:" + "0" * 64


def latencies(
    random: np.random.Generator,
    count: int,
    *,
    scale: float = 1.0,
    drift: float = 0.0,
    correlation: float = 0.9,
    bursts: float = 0.05,
) -> np.ndarray:
    """float64[count], ms: 1 ms times `scale`, and noise of some per cent.

    Args:
        random: Makes them.
        count: How many.
        scale: All take so many times as long.
        drift: Share by which the last ones take longer than the first.
        correlation: Of the noise, from one to the next.
        bursts: Share of the queries that something else disturbs, 50 at a time.
    """
    memory = correlation ** np.arange(300) * np.sqrt(1 - correlation**2)
    noise = np.convolve(random.standard_normal(count + 299), memory, "valid")
    times = np.exp(0.03 * noise) * (1 + drift * np.linspace(0, 1, count))
    times += random.pareto(3, count) * 0.02
    for start in random.integers(0, count, round(bursts * count / 50)):
        times[start : start + 50] *= 1 + random.exponential(0.5)
    return scale * times


def result(times: np.ndarray, **changes: object) -> BenchResult:
    """A run whose queries followed each other at once."""
    start = np.concatenate([[0.0], np.cumsum(times[:-1])]) / 1000
    made = {
        "protocol": "trtexec10",
        "parameters": {"streams": 1, "percentile": 99.0},
        "subject": Subject(
            *("net.edge", DIGEST, "net.onnx", DIGEST, "int8", "cpu", "a CPU", "exact", 1),
            shapes={"x": (1, 4)},
            batch=1,
            streams=1,
        ),
        "samples": Samples(start=start, latency=times),
        "walltime": float(times.sum()) / 1000,
        "samples_per_query": 1,
        "warmup": 0,
        "created": "2026-11-22T21:30:00Z",
        "version": "0.1",
        **changes,
    }
    return BenchResult(**made)  # type: ignore[arg-type]


class Machine:
    """A machine whose speed wanders while bundles take turns on it.

    Attributes:
        seconds: What time it is on it.
    """

    def __init__(self, seed: int, *, drift: float = 0.001, disturbed: float = 0.2) -> None:
        self.random = np.random.default_rng(seed)
        self.seconds = 0.0
        self.drift, self.disturbed = drift, disturbed
        self.states = self._speeds()

    def turn(self, scale: float) -> Measured:
        """Twenty queries of a bundle that takes `scale` ms when nothing disturbs it."""
        noise = np.exp(0.02 * self.random.standard_normal(20)) + self.random.pareto(3, 20) * 0.02
        times = scale * next(self.states) * noise
        start = np.concatenate([[0.0], np.cumsum(times[:-1])]) / 1000
        walltime = float(times.sum()) / 1000
        self.seconds += walltime
        return Measured(Samples(start=start, latency=times), 0.0, walltime, 0)

    def _speeds(self) -> Iterator[float]:
        """It gets slower from turn to turn, its speed wanders, and some turns are much slower."""
        level = 0.0
        while True:
            level = 0.99 * level + self.drift + 0.01 * self.random.standard_normal()
            hit = self.random.exponential(0.5) if self.random.random() < self.disturbed else 0.0
            yield np.exp(level) * (1 + hit)
