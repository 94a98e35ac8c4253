"""Calibrates a model for INT8: equalizes it, watches its activations, chooses their ranges."""

from __future__ import annotations

from collections.abc import Container, Mapping
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
    kept,
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
    divided = divisors(graph, scales)
    scaled.share(plain, divided)
    counters = plain.counters
    for name in counters.keys() & divided.keys():
        times = (1 / divided[name]).astype(np.float32)
        counters[name] = _Both(counters[name], scaled.counters[name], times)
    observer = Observer(proto, counters)
    del graph, proto  # A copy of all weights, while ONNX Runtime holds them too.
    observer.run(watched, total=len(samples), progress=progress)
    del observer
    release_memory()

    def choose(
        histograms: Mapping[str, Histogram],
        used: Mapping[str, tuple[float, ...]],
        alike: Mapping[str, TensorRange],
    ) -> dict[str, TensorRange]:
        """The ranges that equalization by `used` leaves; it does not touch those in `alike`."""
        if settings.method is CalibrationMethod.AUTO:
            prepared, placement = prepare_int8(model, config)
            apply_scales(prepared, used)
            return choose_ranges(prepared, placement, histograms, samples, settings, progress)
        chosen = {}
        for done, (name, histogram) in enumerate(histograms.items(), 1):
            chosen[name] = alike.get(name) or TensorRange(
                choose_amax(histogram, settings), histogram.amax
            )
            progress("Choosing ranges", done, len(histograms))
        return chosen

    ranges = choose(plain.histograms, {}, {})
    bases = {
        NOTHING: CalibrationCache(
            model_digest=model.digest,
            method=settings.method.value,
            samples=len(samples),
            data_digest=samples.digest(),
            ranges=ranges,
            tool=__version__,
            peaks=plain.peaks,
        )
    }
    if scales:
        alike = {name: bounds for name, bounds in ranges.items() if name not in divided}
        bases[EQUALIZED] = replace(
            bases[NOTHING],
            ranges=choose(scaled.histograms, scales, alike),
            equalization=scales,
            peaks=scaled.peaks,
        )
    corrected = {
        name: replace(bases[base], means=means[name])
        for name, base in ((BIAS, NOTHING), (BOTH, EQUALIZED))
        if name in means
    }
    known = {**bases, **corrected}
    candidates = {name: known[name] for name in (BIAS, NOTHING, BOTH, EQUALIZED) if name in known}
    trial = kept(samples.take(places)) if places and len(candidates) > 1 else []
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

    @property
    def counters(self) -> dict[str, Counter]:
        """What counts each tensor."""
        return {**self._peaks, **self.histograms}

    @property
    def peaks(self) -> dict[str, float]:
        """The largest absolute value of each tensor that has no histogram."""
        return {n: peak.amax for n, peak in self._peaks.items() if n not in self.histograms}

    def share(self, other: _Counted, names: Container[str]) -> None:
        """Takes the counters of another for all tensors but these."""
        self.histograms.update({n: c for n, c in other.histograms.items() if n not in names})
        self._peaks.update({n: c for n, c in other._peaks.items() if n not in names})


class _Both:
    """Counts a tensor as it is, and as equalization would leave it: the graph runs once."""

    def __init__(self, plain: Counter, scaled: Counter, times: Array) -> None:
        self._plain, self._scaled, self._times = plain, scaled, times

    def add(self, values: Array) -> None:
        self._plain.add(values)
        self._scaled.add(values * self._times)
