"""Calibrates a model for INT8: equalizes it, watches its activations, chooses their ranges."""

from __future__ import annotations

from edge_runtime.config import BuildConfig
from edge_runtime.data import Samples
from edge_runtime.model import Model
from edge_runtime.precision.bias import channel_means
from edge_runtime.precision.calibration_cache import CalibrationCache, TensorRange
from edge_runtime.precision.calibrator import Observer
from edge_runtime.precision.channels import observe_channels
from edge_runtime.precision.equalize import apply_scales, choose_scales
from edge_runtime.precision.graph import Graph
from edge_runtime.precision.histogram import Histogram
from edge_runtime.precision.quantization import prepare_int8
from edge_runtime.precision.ranges import choose_amax
from edge_runtime.progress import Progress, silent
from edge_runtime.version import __version__


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
    scales, means = {}, {}
    if settings.equalize or settings.bias_correction:
        stats = observe_channels(proto, placement, samples, progress)
        if settings.equalize:
            scales = choose_scales(Graph(proto), placement, stats)
            apply_scales(proto, scales)
        if settings.bias_correction:
            means = channel_means(Graph(proto), placement, stats, scales)
    observer = Observer(proto, {name: Histogram() for name in placement.tensors})
    del proto  # A copy of all weights, while ONNX Runtime holds them too.
    histograms = observer.run(samples, total=len(samples), progress=progress)
    del observer
    ranges = {}
    for done, (name, histogram) in enumerate(histograms.items(), 1):
        ranges[name] = TensorRange(choose_amax(histogram, settings), histogram.amax)
        progress("Choosing ranges", done, len(histograms))
    return CalibrationCache(
        model_digest=model.digest,
        method=settings.method.value,
        samples=len(samples),
        data_digest=samples.digest(),
        ranges=ranges,
        tool=__version__,
        equalization=scales,
        means=means,
    )
