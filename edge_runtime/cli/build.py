"""`edge-runtime build`: makes a bundle of an ONNX model, or adds a plan to a bundle."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli import options, options_guard, options_tensorrt, output, report
from edge_runtime.cli.kinds import Kind, file_kind
from edge_runtime.errors import ConfigError
from edge_runtime.text import file_size

if TYPE_CHECKING:
    from edge_runtime.building import Inputs
    from edge_runtime.bundle import Bundle
    from edge_runtime.config import BuildConfig
    from edge_runtime.recipe import Recipe

_HELP = """Make a bundle of an ONNX model: its graph in INT8, FP16, BF16 or FP32, its calibration,
and a plan where a builder of plans is installed. Given a bundle instead of a model: add this
machine's plan to it, with no data and no calibration.

INT8 needs samples (--calibration-data), or the file that `edge-runtime calibrate` wrote
(--calibration). FP16 and BF16 use samples to find values that these types cannot hold. If the
output already is what would be built, nothing is done.
"""

_EXAMPLES = """\b
Examples:
  edge-runtime build tests/data/digits.onnx --precision fp16
  edge-runtime build tests/data/digits.onnx -o digits.edge --precision int8 \\
      --calibration-data pictures/ --preprocess size=16,color=gray
  edge-runtime build digits.edge --shape image=1x1x16x16,8x1x16x16,32x1x16x16

