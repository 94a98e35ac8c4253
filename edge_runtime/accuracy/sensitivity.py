"""Measures which layers and tensors INT8 costs accuracy: each one's own error, and the outputs'."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from edge_runtime.accuracy.sweep import Sweep
from edge_runtime.config import BuildConfig
from edge_runtime.data import Samples
from edge_runtime.model import Model
from edge_runtime.precision.observing.replay import Replay, open_replay
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from edge_runtime.precision.ranging.ranges import LEVELS
from edge_runtime.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """What happens if this layer alone is INT8.

    Noise is the power of the error as a share of the power of the FP32 values; its level in dB,
    -10 log10(noise), is the SQNR.

    Attributes:
        name: The node.
        op: Its operator.
        index: Its place in the graph's order.
        local_noise: The noise at the layer's own output, its inputs and weights quantized.
        weight_noise: The same with the weights alone quantized.
        input_noise: The same with the activations that it reads alone quantized.
        output_noise: The noise at the model's outputs, the largest of them, everything else FP32.
    """

    name: str
    op: str
    index: int
    local_noise: float
    weight_noise: float
    input_noise: float
    output_noise: float


@dataclass(frozen=True, slots=True)
class TensorSensitivity:
    """What happens if this tensor alone is INT8, for all INT8 layers that read it.

    Attributes:
        name: The tensor.
        index: The place of the node that makes it in the graph's order; -1 for an input.
        amax: The absolute value that the largest level stands for.
        local_noise: The noise of the tensor itself.
        output_noise: The noise at the model's outputs, the largest of them.
    """

    name: str
    index: int
    amax: float
    local_noise: float
    output_noise: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What INT8 costs, layer by layer and tensor by tensor, in the graph's order.

    A noise at the outputs is the largest of them. Outputs of integers, such as labels, count only
    where there are no others, with the share of entries that differ. An output of another shape, as
    detectors make, is noise as a whole; NaN where FP32 has none is an infinite noise. Outputs that
    are always zero do not count.

    Attributes:
        samples: How many samples it was measured on.
        total_noise: The noise at the model's outputs with every layer in INT8.
        layers: Every layer that INT8 would take.
        tensors: Every tensor that is quantized for them.
    """

    samples: int
    total_noise: float
    layers: tuple[LayerSensitivity, ...]
    tensors: tuple[TensorSensitivity, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values; a noise without bound is None."""
        plain = asdict(self)
        return {key: _plain(value) for key, value in plain.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [{key: _plain(entry) for key, entry in row.items()} for row in value]
    return None if value == math.inf else value


def measure_sensitivity(
    model: Model,
    config: BuildConfig,
    cache: CalibrationCache,
    samples: Samples,
    progress: Progress = silent,
) -> Sensitivity:
    """Quantizes one layer at a time, runs the net from there on, and compares with FP32.

    Args:
        model: The FP32 model.
        config: The settings of the INT8 build that is asked about.
        cache: The calibration of this very model.
        samples: What is run; a few show which layers matter.
        progress: Told of every layer.

    Raises:
        DataError: A sample cannot be run, or makes NaN or infinity.
        ModelError: Nothing in the model can be INT8.
    """
    replay = open_replay(model, config, cache)
    sweep = Sweep(replay)
    steps = len(sweep.probes) * len(samples)
    done = 0
    for sample, feeds in enumerate(samples, 1):
        for _ in sweep.add(feeds, sample):
            done += 1
            progress("Measuring sensitivity", done, steps)
    return Sensitivity(len(samples), sweep.total, _layers(sweep), _tensors(replay, sweep))


def _layers(sweep: Sweep) -> tuple[LayerSensitivity, ...]:
    found = [
        LayerSensitivity(
            name=probe.layer.name,
            op=probe.layer.op,
            index=probe.layer.index,
            local_noise=probe.local.share,
            weight_noise=probe.weights.share,
            input_noise=probe.inputs.share,
            output_noise=sweep.output_noise(probe.errors),
        )
        for probe in sweep.probes
        if probe.layer is not None
    ]
    return tuple(sorted(found, key=lambda layer: layer.index))


def _tensors(replay: Replay, sweep: Sweep) -> tuple[TensorSensitivity, ...]:
    found = [
        TensorSensitivity(
            name=probe.tensor,
            index=replay.indices.get(probe.tensor, -1),
            amax=probe.scale * LEVELS,
            local_noise=probe.local.share,
            output_noise=sweep.output_noise(probe.errors),
        )
        for probe in sweep.probes
        if probe.layer is None
    ]
    return tuple(sorted(found, key=lambda tensor: (tensor.index, tensor.name)))
