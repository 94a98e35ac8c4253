"""Chooses, for each tensor, the method with whose range the layers that read it err least.

A tensor's error matters as much as it changes what is computed from the tensor. So the range of
each method is tried: the tensor is rounded with it, and every INT8 layer that reads the tensor is
run alone on the error of that, in FP32 and without its bias, which leaves it linear. What counts is
the power of the output's error as a share of the output's own, summed over the readers. A reader
that is no layer, such as a pool, counts with the tensor's own error and power.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_tensor_type_proto, make_value_info

from edge_runtime.backends.cpu import CpuSession, open_session, run_session
from edge_runtime.config import CalibrationConfig, CalibrationMethod
from edge_runtime.data import Samples
from edge_runtime.data.samples import spread
from edge_runtime.precision.calibration_cache import TensorRange
from edge_runtime.precision.calibrator import Observer
from edge_runtime.precision.graph import Graph
from edge_runtime.precision.histogram import Histogram
from edge_runtime.precision.placement import Placement
from edge_runtime.precision.ranges import LEVELS, choose_amax
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import Array, Feeds

_SAMPLES = 8
_NEAR = 0.02  # Ranges that differ by less are one.
_METHODS = (
    *(CalibrationMethod.MSE, CalibrationMethod.ENTROPY),
    *(CalibrationMethod.PERCENTILE, CalibrationMethod.MAX),
)
"""In the order in which they are preferred where the error is the same."""

Candidates = Mapping[str, float]
"""The range that each method chooses for a tensor; methods that agree with an earlier one left out.
"""


def choose_ranges(
    proto: ModelProto,
    placement: Placement,
    histograms: Mapping[str, Histogram],
    samples: Samples,
    config: CalibrationConfig,
    progress: Progress = silent,
) -> dict[str, TensorRange]:
    """Tries each method's range for every tensor.

    It takes at most 8 of the samples, on each of which the model runs once and every INT8 layer
    once more for each range that is tried: the time of up to five inferences a sample.

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
    candidates = {name: _candidates(seen, config) for name, seen in histograms.items()}
    trials = _trials(Graph(proto), placement, candidates)
    if trials:
        places = spread(len(samples), _SAMPLES)
        observer = Observer(proto, trials)
        chosen = _take(samples, set(places))
        numbers = [place + 1 for place in places]
        observer.run(chosen, total=len(places), progress=progress, numbers=numbers)
    costs = {name: dict.fromkeys(tried, 0.0) for name, tried in candidates.items()}
    for trial in trials.values():
        for error in trial.errors:
            for method, cost in error.shares().items():
                costs[error.range_of][method] += cost
    best = {name: min(by_method, key=by_method.__getitem__) for name, by_method in costs.items()}
    return {
        name: TensorRange(candidates[name][method], histograms[name].amax, method)
        for name, method in best.items()
    }


def _candidates(histogram: Histogram, config: CalibrationConfig) -> Candidates:
    found: dict[str, float] = {}
    for method in _METHODS:
        amax = choose_amax(histogram, replace(config, method=method))
        if all(abs(amax - other) > _NEAR * other for other in found.values()):
            found[method.value] = amax
    return found


@dataclass
class _Error:
    """The errors that one reader of a tensor makes with each candidate for a range.

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


def _take(samples: Samples, places: set[int]) -> Iterator[Feeds]:
    return (feeds for index, feeds in enumerate(samples) if index in places)


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
