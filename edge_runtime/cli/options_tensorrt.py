"""The options of `build` that TensorRT's builder is told beside the graph, in a section of help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from edge_runtime.gpu_config import HardwareCompatibility

_PREFIX = "tensorrt_"


class Command(click.Command):
    """A command whose help lists the TensorRT options apart from the others."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the two sections."""
        plain: list[tuple[str, str]] = []
        tensorrt: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                (tensorrt if isinstance(parameter, _Option) else plain).append(record)
        for title, records in (("Options", plain), ("TensorRT options", tensorrt)):
            with formatter.section(title):
                formatter.write_dl(records)


class _Option(click.Option):
    """An option of the second section."""


_LEFT = object()
"""What stands for a setting that is left to TensorRT, though the recipe or bundle says it."""


def _or(word: str, kind: click.IntRange | None = None) -> Callable[..., Any]:
    """Reads a value, or a word that leaves it to TensorRT as if nobody had said it."""

    def read(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value == word:
            return _LEFT
        return value if value is None or kind is None else kind.convert(value, param, ctx)

    return read


_LEVELS = [level.value for level in HardwareCompatibility]
_COUNT = click.IntRange(min=0)

_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "workspace": (
        "--workspace",
        {
            "metavar": "SIZE",
            "callback": _or("auto"),
            "help": "Most memory that a layer may use while it runs, such as 512MiB; auto, the "
            "default, leaves it to TensorRT.",
        },
    ),
    "optimization_level": (
        "--optimization-level",
        {
            "metavar": "0-5",
            "callback": _or("auto", click.IntRange(0, 5)),
            "help": "How long to look for fast kernels; auto, the default, is TensorRT's own 3.",
        },
    ),
    "max_aux_streams": (
        "--max-aux-streams",
        {
            "metavar": "N",
            "callback": _or("auto", _COUNT),
            "help": "Most CUDA streams beside the main one that an inference uses.",
        },
    ),
    "hardware_compatibility": (
        "--hardware-compatible",
        {
            "type": click.Choice(_LEVELS),
            "help": "GPUs that the plan runs on: those of the model that builds it (none), all of "
            "its compute capability, or all from Ampere on.",
        },
    ),
    "dla_core": (
        "--dla",
        {
            "metavar": "CORE",
            "callback": _or("none", _COUNT),
            "help": "Build for this DLA core, and for the GPU what the DLA lacks.",
        },
    ),
    "version_compatible": (
        "--version-compatible/--no-version-compatible",
        {"help": "Make a plan that newer TensorRTs load too."},
    ),
    "sparse_weights": (
        "--sparse-weights/--no-sparse-weights",
        {"help": "Use kernels for weights in which two of every four are zero."},
    ),
    "tf32": (
        "--tf32/--no-tf32",
        {"help": "Let FP32 layers compute with 10 bits of mantissa. Off unless given."},
    ),
    "refit": ("--refit/--no-refit", {"help": "Let the weights be replaced later."}),
    "strip_weights": (
        "--strip-weights/--no-strip-weights",
        {"help": "Leave the weights out of the plan; they are taken from the bundle's graph."},
    ),
    "weight_streaming": (
        "--weight-streaming/--no-weight-streaming",
        {"help": "Let the weights stay in host memory, and come to the GPU when needed."},
    ),
    "strict": (
        "--strict-precision/--no-strict-precision",
        {"help": "Refuse a plan whose layers do not have the precision that the graph says."},
    ),
}
"""Field of `TensorRTConfig` to its option and what click is told of it."""


def tensorrt_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; `take` finds what was given."""
    for field, (spelling, settings) in reversed(_OPTIONS.items()):
        add = click.option(_PREFIX + field, spelling, cls=_Option, default=None, **settings)
        function = add(function)
    return function


def take(given: dict[str, Any]) -> dict[str, Any]:
    """Takes the TensorRT options out of a command's arguments.

    Returns:
        Those that were given, by field of `TensorRTConfig`; None for what is left to TensorRT.
    """
    taken = {field: given.pop(_PREFIX + field) for field in _OPTIONS}
    return {
        field: None if value is _LEFT else value
        for field, value in taken.items()
        if value is not None
    }


def spelling(field: str) -> str:
    """The option of a field, such as `--dla`."""
    return _OPTIONS[field][0].partition("/")[0]
