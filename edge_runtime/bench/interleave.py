"""Measures bundles in turns, A B B A, in one process: what disturbs one turn disturbs its pair.

A round runs each bundle, in order and then in the opposite order, so that a drift that is the same
from turn to turn cancels. Turns are short: on a busy machine, many ratios of neighbours say more
than a few long runs, and those that a burst of other work has spoilt count for little.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from edge_runtime.bench import advice
from edge_runtime.bench.bootstrap import Blocks, Estimate, of_pooled_rounds, of_rounds
from edge_runtime.bench.comparable import check_comparable
from edge_runtime.bench.compare import enough, figures, side, unsure
from edge_runtime.bench.harness import Bench, BenchConfig
from edge_runtime.bench.loops import quiet
from edge_runtime.bench.protocols import EndToEnd, Protocol, Scenario, Trtexec
from edge_runtime.bench.result import BenchResult, Samples
from edge_runtime.bench.statistics import Times, percentile
from edge_runtime.bench.trtexec import Measured
from edge_runtime.bench.verdict import THROUGHPUT, Comparison, Ratio
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ConfigError
from edge_runtime.files import StrPath
from edge_runtime.progress import Progress, silent

_BEFORE = 0.2
"""Share of a turn in which queries are not counted: the caches are still the other bundle's."""

_QUERIES = 3

QUARTILE = "percentile(25%)"
"""What a verdict on turns goes by: other work on the machine only adds to times, and to the slower
ones more than to the faster ones (Chen and Revels 2016, "Robust benchmarking in noisy
environments", who take the least time of all)."""

