"""How much accuracy a build may lose: the budget of the accuracy guard."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_runtime.errors import ConfigError

METRICS = ("top1", "agreement", "sqnr", "map")
"""Metrics that the guard computes itself; `python:MODULE:FUNCTION` names one of the user's."""


@dataclass(frozen=True, slots=True)
class GuardConfig:
    """A budget of accuracy that a mixed-precision search keeps to.

    Attributes:
        max_drop: The most that the metric may fall below FP32's, as a share: 0.005 is half a
            percentage point. Text such as `0.5%` is read too. For `sqnr` it is the most noise at
            the outputs as a share of the signal's power; text such as `30dB` is read as 0.001.
        metric: `top1` and `map` need labels; `agreement` is the share of samples with FP32's own
            top-1, and `sqnr` the noise beside FP32's outputs: both need none.
            `python:MODULE:FUNCTION` names a function of the user's, larger being better.
        confident: Whether the upper end of the drop's 95 % interval must be inside the budget too,
            not only the drop itself.
    """

    max_drop: float
    metric: str = "agreement"
    confident: bool = False

    if TYPE_CHECKING:  # What may be passed is wider than what is kept.

        def __init__(
            self, max_drop: float | str, metric: str = ..., confident: bool = ...
        ) -> None: ...

    def __post_init__(self) -> None:
        written: object = self.max_drop
        object.__setattr__(self, "max_drop", _share(written))
        if self.metric not in METRICS and not re.fullmatch(
            r"python:[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.metric
        ):
            raise ConfigError(
                f"metric is {self.metric!r}; it must be one of {', '.join(METRICS)}, or "
                "python:MODULE:FUNCTION."
            )
        if isinstance(written, str) and written.strip().endswith("dB") and self.metric != "sqnr":
            raise ConfigError(
                f"max_drop is {written!r}, a level of noise, which is for the metric sqnr; for "
                f"{self.metric} it is a share such as 0.5%."
            )

    @property
    def needs_labels(self) -> bool:
        """Whether the metric compares with labels; a function of the user's gets them if given."""
        return self.metric in ("top1", "map")

    @property
    def takes_labels(self) -> bool:
        """Whether labels have any use for the metric."""
        return self.metric not in ("agreement", "sqnr")


def decibels(noise: float) -> str:
    """A share of noise as the SQNR that it is, such as `30.0 dB` of 0.001."""
    return f"{-10 * math.log10(noise):.1f} dB" if noise > 0 else "infinite dB"


def _share(value: object) -> float:
    """A share from 0 to 1, from a number, `0.5%` or `30dB`."""
    share: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        share = float(value)
    elif isinstance(value, str):
        found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(%|dB|)", value.strip())
        if found is not None:
            number = float(found[1])
            share = {"%": number / 100, "dB": 10 ** (-number / 10), "": number}[found[2]]
    if share is None or not 0 <= share < 1:
        raise ConfigError(
            f"max_drop is {value!r}; it must be a share below 1, such as 0.005 or 0.5%, or for "
            "sqnr a level such as 30dB."
        )
    return share
