"""Who is ahead: this project beside the best peer that TensorRT takes, by paired bootstrap."""

from __future__ import annotations

from typing import Any

import numpy as np

from accuracy.intervals import Array, Figures, interval, mean, sqnr

MEASURES = ("score", "same", "sqnr")
Line = tuple[dict[str, Any], Figures]


def compare(decisive: str, lines: list[Line]) -> dict[str, Any]:
    """The default, and the best, of ours beside the best peer, by each of `MEASURES`.

    Only what TensorRT builds takes part, as TensorRT reads it. The intervals allow for the best
    peer having been picked among all.

    Returns:
        For each of `MEASURES` the names, figures and verdicts; empty where one side is missing.
    """
    taken = [line for line in lines if line[0]["refusal"] is None]
    ours = [line for line in taken if line[0]["tool"] == "ours"]
    peers = [line for line in taken if line[0]["tool"] != "ours"]
    default = [line for line in ours if line[0]["default"]]
    if not default or not peers:
        return {}
    result: dict[str, Any] = {"decisive": decisive}
    for measure in MEASURES:
        if measure == "same" and "same" not in default[0][1]:
            continue
        best, peer = _best(ours, measure), _best(peers, measure)
        result[measure] = {
            "default": _against(default[0], peer, measure, choices=len(peers)),
            "best": _against(best, peer, measure, choices=len(ours) * len(peers)),
            "peer": {"name": peer[0]["name"], "value": _value(peer[1], measure)[0]},
        }
    return result


def verdict(low: float, high: float) -> str:
    """What the 95 % interval of a difference says."""
    if low > 0:
        return "ahead"
    return "behind" if high < 0 else "equal within the interval"


def _best(lines: list[Line], measure: str) -> Line:
    return max(lines, key=lambda line: _value(line[1], measure)[0])


def _against(line: Line, peer: Line, measure: str, *, choices: int) -> dict[str, Any]:
    value, drawn = _value(line[1], measure)
    other, other_drawn = _value(peer[1], measure)
    low, high = interval(drawn - other_drawn, choices=choices)
    return {
        "name": line[0]["name"],
        "value": value,
        "difference": value - other,
        "interval": [low, high],
        "verdict": verdict(low, high),
    }


def _value(figures: Figures, measure: str) -> tuple[float, Array]:
    if measure != "sqnr":
        return mean(figures, measure)
    if not any(figures["noise"]):
        return float("inf"), np.full(1, np.inf)
    return sqnr(figures)
