"""Chooses, for each tensor, the method with whose range the layers that read it err least.

A tensor's error matters as much as it changes what is computed from the tensor. So the range of
each method is tried: the tensor is rounded with it, and every INT8 layer that reads the tensor is
run alone on the error of that, in FP32 and without its bias, which leaves it linear. What counts is
the power of the output's error as a share of the output's own, summed over the readers. A reader
that is no layer, such as a pool, counts with the tensor's own error and power.

What is best for each reader need not be best for the model: the few values that a range cuts off
may be what all depends on behind many layers. So the choice is tried at the model's outputs, and
dropped for that of a single method where all tensors' ranges by that come closer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_tensor_type_proto, make_value_info

from edge_runtime.backends.cpu import CpuSession, open_session, run_session
from edge_runtime.config import CalibrationConfig, CalibrationMethod
from edge_runtime.data import Samples
from edge_runtime.data.samples import spread
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import Placement
from edge_runtime.precision.observing.calibrator import Observer
from edge_runtime.precision.observing.histogram import Histogram
from edge_runtime.precision.observing.reference import Reference
from edge_runtime.precision.quantized.int8 import quantize
from edge_runtime.precision.ranging.calibration_cache import TensorRange
from edge_runtime.precision.ranging.ranges import LEVELS, choose_amax
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import Array

_SAMPLES = 8
_NEAR = 0.02  # Ranges that differ by less are one.
_NONE = 1e-30
_METHODS = (
    *(CalibrationMethod.MSE, CalibrationMethod.ENTROPY),
    *(CalibrationMethod.PERCENTILE, CalibrationMethod.MAX),
)
"""In the order in which they are preferred where the error is the same."""

Candidates = Mapping[str, float]
"""The range that each method chooses for a tensor."""


def choose_ranges(
    proto: ModelProto,
    placement: Placement,
    histograms: Mapping[str, Histogram],
    samples: Samples,
    config: CalibrationConfig,
    progress: Progress = silent,
) -> dict[str, TensorRange]:
    """Tries each method's range for every tensor.

    It takes at most 8 of the samples, on each of which the model runs twice and every INT8 layer
    once more for each range that is tried; then the model once with the ranges of each method and
    once with those chosen: the time of up to eleven inferences a sample.

    Args:
        proto: The prepared model, which is not changed.
        placement: What becomes INT8. Tensors that share a range get it together.
        histograms: What was counted of each of `placement.tensors`.
        samples: Those that were counted.
        config: The percentile to try.
        progress: Told of every sample.

    Returns:
        The range of each tensor, with the method that chose it.

    Raises:
        DataError: The model cannot run on a sample, or makes NaN or infinity.
    """
    every = {
        name: {m.value: choose_amax(seen, replace(config, method=m)) for m in _METHODS}
        for name, seen in histograms.items()
    }
    candidates = {name: _different(by_method) for name, by_method in every.items()}
    trials = _trials(Graph(proto), placement, candidates)
    places = spread(len(samples), _SAMPLES)
    chosen = samples.take(places)
    if trials:
        observer = Observer(proto, trials.keys())
        numbers = [place + 1 for place in places]
        observer.run(chosen, trials, total=len(places), progress=progress, numbers=numbers)
    costs = {name: dict.fromkeys(tried, 0.0) for name, tried in candidates.items()}
    for trial in trials.values():
        for error in trial.errors:
            for method, cost in error.shares().items():
                costs[error.range_of][method] += cost
    best: Mapping[str, str] = {
        name: min(by_method, key=by_method.__getitem__) for name, by_method in costs.items()
    }
    if trials:
        best = _best_at_outputs(proto, placement, every, best, chosen)
    return {
        name: TensorRange(every[name][method], histograms[name].amax, method)
        for name, method in best.items()
    }


def _different(by_method: Candidates) -> Candidates:
    found: dict[str, float] = {}
    for method, amax in by_method.items():
        if all(abs(amax - other) > _NEAR * other for other in found.values()):
            found[method] = amax
    return found


def _best_at_outputs(
    proto: ModelProto,
    placement: Placement,
    every: Mapping[str, Candidates],
    best: Mapping[str, str],
    samples: Samples,
) -> Mapping[str, str]:
    """The method of each tensor: `best`, or one for all if the model's outputs are closer so."""
    reference = Reference.of(proto, samples)
    choices = [best, *(dict.fromkeys(every, method.value) for method in _METHODS)]
    noises = []
    for choice in choices:
        copy = ModelProto()
        copy.CopyFrom(proto)
        amax = {name: every[name][method] for name, method in choice.items()}
        quantize(copy, Placement(placement.activations), amax, {})
        noises.append(_noise(reference.outputs, reference.outputs_of(copy.SerializeToString())))
    return choices[int(np.argmin(noises))]


