"""LoadGen's scenarios on a session: single-stream, multi-stream, offline and server.

What they time is `Session.run`, as an application calls it. Source of their rules: MLPerf
Inference Rules; mlcommons/inference, loadgen/loadgen.cc and test_settings.h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_runtime.bench.loops import (
    Calls,
    Clock,
    Nanoseconds,
    Pace,
    Query,
    all_at_once,
    as_they_arrive,
    one_by_one,
)
from edge_runtime.bench.protocols import MultiStream, Offline, Scenario, Server, SingleStream
from edge_runtime.bench.result import Samples
from edge_runtime.bench.statistics import early_stopping, queries_needed
from edge_runtime.bench.trtexec import Measured, milliseconds, walltime
from edge_runtime.errors import ConfigError
from edge_runtime.session import Session
from edge_runtime.tensors import Feeds, Outputs

_MARGIN = 1.1
"""LoadGen's offline query is 10 % larger than it should have to be."""

_ATTEMPTS = 3  # At an offline run that lasts: each is made by the rate of the one before.


@dataclass(frozen=True, slots=True)
class Validity:
    """Whether a run counts, as LoadGen says it.

    Attributes:
        valid: Whether it is VALID.
        reasons: Why it is not, and what to do; empty where it is.
    """

    valid: bool
    reasons: tuple[str, ...]


def run_scenario(
    session: Session,
    feeds: Sequence[Feeds],
    protocol: Scenario,
    clock: Clock | None = None,
    *,
    batch: int = 1,
) -> Measured:
    """Runs a scenario.

    Args:
        session: What runs, with as many contexts as the protocol has streams; it stays open.
        feeds: What is fed; they come round.
        protocol: Which scenario, and how.
        clock: The time.
        batch: Samples in a feed.

    Raises:
        ConfigError: The batch does not go with the scenario.
        FeedError: The feeds do not fit.
        InferenceError: The session cannot run on them.
        DeviceError: The GPU failed.
    """
    clock = clock or Clock()
    if isinstance(protocol, SingleStream | Server) and batch != 1:
        raise ConfigError(
            f"A query of {protocol.name} is one sample, and the inputs hold {batch}: leave the "
            "batch out, or take offline."
        )
    if isinstance(protocol, SingleStream):
        return _in_turn(session.run, feeds, protocol, clock)
    if isinstance(protocol, MultiStream):
        return _multi_stream(session, feeds, protocol, clock, batch)
    if isinstance(protocol, Offline):
        return _offline(session, feeds, protocol, clock, batch)
    assert isinstance(protocol, Server)
    return _server(session, feeds, protocol, clock)


def validity(protocol: Scenario, measured: Measured, *, samples_per_query: int = 1) -> Validity:
    """Judges a run as LoadGen does: its length, its number of queries, and the latency bound."""
    samples = measured.samples
    count = len(samples)
    reasons = []
    # LoadGen's: when the last query begins, offline when it ends.
    lasted = measured.walltime if isinstance(protocol, Offline) else float(samples.start[-1])
    if lasted < protocol.min_duration:
        reasons.append(
            f"it took {lasted:.4g} s, and {protocol.min_duration:g} s are the least: raise the "
            "number of queries"
        )
    if count * (samples_per_query if isinstance(protocol, Offline) else 1) < protocol.min_queries:
        reasons.append(f"it had {count} queries, and {protocol.min_queries} are the least")
    if isinstance(protocol, Server):
        reasons += _bound(protocol, samples)
    elif not isinstance(protocol, Offline):
        found = early_stopping(samples.latency, protocol.percentile)
        if not found.enough:
            reasons.append(
                f"{count} queries are too few for the percentile {protocol.percentile:g}: "
                f"{found.needed} are the least by LoadGen's early-stopping rule"
            )
    return Validity(not reasons, tuple(reasons))