Samples are a folder of pictures, an .npz file with an array for each input, or a folder of such
files. The last example adds a plan to the bundle.
"""


@dataclass(frozen=True)
class _Flags:
    """The command line; what was not given is None or empty."""

    model: Path | None
    output: Path | None
    precision: str | None
    calibration_data: Path | None
    calibration: Path | None
    preprocess: str | None
    limit: int | None
    method: str | None
    percentile: float | None
    equalize: bool | None
    bias_correction: bool | None
    effort: str | None
    high_precision: str | None
    cpu_mode: str | None
    shapes: tuple[str, ...]
    exclude: tuple[str, ...]
    recipe: Path | None
    backend: str | None
    targets: tuple[str, ...]
    guard: options_guard.GuardFlags
    tensorrt: dict[str, Any]


_CALIBRATION = ("method", "percentile", "equalize", "bias_correction", "effort")
"""Flags that are fields of `CalibrationConfig`."""

_INT8 = ("high_precision", "cpu_mode")
"""Flags that are fields of `BuildConfig`, for INT8 alone."""


@click.command("build", cls=options_tensorrt.Command, help=_HELP, epilog=_EXAMPLES)
@click.argument("model", type=options.FILE, required=False)
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    metavar="NAME.edge",
    help="The bundle to write; by default the model's name with .edge, in this folder.",
)
@click.option(
    "--precision",
    type=click.Choice(options.PRECISIONS),
    help="Precision of the graph; needed unless the recipe says it.",
)
@click.option(
    "--calibration-data",
    type=options.FILE,
    metavar="PATH",
    help="Samples: a folder of pictures, an .npz or .npy file, or a folder of those.",
)
@click.option(
    "--calibration",
    type=options.FILE,
    metavar="FILE",
    help="Ranges that `edge-runtime calibrate` wrote, instead of samples.",
)
@options.preprocess_option
@options.limit_option
@options.method_option
@options.percentile_option
@options.equalize_option
@options.bias_correction_option
@options.effort_option
@options.high_precision_option
@options.cpu_mode_option
@options.shape_option
@options.exclude_option
@options_guard.guard_options
@click.option(
    "--recipe",
    type=options.FILE,
    metavar="FILE",
    help="A TOML file that says all this; what is given here overrides it.",
)
@click.option(
    "--backend",
    type=click.Choice(options.DEVICES),
    help="Whose plan to build: auto (the default) the best that can be built here, if any; "
    "cpu none.",
)
@options.target_option
@options.quiet_option
@options.json_option
@options_tensorrt.tensorrt_options
def command(**given: Any) -> None:
    """Builds, or extends."""
    tensorrt = options_tensorrt.take(given)
    guard = options_guard.GuardFlags.take(given)
    flags = _Flags(**given, guard=guard, tensorrt=tensorrt)
    if flags.model is None and flags.recipe is None:
        raise click.UsageError("Name an ONNX model or a bundle, or give a --recipe that does.")
    if flags.model is not None and file_kind(flags.model) is Kind.BUNDLE:
        _extend(flags, flags.model)
    else:
        _build(flags)


def _build(flags: _Flags) -> None:
    from edge_runtime import building

    start = time.monotonic()
    recipe = _recipe(flags)
    if recipe is None and flags.precision is None:
        raise click.UsageError(
            f"Say which precision: --precision {', '.join(options.PRECISIONS[:-1])} or "
            f"{options.PRECISIONS[-1]}, or give a --recipe that does."
        )
    config = _config(flags, recipe)
    inputs = _inputs(flags, recipe, config)
    target = flags.output or Path(Path(inputs.model.name).stem + ".edge")
    read = (flags.model, flags.calibration, flags.calibration_data, flags.recipe)
    options.keep_apart(target, *read, recipe.model if recipe else None)
    bundle = building.up_to_date(inputs, target)
    built = bundle is None
    if bundle is None:
        with output.progress() as progress:
            bundle = building.write(inputs, target, progress)
    seconds = time.monotonic() - start
    first = f"{target} is up to date: the model, the data, the settings and the tools are the same."
    if built:
        first = f"Built {target} ({file_size(target.stat().st_size)}) in {seconds:.1f} s"
    _emit(bundle, first, built=built, seconds=seconds)


def _recipe(flags: _Flags) -> Recipe | None:
    if flags.recipe is None:
        return None
    from edge_runtime.recipe import load_recipe

    recipe = load_recipe(flags.recipe)
    if flags.model is None and recipe.model is None:
        raise click.UsageError(f"{flags.recipe} names no model: name one.")
    return recipe


def _config(flags: _Flags, recipe: Recipe | None) -> BuildConfig:
    """The recipe's settings, or the defaults, under those that were given."""
    from edge_runtime.config import BuildConfig, Precision

    base = recipe.build if recipe else BuildConfig()
    precision = Precision(flags.precision or base.precision)
    if precision is not Precision.INT8:
        reason = f"is for int8, not for {precision.value}."
        options.refuse(reason, **options.given(flags, *_CALIBRATION, *_INT8), **flags.guard.given)
        # What a recipe says of INT8 is for the day on which it is built in INT8.
        base = replace(base, **{name: getattr(BuildConfig(), name) for name in (*_INT8, "guard")})
    config = BuildConfig(
        precision=precision,
        calibration=replace(base.calibration, **options.given(flags, *_CALIBRATION)),
        profiles=options.read_shapes(flags.shapes, base.profiles),
        exclude=flags.exclude or base.exclude,
        high_precision=flags.high_precision or base.high_precision,
        cpu_mode=flags.cpu_mode or base.cpu_mode,
        guard=flags.guard.config(base.guard),
        backend=flags.backend or base.backend,
        targets=flags.targets or base.targets,
        tensorrt=replace(base.tensorrt, **flags.tensorrt),
    )
    if config.backend == "cpu":
        for field in flags.tensorrt:
            raise click.UsageError(f"{options_tensorrt.spelling(field)} does nothing for cpu.")
    if config.precision.value == "fp32":
        options.refuse("does nothing for fp32.", exclude=flags.exclude)
    options.check_percentile(config.calibration.method.value, flags.percentile)
    return config


