"""Tries corrections on samples that they were not chosen on, and keeps what helps the outputs.

Equalization and bias correction are chosen layer by layer, from a model of the errors and from what
a few samples showed. What they come to at the model's outputs, all layers together and on other
samples, only a run shows: with few samples, or where rare values exceed what those showed, they
may lose more than they gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge_runtime.backends.cpu import open_session, run_session
from edge_runtime.config import BuildConfig, CpuMode, Effort, Precision
from edge_runtime.data import Samples
from edge_runtime.metrics import AgreementMeter
from edge_runtime.model import Model
from edge_runtime.precision.calibration_cache import CalibrationCache
from edge_runtime.precision.heap import release_memory
from edge_runtime.precision.quantization import quantize_model
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import Array, Feeds

NOTHING, BIAS = "nothing", "bias correction"
EQUALIZED, BOTH = "equalization", "equalization and bias correction"

_MOST = 32  # Samples to try on; fewer of large ones.
_FEWEST = 4
_INPUT_VALUES = 1 << 19  # Of all samples to try on: 32 of 128x128, 4 of 224x224 in color.
_EQUAL = 120.0  # dB; stands for outputs without any error.
_HOPELESS = -120.0  # Stands for outputs that are not numbers.
_GAINS = {NOTHING: 1.0, EQUALIZED: 3.0, BOTH: 3.0}
"""dB that a candidate must gain over all before it. Nets whose channels are as training left them
differ by a decibel or two either way; where equalization is needed it gains ten and more."""

_STEADY = 8  # Samples; on fewer the outputs' SQNR varies more, and more must be gained.


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
    trial: Sequence[Feeds],
    progress: Progress = silent,
) -> CalibrationCache:
    """The calibration with whose graph the outputs come closest to the model's.

    Args:
        model: The FP32 model.
        config: The settings; what is not INT8 is tried in FP32.
        candidates: The calibrations, what is expected to be best first: a later one must be
            clearly better than all before it.
        trial: Samples that none of them was chosen on; with none, the first candidate is taken.
        progress: Told of every candidate.

    Returns:
        One of the candidates, with what all of them came to in `tried`.
    """
    names = list(candidates)
    if not trial or len(names) < 2:
        return candidates[names[0]]
    plain = replace(
        config,
        calibration=replace(config.calibration, effort=Effort.DEFAULT),
        high_precision=Precision.FP32,
        cpu_mode=CpuMode.EXACT,
        guard=None,
    )
    expected = _outputs(model, model.proto.SerializeToString(), trial)
    levels = {}
    for done, (name, cache) in enumerate(candidates.items(), 1):
        graph = quantize_model(model, plain, cache).graph
        levels[name] = _level(expected, _outputs(model, graph, trial))
        release_memory()
        progress("Trying corrections", done, len(names))
    best, highest = names[0], levels[names[0]]
    for name in names[1:]:
        if levels[name] > highest + _GAINS.get(name, 0.0) * max(_STEADY / len(trial), 1.0):
            best = name
        highest = max(highest, levels[name])
    return replace(candidates[best], tried=levels)


def kept(samples: Samples) -> list[Feeds]:
    """Samples to keep: copies, for a source may use its arrays again."""
    return [{name: array.copy() for name, array in feeds.items()} for feeds in samples]


def _outputs(model: Model, graph: bytes, trial: Sequence[Feeds]) -> list[list[Array]]:
    session = open_session(graph, lean=True, small=True)
    names = [spec.name for spec in model.outputs]
    return [run_session(session, names, feeds) for feeds in trial]


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
