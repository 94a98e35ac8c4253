"""Builds bundles: model -> precision -> plan -> one file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.accuracy.guard import Job, keep_budget
from edge_runtime.accuracy.judge import open_metric
from edge_runtime.accuracy.user_metric import source_digest
from edge_runtime.backends.cpu import open_session
from edge_runtime.backends.tensorrt.profile import check_profile
from edge_runtime.bundle import CPU_FAST_GRAPH, CPU_GRAPH, GRAPH, Bundle, Manifest, write_bundle
from edge_runtime.bundle.manifest import DataRecord, ModelRecord
from edge_runtime.config import BuildConfig, Precision, digest
from edge_runtime.data import CheckedSamples, Samples, Source, open_samples
from edge_runtime.data.evaluation import Evaluation, Held, open_held
from edge_runtime.data.samples import spread
from edge_runtime.errors import BuildError, BundleError, ConfigError, DataError
from edge_runtime.files import StrPath, check_writable
from edge_runtime.metrics import AgreementMeter
from edge_runtime.model import Model, read_model
from edge_runtime.plans import plan_builder, try_plan
from edge_runtime.precision.calibration import calibrate_model
from edge_runtime.precision.observing.reference import Reference
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from edge_runtime.precision.ranging.trt_cache import TrtCache, version_number
from edge_runtime.precision.rewrite import rewrite
from edge_runtime.precision.rewritten import Rewritten
from edge_runtime.progress import Progress, silent
from edge_runtime.version import __version__
from edge_runtime.vision.preprocess import Preprocessing

_COMPARED = 8  # Samples on which a bundle's graph is compared with the model, if none were before.
_CACHE_VERSION = "10.3.0"  # JetPack 6.1 and 6.2; the header of the TensorRT cache in a bundle.


@dataclass(frozen=True)
class Inputs:
    """What a bundle is built from.

    Attributes:
        model: The model.
        config: The settings.
        samples: Calibration data, if any.
        cache: A calibration instead of data, if any.
        preprocessing: How a picture becomes the input, if somebody said.
        held: What the accuracy guard judges on, if there is one.
    """

    model: Model
    config: BuildConfig
    samples: CheckedSamples | None = None
    cache: CalibrationCache | None = None
    preprocessing: Preprocessing | None = None
    held: Held | None = None

    @cached_property
    def data_digest(self) -> str | None:
        """Digest of the samples, which all are read for it."""
        return self.samples.digest() if self.samples is not None else None

    @cached_property
    def key(self) -> str:
        """Digest of all that the result depends on: equal keys, equal bundles."""
        return digest(
            {
                "model": self.model.digest,
                "name": self.model.name,
                "config": self.config.to_json(),
                "data": self.data_digest,
                "cache": digest(self.cache.to_json_bytes()) if self.cache is not None else None,
                "preprocessing": _plain(self.preprocessing),
                "evaluation": self.held.digest if self.held is not None else None,
                "metric": _metric_digest(self.config),
                "tools": tools(),
            }
        )


def build(
    model: StrPath | Model,
    config: BuildConfig | None = None,
    *,
    output: StrPath,
    calibration: Source | CalibrationCache | None = None,
    preprocessing: Preprocessing | None = None,
    evaluation: Evaluation | Source | None = None,
    progress: Progress = silent,
) -> Bundle:
    """Builds a bundle from an ONNX model. If `output` already is that very bundle, nothing is done.

    Args:
        model: The FP32 model or its path.
        config: The settings; FP32 without any.
        output: The bundle's file, replaced if it exists; by convention `NAME.edge`.
        calibration: What INT8 ranges are chosen from, and FP16 and BF16 ranges checked on: an
            `ImageFolder`, a path, a list of feeds, or for INT8 the result of `calibrate`.
        preprocessing: How a picture becomes the input; an `ImageFolder` brings its own.
        evaluation: With a `guard` in `config`, what accuracy is judged on: samples, or an
            `Evaluation` with their labels; every fourth calibration sample without any.
        progress: Told of every step.

    Returns:
        The bundle at `output`.

    Raises:
        EdgeRuntimeError: Anything is wrong with what was passed; `output` is then as it was.
    """
    if not isinstance(model, Model):
        if Path(output).resolve() == Path(model).resolve():
            raise ConfigError(f"{output} is the model itself; name another file for the bundle.")
        model = read_model(model)
    config = config or BuildConfig()
    samples = cache = None
    if isinstance(calibration, CalibrationCache):
        cache = calibration
    elif calibration is not None:
        samples = open_samples(calibration, model.inputs, preprocessing=preprocessing)
        declared = getattr(calibration, "preprocessing", None)
        preprocessing = preprocessing or declared
    if evaluation is not None and not isinstance(evaluation, Evaluation):
        evaluation = Evaluation(evaluation)
    inputs = set_aside(Inputs(model, config, samples, cache, preprocessing), evaluation)
    existing = up_to_date(inputs, output)
    return existing if existing is not None else write(inputs, output, progress)


def set_aside(inputs: Inputs, evaluation: Evaluation | None) -> Inputs:
    """What a bundle is built from, with samples to judge on where there is a guard.

    Args:
        inputs: All but these samples.
        evaluation: What they are; every fourth calibration sample without any.

    Raises:
        ConfigError: An evaluation is given without a guard, or labels for a metric without use
            for them.
        DataError: There is nothing to judge on, or it cannot be read.
    """
    guard = inputs.config.guard
    if guard is None:
        if evaluation is not None:
            raise ConfigError(
                "Samples to judge accuracy on were given, but no guard: set a budget (--max-drop, "
                "or guard in BuildConfig), or leave them out."
            )
        return inputs
    held, rest = open_held(
        evaluation or Evaluation(),
        inputs.model.inputs,
        # What an earlier calibration has seen cannot be set aside any more.
        calibration=inputs.samples if inputs.cache is None else None,
        preprocessing=inputs.preprocessing,
        labelled=guard.takes_labels,
    )
    open_metric(guard, held.labels)  # It says what is missing before the long work.
    return replace(inputs, held=held, samples=rest if inputs.cache is None else inputs.samples)


def calibrate(
    model: StrPath | Model,
    data: Source,
    config: BuildConfig | None = None,
    *,
    progress: Progress = silent,
) -> CalibrationCache:
    """Chooses the ranges of a model's INT8 tensors.

    Args:
        model: The FP32 model or its path.
        data: An `ImageFolder`, a path or a list of feeds.
        config: The method, and nodes to leave out; the mse method without any.
        progress: Told of every step.

    Returns:
        The ranges, to save with `save(path)` or to pass to `build`.
    """
    if not isinstance(model, Model):
        model = read_model(model)
    config = replace(config or BuildConfig(), precision=Precision.INT8)
    return calibrate_model(model, config, open_samples(data, model.inputs), progress)


def up_to_date(inputs: Inputs, output: StrPath) -> Bundle | None:
    """The bundle at `output` if it is sound and was built from exactly these inputs."""
    try:
        bundle = Bundle.open(output)
        if bundle.manifest.build_key != inputs.key:
            return None
        bundle.verify()
    except BundleError:
        return None
    return bundle


def write(inputs: Inputs, output: StrPath, progress: Progress = silent) -> Bundle:
    """Builds a bundle whatever is at `output`; see `build`."""
    model, config = inputs.model, inputs.config
    # What can be refused is refused before the long work.
    check_writable(output, error=BundleError)
    for profile in config.profiles:
        check_profile(profile, model.inputs)
    builder, no_plan = plan_builder(config, model.inputs)
    rewritten = _rewritten(inputs, progress)
    report = rewritten.report
    if inputs.samples is not None:
        report["agreement"] = _agreement(model, rewritten, inputs.samples, progress)
    else:
        open_session(rewritten.cpu_graph or rewritten.graph)  # No bundle that does not even load.
    if rewritten.fast_graph is not None:
        open_session(rewritten.fast_graph, exact=False)
    plan = None
    if builder is not None:
        plan, no_plan = try_plan(builder, rewritten.graph, config, progress)
    report["no_plan"] = no_plan
    contents = {GRAPH: rewritten.graph}
    if rewritten.cpu_graph is not None:
        contents[CPU_GRAPH] = rewritten.cpu_graph
    if rewritten.fast_graph is not None:
        contents[CPU_FAST_GRAPH] = rewritten.fast_graph
    if rewritten.cache is not None:
        contents["calibration.json"] = rewritten.cache.to_json_bytes()
        if not rewritten.cache.equalization:  # It is for the ONNX file, not for this graph.
            trt_cache = TrtCache.from_cache(rewritten.cache, version=version_number(_CACHE_VERSION))
            contents["calibration.cache"] = trt_cache.format().encode()
    plans = {} if plan is None else {plan.key.entry: plan}
    contents.update({name: plan.data for name, plan in plans.items()})
    manifest = Manifest(
        model=ModelRecord(model.name, model.digest),
        config=config.to_json(),
        inputs=model.inputs,
        outputs=model.outputs,
        build_key=inputs.key,
        tools=tools(),
        preprocessing=_plain(inputs.preprocessing),
        data=_data_record(inputs, rewritten),
        precision=report,
        plans={name: plan.key for name, plan in plans.items()},
        verdicts={name: plan.verdict for name, plan in plans.items() if plan.verdict is not None},
        plan_settings=dict.fromkeys(plans, config.plan_settings),
    )
    progress("Writing the bundle", 0, 1)
    bundle = write_bundle(output, manifest, contents)
    progress("Writing the bundle", 1, 1)
    return bundle


def tools() -> dict[str, str]:
    """Versions of what a build's result depends on; what is not installed is left out."""
    versions = {"edge-runtime": __version__}
    for name in ("numpy", "onnx", "onnxruntime", "tensorrt", "tensorrt-rtx-cu12-libs"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _rewritten(inputs: Inputs, progress: Progress) -> Rewritten:
    """The model in its precision; under a guard, with what has to stay out of it left out."""
    model, config, samples, cache = inputs.model, inputs.config, inputs.samples, inputs.cache
    if inputs.held is None:
        return rewrite(model, config, samples=samples, cache=cache, progress=progress)
    if cache is None:
        if samples is None:
            rewrite(model, config)  # It says what is missing.
        assert samples is not None
        cache = calibrate_model(model, config, samples, progress)
    return keep_budget(Job(model, config, cache, inputs.held, samples), progress=progress)


def _metric_digest(config: BuildConfig) -> str | None:
    """Digest of the user's own metric, if the guard has one."""
    metric = config.guard.metric if config.guard is not None else ""
    return source_digest(metric) if metric.startswith("python:") else None


def _agreement(
    model: Model, rewritten: Rewritten, samples: Samples, progress: Progress
) -> dict[str, Any]:
    """How close the bundle's graph comes to the model, on samples that show it."""
    reference = rewritten.reference
    if reference is None:
        reference = Reference.of(model.proto, samples.take(spread(len(samples), _COMPARED)))
    found = rewritten.outputs
    if found is None:
        found = reference.outputs_of(rewritten.cpu_graph or rewritten.graph, progress)
    figures = {}
    for index, name in enumerate(reference.names):
        meter = AgreementMeter()
        for expected, other in zip(reference.outputs, found, strict=True):
            if not np.isfinite(expected[index]).all():
                raise DataError(
                    f"Output {name!r} of {model.name} itself is NaN or infinite on a calibration "
                    "sample. Check the samples, their preprocessing and the model."
                )
            try:
                meter.add(expected[index], other[index])
            except ValueError as error:
                raise BuildError(
                    f"Output {name!r} of the rewritten graph cannot be compared with the model's: "
                    f"{error}. The model is not fit for {rewritten.report['asked']}."
                ) from error
        figures[name] = meter.result().to_json()
    return figures


def _data_record(inputs: Inputs, rewritten: Rewritten) -> DataRecord | None:
    if inputs.cache is None and inputs.samples is not None and inputs.data_digest is not None:
        samples = inputs.samples
        return DataRecord(inputs.data_digest, len(samples), samples.description)
    cache = rewritten.cache
    if cache is None or cache.data_digest is None:
        return None
    return DataRecord(
        cache.data_digest, cache.samples, f"{cache.samples} samples, calibrated earlier"
    )


def _plain(preprocessing: Preprocessing | None) -> dict[str, Any] | None:
    return None if preprocessing is None else preprocessing.to_json()
