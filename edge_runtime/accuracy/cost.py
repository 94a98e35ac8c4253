"""How long each layer would take on a GPU: an estimate from its sizes, not a measurement.

The model is the roofline (Williams et al. 2009, doi:10.1145/1498765.1498785): a layer takes as long
as its multiply-accumulates or as the bytes that it moves, whichever is longer. The two are weighed
as on a Jetson AGX Orin 64 GB, of which NVIDIA's data sheet says 85 INT8 TOPS without sparsity and
204.8 GB/s; FP16 and BF16 go at half, FP32 at a quarter of that rate, and move 2 and 4 bytes a value
where INT8 moves 1. Each layer reads and writes its tensors once, at its own precision. What is
not Conv, ConvTranspose, Gemm or MatMul is left out, as if it were fused into these.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from edge_runtime.bench.roofline import AGX_ORIN_64
from edge_runtime.bench.work import multiply_accumulates
from edge_runtime.config import BuildConfig, Precision
from edge_runtime.model import Model
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.observing.calibrator import Observer
from edge_runtime.precision.quantization import prepare_int8
from edge_runtime.tensors import Array, Feeds

_BYTES = {Precision.INT8: 1, Precision.FP16: 2, Precision.BF16: 2, Precision.FP32: 4}
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Layer:
    """The sizes of a layer.

    Attributes:
        name: The node.
        macs: Its multiply-accumulates.
        values: How many values it reads and writes, weights included.
    """

    name: str
    macs: int
    values: int

    def seconds(self, precision: Precision) -> float:
        """The estimate of its time."""
        computing = 2 * self.macs / AGX_ORIN_64.operations_per_second[precision.value]
        return max(computing, self.values * _BYTES[precision] / AGX_ORIN_64.bytes_per_second)


@dataclass(frozen=True)
class Cost:
    """The estimated times of a model's layers.

    Attributes:
        layers: All layers that count, in the graph's order.
        int8: Names of those that INT8 would take.
        high: The precision of the others.
        shapes: The shapes of the inputs that the sizes are of.
    """

    layers: tuple[Layer, ...]
    int8: tuple[str, ...]
    high: Precision
    shapes: Mapping[str, Sequence[int]]

    def saved(self, name: str) -> float:
        """The seconds that INT8 takes off a layer."""
        layer = next(layer for layer in self.layers if layer.name == name)
        return layer.seconds(self.high) - layer.seconds(Precision.INT8)

    def seconds(self, kept: Collection[str]) -> float:
        """The time of the model with these of the INT8 layers kept out of INT8."""
        lowered = set(self.int8) - set(kept)
        return sum(
            layer.seconds(Precision.INT8 if layer.name in lowered else self.high)
            for layer in self.layers
        )

    def speed(self, kept: Collection[str]) -> float:
        """How many times as fast as FP32 the model is so."""
        full = sum(layer.seconds(Precision.FP32) for layer in self.layers)
        return full / self.seconds(kept)

    @property
    def basis(self) -> str:
        """What the estimate rests on, in words."""
        shapes = ", ".join(f"{n} {'x'.join(map(str, s))}" for n, s in self.shapes.items())
        return (
            "an estimate, not a measurement: the multiply-accumulates and bytes of each layer at "
            f"{shapes}, INT8 to FP16 to FP32 as 4 to 2 to 1 in both, weighed as on a Jetson AGX "
            "Orin (85 INT8 TOPS, 204.8 GB/s); other operators are left out"
        )


def estimate_cost(model: Model, config: BuildConfig, feeds: Feeds) -> Cost:
    """The estimated times of a model's layers.

    Args:
        model: The FP32 model.
        config: The settings of the INT8 build. The `opt` shapes of its first profile count.
        feeds: A sample; its shapes count where there is no profile. It is run, since many shapes
            depend on values that the model computes.

    Raises:
        ModelError: Nothing in the model can be INT8.
        DataError: The model cannot run on these shapes.
    """
    proto, placement = prepare_int8(model, config)
    profile = config.profiles[0] if config.profiles else {}
    sized = {
        name: np.resize(array, profile[name].opt) if name in profile else array
        for name, array in feeds.items()
    }
    graph = Graph(proto)
    nodes = [
        node
        for node in graph.nodes
        if node.op_type in _LAYERS and graph.is_activation(node.output[0])
    ]
    wanted = {name for node in nodes for name in (*node.input[:2], node.output[0])}
    counters = {name: _Shape() for name in wanted if graph.is_activation(name)}
    Observer(proto, counters.keys()).run([sized], counters, total=1)
    shapes = {n: counters[n].shape if n in counters else graph.shape(n) for n in wanted}
    layers = []
    for node in nodes:
        x, weight, y = (shapes[name] or () for name in (*node.input[:2], node.output[0]))
        macs = multiply_accumulates(node.op_type, (x, weight), y)
        assert macs is not None  # It counts those of _LAYERS.
        layers.append(Layer(node.name, macs, prod(x) + prod(weight) + prod(y)))
    names = tuple(weight.node for weight in placement.weights)
    sizes = {name: array.shape for name, array in sized.items()}
    return Cost(tuple(layers), names, config.rest, sizes)


class _Shape:
    """Keeps the shape of a tensor."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()

    def add(self, values: Array) -> None:
        self.shape = values.shape
