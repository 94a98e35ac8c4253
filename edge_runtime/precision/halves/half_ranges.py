"""Finds the nodes that half precision would break, from weights and observed values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_runtime.config import Precision
from edge_runtime.precision.graphs.carried import reads_int8
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.halves.half import half_places
from edge_runtime.precision.halves.half_scales import holds_scale, in_half
from edge_runtime.precision.halves.half_types import HALF_TYPES, HalfType
from edge_runtime.precision.ranging.ranges import LEVELS
from edge_runtime.tensors import Array

HEADROOM = 4.0
"""Samples do not show the largest value there will ever be: a tensor counts as overflowing from a
quarter of the type's largest value on."""

_MIN_WEIGHT_SQNR = 40.0  # dB; FP16 rounds to 68 dB or more, so less means that weights underflow.


class Peak:
    """The largest absolute value of a tensor, infinities left out: masks of attention hold them.

    Attributes:
        amax: That value; 0.0 before any.
    """

    def __init__(self) -> None:
        self.amax = 0.0

    def add(self, values: Array) -> None:
        """Looks at an FP32 array of any shape, which stays as it is.

        Raises:
            ValueError: A value is NaN.
        """
        if values.size == 0:
            return
        top = max(float(values.max()), -float(values.min()))
        if np.isinf(top):  # A NaN anywhere would make it a NaN.
            self.add(values[np.isfinite(values)])
        elif np.isnan(top):
            raise ValueError("a value is NaN")
        else:
            self.amax = max(self.amax, top)


def half_tensors(graph: Graph, half: HalfType) -> list[str]:
    """The activations that would become half, whose ranges are worth observing."""
    tensors: dict[str, None] = {}
    for node in graph.nodes:
        inputs, outputs = half_places(graph, node, half)
        if outputs:
            tensors.update(dict.fromkeys(node.input[i] for i in sorted(inputs)))
            tensors.update(dict.fromkeys(node.output[i] for i in sorted(outputs)))
    return [name for name in tensors if graph.is_activation(name)]


def peak_counters(graph: Graph, precision: Precision) -> dict[str, Peak]:
    """What watches a prepared graph's tensors that would be half; nothing for FP32."""
    half = HALF_TYPES.get(precision)
    return {} if half is None else {name: Peak() for name in half_tensors(graph, half)}


def keep_full(graph: Graph, half: HalfType, peaks: Mapping[str, float]) -> dict[str, str]:
    """The nodes that must stay FP32.

    Args:
        graph: A prepared graph, with Q/DQ or without.
        half: The type that the others become.
        peaks: The largest absolute value that was observed of `half_tensors`; of those that are
            not in it nothing is said.

    Returns:
        Why, by name of node.
    """
    unfit = _unfit_activations({**_dequantized_peaks(graph), **peaks}, half)
    for name in graph.initializers:
        value = graph.constant(name) if graph.is_float(name) else None
        reason = "" if value is None else _weight_loss(value, half)
        if reason:
            unfit[name] = f"constant {name!r} {reason}"
    scales = _unfit_scales(graph, half)
    kept: dict[str, str] = {}
    for node in graph.nodes:
        inputs, outputs = half_places(graph, node, half)
        if not outputs:
            continue
        names = [node.output[i] for i in sorted(outputs)] + [node.input[i] for i in sorted(inputs)]
        found = {**unfit, **scales} if reads_int8(graph, node) else unfit
        reason = next((found[name] for name in names if name in found), "")
        if reason:
            kept[node.name] = reason
    return kept


def _dequantized_peaks(graph: Graph) -> dict[str, float]:
    """The largest absolute value of each dequantized tensor."""
    peaks = {}
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear":
            scale = graph.constant(node.input[1])
            if scale is not None and scale.size:
                peaks[node.output[0]] = float(scale.max()) * (LEVELS + 1)
    return peaks


def _unfit_scales(graph: Graph, half: HalfType) -> dict[str, str]:
    """Why a half type has no fitting scale for INT8 values, by the name of the dequantized tensor.

    Only INT8 layers need one: all others may as well read a cast.
    """
    unfit = {}
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear" and not holds_scale(graph, node, half):
            maker = graph.producer.get(node.input[0])
            name = (maker or node).input[0].removesuffix(".int8")
            scale = graph.constant(node.input[1])
            odd = np.zeros(0) if scale is None else scale[~in_half(scale, half)]
            reason = "is quantized in FP32"
            if odd.size:
                largest = float(odd.max())
                worst = largest if largest * LEVELS > half.max else float(odd.min())
                reason = f"has a scale of {worst:.3g}, which is no number of the type"
            unfit[node.output[0]] = f"{name!r} {reason}"
    return unfit


def _unfit_activations(peaks: Mapping[str, float], half: HalfType) -> dict[str, str]:
    """Why a tensor's values do not fit, by name, where they do not."""
    unfit = {}
    for name, amax in peaks.items():
        if amax > half.max / HEADROOM:
            unfit[name] = f"{name!r} reaches {amax:.6g}, near or over {half.max:.6g}"
        elif 0 < amax < half.min_normal:
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
