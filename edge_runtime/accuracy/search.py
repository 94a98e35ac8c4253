"""Searches the layers to leave out of INT8: a ranking, its shortest run, and what can go back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_runtime.accuracy.bootstrap import Drop
from edge_runtime.guard_config import GuardConfig

GIVEN_BACK = 12
"""The most layers that giving back is tried with."""

Layers = frozenset[str]


@dataclass(frozen=True)
class Candidate:
    """An assignment that was judged.

    Attributes:
        kept: The layers that it leaves out of INT8.
        drop: What it loses.
    """

    kept: Layers
    drop: Drop


class Search:
    """Judges assignments, each once.

    Attributes:
        tried: All that were judged, by what they leave out.
    """

    def __init__(self, guard: GuardConfig, judge: Callable[[Layers], Drop]) -> None:
        self.tried: dict[Layers, Candidate] = {}
        self._guard = guard
        self._judge = judge

    def keeps_budget(self, kept: Layers) -> bool:
        """Whether the model without these layers in INT8 is within the budget."""
        if kept not in self.tried:
            self.tried[kept] = Candidate(kept, self._judge(kept))
        drop = self.tried[kept].drop
        return drop.within(self._guard.max_drop, confident=self._guard.confident)

    def shortest(self, ranking: Sequence[str]) -> Layers | None:
        """The shortest run of a ranking, from its first on, that is seen to keep the budget.

        It is found by doubling and halving, so that it is the shortest if no longer one fails.

        Args:
            ranking: All layers, those first whose leaving out helps most.

        Returns:
            The layers to leave out; None if all but the last are not enough.
        """
        most = len(ranking) - 1  # With all of them left out nothing is INT8.
        low, high = 0, min(1, most)
        while not self.keeps_budget(frozenset(ranking[:high])):
            if high == most:
                return None
            low, high = high, min(2 * high, most)
        while high - low > 1:
            middle = (low + high) // 2
            if self.keeps_budget(frozenset(ranking[:middle])):
                high = middle
            else:
                low = middle
        return frozenset(ranking[:high])

    def give_back(self, kept: Layers, costly: Sequence[str]) -> Layers:
        """Puts layers into INT8 again while the budget is kept.

        Args:
            kept: What keeps the budget.
            costly: Those of `kept` to try, in this order.
        """
        for name in costly[:GIVEN_BACK]:
            if self.keeps_budget(kept - {name}):
                kept -= {name}
        return kept


def most_tries(layers: int) -> int:
    """A bound of the number of assignments that a search of so many layers judges."""
    return 2 * layers.bit_length() + GIVEN_BACK + 2
