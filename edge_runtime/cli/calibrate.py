"""`edge-runtime calibrate`: chooses INT8 ranges from samples, or takes those of TensorRT."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli import options, output
from edge_runtime.errors import CalibrationCacheError
from edge_runtime.files import atomic_write, check_writable, read_file
from edge_runtime.text import counted, few, number, short_digest

if TYPE_CHECKING:
    from edge_runtime.config import BuildConfig
    from edge_runtime.model import Model
    from edge_runtime.precision.ranging.calibration_cache import CalibrationCache

_HELP = """Run an ONNX model on samples, choose the range of each tensor that INT8 needs, and keep
the ranges in a file for `edge-runtime build --calibration`. The file knows its model, and every
other refuses it.

TensorRT's own calibration cache, a text file, is written with --trt-cache, and taken instead of
samples with --from-trt-cache. It is for the ONNX file as it is, so channels cannot be equalized for
it: add --no-equalize.
"""

_EXAMPLES = """\b
Examples:
  edge-runtime calibrate tests/data/digits.onnx --data pictures/ --preprocess size=16,color=gray
  edge-runtime calibrate tests/data/digits.onnx --data calibration.npz --method entropy \\
      --no-equalize -o digits.calibration.json --trt-cache digits.cache
  edge-runtime build tests/data/digits.onnx --precision int8 \\
      --calibration digits.calibration.json
