"""Finds the nodes that half precision would break, from weights and observed values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_runtime.precision.graph import Graph
from edge_runtime.precision.half import HalfType, half_places
from edge_runtime.precision.histogram import Histogram
from edge_runtime.tensors import Array

HEADROOM = 4.0
"""Samples do not show the largest value there will ever be: a tensor counts as overflowing from a
quarter of the type's largest value on."""

_MIN_WEIGHT_SQNR = 40.0  # dB; FP16 rounds to 68 dB or more, so less means that weights underflow.


def half_tensors(graph: Graph, half: HalfType) -> list[str]:
    """The activations that would become half, whose ranges are worth observing."""
    tensors: dict[str, None] = {}
    for node in graph.nodes:
        inputs, outputs = half_places(graph, node, half)
        if outputs:
            tensors.update(dict.fromkeys(node.input[i] for i in sorted(inputs)))
            tensors.update(dict.fromkeys(node.output[i] for i in sorted(outputs)))
    return [name for name in tensors if graph.is_activation(name)]


def keep_full(
    graph: Graph, half: HalfType, histograms: Mapping[str, Histogram] | None
) -> dict[str, str]:
    """The nodes that must stay FP32.

    Args:
        graph: A prepared graph.
        half: The type that the others become.
        histograms: What was observed of `half_tensors`; without it only weights are looked at.

    Returns:
        Why, by name of node.
    """
    unfit = _unfit_activations(histograms or {}, half)
    for name in graph.initializers:
        value = graph.constant(name) if graph.is_float(name) else None
        reason = "" if value is None else _weight_loss(value, half)
        if reason:
            unfit[name] = f"constant {name!r} {reason}"
    kept: dict[str, str] = {}
    for node in graph.nodes:
        inputs, outputs = half_places(graph, node, half)
        if not outputs:
            continue
        names = [node.output[i] for i in sorted(outputs)] + [node.input[i] for i in sorted(inputs)]
        reason = next((unfit[name] for name in names if name in unfit), "")
        if reason:
            kept[node.name] = reason
    return kept


def _unfit_activations(histograms: Mapping[str, Histogram], half: HalfType) -> dict[str, str]:
    """Why a tensor's values do not fit, by name, where they do not."""
    unfit = {}
    for name, histogram in histograms.items():
        if histogram.amax > half.max / HEADROOM:
            unfit[name] = f"{name!r} reaches {histogram.amax:.6g}, near or over {half.max:.6g}"
        elif 0 < histogram.amax < half.min_normal:
            unfit[name] = f"{name!r} stays below {half.min_normal:.6g}, where digits are lost"
    return unfit


def _weight_loss(value: Array, half: HalfType) -> str:
    """What half precision would do to a constant; empty if it holds it well."""
    value = value[np.isfinite(value)]  # Infinity, as in attention masks, is infinity in half too.
    if value.size == 0:
        return ""
    largest = float(np.abs(value).max())
    if largest > half.max:
        return f"reaches {largest:.6g}, over {half.max:.6g}"
    exact = value.astype(np.float64)
    error = exact - value.astype(half.dtype).astype(np.float64)
    signal, noise = float((exact**2).sum()), float((error**2).sum())
    if signal and noise and 10 * np.log10(signal / noise) < _MIN_WEIGHT_SQNR:
        return f"would keep only {10 * np.log10(signal / noise):.0f} dB"
    return ""
