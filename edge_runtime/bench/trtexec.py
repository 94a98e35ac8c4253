"""trtexec's protocol: on a GPU timed by its own clock, on a CPU a call after the other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from edge_runtime.backends.base import (
    Engine,
    ExecutionContext,
    QueryTimes,
    TimedEngine,
    TimedQueries,
)
from edge_runtime.bench.loops import Calls, Clock, Pace, Query, one_by_one, side_by_side
from edge_runtime.bench.protocols import Trtexec
from edge_runtime.bench.result import Samples
from edge_runtime.bench.statistics import Times
from edge_runtime.tensors import Feeds, check_feeds


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What a protocol has measured.

    Attributes:
        samples: The queries.
        began: When the first of them started, on the clock of `time.perf_counter`.
        walltime: Seconds from the start of the first to the end of the last.
        warmup: Queries before them.
    """

    samples: Samples
    began: float
    walltime: float
    warmup: int


def run_trtexec(
    engine: Engine, feeds: Sequence[Feeds], protocol: Trtexec, clock: Clock | None = None
) -> Measured:
    """Runs an engine as trtexec does.

    Args:
        engine: What runs; it stays open.
        feeds: What is fed; a GPU takes the first again and again, as trtexec does.
        protocol: How.
        clock: The time, on a CPU.

    Raises:
        FeedError: The feeds do not fit.
        InferenceError: The engine cannot run on them.
        DeviceError: The GPU failed.
    """
    for feed in feeds:
        check_feeds(engine.inputs, feed)
    with ExitStack() as stack:
        if isinstance(engine, TimedEngine):
            timed: list[TimedQueries] = []
            for _ in range(protocol.streams):
                queries = engine.timed(feeds[0], transfers=protocol.transfers)
                stack.callback(queries.close)
                timed.append(queries)
            return _on_gpu(_trace(timed, protocol), timed[0].began, protocol)
        contexts = []
        for _ in range(protocol.streams):
            context = engine.create_context()
            stack.callback(context.close)
            contexts.append(context)
        return _on_cpu(contexts, feeds, protocol, clock or Clock())


def _on_cpu(
    contexts: Sequence[ExecutionContext], feeds: Sequence[Feeds], protocol: Trtexec, clock: Clock
) -> Measured:
    pace = Pace(protocol.warmup, protocol.duration, protocol.iterations)
    queries = [_query(context) for context in contexts]
    if len(queries) == 1:
        calls = one_by_one(queries[0], feeds, pace, clock)
    else:
        calls = side_by_side(queries, feeds, pace, clock)
    taken = milliseconds(calls)
    return Measured(
        Samples(start=seconds(calls), latency=taken, enqueue=taken, compute=taken),
        float(calls.start[0]) / 1e9,
        walltime(calls),
        calls.warmup,
    )


def _query(context: ExecutionContext) -> Query:
    enqueue, wait = context.enqueue, context.wait

    def query(feed: Feeds) -> object:
        enqueue(feed)
        return wait()

    return query


def _trace(timed: Sequence[TimedQueries], protocol: Trtexec) -> list[QueryTimes]:
    """trtexec's `inferenceLoop`: each round starts a query in every stream and ends one."""
    warmup = 1000 * protocol.warmup
    limit = warmup + 1000 * protocol.duration
    traces: list[list[QueryTimes]] = [[] for _ in timed]
    rounds = skipped = 0
    reached = 0.0
    while rounds < protocol.iterations + skipped or reached < limit:
        for queries in timed:
            queries.enqueue()
        for queries, trace in zip(timed, traces, strict=True):
            times = queries.wait()
            if times is not None:
                trace.append(times)
                reached = max(reached, times.compute_start)
        if reached < warmup:
            skipped += reached > 0
        rounds += 1
    for queries, trace in zip(timed, traces, strict=True):
        trace += queries.drain()
    # Every stream has an origin of its own; all are brought to that of the first.
    together = [
        _later(times, 1000 * (queries.began - timed[0].began))
        for queries, trace in zip(timed, traces, strict=True)
        for times in trace
    ]
    return sorted(together, key=lambda times: times.h2d_start)


def _later(times: QueryTimes, by: float) -> QueryTimes:
    return times._replace(
        enqueue_start=times.enqueue_start + by,
        h2d_start=times.h2d_start + by,
        compute_start=times.compute_start + by,
        d2h_start=times.d2h_start + by,
    )


def _on_gpu(trace: list[QueryTimes], origin: float, protocol: Trtexec) -> Measured:
    warm = [times for times in trace if times.compute_start >= 1000 * protocol.warmup]
    columns = {
        name: np.array([getattr(times, name) for times in warm], np.float64)
        for name in QueryTimes._fields
        if getattr(warm[0], name) is not None
    }
    begin = columns["h2d_start"][0]
    h2d, d2h = columns.get("h2d"), columns.get("d2h")
    latency = columns["compute"].copy()
    for copied in (h2d, d2h):
        if copied is not None:
            latency += copied
    end = max(columns["d2h_start"] + (0 if d2h is None else d2h))

    def since(name: str) -> Times:
        moments: Times = np.maximum(columns[name] - begin, 0) / 1000
        return moments

    samples = Samples(
        start=since("h2d_start"),
        latency=latency,
        enqueue=columns["enqueue"],
        h2d=h2d,
        compute=columns["compute"],
        d2h=d2h,
        enqueue_start=since("enqueue_start"),
        compute_start=since("compute_start"),
        d2h_start=since("d2h_start"),
    )
    return Measured(
        samples, origin + float(begin) / 1000, float(end - begin) / 1000, len(trace) - len(warm)
    )


def milliseconds(calls: Calls) -> Times:
    """How long each call took, float64[n]."""
    taken: Times = (calls.end - calls.start) / 1e6
    return taken


def seconds(calls: Calls) -> Times:
    """When each call began, float64[n], from the first one on."""
    begun: Times = (calls.start - calls.start[0]) / 1e9
    return begun


def walltime(calls: Calls) -> float:
    """Seconds from the start of the first call to the end of the last."""
    return float(calls.end.max() - calls.start[0]) / 1e9
