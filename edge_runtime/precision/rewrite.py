"""Rewrites a model to a precision: prepares it, chooses ranges, writes and validates the graphs."""

from __future__ import annotations

from dataclasses import replace

from edge_runtime.config import BuildConfig, Precision
from edge_runtime.data import Samples
from edge_runtime.errors import ConfigError
from edge_runtime.model import Model
from edge_runtime.precision.calibration import calibrate_and_try
from edge_runtime.precision.corrections.trial import Tried, tried_settings
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import check_names
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.halves.half import half_and_twin, why_full
from edge_runtime.precision.halves.half_ranges import keep_full, peak_counters
from edge_runtime.precision.halves.half_types import HALF_TYPES
from edge_runtime.precision.observing.calibrator import Observer
from edge_runtime.precision.observing.parallel import workers_for
from edge_runtime.precision.quantization import prepare_int8, quantize_model
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from edge_runtime.precision.report import Intent, count_weights, report_of
from edge_runtime.precision.rewritten import Rewritten, serialise
from edge_runtime.progress import Progress, silent


def calibrated_tensors(model: Model, config: BuildConfig) -> list[str]:
    """Names of the tensors whose ranges INT8 needs."""
    return prepare_int8(model, config)[1].tensors


def rewrite(
    model: Model,
    config: BuildConfig,
    *,
    samples: Samples | None = None,
    cache: CalibrationCache | None = None,
    progress: Progress = silent,
) -> Rewritten:
    """Rewrites a model to `config.precision`.

    Args:
        model: The FP32 model.
        config: The settings.
        samples: What ranges are observed on; INT8 needs it or `cache`, FP16 and BF16 may do
            without, and then only weights are checked.
        cache: An earlier calibration of this very model; INT8 only. With one, INT8 needs samples
            only to round weights with `--effort high`.
        progress: Told of every step.

    Raises:
        ConfigError: Samples or a cache are missing, or given where they do nothing.
        CalibrationCacheError: The cache is another model's, or lacks tensors.
        ModelError: The model cannot be rewritten.
    """
    if config.precision is Precision.INT8:
        if cache is None and samples is None:
            raise ConfigError(
                "INT8 needs calibration data: a folder of pictures, an .npz file, or the cache of "
                "an earlier calibration (--calibration-data or --calibration)."
            )
        if cache is not None:
            return quantize_model(model, config, cache, samples=samples, progress=progress)
        assert samples is not None
        tried = calibrate_and_try(model, config, samples, progress)
        if tried.written is not None and replace(config, high_precision=config.rest) == (
            tried_settings(config)
        ):
            return _as_tried(tried.written, tried)
        written = quantize_model(model, config, tried.cache, samples=samples, progress=progress)
        return replace(written, reference=tried.reference)
    if cache is not None:
        raise ConfigError(f"A calibration cache does nothing for {config.precision.value}.")
    if config.precision is Precision.FP32:
        if samples is not None:
            raise ConfigError("Calibration data does nothing for fp32; leave it out.")
        proto = prepare(model, min_opset=0)
        graph = Graph(proto)
        check_names(graph, config.exclude)
        report = report_of(config, proto, Intent(count_weights(graph)))
        return Rewritten(serialise(proto, model), None, report)
    return _half(model, config, samples, progress)


def _as_tried(written: Rewritten, tried: Tried) -> Rewritten:
    """The graph that was tried, which need not be written again."""
    said = {"tried": dict(tried.cache.tried), "findings": list(tried.cache.findings)}
    return replace(
        written,
        cache=tried.cache,
        report={**written.report, **said},
        reference=tried.reference,
        outputs=tried.outputs,
    )


def _half(
    model: Model, config: BuildConfig, samples: Samples | None, progress: Progress
) -> Rewritten:
    half = HALF_TYPES[config.precision]
    proto = prepare(model, min_opset=half.min_opset)
    graph = Graph(proto)
    check_names(graph, config.exclude)
    peaks = {}
    if samples is not None:
        counters = peak_counters(graph, config.precision)
        observer = Observer(proto, counters.keys(), workers=workers_for(len(samples)))
        observer.run(samples, counters, total=len(samples), progress=progress)
        peaks = {name: peak.amax for name, peak in counters.items()}
        del observer
    kept = keep_full(graph, half, peaks)
    kept.update(dict.fromkeys(config.exclude, "excluded"))
    weights = count_weights(graph)
    reasons = {node.name: why_full(graph, node, half) for node in graph.nodes}
    lowered, twin = half_and_twin(proto, half, kept)
    kept.update({name: reasons[name] for name in weights if reasons[name] and name not in kept})
    report = report_of(config, proto, Intent(weights, kept, lowered=lowered))
    report["ranges_checked_on"] = len(samples) if samples is not None else 0
    return Rewritten(serialise(proto, model), serialise(twin, model), report)
