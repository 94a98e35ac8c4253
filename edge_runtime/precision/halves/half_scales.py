"""INT8 scales that half precision holds exactly.

A half graph stores its scales in half. Were they rounded after the levels had been chosen, every
value of a channel would shift by up to 2**-11 (FP16) or 2**-9 (BF16); so the scale is rounded first
and the levels are chosen with what it then is.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from edge_runtime.precision.graphs.carried import operator_set
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.halves.half_types import HalfType
from edge_runtime.precision.ranging.ranges import LEVELS
from edge_runtime.tensors import Array

_MOST_GROWTH = 1.06
"""A scale may become so much larger, which costs half a decibel of its channel's precision. FP16
needs it below 5e-7 only, where its numbers lie far apart."""


def half_scale(
    scale: Array, half: HalfType, *, levels: int = LEVELS, negligible: float = 0.0
) -> Array | None:
    """The scales of a tensor's channels as numbers of a half type.

    Each is the nearest, or where values would then be clipped by more than half a level, the next
    above.

    Args:
        scale: float32, a scalar or one for each channel; positive.
        half: The type.
        levels: The largest level.
        negligible: Scales up to this one need not be precise.

    Returns:
        float32 numbers that the type holds exactly, of the shape of `scale`; None if one is too
        small or too large for it.
    """
    exact = np.asarray(scale, dtype=np.float64)
    with np.errstate(over="ignore"):
        near = np.atleast_1d(exact).astype(half.dtype)
    clips = near.astype(np.float64) * (levels + 0.5) < np.atleast_1d(exact) * levels
    above = (near.view(np.uint16) + np.uint16(1)).view(half.dtype)  # Of positive numbers the next.
    found = np.where(clips, above, near).astype(np.float32).reshape(exact.shape)
    precise = (found <= exact * _MOST_GROWTH) | (exact <= negligible)
    return found if bool((precise & in_half(found, half)).all()) else None


def in_half(scale: Array, half: HalfType) -> Array:
    """Where a half type holds a scale exactly, and all that INT8 levels stand for with it: bool."""
    with np.errstate(over="ignore"):
        same: Array = scale.astype(half.dtype).astype(np.float32) == scale
        fits: Array = scale.astype(np.float64) * (LEVELS + 1) <= half.max
    return same & fits


def holds_scale(graph: Graph, node: NodeProto, half: HalfType) -> bool:
    """Whether a QuantizeLinear or DequantizeLinear may be half, its scale as precise as it was."""
    scale = graph.constant(node.input[1])
    return (
        operator_set(graph) >= half.quantized_opset
        and scale is not None
        and scale.dtype == np.float32
        and bool(in_half(scale, half).all())
    )