_ROUNDS = 10
"""The fewest that say anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """How long to take turns.

    Attributes:
        turn: Seconds of a turn, at least; three queries are the least.
        rounds: Rounds at least, 10 or more, if there is time for them.
        resolution: The rounds go on until a difference of this share of 1 would show.
        seconds: But no longer than this, after 10 rounds.
    """

    turn: float = 0.02
    rounds: int = 30
    resolution: float = 0.03
    seconds: float = 120.0

    def __post_init__(self) -> None:
        for name in ("turn", "resolution", "seconds"):
            value = getattr(self, name)
            if not (type(value) in (int, float) and 0 < value < math.inf):
                raise ConfigError(f"{name} of turns is {value!r}; it must be a number above 0.")
        if type(self.rounds) is not int or self.rounds < _ROUNDS:
            raise ConfigError(f"rounds of turns is {self.rounds!r}; it must be {_ROUNDS} or more.")


@dataclass(frozen=True, slots=True, eq=False)
class Interleaved:
    """What bundles that took turns have shown.

    Attributes:
        results: All queries of each bundle as one result, in the order given. Its parameters say
            that it is interleaved, so that it is not taken for a run of its own.
        comparisons: Each bundle but the first with the first.
    """

    results: tuple[BenchResult, ...]
    comparisons: tuple[Comparison, ...]


def interleaved(
    sources: Sequence[StrPath | Bundle],
    config: BenchConfig,
    turns: Turns | None = None,
    *,
    force: bool = False,
    progress: Progress = silent,
) -> Interleaved:
    """Measures several bundles in turns, and compares each with the first.

    Args:
        sources: Bundles or their paths, two or more; one may come twice.
        config: How and on what. Of its protocol, a turn has all but durations and numbers of
            queries; sensors are not read.
        turns: How long.
        force: Compare though shapes or devices differ; the comparisons say how.
        progress: Told of rounds between them.

    Raises:
        ConfigError: Fewer than two bundles, or they are not measured alike.
        EdgeRuntimeError: As `Bench` and `Bench.measure`.
    """
    turns = turns or Turns()
    if len(sources) < 2:
        raise ConfigError(f"{len(sources)} bundles cannot take turns; give two or more.")
    short = replace(config, protocol=_short(config.protocol, turns.turn), interval=None)
    with ExitStack() as stack:
        benches = [stack.enter_context(Bench(source, short)) for source in sources]
        results = [bench.measure() for bench in benches]  # Warms up, and has the conditions.
        for other in results[1:]:
            check_comparable(results[0], other, force=force)
        stack.enter_context(quiet())
        figure = _figure(results[0])
        rounds = take_turns([bench.run for bench in benches], turns, figure, progress)
        loads = [bench.measure().load_after for bench in benches]
    results = [replace(r, load_after=load) for r, load in zip(results, loads, strict=True)]
    joined = [
        _join(result, short.protocol, [one[index] for one in rounds])
        for index, result in enumerate(results)
    ]
    return Interleaved(
        tuple(joined),
        tuple(_compare(joined, rounds, index, force=force) for index in range(1, len(joined))),
    )


Round = Sequence[tuple[Measured, Measured]]
"""Of each bundle its turn on the way there and the one on the way back."""


def take_turns(
    runs: Sequence[Callable[[], Measured]],
    turns: Turns,
    figure: str = QUARTILE,
    progress: Progress = silent,
    now: Callable[[], float] = time.perf_counter,
) -> list[Round]:
    """Runs rounds until the ratios of all to the first are as sure as they shall be.

    What is looked at is how sure they are, never what they are: a verdict that stops as soon as it
    likes what it sees would be wrong more often than it says.

    Args:
        runs: What a turn of each does.
        turns: How long.
        figure: Of which figure the ratios are.
        progress: Told of rounds.
        now: The time, in seconds.
    """
    rounds: list[Round] = []
    begin, wanted = now(), turns.rounds
    while True:
        there = [run() for run in runs]
        back = [run() for run in reversed(runs)]
        rounds.append(list(zip(there, reversed(back), strict=True)))
        count, spent = len(rounds), now() - begin
        progress("Measuring in turns", min(count, wanted), wanted)
        if count < wanted and (spent < turns.seconds or count < _ROUNDS):
            continue
        worst = max(round_ratio(rounds, index, figure).smallest for index in range(1, len(runs)))
        if worst <= turns.resolution or spent >= turns.seconds:
            return rounds
        # The error falls with the square root of the rounds; looked at in steps of a half more.
        more = min(count * (worst / turns.resolution) ** 2, count * 1.5)
        affordable = count * turns.seconds / spent
        wanted = max(count + 1, math.ceil(min(more, affordable)))


def round_ratio(rounds: Sequence[Round], index: int, figure: str) -> Estimate:
    """The ratio of a bundle to the first, round by round.

    Args:
        rounds: The turns.
        index: Which bundle.
        figure: `QUARTILE`, `median` or `throughput`.
    """
    value = _VALUES[figure]
    logs = [
        sum(math.log(value(new) / value(old)) for new, old in zip(one[index], one[0], strict=True))
        / 2
        for one in rounds
    ]
    return of_rounds(np.array(logs))


def _compare(
    joined: Sequence[BenchResult], rounds: Sequence[Round], index: int, *, force: bool
) -> Comparison:
    old, new = joined[0], joined[index]
    blocks = [
        Blocks.of([np.concatenate([turn.samples.latency for turn in one[which]]) for one in rounds])
        for which in (0, index)
    ]
    quartiles = _quartile(old.samples), _quartile(new.samples)
    rows = []
    others = [row for row in figures(old, new) if row[0] != QUARTILE]
    for name, percent, values in [(QUARTILE, 25.0, quartiles), *others]:
        if name in _VALUES:
            rows.append(Ratio.of(name, "ms", values, round_ratio(rounds, index, name)))
        elif enough(old, new, percent):
            sure = of_pooled_rounds(blocks[0], blocks[1], percent, values)
            rows.append(Ratio.of(name, "ms", values, sure))
        else:
            rows.append(unsure(name, values))
    rates = old.throughput, new.throughput
    rows.append(Ratio.of(THROUGHPUT, "qps", rates, round_ratio(rounds, index, THROUGHPUT)))
    return Comparison(
        protocol=old.protocol,
        figure=_figure(old),
        rounds=len(rounds),
        old=side(old),
        new=side(new),
        rows=tuple(rows),
        differences=tuple(check_comparable(old, new, force=force)),
    )


def _figure(result: BenchResult) -> str:
    """What the verdict goes by: turns are too short for a high percentile of their own."""
    return THROUGHPUT if result.protocol == "offline" else QUARTILE


def _quartile(samples: Samples) -> float:
    return percentile(np.sort(samples.latency), 25)


def _median(measured: Measured) -> float:
    return float(np.median(measured.samples.latency))


def _rate(measured: Measured) -> float:
    return len(measured.samples) / measured.walltime


_VALUES: dict[str, Callable[[Measured], float]] = {
    QUARTILE: lambda measured: _quartile(measured.samples),
    "median": _median,
    THROUGHPUT: _rate,
}
"""Figures that a turn has of its own."""


def _short(protocol: Protocol, turn: float) -> Protocol:
    """The same protocol for a turn."""
    before = _BEFORE * turn
    if isinstance(protocol, Trtexec | EndToEnd):
        return replace(protocol, warmup=before, duration=turn, iterations=_QUERIES)
    assert isinstance(protocol, Scenario)
    return replace(protocol, warmup=before, min_duration=turn, min_queries=_QUERIES)


def _join(
    first: BenchResult, protocol: Protocol, turns: Sequence[tuple[Measured, Measured]]
) -> BenchResult:
    """All turns of a bundle as one result, as if no time had passed between them."""
    parts = [turn for both in turns for turn in both]
    starts = np.cumsum([0.0, *(part.walltime for part in parts)])
    series: dict[str, Times] = {}
    for name in Samples.__dataclass_fields__:
        found = [getattr(part.samples, name) for part in parts]
        if found[0] is not None:
            since = starts if name == "start" or name.endswith("_start") else np.zeros(len(starts))
            series[name] = np.concatenate([t + s for t, s in zip(found, since, strict=False)])
    samples = Samples(**series)
    warnings = advice.warnings(protocol, samples)
    if isinstance(protocol, Scenario):
        warnings.append(f"INVALID: turns are no run of {protocol.name}, however many they are.")
    return replace(
        first,
        samples=samples,
        walltime=float(starts[-1]),
        warmup=first.warmup + len(first.samples) + sum(part.warmup for part in parts),
        parameters={**first.parameters, "interleaved": True},
        warnings=tuple(warnings),
    )
