"""Writes a calibrated model in INT8: weights, biases, Q/DQ pairs, and what became of each layer."""

from __future__ import annotations

from collections import Counter
from typing import Any

from onnx import ModelProto

from edge_runtime.config import BuildConfig, CpuMode, Effort
from edge_runtime.data import Samples
from edge_runtime.errors import ConfigError, ModelError
from edge_runtime.model import Model
from edge_runtime.precision.corrections.bias import correct_bias
from edge_runtime.precision.corrections.equalize import apply_scales
from edge_runtime.precision.corrections.multipliers import add_multipliers
from edge_runtime.precision.graphs.carried import PRODUCTS
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.heap import compact, release_memory
from edge_runtime.precision.graphs.placement import Placement, place
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.halves.half_ranges import half_tensors
from edge_runtime.precision.halves.half_types import HALF_TYPES
from edge_runtime.precision.halves.high_precision import lower_rest
from edge_runtime.precision.quantized.fast_cpu import fast_form
from edge_runtime.precision.quantized.int8 import MIN_OPSET, quantize
from edge_runtime.precision.quantized.rounding import round_weights
from edge_runtime.precision.quantized.weights import quantize_weights
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from edge_runtime.precision.report import Intent, count_weights, report_of
from edge_runtime.precision.rewritten import Rewritten, serialise
from edge_runtime.progress import Progress, silent

_NO_FORM = "its operator has no INT8 form"


def prepare_int8(model: Model, config: BuildConfig) -> tuple[ModelProto, Placement]:
    """A prepared copy of the model, and what of it becomes INT8.

    Raises:
        ModelError: It is quantized already, or nothing in it can be INT8.
        ConfigError: `config.exclude` names a node that does not exist.
    """
    half = HALF_TYPES.get(config.rest)
    proto = prepare(model, min_opset=half.quantized_opset if half is not None else MIN_OPSET)
    if any("QuantizeLinear" in node.op_type for node in proto.graph.node):
        raise ModelError(
            f"{model.name} is quantized already. Build it with --precision fp32, which keeps its "
            "Q/DQ as they are, or start from the FP32 model."
        )
    placement = place(Graph(proto), exclude=config.exclude)
    if not placement.weights:
        reasons = ", ".join(sorted(set(placement.kept.values()))) or "there is no such layer"
        raise ModelError(
            f"Nothing in {model.name} can be INT8: no Conv, ConvTranspose, Gemm or MatMul with "
            f"constant FP32 weights is left ({reasons}). Choose another precision."
        )
    return proto, placement


def prepare_calibrated(
    model: Model, config: BuildConfig, cache: CalibrationCache
) -> tuple[ModelProto, Placement]:
    """`prepare_int8` for a calibration of this very model, equalized as that says.

    Raises:
        CalibrationCacheError: The cache is another model's, or lacks tensors.
        ConfigError: As `prepare_int8`.
        ModelError: As `prepare_int8`.
    """
    proto, placement = prepare_int8(model, config)
    add_multipliers(proto, placement, only=cache.equalization)
    needed = set(placement.tensors)
    if config.exclude:  # A cache of all layers serves a build that leaves some of them out.
        needed |= cache.ranges.keys() & set(place(Graph(proto)).tensors)
    cache.check(model.digest, needed)
    apply_scales(proto, cache.equalization)
    return proto, placement


def quantize_model(
    model: Model,
    config: BuildConfig,
    cache: CalibrationCache,
    *,
    samples: Samples | None = None,
    progress: Progress = silent,
) -> Rewritten:
    """Writes a model in INT8.

    Args:
        model: The FP32 model.
        config: The settings.
        cache: The calibration of this very model.
        samples: What `--effort high` rounds the weights on; it needs them.
        progress: Told of every step.

    Raises:
        CalibrationCacheError: The cache is another model's, or lacks tensors.
        ConfigError: Samples are needed and missing.
        ModelError: The model cannot be INT8.
    """
    proto, placement = prepare_calibrated(model, config, cache)
    amax = {name: bounds.amax for name, bounds in cache.ranges.items()}
    proto = compact(proto)
    release_memory()
    half = HALF_TYPES.get(config.rest)
    counts = count_weights(graph := Graph(proto))
    kept = {n.name: _NO_FORM for n in graph.nodes if n.name in counts and n.op_type not in PRODUCTS}
    kept.update(placement.kept)
    fast = twin = None
    if config.cpu_mode is CpuMode.FAST:
        fast = fast_form(proto, placement, amax, cache.means)
    weights = nearest = quantize_weights(Graph(proto), placement, half=half)
    if config.calibration.effort is Effort.HIGH:
        if samples is None:
            raise ConfigError(
                "effort high rounds weights on samples: give the calibration data itself, not "
                "only the result of a calibration."
            )
        weights = round_weights(proto, placement, amax, weights, samples, progress)
    corrected = correct_bias(proto, placement, weights, cache.means)
    watched = half_tensors(Graph(proto), half) if half is not None else ()
    quantize(proto, placement, amax, weights, half=half)
    if half is None:
        report = report_of(config, proto, Intent(counts, kept))
    else:
        rest = lower_rest(proto, half, cache, watched=watched, layers=counts)
        twin = serialise(rest.twin, model)
        report = report_of(config, proto, Intent(counts, kept, rest.full, rest.lowered))
        report["ranges_checked_on"] = rest.checked_on
    report.update(_calibration_report(cache, corrected))
    keys = {entry.node: (entry.tensor, entry.axis) for entry in placement.weights}
    report["rounded"] = sorted(n for n, key in keys.items() if weights[key] is not nearest[key])
    return Rewritten(serialise(proto, model), twin, report, cache, fast)


def _calibration_report(cache: CalibrationCache, corrected: list[str]) -> dict[str, Any]:
    methods = Counter(bounds.method for bounds in cache.ranges.values() if bounds.method)
    return {
        "always_zero": sorted(n for n, bounds in cache.ranges.items() if bounds.amax == 0.0),
        "calibration": {"method": cache.method, "samples": cache.samples},
        "equalized": sorted(cache.equalization),
        "bias_corrected": sorted(corrected),
        "tried": dict(cache.tried),
        "findings": list(cache.findings),
        "methods": dict(sorted(methods.items())),
    }
