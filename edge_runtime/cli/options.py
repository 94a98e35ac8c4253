"""Options that several commands share, and how their text is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from edge_runtime.config import (
    CalibrationMethod,
    CpuMode,
    Effort,
    OptimizationProfile,
    Precision,
    ShapeRange,
)

_JSON = "edge_runtime.json"
_QUIET = "edge_runtime.quiet"

FILE = click.Path(path_type=Path)
"""A path; whether it is there, those say who open it."""

PRECISIONS = tuple(precision.value for precision in Precision)
METHODS = tuple(method.value for method in CalibrationMethod)
EFFORTS = tuple(effort.value for effort in Effort)
CPU_MODES = tuple(mode.value for mode in CpuMode)
DEVICES = ("auto", "cpu", "openvino", "tensorrt", "tensorrt-rtx")


def _flag(name: str, *spellings: str, help: str) -> Callable[[Any], Any]:  # noqa: A002
    """A flag that is kept for `wants_json` and its kind instead of being passed on."""

    def keep(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta[name] = value

    return click.option(
        *spellings, is_flag=True, is_eager=True, expose_value=False, callback=keep, help=help
    )


json_option = _flag(_JSON, "--json", help="Print one JSON document on stdout and nothing else.")
quiet_option = _flag(_QUIET, "-q", "--quiet", help="Show no progress and no warnings.")

preprocess_option = click.option(
    "--preprocess",
    metavar="TEXT",
    help="How a picture becomes the input, as KEY=VALUE,..., such as size=224x224,resize=crop. "
    "Only size is needed; the others are resize, color, layout, scale, mean, std, dtype, "
    "interpolation, pad, multiple and short_side.",
)
limit_option = click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="Take at most N samples, evenly spaced.",
)
exclude_option = click.option(
    "--exclude", metavar="NODE", multiple=True, help="Keep this node in FP32; may be repeated."
)
method_option = click.option(
    "--method", type=click.Choice(METHODS), help="How INT8 ranges are chosen; mse by default."
)
percentile_option = click.option(
    "--percentile",
    metavar="P",
    type=click.FloatRange(50, 100, min_open=True),
    help="With --method percentile or auto: the share of values to keep in range; "
    "99.99 by default.",
)
equalize_option = click.option(
    "--equalize/--no-equalize",
    default=None,
    help="Scale channels of unequal ranges alike before INT8, where that helps. On by default.",
)
bias_correction_option = click.option(
    "--bias-correction/--no-bias-correction",
    default=None,
    help="Take the mean error of INT8 weights off the bias. On by default.",
)
effort_option = click.option(
    "--effort",
    type=click.Choice(EFFORTS),
    help="How long the rounding of INT8 weights may take: high chooses the levels of a layer "
    "together, on the samples, which takes minutes.",
)
high_precision_option = click.option(
    "--high-precision",
    type=click.Choice([name for name in PRECISIONS if name != Precision.INT8.value]),
    help="What is not INT8 in an INT8 graph; by default fp16 with --max-drop, else fp32.",
)
cpu_mode_option = click.option(
    "--cpu-mode",
    type=click.Choice(CPU_MODES),
    help="fast adds the form of an INT8 graph that a CPU runs quickly; exact is the default.",
)
shape_option = click.option(
    "--shape",
    "shapes",
    metavar="NAME=MIN,OPT,MAX",
    multiple=True,
    help="Sizes of an input with dynamic dimensions, such as x=1x3x32x32,1x3x64x64,4x3x96x96. "
    "Repeat it for other inputs; or for the same one, for a plan with several optimization "
    "profiles: the second --shape of a name is that of the second profile, such as "
    "--shape x=1x3x64x64 --shape x=8x3x64x64.",
)
device_option = click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="Where to run; auto takes the best GPU that this machine and the bundle have, else cpu.",
)
target_option = click.option(
    "--target",
    "targets",
    metavar="SM",
    multiple=True,
    help="GPU architecture, such as sm86; may be repeated.",
)


def wants_json() -> bool:
    """Whether --json was given."""
    return bool(click.get_current_context().meta.get(_JSON))


def is_quiet(ctx: click.Context | None = None) -> bool:
    """Whether --quiet was given, in the current context if in none other."""
    return bool((ctx or click.get_current_context()).meta.get(_QUIET))


def read_shapes(
    shapes: Sequence[str], base: Sequence[OptimizationProfile] = ()
) -> list[OptimizationProfile]:
    """The optimization profiles of `--shape NAME=MIN,OPT,MAX`, repeated.

    Args:
        shapes: What was given; the k-th of one name belongs to the k-th profile.
        base: Profiles that they change and add to, such as a recipe's.

    Raises:
        ConfigError: The shapes cannot be read.
    """
    profiles = [dict(profile) for profile in base]
    seen: Counter[str] = Counter()
    for text in shapes:
        name, equals, sizes = text.rpartition("=")
        if not equals or not name:
            raise click.BadParameter(
                f"{text!r} is not NAME=MIN,OPT,MAX, such as x=1x3x32x32,1x3x64x64,4x3x96x96.",
                param_hint="--shape",
            )
        if seen[name] == len(profiles):
            profiles.append({})
        profiles[seen[name]][name] = ShapeRange.parse(sizes)
        seen[name] += 1
    return [*profiles]


def read_preprocessing(text: str | None) -> Any:
    """The `Preprocessing` of `--preprocess`; None without it.

    Raises:
        ConfigError: The text cannot be read.
    """
    from edge_runtime.vision.preprocess import Preprocessing

    return None if text is None else Preprocessing.from_text(text)


def given(flags: object, *names: str) -> dict[str, Any]:
    """Those of the flags of these names that were given: neither None nor empty."""
    values = {name: getattr(flags, name) for name in names}
    return {name: value for name, value in values.items() if value is not None and value != ()}


def refuse(reason: str, **options: object) -> None:
    """Refuses options that were given but would do nothing.

    Args:
        reason: Why, to follow `--name `.
        options: What was given, by the option's name; empty or None is not given.

    Raises:
        UsageError: One was given.
    """
    for name, value in options.items():
        if value is not None and value != ():
            raise click.UsageError(f"--{name.replace('_', '-')} {reason}")


def keep_apart(output: Path, *inputs: Path | None) -> None:
    """Refuses to write over one of the files that are read.

    Raises:
        UsageError: `output` is one of `inputs`.
    """
    for path in inputs:
        if path is not None and path.exists() and output.exists() and output.samefile(path):
            raise click.UsageError(
                f"{output} is read, and would be overwritten. Name another file."
            )


def check_percentile(method: str, percentile: float | None) -> None:
    """Refuses --percentile where ranges are chosen in another way.

    Raises:
        UsageError: `percentile` was given and `method` does not clip by it.
    """
    if percentile is not None and method not in ("percentile", "auto"):
        raise click.UsageError(f"--percentile is for --method percentile or auto, not {method}.")