def _inputs(flags: _Flags, recipe: Recipe | None, config: BuildConfig) -> Inputs:
    """Reads the model and opens the samples."""
    from edge_runtime.building import Inputs, set_aside
    from edge_runtime.data import open_samples
    from edge_runtime.model import read_model
    from edge_runtime.precision.ranging.calibration_cache import CalibrationCache

    path = flags.model or (recipe.model if recipe else None)
    assert path is not None
    if recipe is not None and recipe.model_digest is not None:
        _check_digest(path, recipe.model_digest, recipe.path)
    model = read_model(path)
    preprocessing = options.read_preprocessing(flags.preprocess)
    preprocessing = preprocessing or (recipe.preprocessing if recipe else None)
    data, limit = flags.calibration_data, flags.limit
    cache, samples = None, None
    if flags.calibration is not None:
        _check_beside_calibration(flags, config)
        cache = CalibrationCache.load(flags.calibration)
    rounds = config.calibration.effort.value == "high"
    if recipe is not None and config.precision.value != "fp32" and (cache is None or rounds):
        data, limit = data or recipe.data, limit or recipe.limit
    if data is not None:
        samples = open_samples(data, model.inputs, preprocessing=preprocessing, limit=limit)
    else:
        options.refuse("needs --calibration-data.", limit=flags.limit)
    evaluation = flags.guard.evaluation(config, recipe)
    return set_aside(Inputs(model, config, samples, cache, preprocessing), evaluation)


def _check_beside_calibration(flags: _Flags, config: BuildConfig) -> None:
    """Refuses what `--calibration` has settled; `--effort high` still needs the samples."""
    options.refuse(
        "does nothing beside --calibration, which is the result of a calibration.",
        method=flags.method,
        percentile=flags.percentile,
        equalize=flags.equalize,
        bias_correction=flags.bias_correction,
    )
    if config.calibration.effort.value != "high":
        options.refuse(
            "does nothing beside --calibration without --effort high, which rounds weights on "
            "the samples.",
            calibration_data=flags.calibration_data,
            limit=flags.limit,
        )


def _check_digest(path: Path, wanted: str, recipe: Path) -> None:
    from edge_runtime.files import open_file

    hasher = hashlib.sha256()
    with open_file(path, error=ConfigError) as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    if wanted != f"sha256:{hasher.hexdigest()}":
        raise ConfigError(
            f"{path} is not the model of {recipe}: its SHA-256 is {hasher.hexdigest()}, and the "
            f"recipe says {wanted.removeprefix('sha256:')}. Fetch that model, or change the recipe."
        )


def _extend(flags: _Flags, path: Path) -> None:
    options.refuse(
        f"does nothing for {path}, which is a bundle: only a plan can be added to it.",
        output=flags.output,
        precision=flags.precision,
        calibration_data=flags.calibration_data,
        calibration=flags.calibration,
        preprocess=flags.preprocess,
        limit=flags.limit,
        exclude=flags.exclude,
        recipe=flags.recipe,
        **options.given(flags, *_CALIBRATION, *_INT8),
        **flags.guard.given,
    )
    if flags.backend == "cpu":
        raise click.UsageError("--backend cpu builds nothing: the CPU runs a bundle as it is.")
    from edge_runtime.bundle import Bundle
    from edge_runtime.plans import extend

    start = time.monotonic()
    bundle = Bundle.open(path)
    config = _extended(bundle.manifest.build_config, flags)
    with output.progress() as progress:
        bundle, built = extend(bundle, config, progress=progress)
    seconds = time.monotonic() - start
    first = f"{path} is up to date: it has this machine's plan."
    if built:
        first = f"Added a plan to {path} ({file_size(path.stat().st_size)}) in {seconds:.1f} s"
    _emit(bundle, first, built=built, seconds=seconds)


def _extended(own: BuildConfig, flags: _Flags) -> BuildConfig:
    """A bundle's own settings under those that were given; given shapes take the place of its."""
    backend = flags.backend or "auto"
    return replace(
        own,
        backend=backend,
        targets=flags.targets or (() if backend == "tensorrt" else own.targets),
        profiles=tuple(options.read_shapes(flags.shapes)) or own.profiles,
        tensorrt=replace(own.tensorrt, **flags.tensorrt),
    )


def _emit(bundle: Bundle, first: str, *, built: bool, seconds: float) -> None:
    plain = {
        "path": str(bundle.path),
        "built": built,
        "seconds": round(seconds, 3),
        "size": bundle.path.stat().st_size,
        "digest": bundle.digest,
        "manifest": bundle.manifest.to_json(),
    }
    output.emit(plain, first, *([output.facts(report.summary(bundle))] if built else []))
