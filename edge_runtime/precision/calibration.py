"""Calibrates a model for INT8: equalizes it, watches its activations, chooses their ranges."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge_runtime.config import BuildConfig, CalibrationMethod
from edge_runtime.data import Samples
from edge_runtime.model import Model
from edge_runtime.precision.corrections.bias import channel_means
from edge_runtime.precision.corrections.channel_rules import map_channels
from edge_runtime.precision.corrections.equalize import apply_scales, choose_scales, divisors
from edge_runtime.precision.corrections.multipliers import add_multipliers, without_unused
from edge_runtime.precision.corrections.trial import (
    BIAS,
    BOTH,
    EQUALIZED,
    NOTHING,
    Tried,
    choose_corrections,
    trial_places,
)
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.heap import release_memory
from edge_runtime.precision.graphs.placement import Placement
from edge_runtime.precision.halves.half_ranges import peak_counters
from edge_runtime.precision.observing.calibrator import Counter, Observer
from edge_runtime.precision.observing.channels import (
    channel_counters,
    channel_places,
    channel_stats,
)
from edge_runtime.precision.observing.findings import Watch, channel_findings, tensor_findings
from edge_runtime.precision.observing.histogram import Histogram
from edge_runtime.precision.observing.parallel import workers_for
from edge_runtime.precision.observing.reference import Reference
from edge_runtime.precision.quantization import prepare_int8
from edge_runtime.precision.quantized.weights import finite_weight
from edge_runtime.precision.ranging.auto_ranges import choose_ranges
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache, TensorRange
from edge_runtime.precision.ranging.ranges import choose_amax
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import Array, Feeds
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
    return calibrate_and_try(model, config, samples, progress).cache


def calibrate_and_try(
    model: Model, config: BuildConfig, samples: Samples, progress: Progress = silent
) -> Tried:
    """The same, with what trying corrections has left to use again."""
    settings = config.calibration
    places = trial_places(samples) if settings.equalize or settings.bias_correction else []
    proto, placement = prepare_int8(model, config)
    products = add_multipliers(proto, placement) if settings.equalize and places else {}
    graph = Graph(proto)
    channels = map_channels(graph)
    plain, scaled = (_Counted(graph, placement, config, len(samples)) for _ in range(2))
    counters = plain.counters
    by_channel = channel_counters(graph, placement, channels)
    for entry in placement.weights:
        finite_weight(graph, entry)  # Else it is blamed on the first sample.
    checks = {name: _Finite() for name in graph.outputs if graph.is_activation(name)}
    workers = workers_for(len(samples))
    wanted = counters.keys() | by_channel.keys() | checks.keys()
    observer = Observer(proto, wanted, workers=workers)
    passes = _Passes(observer, samples, progress)
    del observer
    first = channel_places(samples, skip=places)
    scales: dict[str, tuple[float, ...]] = {}
    passes.run(first, _together(counters, by_channel, checks))
    stats = channel_stats(by_channel)
    if settings.equalize and places:
        scales = choose_scales(graph, placement, channels, stats)
    means = {
        name: channel_means(graph, placement, channels, stats, used)
        for name, used in ((BIAS, {}), (BOTH, scales))
        if settings.bias_correction and (used or name == BIAS)
    }
    divided = divisors(channels, scales)
    del graph, proto, channels  # A copy of all weights, while ONNX Runtime holds them too.
    release_memory()
    scaled.share(plain, divided)
    times = {
        name: _Scaled(scaled.counters[name], (1 / by).astype(np.float32))
        for name, by in divided.items()
        if name in counters
    }
    rest = [index for index in range(len(samples)) if index not in set(first)]
    if rest:
        passes.run(rest, _together(counters, times, checks))
    if times:  # What the first samples showed had to be known before they could be scaled.
        passes.run_again(first, times)
    found = passes.watch.findings()
    del passes
    release_memory()

    def choose(
        histograms: Mapping[str, Histogram],
        used: Mapping[str, tuple[float, ...]],
        alike: Mapping[str, TensorRange],
    ) -> dict[str, TensorRange]:
        """The ranges that equalization by `used` leaves; it does not touch those in `alike`."""
        if settings.method is CalibrationMethod.AUTO:
            prepared, placement = prepare_int8(model, config)
            add_multipliers(prepared, placement, only=products)
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
    candidates = {
        name: without_unused(cache, products) for name, cache in {**bases, **corrected}.items()
    }
    trial = None
    if places and len(candidates) > 1:
        trial = Reference.of(model.proto, samples.take(places))
    chosen = choose_corrections(model, config, candidates, trial, progress)
    # By the names of the model's own tensors.
    seen = {products.get(name, name): histogram for name, histogram in plain.histograms.items()}
    by_tensor = {products.get(name, name): channels for name, channels in stats.items()}
    findings = [*found, *tensor_findings(seen), *channel_findings(by_tensor)]
    if settings.equalize and not places:
        findings.append("Channels were not equalized: there is no other sample to try that on.")
    return replace(chosen, cache=replace(chosen.cache, findings=tuple(findings)))


class _Passes:
    """Runs a model over samples, some of them at a time.

    Attributes:
        watch: What was noted of the samples when they were first read.
    """

    def __init__(self, observer: Observer, samples: Samples, progress: Progress) -> None:
        self.watch = Watch()
        self._observer = observer
        self._samples = samples
        self._progress = progress
        self._done = 0

    def run(self, indices: Sequence[int], counters: Mapping[str, Counter]) -> None:
        """Counts tensors over the samples of these indices, which were not read before."""
        before, total = self._done, len(self._samples)

        def tell(what: str, done: int, _: int) -> None:
            self._progress(what, before + done, total)

        self._observe(self.watch.over(self._samples.take(indices)), counters, indices, tell)
        self._done += len(indices)

    def run_again(self, indices: Sequence[int], counters: Mapping[str, Counter]) -> None:
        """The same for samples that were read before."""

        def tell(_: str, done: int, total: int) -> None:
            self._progress("Calibrating what is equalized", done, total)

        self._observe(self._samples.take(indices), counters, indices, tell)

    def _observe(
        self,
        samples: Iterable[Feeds],
        counters: Mapping[str, Counter],
        indices: Sequence[int],
        progress: Progress,
    ) -> None:
        numbers = [index + 1 for index in indices]
        total = len(indices)
        self._observer.run(samples, counters, total=total, progress=progress, numbers=numbers)


class _Counted:
    """What is counted of a graph's tensors: histograms for INT8, maxima for what would be half."""

    def __init__(
        self, graph: Graph, placement: Placement, config: BuildConfig, samples: int
    ) -> None:
        most = max(_VALUES // max(samples, 1), _FEWEST_VALUES)
        self.histograms = {name: Histogram(most=most) for name in placement.tensors}
        self._peaks = peak_counters(graph, config.rest)

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


class _Finite:
    """Looks at an output that is not INT8, so that no sample is used on which the model fails."""

    def add(self, values: Array) -> None:
        if not np.isfinite(values).all():
            raise ValueError("a value is infinite or NaN")


class _Scaled:
    """Counts a tensor as equalization would leave it."""

    def __init__(self, counter: Counter, times: Array) -> None:
        self._counter, self._times = counter, times

    def add(self, values: Array) -> None:
        self._counter.add(values * self._times)


class _All:
    """Several counters of one tensor."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters

    def add(self, values: Array) -> None:
        for counter in self._counters:
            counter.add(values)


def _together(*several: Mapping[str, Counter]) -> dict[str, Counter]:
    """What counts each tensor, where it may be in any of these."""
    names = dict.fromkeys(name for counters in several for name in counters)
    return {name: _All([c[name] for c in several if name in c]) for name in names}
