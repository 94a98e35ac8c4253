"""MLPerf's own load generator, LoadGen, on a session: the official judge of the four scenarios.

LoadGen decides when queries come, times them and says whether the run is valid. What answers it is
`Session.run`, as in `scenarios`, so that the figures of both are of the same work. Interface:
mlcommons/inference, loadgen/loadgen.h and bindings/python_api.cc; the package is mlcommons-loadgen.

LoadGen keeps its state in the process: one run at a time.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import mlperf_loadgen
import numpy as np

from edge_runtime.bench.loadgen_log import PERCENTILES, LoadGenReport, read_report
from edge_runtime.bench.loops import Clock, Pace, all_at_once, one_by_one, quiet
from edge_runtime.bench.protocols import MultiStream, Offline, Scenario, Server, SingleStream
from edge_runtime.bench.statistics import loadgen_percentile, percentile
from edge_runtime.bench.trtexec import Measured, milliseconds, walltime
from edge_runtime.errors import ConfigError
from edge_runtime.session import Session
from edge_runtime.tensors import Feeds, Outputs

MODES = {
    "performance": mlperf_loadgen.TestMode.PerformanceOnly,
    "accuracy": mlperf_loadgen.TestMode.AccuracyOnly,
}
"""`performance` measures; `accuracy` asks for each sample once and keeps the answers."""

_KINDS = {
    SingleStream: mlperf_loadgen.TestScenario.SingleStream,
    MultiStream: mlperf_loadgen.TestScenario.MultiStream,
    Offline: mlperf_loadgen.TestScenario.Offline,
    Server: mlperf_loadgen.TestScenario.Server,
}

_FASTER = 1.25
"""How much faster than in the rehearsal a session may be offline, and the run is still valid."""

_PIECES = 64
"""An offline query is answered in as many pieces for each stream, of at most as many samples."""

Sample = tuple[int, int]
"""LoadGen's number of a sample in flight, and which of the feeds it is."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How fast a session is, from which LoadGen's settings follow.

    Attributes:
        fastest: The least latency of a sample alone, in ms.
        slow: Its percentile 99, in ms.
        best_rate: Samples per second with all streams, the most of a few tries.
        least_rate: The least of these tries, which other work on the machine may have disturbed.
    """

    fastest: float
    slow: float
    best_rate: float
    least_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadGenTest:
    """What LoadGen is to run.

    Attributes:
        protocol: The scenario with its settings; its warm-up is that of the rehearsal.
        rehearsal: How fast the session is. LoadGen makes up its queries before it begins, and a
            run that has too few of them is invalid.
        mode: One of `MODES`.

    Raises:
        ConfigError: The mode is none, or LoadGen does not report the protocol's percentile.
    """

    protocol: Scenario
    rehearsal: Rehearsal
    mode: str = "performance"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"mode is {self.mode!r}; it must be one of {', '.join(MODES)}.")
        if self.protocol.percentile not in PERCENTILES:
            raise ConfigError(
                f"percentile is {self.protocol.percentile:g}; LoadGen reports "
                f"{', '.join(f'{one:g}' for one in PERCENTILES)}."
            )


def rehearse(
    session: Session,
    feeds: Sequence[Feeds],
    *,
    streams: int,
    seconds: float = 1.0,
    clock: Clock | None = None,
) -> Rehearsal:
    """Warms a session up and measures how fast it is, alone and with all streams.

    Args:
        session: What runs, with as many contexts as streams.
        feeds: What is fed; they come round.
        streams: Calls in flight at a time.
        seconds: How long each of the two takes, about.
        clock: The time.

    Raises:
        FeedError: The feeds do not fit.
        InferenceError: The session cannot run on them.
        DeviceError: The GPU failed.
    """
    clock = clock or Clock()
    alone = np.sort(
        milliseconds(one_by_one(session.run, feeds, Pace(seconds / 4, seconds, 10), clock))
    )
    tries = 4
    count = max(math.ceil(seconds / tries * 1000 * streams / float(np.median(alone))), streams)
    rates = []
    for _ in range(tries):
        calls = all_at_once(session.run, feeds, count, clock, streams=streams)
        rates.append(count / walltime(calls))
    return Rehearsal(float(alone[0]), percentile(alone, 99), max(rates), min(rates))


def run_loadgen(
    session: Session, feeds: Sequence[Feeds], test: LoadGenTest, folder: Path
) -> LoadGenReport:
    """Lets LoadGen run a scenario on a session.

    Args:
        session: What runs, with as many contexts as the protocol has streams; it stays open.
        feeds: LoadGen's samples, one in each; all of them stay in memory.
        test: What to run.
        folder: Where LoadGen's logs go; made if it is not there. Logs in it are overwritten.

    Returns:
        LoadGen's verdict, which may be that the run is not valid.

    Raises:
        FeedError: The feeds do not fit.
        InferenceError: The session cannot run on them.
        DeviceError: The GPU failed.
        DataError: LoadGen's log is not what it should be.
        KeyboardInterrupt: On Ctrl-C; LoadGen has no way to stop, and what it still asks for is
            answered without running. A server's queries go on to come when they are due.
    """
    folder.mkdir(parents=True, exist_ok=True)
    logs = mlperf_loadgen.LogSettings()
    logs.log_output.outdir = str(folder)
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = False
    # By default LoadGen would take settings from a file in the current directory.
    audit = str(folder / "audit.config")
    settings = _settings(test)
    answering = _Answering(session, feeds, test)
    with _made(answering.take, len(feeds)) as (sut, qsl), quiet():
        done = threading.Event()

        def start() -> None:
            try:
                mlperf_loadgen.StartTestWithLogSettings(sut, qsl, settings, logs, audit)
            finally:
                done.set()

        # In a thread of its own, since Ctrl-C does not reach Python while C++ runs.
        runner = threading.Thread(target=start, name="loadgen")
        with answering:
            runner.start()
            try:
                done.wait()
            except BaseException as error:
                answering.stop(error)
                raise
            finally:
                runner.join()
    if answering.error is not None:
        raise answering.error
    return read_report(folder)


def own_figure(protocol: Scenario, measured: Measured, *, batch: int = 1) -> float:
    """The figure of one of our own runs as LoadGen computes it: `LoadGenReport.figure`.

    Args:
        protocol: Which scenario it was.
        measured: What `run_scenario` measured.
        batch: Samples in a call, offline.
    """
    samples = measured.samples
    if isinstance(protocol, Offline):
        return len(samples) * batch / measured.walltime
    if isinstance(protocol, Server):
        return (len(samples) - 1) / measured.walltime
    return loadgen_percentile(np.sort(samples.latency), protocol.percentile)


class _Answering:
    """Answers LoadGen's queries, on its own thread or on one for each stream.

    LoadGen waits for an answer to whatever it asked: once something has failed, all else is
    answered without running, so that it comes to its end.
    """

    def __init__(self, session: Session, feeds: Sequence[Feeds], test: LoadGenTest) -> None:
        self.error: BaseException | None = None
        self._session = session
        self._feeds = feeds
        self._keeps_bytes = test.mode == "accuracy"
        protocol = test.protocol
        streams = 1 if isinstance(protocol, SingleStream) else protocol.streams
        self._streams = streams
        self._in_turn = streams == 1 and isinstance(protocol, SingleStream | MultiStream)
        self._is_offline = isinstance(protocol, Offline)
        self._work: SimpleQueue[Sequence[Sample] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def take(self, queries: Sequence[Any]) -> None:
        """LoadGen's callback: a query of one sample or more."""
        samples = [(query.id, query.index) for query in queries]
        if self._in_turn:
            self._answer(samples)
            return
        piece = 1
        if self._is_offline:  # Each answer costs LoadGen some microseconds.
            piece = min(max(len(samples) // (self._streams * _PIECES), 1), _PIECES)
        for first in range(0, len(samples), piece):
            self._work.put(samples[first : first + piece])

    def stop(self, error: BaseException) -> None:
        """Runs nothing any more; the first error is kept."""
        if self.error is None:
            self.error = error

    def __enter__(self) -> _Answering:
        if not self._in_turn:
            self._threads = [
                threading.Thread(target=self._serve, name=f"loadgen-{index}")
                for index in range(self._streams)
            ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while (samples := self._work.get()) is not None:
            self._answer(samples)

    def _answer(self, samples: Sequence[Sample]) -> None:
        responses = []
        buffers = []  # LoadGen copies what they hold before the call below returns.
        for number, index in samples:
            address = size = 0
            outputs = self._run(index)
            if outputs is not None and self._keeps_bytes:
                buffer = array("B", b"".join(one.tobytes() for one in outputs.values()))
                buffers.append(buffer)
                address, size = buffer.buffer_info()
            responses.append(mlperf_loadgen.QuerySampleResponse(number, address, size))
        mlperf_loadgen.QuerySamplesComplete(responses)

    def _run(self, index: int) -> Outputs | None:
        if self.error is not None:
            return None
        try:
            return self._session.run(self._feeds[index])
        except BaseException as error:  # noqa: BLE001  # It is raised in the caller's thread.
            self.stop(error)
            return None


@contextmanager
def _made(take: Callable[[Sequence[Any]], None], count: int) -> Iterator[tuple[int, int]]:
    """LoadGen's two handles: what answers, and the library of samples, all of them loaded."""
    sut = mlperf_loadgen.ConstructSUT(take, _nothing)
    try:
        qsl = mlperf_loadgen.ConstructQSL(count, count, _nothing, _nothing)
        try:
            yield sut, qsl
        finally:
            mlperf_loadgen.DestroyQSL(qsl)
    finally:
        mlperf_loadgen.DestroySUT(sut)


def _nothing(*_: object) -> None:
    """Samples are in memory, and no query is held back to be flushed."""


def _settings(test: LoadGenTest) -> Any:
    protocol, rehearsal = test.protocol, test.rehearsal
    settings = mlperf_loadgen.TestSettings()
    settings.scenario = _KINDS[type(protocol)]
    settings.mode = MODES[test.mode]
    settings.min_duration_ms = math.ceil(1000 * protocol.min_duration)
    settings.min_query_count = protocol.min_queries
    share = protocol.percentile / 100
    # LoadGen makes up twice the queries that these latencies would need.
    fastest = max(int(1e6 * rehearsal.fastest), 1)
    if isinstance(protocol, SingleStream):
        settings.single_stream_expected_latency_ns = fastest
        settings.single_stream_target_latency_percentile = share
    elif isinstance(protocol, MultiStream):
        count = protocol.samples_per_query
        settings.multi_stream_samples_per_query = count
        at_once = min(protocol.streams, count)
        settings.multi_stream_expected_latency_ns = max(fastest * count // at_once, 1)
        settings.multi_stream_target_latency_percentile = share
    elif isinstance(protocol, Offline):
        settings.offline_expected_qps = _FASTER * rehearsal.best_rate
    elif isinstance(protocol, Server):
        settings.server_target_qps = protocol.target_qps
        settings.server_target_latency_ns = round(1e6 * protocol.target_latency)
        settings.server_target_latency_percentile = share
        settings.schedule_rng_seed = protocol.seed
    return settings
