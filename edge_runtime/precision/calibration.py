"""Calibrates a model for INT8: equalizes it, watches its activations, chooses their ranges."""

from __future__ import annotations

from collections.abc import Mapping

from edge_runtime.config import BuildConfig, CalibrationConfig, CalibrationMethod
from edge_runtime.data import Samples
from edge_runtime.model import Model
from edge_runtime.precision.auto_ranges import choose_ranges
from edge_runtime.precision.bias import channel_means
from edge_runtime.precision.calibration_cache import CalibrationCache, TensorRange
from edge_runtime.precision.calibrator import Observer
from edge_runtime.precision.channels import observe_channels
from edge_runtime.precision.equalize import apply_scales, choose_scales
from edge_runtime.precision.findings import (
    WatchedSamples,
    channel_findings,
    tensor_findings,
)
from edge_runtime.precision.graph import Graph
from edge_runtime.precision.half_ranges import Peak, peak_counters
from edge_runtime.precision.heap import compact, release_memory
from edge_runtime.precision.histogram import Histogram
from edge_runtime.precision.quantization import prepare_int8
from edge_runtime.precision.ranges import choose_amax
from edge_runtime.progress import Progress, silent
from edge_runtime.version import __version__

_VALUES = 2_000_000  # To count of a tensor over all samples: more do not change its range.
_FEWEST_VALUES = 1 << 14  # To count of a tensor in a sample, however many those are.


def calibrate_model(
    model: Model, config: BuildConfig, samples: Samples, progress: Progress = silent
) -> CalibrationCache:
    """Chooses the range of every tensor that INT8 needs, and how channels are scaled before.

    Raises:
        ModelError: Nothing in the model can be INT8.
        DataError: A sample cannot be run, or makes NaN or infinity.
    """
    settings = config.calibration
    proto, placement = prepare_int8(model, config)
    stats = observe_channels(proto, placement, samples, progress)
    release_memory()
    scales, means = {}, {}
    if settings.equalize:
        scales = choose_scales(Graph(proto), placement, stats)
        apply_scales(proto, scales)
        proto = compact(proto)
    if settings.bias_correction:
        means = channel_means(Graph(proto), placement, stats, scales)
    release_memory()
    peaks = peak_counters(Graph(proto), config.high_precision)
    most = max(_VALUES // max(len(samples), 1), _FEWEST_VALUES)
    histograms = {name: Histogram(most=most) for name in placement.tensors}
    watched = WatchedSamples(samples)
    observer = Observer[Histogram | Peak](proto, {**peaks, **histograms})
    is_auto = settings.method is CalibrationMethod.AUTO
    if not is_auto:
        del proto  # A copy of all weights, while ONNX Runtime holds them too.
    observer.run(watched, total=len(samples), progress=progress)
    del observer
    release_memory()
    if is_auto:
        ranges = choose_ranges(proto, placement, histograms, samples, settings, progress)
    else:
        ranges = _ranges(histograms, settings, progress)
    return CalibrationCache(
        model_digest=model.digest,
        method=settings.method.value,
        samples=len(samples),
        data_digest=samples.digest(),
        ranges=ranges,
        tool=__version__,
        equalization=scales,
        means=means,
        peaks={name: peak.amax for name, peak in peaks.items() if name not in ranges},
        findings=(
            *watched.findings(),
            *tensor_findings(histograms),
            *channel_findings(stats),
        ),
    )


def _ranges(
    histograms: Mapping[str, Histogram], settings: CalibrationConfig, progress: Progress
) -> dict[str, TensorRange]:
    ranges = {}
    for done, (name, histogram) in enumerate(histograms.items(), 1):
        ranges[name] = TensorRange(choose_amax(histogram, settings), histogram.amax)
        progress("Choosing ranges", done, len(histograms))
    return ranges