def _noise(expected: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> float:
    """The power of the error of each output as a share of its own, log10, summed over outputs.

    Infinite where outputs differ in shape, as where they are as many as there are objects.
    """
    total = 0.0
    for wanted, others in zip(zip(*expected, strict=True), zip(*found, strict=True), strict=True):
        noise = power = 0.0
        for a, b in zip(wanted, others, strict=True):
            if a.shape != b.shape:
                return np.inf
            noise += _power(np.subtract(a, b, dtype=np.float64))
            power += _power(a)
        total += float(np.log10(max(noise, _NONE) / max(power, _NONE)))
    return total if np.isfinite(total) else np.inf


@dataclass
class _Error:
    """The errors that one reader of a tensor makes with each range that differs from others.

    Attributes:
        range_of: The tensor whose range the reader uses.
        session: The reader alone, from `x` to `y`; None for the tensor itself.
    """

    range_of: str
    session: CpuSession | None
    _errors: dict[str, float] = field(default_factory=dict)
    _power: float = 0.0

    def add(self, values: Array, errors: Mapping[str, Array]) -> None:
        """Adds what comes of a tensor's values, and of the error of each method."""
        self._power += _power(self._output(values))
        for method, error in errors.items():
            power = _power(self._output(error))
            self._errors[method] = self._errors.get(method, 0.0) + power

    def shares(self) -> dict[str, float]:
        """The error of each method as a share of the output's power; none of an output of zeros."""
        if not self._power:
            return {}
        return {method: error / self._power for method, error in self._errors.items()}

    def _output(self, values: Array) -> Array:
        if self.session is None:
            return values
        return run_session(self.session, ["y"], {"x": values})[0]


class _Trial:
    """Tries ranges on one tensor; an `Observer`'s counter."""

    def __init__(self, candidates: Mapping[str, Candidates]) -> None:
        self.errors: list[_Error] = []
        self._candidates = candidates

    def add(self, values: Array) -> None:
        """Adds the errors that each range makes on an FP32 array, which stays as it is.

        Raises:
            ValueError: A value is infinite or NaN.
        """
        if not np.isfinite(values).all():
            raise ValueError("a value is infinite or NaN")
        for name in dict.fromkeys(error.range_of for error in self.errors):
            tried = self._candidates[name].items()
            errors = {method: rounding_error(values, amax) for method, amax in tried}
            for error in self.errors:
                if error.range_of == name:
                    error.add(values, errors)


def rounding_error(values: Array, amax: float) -> Array:
    """What symmetric INT8 with a range changes in FP32 values: a new FP32 array of their shape."""
    scale = np.float32(amax / LEVELS)
    levels = np.clip(np.rint(values / scale), -LEVELS, LEVELS)
    error: Array = levels * scale - values
    return error


def _power(values: Array) -> float:
    flat = values.reshape(-1).astype(np.float64)
    return float(flat @ flat)


def _trials(
    graph: Graph, placement: Placement, candidates: Mapping[str, Candidates]
) -> dict[str, _Trial]:
    """What to try on each tensor, for those ranges of which there are several."""
    nodes = {node.name: node for node in graph.nodes}
    layers = {weight.node for weight in placement.weights}
    trials: dict[str, _Trial] = {}
    for entry in placement.activations:
        if len(candidates[entry.range_of]) > 1:
            is_layer = entry.node in layers and entry.index == 0
            session = _alone(graph, nodes[entry.node]) if is_layer else None
            trial = trials.setdefault(entry.tensor, _Trial(candidates))
            trial.errors.append(_Error(entry.range_of, session))
    return trials


def _alone(graph: Graph, layer: NodeProto) -> CpuSession:
    """A layer without its bias."""
    node = NodeProto()
    node.CopyFrom(layer)
    del node.input[:], node.output[:]
    node.input.extend(["x", layer.input[1]])
    node.output.append("y")
    proto = graph.proto
    model = ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    model.graph.name = "layer"
    model.graph.node.append(node)
    model.graph.initializer.append(graph.initializers[layer.input[1]])
    for values, name in ((model.graph.input, "x"), (model.graph.output, "y")):
        values.append(make_value_info(name, make_tensor_type_proto(TensorProto.FLOAT, None)))
    return open_session(model.SerializeToString(), lean=True)