"""


@dataclass(frozen=True)
class _Flags:
    """The command line; what was not given is None or empty."""

    model: Path
    data: Path | None
    output: Path | None
    method: str | None
    percentile: float | None
    equalize: bool | None
    bias_correction: bool | None
    high_precision: str | None
    preprocess: str | None
    limit: int | None
    exclude: tuple[str, ...]
    trt_cache: Path | None
    trt_version: str | None
    from_trt_cache: Path | None


@click.command("calibrate", help=_HELP, epilog=_EXAMPLES)
@click.argument("model", type=options.FILE)
@click.option(
    "--data",
    type=options.FILE,
    metavar="PATH",
    help="Samples: a folder of pictures, an .npz or .npy file, or a folder of those.",
)
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    metavar="NAME.calibration.json",
    help="The file to write; by default the model's name with .calibration.json, in this folder.",
)
@options.method_option
@options.percentile_option
@options.equalize_option
@options.bias_correction_option
@options.high_precision_option
@options.preprocess_option
@options.limit_option
@options.exclude_option
@click.option("--trt-cache", type=options.FILE, metavar="FILE", help="Write TensorRT's cache too.")
@click.option(
    "--trt-version",
    metavar="VERSION",
    help="Version of the TensorRT that is to read it; 10.3.0 (JetPack 6.1 and 6.2) by default.",
)
@click.option(
    "--from-trt-cache",
    type=options.FILE,
    metavar="FILE",
    help="Take the ranges from TensorRT's cache instead of samples.",
)
@options.quiet_option
@options.json_option
def command(**given: Any) -> None:
    """Calibrates, or converts."""
    flags = _Flags(**given)
    _check(flags)
    from edge_runtime.config import BuildConfig, CalibrationConfig, Precision
    from edge_runtime.model import read_model
    from edge_runtime.precision.ranging.trt_cache import version_number

    version = version_number(flags.trt_version or "10.3.0")
    ranges = CalibrationConfig(
        **options.given(flags, "method", "percentile", "equalize", "bias_correction")
    )
    config = BuildConfig(
        precision=Precision.INT8,
        calibration=ranges,
        exclude=flags.exclude,
        **options.given(flags, "high_precision"),
    )
    model = read_model(flags.model)
    target = flags.output or Path(Path(model.name).stem + ".calibration.json")
    written = [path for path in (target, flags.trt_cache) if path is not None]
    for path in written:
        options.keep_apart(path, flags.model, flags.data, flags.from_trt_cache)
        check_writable(path, error=CalibrationCacheError)
    unused: list[str] = []
    if flags.from_trt_cache is not None:
        cache, unused = _from_trt_cache(flags.from_trt_cache, model, config)
    else:
        cache = _calibrate(flags, model, config)
    _write(cache, target, flags.trt_cache, version)
    _emit(cache, written, unused)


def _check(flags: _Flags) -> None:
    if (flags.data is None) == (flags.from_trt_cache is None):
        raise click.UsageError("Give --data or --from-trt-cache, one of them.")
    if flags.from_trt_cache is not None:
        options.refuse(
            "does nothing beside --from-trt-cache, which is the result of a calibration.",
            method=flags.method,
            percentile=flags.percentile,
            equalize=flags.equalize,
            bias_correction=flags.bias_correction,
            high_precision=flags.high_precision,
            preprocess=flags.preprocess,
            limit=flags.limit,
        )
    options.check_percentile(flags.method or "mse", flags.percentile)
    if flags.trt_cache is None:
        options.refuse("needs --trt-cache.", trt_version=flags.trt_version)


def _calibrate(flags: _Flags, model: Model, config: BuildConfig) -> CalibrationCache:
    from edge_runtime.building import calibrate
    from edge_runtime.data import open_samples

    assert flags.data is not None
    preprocessing = options.read_preprocessing(flags.preprocess)
    samples = open_samples(flags.data, model.inputs, preprocessing=preprocessing, limit=flags.limit)
    with output.progress() as progress:
        return calibrate(model, samples, config, progress=progress)


def _from_trt_cache(
    path: Path, model: Model, config: BuildConfig
) -> tuple[CalibrationCache, list[str]]:
    """The ranges that the model needs, and the names of the others."""
    from edge_runtime.precision.ranging.calibration_cache import MAX_BYTES, CalibrationCache
    from edge_runtime.precision.ranging.trt_cache import TrtCache
    from edge_runtime.precision.rewrite import calibrated_tensors
    from edge_runtime.version import __version__

    data = read_file(path, limit=MAX_BYTES, error=CalibrationCacheError)
    found = TrtCache.parse(data, where=str(path))
    ranges = found.to_ranges()
    needed = calibrated_tensors(model, config)
    missing = [repr(name) for name in needed if name not in ranges]
    if missing:
        raise CalibrationCacheError(
            f"{path} has no range for {len(missing)} of the {len(needed)} tensors that "
            f"{model.name} needs: {few(missing)}. It is of another model, or of one with other "
            "names; calibrate this model."
        )
    cache = CalibrationCache(
        model_digest=model.digest,
        method=found.algorithm,
        samples=0,
        data_digest=None,
        ranges={name: ranges[name] for name in needed},
        tool=__version__,
    )
    return cache, [name for name in ranges if name not in cache.ranges]


def _write(cache: CalibrationCache, target: Path, trt_target: Path | None, version: int) -> None:
    from edge_runtime.precision.ranging.trt_cache import TrtCache

    if trt_target is None:
        cache.save(target)
        return
    text = TrtCache.from_cache(cache, version=version).format()  # Names may not fit its format.
    cache.save(target)
    with atomic_write(trt_target, error=CalibrationCacheError) as file:
        file.write(text.encode())


def _emit(cache: CalibrationCache, written: list[Path], unused: list[str]) -> None:
    samples = counted(cache.samples, "sample") if cache.samples else "unknown data"
    rows = [
        ("model", short_digest(cache.model_digest)),
        ("method", f"{cache.method}, on {samples}"),
        ("ranges", f"{counted(len(cache.ranges), 'tensor')}, {_span(cache)}"),
    ]
    if cache.equalization:
        rows.append(("equalized", f"the channels of {counted(len(cache.equalization), 'tensor')}"))
    methods = Counter(bounds.method for bounds in cache.ranges.values() if bounds.method)
    if methods:
        taken = ", ".join(f"{method} {count}" for method, count in methods.most_common())
        rows.append(("taken", taken))
    if unused:
        rows.append(("left out", f"{len(unused)} that the model does not need: {few(unused)}"))
    rows.extend(("note", finding) for finding in cache.findings)
    plain = {
        "written": [str(path) for path in written],
        "model_digest": cache.model_digest,
        "method": cache.method,
        "samples": cache.samples,
        "tensors": len(cache.ranges),
        "equalized": sorted(cache.equalization),
        "methods": dict(methods),
        "findings": list(cache.findings),
        "unused": unused,
    }
    output.emit(plain, f"Wrote {' and '.join(map(str, written))}", output.facts(rows))


def _span(cache: CalibrationCache) -> str:
    tops = [bounds.amax for bounds in cache.ranges.values()]
    return f"the largest value in each is {number(min(tops))} to {number(max(tops))}"
