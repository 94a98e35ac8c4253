"""The search on drops that are worked out from a table, without any model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.accuracy.bootstrap import Drop
from edge_runtime.accuracy.search import Search, most_tries
from edge_runtime.guard_config import GuardConfig


def search(
    losses: dict[str, float], budget: float, spread: float = 0.0, **settings: bool
) -> Search:
    def judge(kept: frozenset[str]) -> Drop:
        lost = sum(loss for name, loss in losses.items() if name not in kept)
        return Drop(1.0, 1 - lost, lost, (lost - spread, lost + spread))

    return Search(GuardConfig(budget, **settings), judge)


@given(
    losses=st.lists(st.integers(0, 9), min_size=2, max_size=40),
    budget=st.integers(0, 60),
)
def test_the_shortest_run_is_found_in_few_steps(losses: list[int], budget: int) -> None:
    names = [f"l{index}" for index in range(len(losses))]
    table = {name: loss / 1000 for name, loss in zip(names, losses, strict=True)}
    found = search(table, budget / 1000)
    kept = found.shortest(names)
    runs = [n for n in range(1, len(losses)) if sum(losses[n:]) <= budget]
    assert kept == (frozenset(names[: runs[0]]) if runs else None)
    assert len(found.tried) <= 2 * len(losses).bit_length()
    if kept is not None:
        costly = [name for name in names if name in kept][:-1]
        left = found.give_back(kept, costly)
        assert left <= kept
        assert sum(table[name] for name in names if name not in left) <= budget / 1000 + 1e-9
    assert len(found.tried) <= most_tries(len(losses))


@pytest.mark.parametrize("needed", range(1, 20))
def test_a_run_of_any_length_is_found_exactly(needed: int) -> None:
    names = [f"l{index:02}" for index in range(20)]
    found = search({name: float(name < f"l{needed:02}") for name in names}, 0.5)
    assert found.shortest(names) == frozenset(names[:needed])


def test_what_was_kept_for_nothing_is_given_back() -> None:
    found = search({"a": 0.001, "b": 0.5, "c": 0.001}, 0.01)
    kept = found.shortest(["a", "b", "c"])
    assert kept == {"a", "b"}
    assert found.give_back(kept, ["a"]) == {"b"}


def test_giving_back_stops_where_the_budget_ends() -> None:
    found = search(dict.fromkeys("abcdefgh", 0.004), 0.008)
    assert len(found.give_back(frozenset("abcdefgh"), list("abcdefgh"))) == 6


def test_giving_back_is_bounded() -> None:
    names = [f"l{index}" for index in range(100)]
    found = search(dict.fromkeys(names, 0.5), 0.01)
    found.give_back(frozenset(names), names)
    assert len(found.tried) == 12


def test_confidence_takes_the_whole_interval() -> None:
    losses = {"a": 0.02, "b": 0.02, "c": 0.001}
    assert search(losses, 0.03, spread=0.02).shortest(["a", "b", "c"]) == {"a"}
    confident = search(losses, 0.03, spread=0.02, confident=True)
    assert confident.shortest(["a", "b", "c"]) == {"a", "b"}


def test_one_layer_leaves_nothing_to_search() -> None:
    assert search({"a": 0.5}, 0.1).shortest(["a"]) is None


def test_nothing_is_judged_twice() -> None:
    found = search({"a": 0.5, "b": 0.0}, 0.1)
    judged: list[frozenset[str]] = []
    judge = found._judge
    found._judge = lambda kept: (judged.append(kept), judge(kept))[1]
    for _ in range(2):
        assert found.keeps_budget(frozenset("a"))
    assert judged == [frozenset("a")]


@pytest.mark.parametrize("layers", [1, 2, 50])
def test_the_bound_is_positive(layers: int) -> None:
    assert most_tries(layers) > 12
