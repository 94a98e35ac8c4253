"""Bundles that take turns: a drift cancels, bursts count for little, and stopping is honest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge_runtime as er
from edge_runtime.bench.comparable import differences
from edge_runtime.bench.harness import BenchConfig
from edge_runtime.bench.interleave import (
    QUARTILE,
    Interleaved,
    Turns,
    interleaved,
    round_ratio,
    take_turns,
)
from edge_runtime.bench.protocols import protocol
from edge_runtime.bench.trtexec import Measured
from edge_runtime.bench.verdict import THROUGHPUT, Verdict
from edge_runtime.errors import ConfigError
from tests.conftest import DATA
from tests.unit.bench.noise import Machine

SEEDS = 12
QUICK = Turns(turn=0.001, rounds=10, resolution=0.001, seconds=0.05)


def ratio(machine: Machine, scale: float, turns: Turns, figure: str = QUARTILE) -> tuple:
    runs = [lambda: machine.turn(1.0), lambda: machine.turn(scale)]
    rounds = take_turns(runs, turns, figure, now=lambda: machine.seconds)
    return len(rounds), round_ratio(rounds, 1, figure)


def verdicts(scale: float, **machine: float) -> Counter[str]:
    found: Counter[str] = Counter()
    for seed in range(SEEDS):
        _, sure = ratio(Machine(seed, **machine), scale, Turns(resolution=0.04))
        low, high = sure.interval
        found["slower" if low > 1 else "faster" if high < 1 else "cannot tell"] += 1
    return found


@pytest.mark.parametrize("drift", [0.0, 0.005])
@pytest.mark.parametrize("disturbed", [0.0, 0.3])
def test_a_bundle_is_not_told_from_itself(drift: float, disturbed: float) -> None:
    assert verdicts(1.0, drift=drift, disturbed=disturbed) == {"cannot tell": SEEDS}


@pytest.mark.parametrize("scale", [1.05, 1 / 1.05])
def test_five_per_cent_are_found_on_a_machine_that_drifts_and_is_disturbed(scale: float) -> None:
    wanted = "slower" if scale > 1 else "faster"
    assert verdicts(scale, disturbed=0.3)[wanted] >= SEEDS - 1


@pytest.mark.parametrize("figure", [QUARTILE, "median", THROUGHPUT])
def test_a_steady_drift_cancels(figure: str) -> None:
    """2 % from turn to turn, where the bundle measured last would always be 2 % slower."""
    turns = 0

    def turn() -> Measured:
        nonlocal turns
        turns += 1
        found = Machine(turns, disturbed=0).turn(1.0)
        latency = np.full(20, np.exp(0.02 * turns))
        samples = replace(found.samples, latency=latency)
        return replace(found, samples=samples, walltime=float(latency.sum()))

    rounds = take_turns([turn, turn, turn], Turns(rounds=10, resolution=9), figure)
    for index in (1, 2):
        assert round_ratio(rounds, index, figure).log == pytest.approx(0, abs=1e-9)


def test_turns_go_there_and_back() -> None:
    order: list[str] = []

    def run(name: str) -> Callable[[], Measured]:
        def turn() -> Measured:
            order.append(name)
            return Machine(0).turn(1.0 if name == "a" else 2.0)

        return turn

    rounds = take_turns([run("a"), run("b"), run("c")], Turns(rounds=10, resolution=9))
    assert "".join(order) == "abccba" * 10
    assert round_ratio(rounds, 1, "median").ratio == pytest.approx(2)
    assert round_ratio(rounds, 2, THROUGHPUT).ratio == pytest.approx(0.5)


def test_rounds_go_on_until_the_difference_wanted_would_show() -> None:
    few, coarse = ratio(Machine(0), 1.0, Turns(resolution=0.2))
    many, fine = ratio(Machine(0), 1.0, Turns(resolution=0.01))
    assert few == 30
    assert many > 2 * few
    assert fine.smallest <= 0.01 < coarse.smallest <= 0.2


def test_rounds_end_when_there_is_no_time_left() -> None:
    machine = Machine(0)
    count, sure = ratio(machine, 1.0, Turns(resolution=1e-6, seconds=10))
    assert 10 <= machine.seconds < 12
    assert sure.smallest > 1e-6
    count, _ = ratio(Machine(0), 1.0, Turns(rounds=1000, resolution=0.5, seconds=0.001))
    assert count == 10


@pytest.mark.parametrize(
    "given", [{"turn": 0}, {"rounds": 9}, {"rounds": 10.5}, {"resolution": -1}, {"seconds": "1"}]
)
def test_turns_that_cannot_be_are_refused(given: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(given))):
        Turns(**given)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("turns")
    return er.build(DATA / "digits.onnx", output=folder / "digits.edge").path


@pytest.fixture(scope="module")
def thrice(bundle: Path) -> Interleaved:
    config = BenchConfig(protocol=protocol("trtexec10"), device="cpu", threads=1)
    return interleaved([bundle, bundle, bundle], config, QUICK)


def test_each_is_compared_with_the_first(thrice: Interleaved) -> None:
    assert len(thrice.results) == 3
    assert len(thrice.comparisons) == 2
    for comparison, result in zip(thrice.comparisons, thrice.results[1:], strict=True):
        assert comparison.rounds is not None
        assert comparison.rounds >= 10
        assert comparison.old.queries == len(thrice.results[0].samples)
        assert comparison.new.queries == len(result.samples)
        assert comparison.figure == QUARTILE
        assert [row.figure for row in comparison.rows][:2] == [QUARTILE, "median"]
        summary = result.summary(percentiles=[25])
        assert summary is not None
        assert comparison.main.new == summary.percentiles[25]


def test_all_turns_are_one_result_that_is_no_run_of_its_own(
    thrice: Interleaved, tmp_path: Path
) -> None:
    for result in thrice.results:
        rounds = thrice.comparisons[0].rounds
        assert rounds is not None
        assert len(result.samples) >= 2 * 3 * rounds
        assert (np.diff(result.samples.start) > 0).all()
        assert result.samples.start[-1] < result.walltime
        assert result.samples.latency.sum() / 1000 <= result.walltime
        assert result.parameters["interleaved"] is True
        result.save(tmp_path / "result.json")
        again = type(result).load(tmp_path / "result.json")
        assert differences(again, result) == []
        alone = replace(result, parameters={**result.parameters, "interleaved": False})
        assert differences(alone, result) == ["setting interleaved False and True"]


def test_a_scenario_in_turns_is_not_valid(bundle: Path) -> None:
    config = BenchConfig(protocol=protocol("offline"), device="cpu", threads=1)
    found = interleaved([bundle, bundle], config, QUICK)
    assert found.comparisons[0].figure == THROUGHPUT
    assert all(any(w.startswith("INVALID") for w in r.warnings) for r in found.results)


def test_shapes_that_differ_are_refused_before_rounds_begin(bundle: Path, tmp_path: Path) -> None:
    other = er.build(DATA / "fashion.onnx", output=tmp_path / "fashion.edge").path
    config = BenchConfig(protocol=protocol("trtexec10"), device="cpu", threads=1)
    told: list[str] = []
    with pytest.raises(ConfigError, match="shape of input"):
        interleaved([bundle, other], config, QUICK, progress=lambda what, *_: told.append(what))
    assert told == []
    forced = interleaved([bundle, other], config, QUICK, force=True).comparisons[0]
    assert forced.differences
    assert isinstance(forced.verdict, Verdict)


def test_one_bundle_cannot_take_turns(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="two or more"):
        interleaved([bundle], BenchConfig(protocol=protocol("trtexec10")))
