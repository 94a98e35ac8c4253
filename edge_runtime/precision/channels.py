"""Observes each channel of a tensor over samples: its largest value, mean and mean square."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnx import ModelProto

from edge_runtime.data import Samples
from edge_runtime.precision.placement import Placement
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import Array


@dataclass(frozen=True)
class ChannelStats:
    """What was seen of the channels of a tensor.

    Attributes:
        axis: The channel axis: 1 for what a Conv reads, the last for what a Gemm or MatMul reads.
        amax: float64 [channels], the largest absolute value of each.
        top: float64 [channels], the largest value of each.
        mean: float64 [channels].
        mean_square: float64 [channels].
    """

    axis: int
    amax: Array
    top: Array
    mean: Array
    mean_square: Array


def observe_channels(
    proto: ModelProto,
    placement: Placement,
    samples: Samples,
    progress: Progress = silent,
    *,
    also: Iterable[str] = (),
) -> dict[str, ChannelStats]:
    """Runs a prepared model over some of the samples and observes what INT8 layers read."""
    return {}
