"""Tries corrections on samples that they were not chosen on, and keeps what helps the outputs.

Equalization and bias correction are chosen layer by layer, from a model of the errors and from what
a few samples showed. What they come to at the model's outputs, all layers together and on other
samples, only a run shows: with few samples, or where rare values exceed what those showed, they
may lose more than they gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_runtime.config import BuildConfig, CpuMode, Effort, Precision
from edge_runtime.data import Samples
from edge_runtime.metrics import AgreementMeter
from edge_runtime.model import Model
from edge_runtime.precision.graphs.heap import release_memory
from edge_runtime.precision.observing.reference import Reference
from edge_runtime.precision.quantization import quantize_model
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from edge_runtime.precision.rewritten import Rewritten
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import Array, Feeds

NOTHING, BIAS = "nothing", "bias correction"
EQUALIZED, BOTH = "equalization", "equalization and bias correction"

_MOST = 32  # Samples to try on; fewer of large ones.
_FEWEST = 4
_INPUT_VALUES = 1 << 19  # Of all samples to try on: 32 of 128x128, 4 of 224x224 in color.
_EQUAL = 120.0  # dB; stands for outputs without any error.
_HOPELESS = -120.0  # Stands for outputs that are not numbers.
_WITHOUT_BIAS, _EQUALIZATION = 1.0, 3.0
"""dB that must be gained by leaving bias correction out, and by equalization. Nets whose channels
are as training left them differ by a decibel or two either way; where equalization is needed it
gains ten and more."""

_EQUALIZED_FORM = {BIAS: BOTH, NOTHING: EQUALIZED}
_UNCORRECTED_FORM = {BIAS: NOTHING, BOTH: EQUALIZED}

_STEADY = 8  # Samples; on fewer the outputs' SQNR varies more, and more must be gained.


@dataclass(frozen=True)
class Tried:
    """A calibration, with what trying it has left to use again.

    Attributes:
        cache: The calibration.
        written: The model in INT8 by it, with an FP32 rest and default effort; None if nothing was
            tried.
        reference: The samples that it was tried on, if any.
        outputs: What `written` makes of these.
    """

    cache: CalibrationCache
    written: Rewritten | None = None
    reference: Reference | None = None
    outputs: Sequence[Sequence[Array]] | None = None


def trial_places(samples: Samples) -> list[int]:
    """Indices of the samples to try on: a quarter of them at most, or one of two or three."""
    count = len(samples)
    first: Feeds = next(iter(samples), {})
    values = sum(array.size for array in first.values())
    most = min(max(_INPUT_VALUES // max(values, 1), _FEWEST), _MOST)
    taken = min(count // 4 or 1, most) if count > 1 else 0
    return [(2 * place + 1) * count // (2 * taken) for place in range(taken)]


def choose_corrections(
    model: Model,
    config: BuildConfig,
    candidates: Mapping[str, CalibrationCache],
    trial: Reference | None,
    progress: Progress = silent,
) -> Tried:
    """The calibration with whose graph the outputs come closest to the model's.

    Bias correction is expected to help, and kept unless it loses clearly; equalization is taken
    where it gains clearly.

    Args:
        model: The FP32 model.
        config: The settings, of which `tried_settings` are tried.
        candidates: A calibration by each of the names above that there is, `NOTHING` always.
        trial: Samples that none of them was chosen on; without, nothing is tried.
        progress: Told of every candidate.

    Returns:
        One of the candidates, with what those came to that were tried in its cache's `tried`.
    """
    best = BIAS if BIAS in candidates else NOTHING
    if trial is None or len(candidates) < 2:
        return Tried(candidates[best], reference=trial)
    plain = tried_settings(config)
    levels: dict[str, float] = {}
    results: dict[str, Tried] = {}

    def level(name: str) -> float:
        if name not in levels:
            written = quantize_model(model, plain, candidates[name])
            outputs = trial.outputs_of(written.graph)
            levels[name] = _level(trial.outputs, outputs)
            results[name] = Tried(candidates[name], written, trial, outputs)
            release_memory()
            progress("Trying corrections", len(levels), len(candidates) // 2 + 1)
        return levels[name]

    unsteady = max(_STEADY / len(trial.feeds), 1.0)
    for form, gain in ((_EQUALIZED_FORM, _EQUALIZATION), (_UNCORRECTED_FORM, _WITHOUT_BIAS)):
        other = form.get(best, "")
        if other in candidates and level(other) > level(best) + gain * unsteady:
            best = other
        for name in results.keys() - {best}:
            del results[name]  # A graph is a copy of all weights.
    chosen = results.get(best) or Tried(candidates[best], reference=trial)
    return replace(chosen, cache=replace(chosen.cache, tried=levels))


def tried_settings(config: BuildConfig) -> BuildConfig:
    """The settings that corrections are tried with: those of the calibration, and what is cheap."""
    return replace(
        config,
        calibration=replace(config.calibration, effort=Effort.DEFAULT),
        high_precision=Precision.FP32,
        cpu_mode=CpuMode.EXACT,
        guard=None,
    )


def _level(expected: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> float:
    """The SQNR in dB, the mean over the outputs."""
    levels = []
    for references, others in zip(
        zip(*expected, strict=True), zip(*found, strict=True), strict=True
    ):
        meter = AgreementMeter()
        try:
            for reference, other in zip(references, others, strict=True):
                meter.add(reference, other)
        except ValueError:
            levels.append(_HOPELESS)
            continue
        sqnr = meter.result().sqnr_db
        levels.append(_EQUAL if sqnr is None else min(sqnr, _EQUAL))
    return float(np.mean(levels))
