"""Calibrates a model for INT8: equalizes it, watches its activations, chooses their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edge_runtime.config import BuildConfig, CalibrationMethod
from edge_runtime.data import Samples
from edge_runtime.model import Model
from edge_runtime.precision.auto_ranges import choose_ranges
from edge_runtime.precision.bias import channel_means
from edge_runtime.precision.calibration_cache import CalibrationCache, TensorRange
from edge_runtime.precision.calibrator import Counter, Observer
from edge_runtime.precision.channels import observe_channels
from edge_runtime.precision.equalize import apply_scales, choose_scales, divisors
from edge_runtime.precision.findings import (
    WatchedSamples,
    channel_findings,
    tensor_findings,
)
from edge_runtime.precision.graph import Graph
from edge_runtime.precision.half_ranges import peak_counters
from edge_runtime.precision.heap import release_memory
from edge_runtime.precision.histogram import Histogram
from edge_runtime.precision.placement import Placement
from edge_runtime.precision.quantization import prepare_int8
from edge_runtime.precision.ranges import choose_amax
from edge_runtime.precision.trial import (
    BIAS,
    BOTH,
    EQUALIZED,
    NOTHING,
    choose_corrections,
    take,
    trial_places,
)
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import Array
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
    places = trial_places(samples) if settings.equalize or settings.bias_correction else []
    proto, placement = prepare_int8(model, config)
    graph = Graph(proto)
    stats = observe_channels(proto, placement, samples, progress, skip=places)
    release_memory()
    scales = choose_scales(graph, placement, stats) if settings.equalize and places else {}
    plain, scaled = (_Counted(graph, placement, config, len(samples)) for _ in range(2))
    means: dict[str, dict[str, tuple[float, ...]]] = {
        name: channel_means(graph, placement, stats, scales if name in (EQUALIZED, BOTH) else {})
        for name in ((BIAS, BOTH) if scales else (BIAS,))
        if settings.bias_correction
    }
    watched = WatchedSamples(samples)
    observer = Observer(proto, plain.beside(scaled, divisors(graph, scales)))
    del graph, proto  # A copy of all weights, while ONNX Runtime holds them too.
    observer.run(watched, total=len(samples), progress=progress)
    del observer
    release_memory()

    def cache(counted: _Counted, used: Mapping[str, tuple[float, ...]]) -> CalibrationCache:
        return CalibrationCache(
            model_digest=model.digest,
            method=settings.method.value,
            samples=len(samples),
            data_digest=samples.digest(),
            ranges=_ranges(model, config, counted, used, samples, progress),
            tool=__version__,
            equalization=used,
            peaks=counted.peaks(),
        )

    bases = {NOTHING: cache(plain, {})}
    if scales:
        bases[EQUALIZED] = cache(scaled, scales)
    corrected = {
        name: replace(bases[base], means=means[name])
        for name, base in ((BIAS, NOTHING), (BOTH, EQUALIZED))
        if name in means
    }
    known = {**bases, **corrected}
    candidates = {name: known[name] for name in (BIAS, NOTHING, BOTH, EQUALIZED) if name in known}
    trial = take(samples, places) if len(candidates) > 1 else []
    chosen = choose_corrections(model, config, candidates, trial, progress)
    findings = [*watched.findings(), *tensor_findings(plain.histograms), *channel_findings(stats)]
    if settings.equalize and not places:
        findings.append("Channels were not equalized: there is no other sample to try that on.")
    return replace(chosen, findings=tuple(findings))


class _Counted:
    """What is counted of a graph's tensors: histograms for INT8, maxima for what would be half."""

    def __init__(
        self, graph: Graph, placement: Placement, config: BuildConfig, samples: int
    ) -> None:
        most = max(_VALUES // max(samples, 1), _FEWEST_VALUES)
        self.histograms = {name: Histogram(most=most) for name in placement.tensors}
        self._peaks = peak_counters(graph, config.high_precision)
        self.known: dict[int, TensorRange] = {}  # What was chosen, by the histogram's identity.

    def beside(self, scaled: _Counted, scales: Mapping[str, Array]) -> dict[str, Counter]:
        """Counters of the graph's own tensors; `scaled` is filled with them divided by `scales`."""
        own: dict[str, Counter] = {**self._peaks, **self.histograms}
        other: dict[str, Counter] = {**scaled._peaks, **scaled.histograms}
        for name in own.keys() & scales.keys():
            own[name] = _Both(own[name], other[name], (1 / scales[name]).astype(np.float32))
        for name in self._peaks.keys() - scales.keys():
            scaled._peaks[name] = self._peaks[name]
        for name in self.histograms.keys() - scales.keys():
            scaled.histograms[name] = self.histograms[name]
        scaled.known = self.known
        return own

    def peaks(self) -> dict[str, float]:
        """The largest absolute value of each tensor that has no histogram."""
        return {n: peak.amax for n, peak in self._peaks.items() if n not in self.histograms}


class _Both:
    """Counts a tensor as it is, and as equalization would leave it: the graph runs once."""

    def __init__(self, plain: Counter, scaled: Counter, times: Array) -> None:
        self._plain, self._scaled, self._times = plain, scaled, times

    def add(self, values: Array) -> None:
        self._plain.add(values)
        self._scaled.add(values * self._times)


def _ranges(
    model: Model,
    config: BuildConfig,
    counted: _Counted,
    scales: Mapping[str, tuple[float, ...]],
    samples: Samples,
    progress: Progress,
) -> dict[str, TensorRange]:
    settings, histograms = config.calibration, counted.histograms
    if settings.method is CalibrationMethod.AUTO:
        proto, placement = prepare_int8(model, config)
        apply_scales(proto, scales)
        return choose_ranges(proto, placement, histograms, samples, settings, progress)
    ranges = {}
    for done, (name, histogram) in enumerate(histograms.items(), 1):
        ranges[name] = counted.known.get(id(histogram)) or TensorRange(
            choose_amax(histogram, settings), histogram.amax
        )
        counted.known[id(histogram)] = ranges[name]
        progress("Choosing ranges", done, len(histograms))
    return ranges