def arrivals(protocol: Server) -> Nanoseconds:
    """When the server's queries are due, int64[n] nanoseconds: the first one at once.

    The times between are exponentially distributed. There are as many as it takes to have
    `min_queries` and to reach `min_duration`.
    """
    generator = np.random.default_rng(protocol.seed)
    scale = 1e9 / protocol.target_qps
    expected = math.ceil(protocol.min_duration * protocol.target_qps)
    gaps = np.zeros(1)
    while len(gaps) < protocol.min_queries or gaps.sum() < protocol.min_duration * 1e9:
        more = generator.exponential(scale, max(expected // 4, protocol.min_queries, 16))
        gaps = np.concatenate([gaps, more])
    due = np.cumsum(gaps)
    enough = int(np.searchsorted(due, protocol.min_duration * 1e9)) + 1
    return due[: max(enough, protocol.min_queries)].astype(np.int64)


def _in_turn(query: Query, items: Sequence[Any], protocol: Scenario, clock: Clock) -> Measured:
    warm = one_by_one(query, items, Pace(0, protocol.warmup, 1), clock)
    pace = Pace(0, protocol.min_duration, protocol.min_queries)
    return _from_the_start(one_by_one(query, items, pace, clock), len(warm.start))


def _multi_stream(
    session: Session, feeds: Sequence[Feeds], protocol: MultiStream, clock: Clock, batch: int
) -> Measured:
    if protocol.samples_per_query % batch:
        raise ConfigError(
            f"A query of {protocol.samples_per_query} samples is no number of calls with a batch "
            f"of {batch}; choose one that divides it."
        )
    count = protocol.samples_per_query // batch
    groups = [
        [feeds[(first + step) % len(feeds)] for step in range(count)]
        for first in range(0, count * len(feeds), count)
    ]

    def in_turn(group: Sequence[Feeds]) -> list[Outputs]:
        return [session.run(feed) for feed in group]

    def together(group: Sequence[Feeds]) -> list[Outputs]:
        futures: list[Future[Any]] = [session.submit(feed) for feed in group]
        return [future.result() for future in futures]

    query = together if protocol.streams > 1 else in_turn
    return _in_turn(query, groups, protocol, clock)


def _offline(
    session: Session, feeds: Sequence[Feeds], protocol: Offline, clock: Clock, batch: int
) -> Measured:
    streams = protocol.streams
    first = one_by_one(session.run, feeds, Pace(0, protocol.warmup, 1), clock)
    # One stream's rate, and then that of all: two streams are seldom twice as fast.
    trial = max(streams, streams * len(first.start) // 4)
    tried = all_at_once(session.run, feeds, trial, clock, streams=streams)
    rate = trial / max(walltime(tried), 1e-9)
    count = max(
        math.ceil(_MARGIN * rate * protocol.min_duration), -(-protocol.min_queries // batch), 1
    )
    before = len(first.start) + trial
    for attempt in range(_ATTEMPTS):
        calls = all_at_once(session.run, feeds, count, clock, streams=streams)
        lasted = (int(calls.end.max()) - calls.began) / 1e9
        if lasted >= protocol.min_duration or attempt == _ATTEMPTS - 1:
            break
        # The warm-up was slower than this, which is the better estimate for another run.
        before += count
        count = math.ceil(_MARGIN * count * protocol.min_duration / max(lasted, 1e-9))
    order = np.argsort(calls.start, kind="stable")
    calls = replace(calls, start=calls.start[order], end=calls.end[order])
    return _from_the_start(calls, before)


def _server(session: Session, feeds: Sequence[Feeds], protocol: Server, clock: Clock) -> Measured:
    warm = one_by_one(session.run, feeds, Pace(0, protocol.warmup, 1), clock)
    due = arrivals(protocol)
    calls = as_they_arrive(session.run, feeds, due, clock, streams=protocol.streams)
    measured = _from_the_start(calls, len(warm.start))
    latency = (calls.end - calls.began - due) / 1e6
    return replace(measured, samples=Samples(start=due / 1e9, latency=latency))


def _from_the_start(calls: Calls, warmup: int) -> Measured:
    """What LoadGen counts from: the moment at which it begins, not that of the first query."""
    samples = Samples(start=(calls.start - calls.began) / 1e9, latency=milliseconds(calls))
    lasted = float(calls.end.max() - calls.began) / 1e9
    return Measured(samples, calls.began / 1e9, lasted, warmup)


def _bound(protocol: Server, samples: Samples) -> list[str]:
    count = len(samples)
    over = int((samples.latency > protocol.target_latency).sum())
    needed = queries_needed(protocol.percentile, over)
    if count >= needed:
        return []
    few = over <= (1 - protocol.percentile / 100) * count
    return [
        f"{over} of {count} queries took more than {protocol.target_latency:g} ms; with as many "
        f"{needed} queries are the least for the percentile {protocol.percentile:g}: "
        + ("measure longer" if few else "lower the target of queries per second")
    ]
