"""The options of `build` that set a budget of accuracy, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli import options
from edge_runtime.guard_config import METRICS

if TYPE_CHECKING:
    from edge_runtime.config import BuildConfig
    from edge_runtime.data.evaluation import Evaluation
    from edge_runtime.guard_config import GuardConfig
    from edge_runtime.recipe import Recipe


@dataclass(frozen=True)
class GuardFlags:
    """The part of the command line that is about the budget; what was not given is None."""

    max_drop: str | None
    metric: str | None
    confident: bool | None
    eval_data: Path | None
    labels: Path | None
    eval_limit: int | None

    @classmethod
    def take(cls, given: dict[str, Any]) -> GuardFlags:
        """Takes them out of a command's arguments."""
        return cls(**{field.name: given.pop(field.name) for field in fields(cls)})

    @property
    def given(self) -> Mapping[str, object]:
        """Those that were given, by name."""
        return options.given(self, *(field.name for field in fields(self)))

    def config(self, base: GuardConfig | None) -> GuardConfig | None:
        """The budget: a recipe's, under what was given; None if there is none.

        Raises:
            UsageError: Other options were given without a budget.
            ConfigError: A value is wrong.
        """
        from edge_runtime.guard_config import GuardConfig

        settings: dict[str, Any] = options.given(self, "max_drop", "metric", "confident")
        if base is None and self.max_drop is None:
            options.refuse("needs --max-drop, the budget that it is for.", **self.given)
            return None
        before = {} if base is None else {f.name: getattr(base, f.name) for f in fields(base)}
        return GuardConfig(**{**before, **settings})

    def evaluation(self, config: BuildConfig, recipe: Recipe | None) -> Evaluation | None:
        """What the budget is judged on; None where there is no budget."""
        from edge_runtime.data.evaluation import Evaluation

        if config.guard is None:
            return None
        base = recipe.evaluation if recipe is not None else None
        if base is None or self.eval_data is not None:  # Labels are those of their own samples.
            base = Evaluation(self.eval_data)
        if base.samples is None:
            options.refuse("needs --eval-data.", eval_limit=self.eval_limit)
        return replace(base, labels=self.labels or base.labels, limit=self.eval_limit or base.limit)


_OPTIONS = (
    click.option(
        "--max-drop",
        metavar="SHARE",
        help="The most accuracy that INT8 may cost, such as 0.5%, or 30dB for --metric sqnr: "
        "layers leave INT8 until the budget is kept.",
    ),
    click.option(
        "--metric",
        metavar="METRIC",
        help=f"What --max-drop is about: {', '.join(METRICS)}, or python:MODULE:FUNCTION with a "
        "function of your own. top1 and map need labels; agreement (the default) and sqnr compare "
        "with FP32.",
    ),
    click.option(
        "--confident/--no-confident",
        default=None,
        help="The drop's whole 95 % interval must be inside the budget, not only the drop.",
    ),
    click.option(
        "--eval-data",
        type=options.FILE,
        metavar="PATH",
        help="Samples to judge on, in the formats of --calibration-data; by default every fourth "
        "calibration sample is set aside for it.",
    ),
    click.option(
        "--labels",
        type=options.FILE,
        metavar="FILE",
        help="The labels of the samples to judge on: .npy, .npz, .json, .csv or .txt; by default "
        "the array 'labels' in the samples' own .npz.",
    ),
    click.option(
        "--eval-limit",
        metavar="N",
        type=click.IntRange(min=1),
        help="Judge on at most N samples, evenly spaced.",
    ),
)


def guard_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; `GuardFlags.take` finds what was given."""
    for add in reversed(_OPTIONS):
        function = add(function)
    return function
