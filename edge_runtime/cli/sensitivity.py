"""`edge-runtime sensitivity`: which layers and tensors INT8 costs accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli import options, output
from edge_runtime.cli.sensitivity_chart import level, worst_first
from edge_runtime.files import atomic_write, check_writable
from edge_runtime.text import counted, number

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edge_runtime.accuracy.sensitivity import Sensitivity
    from edge_runtime.config import BuildConfig
    from edge_runtime.data import Samples
    from edge_runtime.model import Model
    from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
    from edge_runtime.progress import Progress

_HELP = """Quantize one layer of an ONNX model at a time, and measure what that does to the layer's
own output and to the model's. The same for each tensor that INT8 layers read. The model is
calibrated on all samples, and measured on a few of them.

Figures are SQNR, the signal to quantization noise ratio: 20 dB means that the error is a tenth of
the signal, 40 dB a hundredth. The lowest at the outputs comes first: those layers to keep out of
INT8, with `build --exclude`, if accuracy is too low.
"""

_EXAMPLES = """\b
Examples:
  edge-runtime sensitivity tests/data/digits.onnx --data calibration.npz
  edge-runtime sensitivity tests/data/digits.onnx --data pictures/ \\
      --preprocess size=16,color=gray --html digits.html
  edge-runtime calibrate tests/data/digits.onnx --data calibration.npz \\
      -o digits.calibration.json
  edge-runtime sensitivity tests/data/digits.onnx --data test.npz \\
      --calibration digits.calibration.json --samples 32 --json
"""

_TOP = 20


@dataclass(frozen=True)
class _Flags:
    """The command line; what was not given is None or empty."""

    model: Path
    data: Path
    calibration: Path | None
    preprocess: str | None
    limit: int | None
    samples: int
    method: str | None
    percentile: float | None
    equalize: bool | None
    bias_correction: bool | None
    exclude: tuple[str, ...]
    everything: bool
    html: Path | None


_CALIBRATION = ("method", "percentile", "equalize", "bias_correction")
"""Flags that are fields of `CalibrationConfig`."""


@click.command("sensitivity", help=_HELP, epilog=_EXAMPLES)
@click.argument("model", type=options.FILE)
@click.option(
    "--data",
    "--calibration-data",
    "data",
    type=options.FILE,
    metavar="PATH",
    required=True,
    help="Samples: a folder of pictures, an .npz or .npy file, or a folder of those.",
)
@click.option(
    "--calibration",
    type=options.FILE,
    metavar="FILE",
    help="The file that `edge-runtime calibrate` wrote, instead of calibrating.",
)
@options.preprocess_option
@options.limit_option
@click.option(
    "--samples",
    metavar="N",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Measure on N of the samples, evenly spaced.",
)
@options.method_option
@options.percentile_option
@options.equalize_option
@options.bias_correction_option
@options.exclude_option
@click.option("--all", "everything", is_flag=True, help=f"List all, not the worst {_TOP}.")
@click.option(
    "--html",
    type=options.FILE,
    metavar="FILE",
    help="Write a page too, with a chart of all layers; it needs no network.",
)
@options.quiet_option
@options.json_option
def command(**given: Any) -> None:
    """Measures, and lists what it found."""
    flags = _Flags(**given)
    options.check_percentile(flags.method or "mse", flags.percentile)
    from edge_runtime.accuracy.sensitivity import measure_sensitivity
    from edge_runtime.config import BuildConfig, CalibrationConfig, Precision
    from edge_runtime.data import open_samples
    from edge_runtime.model import read_model

    if flags.calibration is not None:
        reason = "does nothing beside --calibration, which is the result of a calibration."
        options.refuse(reason, **options.given(flags, *_CALIBRATION))
    if flags.html is not None:
        options.keep_apart(flags.html, flags.model, flags.data, flags.calibration)
        check_writable(flags.html)
    config = BuildConfig(
        precision=Precision.INT8,
        calibration=CalibrationConfig(**options.given(flags, *_CALIBRATION)),
        exclude=flags.exclude,
    )
    model = read_model(flags.model)
    preprocessing = options.read_preprocessing(flags.preprocess)

    def opened(limit: int | None) -> Samples:
        return open_samples(flags.data, model.inputs, preprocessing=preprocessing, limit=limit)

    measured = opened(min(flags.samples, flags.limit or flags.samples))
    with output.progress() as progress:
        if flags.calibration is None:
            cache = _calibrate(model, config, opened(flags.limit), progress)
        else:
            cache = _load(flags.calibration)
        result = measure_sensitivity(model, config, cache, measured, progress)
    plain = {
        "model": model.name,
        "model_digest": model.digest,
        "calibration": {"method": cache.method, "samples": cache.samples},
        **result.to_json(),
    }
    if flags.html is not None:
        from edge_runtime.cli.sensitivity_page import page

        with atomic_write(flags.html) as file:
            file.write(page(plain, result).encode())
    _emit(plain, result, flags)


def _calibrate(
    model: Model, config: BuildConfig, samples: Samples, progress: Progress
) -> CalibrationCache:
    from edge_runtime.precision.calibration import calibrate_model

    return calibrate_model(model, config, samples, progress)


def _load(path: Path) -> CalibrationCache:
    from edge_runtime.precision.ranging.calibration_cache import CalibrationCache

    return CalibrationCache.load(path)


def _emit(plain: dict[str, Any], result: Sensitivity, flags: _Flags) -> None:
    limit = None if flags.everything else _TOP
    layers, tensors = worst_first(result.layers), worst_first(result.tensors)
    rows = [
        (
            layer.name,
            layer.op,
            level(layer.output_noise),
            level(layer.local_noise),
            level(layer.weight_noise),
            level(layer.input_noise),
        )
        for layer in layers[:limit]
    ]
    tensor_rows = [
        (tensor.name, number(tensor.amax), level(tensor.output_noise), level(tensor.local_noise))
        for tensor in tensors[:limit]
    ]
    report: list[RenderableType] = [
        f"{flags.model} in INT8, on {counted(result.samples, 'sample')}: the outputs have "
        f"{level(result.total_noise)}",
        f"Layers, {_shown(len(rows), len(layers))}; each alone in INT8",
        output.table(
            ("layer", "op", ">outputs", ">own output", ">from weights", ">from inputs"), rows
        ),
        f"Tensors, {_shown(len(tensor_rows), len(tensors))}; each alone in INT8",
        output.table(("tensor", ">range", ">outputs", ">itself"), tensor_rows),
    ]
    if flags.html is not None:
        plain = {**plain, "written": str(flags.html)}
        report.append(f"Wrote {flags.html}")
    output.emit(plain, *report)


def _shown(count: int, total: int) -> str:
    return "worst first" if count == total else f"the worst {count} of {total}"
