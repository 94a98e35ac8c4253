"""Measures which layers and tensors INT8 costs accuracy: each one's own error, and the outputs'."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edge_runtime.config import BuildConfig
from edge_runtime.data import Samples
from edge_runtime.model import Model
from edge_runtime.precision.calibration_cache import CalibrationCache
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
        """The figures as plain JSON values."""
        return asdict(self)


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
        DataError: A sample cannot be run.
        ModelError: Nothing in the model can be INT8.
    """
    raise NotImplementedError
