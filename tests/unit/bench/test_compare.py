"""Verdicts on two runs: right about what is there, silent about what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.bench.bootstrap import Blocks, draw, percentile_draws, student
from edge_runtime.bench.comparable import differences
from edge_runtime.bench.compare import compare
from edge_runtime.bench.result import BenchResult, Samples
from edge_runtime.bench.statistics import percentile
from edge_runtime.bench.verdict import COLUMNS, THROUGHPUT, Verdict, slower_than
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.telemetry.clocks import ClockRange
from edge_runtime.telemetry.conditions import Conditions, read_conditions
from edge_runtime.telemetry.power_mode import PowerMode
from tests.unit.bench.noise import latencies, result

SEEDS = 25
COUNT = 2000


def verdicts(scale: float, **how: Any) -> Counter[Verdict]:
    """How often each verdict is given on runs of which the second is `scale` times as slow."""
    found: Counter[Verdict] = Counter()
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        old = result(latencies(random, COUNT, **how))
        new = result(latencies(random, COUNT, scale=scale, **how))
        found[compare(old, new).verdict] += 1
    return found


@pytest.mark.parametrize(
    "how", [{}, {"correlation": 0.99}, {"bursts": 0.2}, {"drift": 0.1}], ids=str
)
def test_equals_are_not_told_apart(how: Mapping[str, Any]) -> None:
    assert verdicts(1.0, **how)[Verdict.CANNOT_TELL] >= SEEDS - 1


def test_neighbours_that_are_alike_do_not_count_twice() -> None:
    random = np.random.default_rng(0)
    apart, alike = (
        compare(*(result(latencies(random, COUNT, correlation=c)) for _ in range(2))).main.smallest
        for c in (0.0, 0.97)
    )
    assert apart is not None
    assert alike is not None
    assert alike > 3 * apart


@pytest.mark.parametrize(("scale", "verdict"), [(1.05, Verdict.SLOWER), (1 / 1.05, Verdict.FASTER)])
def test_five_per_cent_are_seen_in_noise(scale: float, verdict: Verdict) -> None:
    assert verdicts(scale)[verdict] >= SEEDS - 1


def test_the_smallest_difference_said_to_be_visible_is_seen_in_four_of_five_cases() -> None:
    seen = 0
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        old = latencies(random, COUNT)
        smallest = compare(result(old), result(latencies(random, COUNT))).main.smallest
        assert smallest is not None
        assert 0.002 < smallest < 0.05
        new = latencies(random, COUNT, scale=1 + smallest)
        seen += compare(result(old), result(new)).verdict is Verdict.SLOWER
    assert 0.6 * SEEDS <= seen < SEEDS


def test_a_run_equals_itself_exactly() -> None:
    run = result(latencies(np.random.default_rng(0), COUNT))
    found = compare(run, run)
    assert {row.ratio for row in found.rows} == {1.0}
    assert {row.verdict for row in found.rows} == {Verdict.CANNOT_TELL}


def test_the_rows_are_the_figures_of_the_runs() -> None:
    random = np.random.default_rng(0)
    old, new = (result(latencies(random, COUNT, scale=scale)) for scale in (1.0, 1.3))
    rows = {row.figure: row for row in compare(old, new).rows}
    assert list(rows) == [
        *("median", "percentile(90%)", "percentile(95%)", "percentile(99%)", THROUGHPUT)
    ]
    for side, run in (("old", old), ("new", new)):
        summary = run.summary()
        assert summary is not None
        assert getattr(rows["median"], side) == summary.median
        assert getattr(rows["percentile(99%)"], side) == summary.percentiles[99.0]
        assert getattr(rows[THROUGHPUT], side) == run.throughput
    rate = rows[THROUGHPUT]
    assert rate.ratio == pytest.approx(new.throughput / old.throughput)
    assert rate.ratio < 1
    assert rate.verdict is Verdict.SLOWER
    assert compare(new, old).rows[-1].verdict is Verdict.FASTER


@pytest.mark.parametrize(
    ("protocol", "percent", "figure"),
    [
        ("trtexec11", 99.0, "median"),
        ("end-to-end", 95.0, "median"),
        ("single-stream", 90.0, "percentile(90%)"),
        ("multi-stream", 99.0, "percentile(99%)"),
        ("server", 97.0, "percentile(97%)"),
        ("offline", 99.0, THROUGHPUT),
    ],
)
def test_the_verdict_goes_by_the_protocols_own_figure(
    protocol: str, percent: float, figure: str
) -> None:
    run = result(
        latencies(np.random.default_rng(0), COUNT),
        protocol=protocol,
        parameters={"percentile": percent},
    )
    found = compare(run, run)
    assert found.figure == figure
    assert found.main.figure == figure


def test_a_percentile_without_queries_enough_has_no_interval() -> None:
    random = np.random.default_rng(0)
    few = [result(latencies(random, 200, scale=scale)) for scale in (1.0, 3.0)]
    found = compare(*few)
    rows = {row.figure: row for row in found.rows}
    assert rows["percentile(99%)"].low is None
    assert rows["percentile(99%)"].verdict is Verdict.CANNOT_TELL
    assert rows["percentile(90%)"].low is not None
    assert found.verdict is Verdict.SLOWER
    cells = {row[0]: row[-1] for row in found.cells()}
    assert cells["percentile(99%)"] == "too few queries"
    assert all(len(row) == len(COLUMNS) for row in found.cells())


def test_too_few_queries_are_refused() -> None:
    run = result(np.full(7, 1.0))
    with pytest.raises(DataError, match="7 queries"):
        compare(run, run)


def test_a_figure_of_0_is_refused() -> None:
    with pytest.raises(DataError, match="median"):
        compare(result(np.full(20, 1.0)), result(np.zeros(20), walltime=1.0))


def test_slower_than_wants_the_whole_interval_above() -> None:
    random = np.random.default_rng(0)
    old, new = (result(latencies(random, COUNT, scale=scale)) for scale in (1.0, 1.2))
    found = compare(old, new)
    low = found.main.low
    assert low is not None
    assert 1.05 < low < 1.2
    assert slower_than(found, 100 * (low - 1) - 0.1)
    assert not slower_than(found, 100 * (low - 1) + 0.1)
    assert not slower_than(compare(new, old), 0)
    assert not slower_than(compare(old, old), 0)


def test_slower_than_reads_a_throughput_the_other_way_round() -> None:
    random = np.random.default_rng(0)
    old, new = (
        result(latencies(random, COUNT, scale=scale), protocol="offline") for scale in (1.0, 1.4)
    )
    found = compare(old, new)
    assert found.main.ratio == pytest.approx(1 / 1.4, rel=0.1)
    assert slower_than(found, 15)
    assert not slower_than(found, 60)
    assert not slower_than(compare(new, old), 0)
    assert "slower" in found.sentence
    assert "+" in found.sentence


def conditions(**changes: Any) -> dict[str, Any]:
    here = read_conditions(Path("/nowhere"), folder=None)
    clock = ClockRange("gpu", 306.0, 1300.0, 1300.0, "nvhost_podgov", False)
    mode = PowerMode(0, {0: "MAXN", 1: "15W"})
    made: Conditions = replace(here, power_mode=mode, clocks=(clock,), versions={"tensorrt": "10"})
    return replace(made, **changes).to_json()


def differing() -> dict[str, tuple[BenchResult, BenchResult]]:
    run = result(np.linspace(1, 2, 50), conditions=conditions())

    def subject(**changes: Any) -> BenchResult:
        return replace(run, subject=replace(run.subject, **changes))

    locked = (ClockRange("gpu", 1300.0, 1300.0, 1300.0, "nvhost_podgov", True),)
    board = replace(read_conditions(Path("/nowhere"), folder=None).board, jetson="Orin")
    changed = {
        "protocol trtexec10 and trtexec11": replace(run, protocol="trtexec11"),
        "setting streams 1 and 2": replace(run, parameters={**run.parameters, "streams": 2}),
        "setting spin not there and True": replace(
            run, parameters={**run.parameters, "spin": True}
        ),
        "shape of input x 1x4 and 1x8": subject(shapes={"x": (1, 8)}),
        "shape of input y not there and 1": subject(shapes={"x": (1, 4), "y": (1,)}),
        "batch 1 and 2": subject(batch=2),
        "threads 1 and 2": subject(threads=2),
        "device a CPU and Orin": subject(device="Orin"),
        "conditions recorded and not recorded": replace(run, conditions={}),
        "power mode MAXN and 15W": replace(
            run, conditions=conditions(power_mode=PowerMode(1, {0: "MAXN", 1: "15W"}))
        ),
        "power mode MAXN and not there": replace(run, conditions=conditions(power_mode=None)),
        "clocks of gpu 306 to 1300 MHz, nvhost_podgov and locked at 1300 MHz, nvhost_podgov": (
            replace(run, conditions=conditions(clocks=locked))
        ),
        "on battery not there and True": replace(run, conditions=conditions(on_battery=True)),
        "jetson not there and Orin": replace(run, conditions=conditions(board=board)),
    }
    return {phrase: (run, other) for phrase, other in changed.items()}


@pytest.mark.parametrize("phrase", differing())
def test_what_was_measured_differently_is_refused_by_name(phrase: str) -> None:
    old, new = differing()[phrase]
    assert differences(old, new) == [phrase]
    with pytest.raises(ConfigError) as caught:
        compare(old, new)
    assert phrase in str(caught.value)
    assert "--force" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert compare(old, new, force=True).differences == (phrase,)


def test_what_one_compares_may_differ_and_versions_are_told() -> None:
    run = result(np.linspace(1, 2, 50), conditions=conditions())
    subject = replace(
        run.subject, bundle="b.edge", model="b.onnx", precision="fp16", cpu_mode="fast"
    )
    other = replace(run, subject=subject, version="0.2", created="2026-11-23T00:00:00Z")
    other = replace(other, conditions=conditions(versions={"tensorrt": "11"}, fan=0.5))
    found = compare(run, replace(other, warnings=("INVALID: too short.", "Unstable.")))
    assert found.differences == ()
    assert found.notes == (
        "edge_runtime 0.1 and 0.2.",
        "tensorrt 10 and 11.",
        "The new run: INVALID: too short.",
    )


def test_damaged_conditions_are_refused() -> None:
    run = result(np.linspace(1, 2, 50), conditions=conditions())
    with pytest.raises(DataError, match="the new result's conditions"):
        compare(run, replace(run, conditions={"board": None}))


def test_throughput_is_that_of_the_start_times_and_not_of_the_latencies() -> None:
    latency = np.full(400, 1.0)
    start = np.arange(400) * 0.002
    old = result(latency, samples=Samples(start=start, latency=latency), walltime=0.8)
    new = replace(old, samples=Samples(start=2 * start, latency=latency), walltime=1.6)
    rows = {row.figure: row for row in compare(old, new).rows}
    assert rows["median"].verdict is Verdict.CANNOT_TELL
    assert rows[THROUGHPUT].ratio == pytest.approx(0.5)
    assert rows[THROUGHPUT].verdict is Verdict.SLOWER


@pytest.mark.parametrize("percent", [50.0, 90.0, 99.0])
def test_a_draw_of_blocks_has_the_percentile_of_its_queries(percent: float) -> None:
    random = np.random.default_rng(1)
    series = Blocks.equal(latencies(random, 317))
    weights = draw(len(series))[:20]
    found = percentile_draws(series, percent, weights)
    blocks = np.split(series.times, series.edges[1:-1])
    for weight, value in zip(weights, found, strict=True):
        drawn = np.concatenate([np.tile(b, int(n)) for b, n in zip(blocks, weight, strict=True)])
        assert value == pytest.approx(percentile(np.sort(drawn), percent), rel=0.002)


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    [(0.999, 4, 7.1732), (0.999, 10, 4.1437), (0.999, 39, 3.3128), (0.8, 10, 0.8791)],
)
def test_students_quantiles_are_those_of_the_tables(
    probability: float, freedom: float, quantile: float
) -> None:
    assert student(probability, freedom) == pytest.approx(quantile, rel=0.01)
