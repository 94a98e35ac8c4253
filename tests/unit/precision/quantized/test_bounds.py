"""No tensor is ever below the bound that was proved for it."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.quantized.bounds import lower_bounds
from tests import models

X = ("n", 4, 6, 6)

BOUNDS = {
    "Relu": 0.0,
    "Sigmoid": 0.0,
    "HardSigmoid": 0.0,
    "Softmax": 0.0,
    "Abs": 0.0,
    "Exp": 0.0,
    "Softplus": 0.0,
    "Tanh": -1.0,
    "HardSwish": -0.375,
    "Neg": -inf,
    "Identity": -inf,
}


def silu(net: models.Net, x: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", x, name="gate"), name="y")


def swish(net: models.Net, x: str) -> str:
    gate = net.op("HardSigmoid", x, name="gate", alpha=1 / 6, beta=0.5)
    return net.op("Mul", gate, x, name="y")


def behind_relu(kind: str, **attributes: object):
    def make(net: models.Net, x: str) -> str:
        return net.op(kind, net.op("Relu", x, name="r"), name="y", **attributes)

    return make


CASES = {
    **{kind: (lambda net, x, k=kind: net.op(k, x, name="y"), low) for kind, low in BOUNDS.items()},
    "SiLU": (silu, -0.2785),
    "hard swish of two": (swish, -0.375),
    "relu6": (lambda net, x: net.op("Clip", x, net.constant("a", 0.0), net.constant("b", 6.0),
                                    name="y"), 0.0),
    "hardtanh": (lambda net, x: net.op("Clip", x, net.constant("a", -1.0), name="y"), -1.0),
    "clip from above": (lambda net, x: net.op("Clip", x, "", net.constant("b", 6.0), name="y"),
                        -inf),
    "padded pool": (behind_relu("MaxPool", kernel_shape=[3, 3], pads=[1] * 4), 0.0),
    "padded mean": (behind_relu("AveragePool", kernel_shape=[3, 3], pads=[1] * 4), 0.0),
    "transposed": (behind_relu("Transpose", perm=[0, 2, 3, 1]), 0.0),
    "concat": (lambda net, x: net.op("Concat", net.op("Relu", x, name="r"), x, name="y", axis=1),
               -inf),
    "shifted": (lambda net, x: net.op("Add", net.op("Relu", x, name="r"),
                                      net.constant("c", -2.5), name="y"), -2.5),
    "product": (lambda net, x: net.op("Mul", net.op("Relu", x, name="r"),
                                      net.constant("c", -2.5), name="y"), -inf),
    "gated": (lambda net, x: net.op("Mul", net.op("Relu", x, name="r"),
                                    net.op("Sigmoid", x, name="s"), name="y"), 0.0),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_bound_of_each_operator_is_the_one_that_it_keeps(case: str) -> None:
    make, low = CASES[case]
    net = models.Net()
    y = make(net, net.input("x", X))
    proto = net.proto(y, shapes={y: ["n", None, None, None]})
    assert lower_bounds(Graph(proto)).get("y", -inf) == low
    x = np.linspace(-9, 9, 2 * 144, dtype=np.float32).reshape(2, 4, 6, 6)
    assert models.run(proto, {"x": x})["y"].min() >= low


def test_what_is_cast_from_bytes_is_not_negative() -> None:
    net = models.Net()
    x = net.input("x", X, TensorProto.UINT8)
    net.op("Cast", x, name="y", to=TensorProto.FLOAT)
    assert lower_bounds(Graph(net.proto("y")))["y"] == 0.0


@pytest.mark.parametrize("name", sorted({*models.NETS} - {"functions", "unnamed"}))
def test_no_tensor_of_a_net_is_below_its_bound(name: str) -> None:
    proto = models.NETS[name]()
    bounds = lower_bounds(Graph(proto))
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_empty_tensor_value_info(tensor) for tensor in bounds)
    weights = {tensor.name for tensor in proto.graph.initializer}
    random = np.random.default_rng(0)
    for scale in (1, 30) if bounds else ():
        feeds = {}
        for value in proto.graph.input:
            if value.name not in weights:
                shape = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
                feeds[value.name] = scale * random.standard_normal(shape, dtype=np.float32)
        for tensor, values in models.run(proto, feeds).items():
            assert values.min() >= bounds[tensor], tensor
