"""What is said of a search: the verdict as plain JSON, or why there is none, in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edge_runtime.accuracy.bootstrap import Drop
from edge_runtime.accuracy.cost import Cost
from edge_runtime.accuracy.search import Candidate
from edge_runtime.data.evaluation import Held
from edge_runtime.guard_config import GuardConfig, decibels

_SHOWN = 5


def verdict(
    guard: GuardConfig, cost: Cost, tried: Iterable[Candidate], chosen: Candidate, held: Held
) -> dict[str, Any]:
    """The chosen assignment and the curve of all that were judged, as plain JSON.

    Scores and drops are shares, or what a function of the user's returns; `interval` is the
    drop's at 95 %, null where there is none. Speeds are estimates, as times of FP32's.
    """
    drop, speed = chosen.drop, cost.speed(chosen.kept)
    curve = sorted(tried, key=lambda each: (len(each.kept), -cost.speed(each.kept)))
    return {
        "metric": guard.metric,
        "max_drop": guard.max_drop,
        "reference": drop.reference,
        "reached": drop.reached,
        "drop": drop.drop,
        "interval": _ends(drop),
        "samples": len(held.samples),
        "held_out": held.description,
        "int8_layers": len(cost.int8) - len(chosen.kept),
        "layers": len(cost.int8),
        "kept": [name for name in cost.int8 if name in chosen.kept],
        "speed": {
            "estimate": speed,
            "of_all_int8": speed / cost.speed(()),
            "basis": cost.basis,
        },
        "curve": [
            {
                "kept": len(each.kept),
                "drop": each.drop.drop,
                "interval": _ends(each.drop),
                "speed": cost.speed(each.kept),
            }
            for each in curve
        ],
    }


def refusal(guard: GuardConfig, cost: Cost, tried: Iterable[Candidate], held: Held) -> str:
    """Why no assignment was chosen, how near the best came, and what to do."""
    tried = list(tried)
    best = min(tried, key=lambda each: (_loss(each.drop, guard), len(each.kept)))
    names = [name for name in cost.int8 if name in best.kept]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    left_out = f" ({', '.join(names[:_SHOWN])}{more})" if names else ""
    sure, hint = "", "Allow more with --max-drop, calibrate on more and truer samples"
    if best.drop.interval is not None:
        ends = [_share(end, guard) for end in best.drop.interval]
        low, high = reversed(ends) if guard.metric == "sqnr" else ends
        sure = f" (95 % interval {low} to {high})"
    if guard.confident:
        hint = "Judge on more samples, or without --confident; allow more with --max-drop"
    wanted, verb = f"within {_share(guard.max_drop, guard)} of FP32's", "loses"
    if guard.metric == "sqnr":
        wanted, verb = f"at {_share(guard.max_drop, guard)}", "reaches"
    return (
        f"No INT8 form keeps {guard.metric} {wanted}"
        f"{' with confidence' if guard.confident else ''} on {len(held.samples)} samples: the best "
        f"of {len(tried)} {verb} {_share(best.drop.drop, guard)}{sure}, with {len(names)} of "
        f"{len(cost.int8)} layers left out of INT8{left_out}. {hint}, or choose --precision fp16."
    )


def rounding_refusal(guard: GuardConfig, chosen: Candidate, drop: Drop) -> str:
    """Why a search that kept the budget is refused after its weights were rounded with effort."""
    verb, beyond = "loses", "more"
    if guard.metric == "sqnr":
        verb, beyond = "reaches", "less"
    return (
        f"With {len(chosen.kept)} layers left out of INT8, {guard.metric} {verb} "
        f"{_share(chosen.drop.drop, guard)}, but {_share(drop.drop, guard)} once weights are "
        f"rounded with --effort high, which is {beyond} than the {_share(guard.max_drop, guard)} "
        f"{'asked' if guard.metric == 'sqnr' else 'allowed'}. Build with --effort default."
    )


def _loss(drop: Drop, guard: GuardConfig) -> float:
    """What is compared with the budget."""
    if guard.confident and drop.interval is not None:
        return max(drop.drop, drop.interval[1])
    return drop.drop


def _ends(drop: Drop) -> list[float] | None:
    return list(drop.interval) if drop.interval is not None else None


def _share(value: float, guard: GuardConfig) -> str:
    """A drop in words: per cent, the SQNR, or of a metric whose scale is the user's the number."""
    if guard.metric == "sqnr":
        return decibels(value)
    return f"{value:.4g}" if guard.metric.startswith("python:") else f"{100 * value:.3g} %"
