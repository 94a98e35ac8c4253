"""Rewrites a model to a precision: prepares it, chooses ranges, writes and validates the graphs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from edge_runtime.config import BuildConfig, Precision
from edge_runtime.data import Samples
from edge_runtime.errors import ConfigError, ModelError
from edge_runtime.model import Model
from edge_runtime.precision.calibration_cache import CalibrationCache, TensorRange
from edge_runtime.precision.calibrator import Observer
from edge_runtime.precision.graph import Graph
from edge_runtime.precision.half import HALF_TYPES, to_half
from edge_runtime.precision.half_ranges import half_tensors, keep_full
from edge_runtime.precision.int8 import MIN_OPSET, quantize
from edge_runtime.precision.placement import Placement, check_names, place
from edge_runtime.precision.prepare import prepare
from edge_runtime.precision.ranges import choose_amax
from edge_runtime.precision.validate import validate
from edge_runtime.progress import Progress, silent
from edge_runtime.version import __version__


@dataclass(frozen=True)
class Rewritten:
    """A model in its precision.

    Attributes:
        graph: The serialised graph that devices build from.
        cpu_graph: What the CPU runs instead, where it has no kernels for the graph's types.
        report: What became of the layers, as plain JSON.
        cache: The calibration that the graph was written with; INT8 only.
    """

    graph: bytes
    cpu_graph: bytes | None
    report: dict[str, Any]
    cache: CalibrationCache | None = None


def calibrate_model(
    model: Model, config: BuildConfig, samples: Samples, progress: Progress = silent
) -> CalibrationCache:
    """Chooses the range of every tensor that INT8 needs.

    Raises:
        ModelError: Nothing in the model can be INT8.
        DataError: A sample cannot be run, or makes NaN or infinity.
    """
    proto, placement = _prepare_int8(model, config)
    observer = Observer(proto, placement.tensors)
    del proto  # A copy of all weights, while ONNX Runtime holds them too.
    histograms = observer.run(samples, total=len(samples), progress=progress)
    del observer
    ranges = {}
    for done, (name, histogram) in enumerate(histograms.items(), 1):
        ranges[name] = TensorRange(choose_amax(histogram, config.calibration), histogram.amax)
        progress("Choosing ranges", done, len(histograms))
    return CalibrationCache(
        model_digest=model.digest,
        method=config.calibration.method.value,
        samples=len(samples),
        data_digest=samples.digest(),
        ranges=ranges,
        tool=__version__,
    )


def calibrated_tensors(model: Model, config: BuildConfig) -> list[str]:
    """Names of the tensors whose ranges INT8 needs."""
    return _prepare_int8(model, config)[1].tensors


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
        cache: An earlier calibration of this very model, instead of `samples`; INT8 only.
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
        if cache is None:
            assert samples is not None
            cache = calibrate_model(model, config, samples, progress)
        return _int8(model, config, cache)
    if cache is not None:
        raise ConfigError(f"A calibration cache does nothing for {config.precision.value}.")
    if config.precision is Precision.FP32:
        if samples is not None:
            raise ConfigError("Calibration data does nothing for fp32; leave it out.")
        proto = prepare(model, min_opset=0)
        check_names(Graph(proto), config.exclude)
        return Rewritten(_serialise(proto, model), None, _report(config, proto, set(), {}))
    return _half(model, config, samples, progress)


def _prepare_int8(model: Model, config: BuildConfig) -> tuple[ModelProto, Placement]:
    proto = prepare(model, min_opset=MIN_OPSET)
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


def _int8(model: Model, config: BuildConfig, cache: CalibrationCache) -> Rewritten:
    proto, placement = _prepare_int8(model, config)
    needed = set(placement.tensors)
    if config.exclude:  # A cache of all layers serves a build that leaves some of them FP32.
        needed |= cache.ranges.keys() & set(place(Graph(proto)).tensors)
    cache.check(model.digest, needed)
    quantize(proto, placement, {name: bounds.amax for name, bounds in cache.ranges.items()})
    layers = {weight.node for weight in placement.weights}
    report = _report(config, proto, layers, placement.kept)
    dead = sorted(name for name in needed if cache.ranges[name].amax == 0.0)
    report["always_zero"] = dead
    report["calibration"] = {"method": cache.method, "samples": cache.samples}
    return Rewritten(_serialise(proto, model), None, report, cache)


def _half(
    model: Model, config: BuildConfig, samples: Samples | None, progress: Progress
) -> Rewritten:
    half = HALF_TYPES[config.precision]
    proto = prepare(model, min_opset=half.min_opset)
    graph = Graph(proto)
    check_names(graph, config.exclude)
    histograms = None
    if samples is not None:
        observer = Observer(proto, half_tensors(graph, half), skip_infinity=True)
        histograms = observer.run(samples, total=len(samples), progress=progress)
        del observer
    kept = keep_full(graph, half, histograms)
    kept.update(dict.fromkeys(config.exclude, "excluded"))
    twin = ModelProto()
    twin.CopyFrom(proto)
    lowered = to_half(proto, half, kept, twin=False)
    to_half(twin, half, kept, twin=True)
    report = _report(config, proto, lowered, kept)
    report["ranges_checked_on"] = len(samples) if samples is not None else 0
    return Rewritten(_serialise(proto, model), _serialise(twin, model), report)


def _serialise(proto: ModelProto, model: Model) -> bytes:
    validate(proto, model.name)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _report(
    config: BuildConfig, proto: ModelProto, lowered: Iterable[str], kept: dict[str, str]
) -> dict[str, Any]:
    """What each node became. Those that `lowered` does not name compute in FP32 or on integers."""
    lowered = set(lowered)
    return {
        "asked": config.precision.value,
        "nodes": [
            {
                "name": node.name,
                "op": node.op_type,
                "precision": config.precision.value if node.name in lowered else "fp32",
            }
            for node in proto.graph.node
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Cast")
        ],
        "kept": dict(sorted(kept.items())),
    }
