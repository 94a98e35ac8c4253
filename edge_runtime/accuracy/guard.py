"""The accuracy guard: leaves as few layers out of INT8 as keeps a model within its budget.

Full INT8 is tried first. Where it loses too much, layers are ranked by the noise that each alone
makes at the outputs, for each second that leaving it out is estimated to cost; the shortest run of
that ranking that keeps the budget is found, and then its layers are given back one by one, the
costliest first, as long as the budget is kept.

The samples that judge also choose, so that with few of them and many candidates the chosen one
looks better than it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_runtime.accuracy.bootstrap import Drop
from edge_runtime.accuracy.cost import Cost, estimate_cost
from edge_runtime.accuracy.judge import Judge
from edge_runtime.accuracy.search import Candidate, Layers, Search, most_tries
from edge_runtime.accuracy.sensitivity import Sensitivity, measure_sensitivity
from edge_runtime.accuracy.verdict import refusal, rounding_refusal, verdict
from edge_runtime.config import BuildConfig, CpuMode, Effort
from edge_runtime.data.evaluation import Held
from edge_runtime.data.samples import CheckedSamples, spread
from edge_runtime.errors import BuildError
from edge_runtime.model import Model
from edge_runtime.precision.quantization import quantize_model
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from edge_runtime.precision.rewrite import rewrite
from edge_runtime.precision.rewritten import Rewritten
from edge_runtime.progress import Progress, silent

Measure = Callable[[Model, BuildConfig, CalibrationCache, CheckedSamples, Progress], Sensitivity]

_KEPT = "kept by the accuracy guard"
_RANKED_ON = 8  # Samples that the ranking is measured on.
_SEARCH = "Keeping to the accuracy budget"
_NOTHING: Layers = frozenset()


@dataclass(frozen=True)
class Job:
    """What is built under a budget.

    Attributes:
        model: The FP32 model.
        config: The settings, with the budget in `guard`.
        cache: The calibration of this very model, with all layers that could be INT8.
        held: What accuracy is judged on.
        samples: The calibration's samples; needed for `Effort.HIGH`.
    """

    model: Model
    config: BuildConfig
    cache: CalibrationCache
    held: Held
    samples: CheckedSamples | None = None

    def settings(self, kept: Layers) -> BuildConfig:
        """The settings of the form without these layers in INT8."""
        return replace(self.config, exclude=(*self.config.exclude, *kept))


def keep_budget(
    job: Job, *, measure: Measure = measure_sensitivity, progress: Progress = silent
) -> Rewritten:
    """Writes a model in INT8, but for the layers that would cost more accuracy than is allowed.

    Args:
        job: The model and its budget.
        measure: How layers are ranked.
        progress: Told of every sample of every candidate.

    Returns:
        The model; its report's `guard` has the verdict and the curve.

    Raises:
        BuildError: No assignment keeps the budget; says how near the best came.
        ConfigError: The metric is not for such a model.
        DataError: Labels are missing or do not fit, or a sample cannot be run.
    """
    guard = job.config.guard
    assert guard is not None
    cost = estimate_cost(job.model, job.config, next(iter(job.held.samples)))
    judged = _Judged(job, len(cost.int8), progress)
    search = Search(guard, judged.quick)
    is_rounded = job.config.calibration.effort is Effort.HIGH
    if is_rounded:  # It may make up for what layers would be left out for.
        search.tried[_NOTHING] = Candidate(_NOTHING, judged.as_built(_NOTHING))
    kept = _NOTHING
    if not search.keeps_budget(_NOTHING):
        ranking = _rank(job, cost, measure, progress)
        found = search.shortest(ranking)
        if found is None:
            raise BuildError(refusal(guard, cost, search.tried.values(), job.held))
        # Without the last of the run it was too short: that one is not tried again.
        costly = sorted(ranking[: len(found) - 1], key=cost.saved, reverse=True)
        kept = search.give_back(found, costly)
        if is_rounded:
            drop = judged.as_built(kept)
            if not drop.within(guard.max_drop, confident=guard.confident):
                raise BuildError(rounding_refusal(guard, search.tried[kept], drop))
            search.tried[kept] = Candidate(kept, drop)
    judged.finish()
    written = rewrite(job.model, job.settings(kept), samples=job.samples, cache=job.cache)
    report = written.report
    report["kept"] = dict(sorted({**report["kept"], **dict.fromkeys(kept, _KEPT)}.items()))
    tried = search.tried
    report["guard"] = verdict(guard, cost, tried.values(), tried[kept], job.held)
    return written


class _Judged:
    """Writes and judges candidates, and tells of it."""

    def __init__(self, job: Job, layers: int, progress: Progress) -> None:
        guard = job.config.guard
        assert guard is not None
        self._job = job
        self._judge = Judge(job.model, guard, job.held, progress)
        self._progress = progress
        self._size = len(job.held.samples)
        self._most = most_tries(layers) * self._size
        self._done = 0

    def quick(self, kept: Layers) -> Drop:
        """What a candidate loses, its weights rounded to the nearest."""
        return self._drop(_quick(self._job.settings(kept)))

    def as_built(self, kept: Layers) -> Drop:
        """What a candidate loses, its weights rounded as asked."""
        return self._drop(replace(self._job.settings(kept), cpu_mode=CpuMode.EXACT))

    def finish(self) -> None:
        """Tells that no more candidates come."""
        self._progress(_SEARCH, self._most, self._most)

    def _drop(self, settings: BuildConfig) -> Drop:
        job, before = self._job, self._done
        written = quantize_model(job.model, settings, job.cache, samples=job.samples)
        drop = self._judge.judge(
            written.cpu_graph or written.graph,
            lambda _, sample, __: self._progress(_SEARCH, before + sample, self._most),
        )
        self._done += self._size
        return drop


def _rank(job: Job, cost: Cost, measure: Measure, progress: Progress) -> list[str]:
    """The layers, those first that make most noise for the time that leaving them out costs."""
    samples = job.samples if job.samples is not None else job.held.samples
    few = samples.take(spread(len(samples), _RANKED_ON))
    found = measure(job.model, _quick(job.config), job.cache, few, progress)
    noise = {layer.name: layer.output_noise for layer in found.layers}
    return sorted(cost.int8, key=lambda name: noise[name] / cost.saved(name), reverse=True)


def _quick(settings: BuildConfig) -> BuildConfig:
    """The settings without what takes long and without what only other CPUs run."""
    calibration = replace(settings.calibration, effort=Effort.DEFAULT)
    return replace(settings, calibration=calibration, cpu_mode=CpuMode.EXACT)
