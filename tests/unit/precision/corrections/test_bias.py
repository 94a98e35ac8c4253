"""Corrected biases take the mean error of rounded weights off."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from edge_runtime.data import open_samples
from edge_runtime.precision.corrections.bias import channel_means, correct_bias
from edge_runtime.precision.corrections.channel_rules import map_channels
from edge_runtime.precision.corrections.equalize import apply_scales
from edge_runtime.precision.graphs.graph import Graph, set_initializers
from edge_runtime.precision.graphs.placement import place
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.quantized.weights import quantize_weights
from tests import models
from tests.channels import observe_channels
from tests.models import NETS, Net

LEVELS = 3  # So coarse that the shift is plain to see.


def conv(net: Net, x: str) -> str:
    return net.conv("layer", x, (16, 24), 1)


def conv_without_bias(net: Net, x: str) -> str:
    return net.op("Conv", x, net.weight("w", 24, 16, 1, 1), name="layer")


def grouped(net: Net, x: str) -> str:
    return net.op(
        "Conv", x, net.weight("w", 24, 4, 3, 3), net.weight("b", 24), name="layer", group=4
    )


def depthwise(net: Net, x: str) -> str:
    return net.op("Conv", x, net.weight("w", 16, 1, 3, 3), name="layer", group=16)


def transposed(net: Net, x: str) -> str:
    return net.op("ConvTranspose", x, net.weight("w", 16, 24, 1, 1), name="layer")


def transposed_in_groups(net: Net, x: str) -> str:
    return net.op("ConvTranspose", x, net.weight("w", 16, 6, 1, 1), name="layer", group=4)


def gemm(net: Net, x: str) -> str:
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    bias = net.weight("b", 1, 24)
    return net.op("Gemm", x, net.weight("w", 16, 24), bias, name="layer", alpha=0.5, beta=2.0)


def gemm_transposed(net: Net, x: str) -> str:
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    return net.op("Gemm", x, net.weight("w", 24, 16), name="layer", transB=1, alpha=3.0)


def matmul(net: Net, x: str) -> str:
    x = net.op("Transpose", x, perm=[0, 2, 3, 1])
    x = net.op("MatMul", x, net.weight("w", 16, 24), name="layer")
    return net.op("Add", net.weight("b", 24), x)


KINDS: list[Callable[[Net, str], str]] = [
    *(conv, conv_without_bias, grouped, depthwise, transposed, transposed_in_groups),
    *(gemm, gemm_transposed, matmul),
]


def feeds(seed: int) -> dict[str, np.ndarray]:
    """Channels with means of their own, the same all over a picture."""
    random = np.random.default_rng(seed)
    means = np.linspace(-3, 3, 16)[:, None, None]
    return {"x": (means + random.standard_normal((2, 16, 8, 8)) * 0.1).astype(np.float32)}


def rounded(proto: ModelProto, *, corrected: bool) -> tuple[ModelProto, list[str]]:
    """The model with coarse weights."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    graph = Graph(copy)
    placement = place(graph)
    samples = open_samples([feeds(seed) for seed in range(4)], models.model(copy).inputs)
    stats = observe_channels(copy, placement, samples)
    weights = quantize_weights(graph, placement, levels=LEVELS)
    names = []
    if corrected:
        means = channel_means(graph, placement, map_channels(graph), stats, {})
        names = correct_bias(copy, placement, weights, means)
    set_initializers(copy, {key[0]: value.dequantized for key, value in weights.items()})
    return copy, names


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_each_output_is_kept(kind: Callable[[Net, str], str]) -> None:
    net = Net()
    proto = net.proto(kind(net, net.input("x", ("n", 16, 8, 8))))
    inputs = feeds(9)
    (expected,) = models.run(proto, inputs).values()
    axis = tuple(i for i in range(expected.ndim) if i != (3 if kind is matmul else 1))
    errors = {}
    for corrected in (False, True):
        graph, names = rounded(proto, corrected=corrected)
        assert names == (["layer"] if corrected else [])
        (found,) = models.run(graph, inputs).values()
        errors[corrected] = np.abs((found - expected).mean(axis)).max()
    assert errors[False] > 0.2
    assert errors[True] < 0.1 * errors[False]


def test_a_bias_of_two_layers_is_corrected_for_each() -> None:
    net = Net()
    x = net.input("x", ("n", 16, 8, 8))
    bias = net.weight("b", 16)
    layers = [
        net.op("Conv", x, net.weight(f"w{i}", 16, 16, 1, 1), bias, name=f"c{i}") for i in (1, 2)
    ]
    proto = net.proto(*layers)
    graph, names = rounded(proto, corrected=True)
    assert names == ["c1", "c2"]
    expected, found = (models.run(each, feeds(9)) for each in (proto, graph))
    for name, array in expected.items():
        assert np.abs((found[name] - array).mean((0, 2, 3))).max() < 0.05


def test_what_has_no_place_for_a_bias_is_left_alone() -> None:
    net = Net()
    x = net.op("Flatten", net.op("GlobalAveragePool", net.input("x", ("n", 16, 8, 8))))
    y = net.op("MatMul", x, net.weight("w", 16, 24), name="m")
    z = net.op("Gemm", x, net.weight("w2", 16, 24), net.weight("b2", 24), name="g", beta=0.0)
    proto = net.proto(net.op("Add", y, net.weight("b", 24), name="a"), net.op("Relu", y), z)
    graph, names = rounded(proto, corrected=True)
    assert names == []
    assert [node.op_type for node in graph.graph.node] == [n.op_type for n in proto.graph.node]


def test_negligible_shifts_are_left_alone() -> None:
    net = Net()
    proto = net.proto(net.conv("c", net.input("x", ("n", 16, 8, 8)), (16, 16), 1))
    weight = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], (16, 16, 1, 1))
    set_initializers(proto, {"c.w": weight.astype(np.float32)})  # INT8 holds these exactly.
    assert rounded(proto, corrected=True)[1] == []


def test_means_are_those_after_equalization() -> None:
    proto = prepare(models.model(NETS["residual"]()), min_opset=13)
    placement = place(Graph(proto))
    samples = open_samples([models.feeds(proto, 1)], models.model(proto).inputs)
    scales = {"c1": tuple(np.geomspace(0.1, 10, 16))}
    before = observe_channels(proto, placement, samples)
    apply_scales(proto, scales)
    graph = Graph(proto)
    found = channel_means(graph, placement, map_channels(graph), before, scales)
    after = observe_channels(proto, placement, samples)
    for name, means in found.items():
        np.testing.assert_allclose(means, after[name].mean, rtol=1e-4, atol=1e-6)
    assert not np.allclose(found["r1"], before["r1"].mean)


def test_the_weights_themselves_stay() -> None:
    proto = prepare(models.model(NETS["residual"]()), min_opset=13)
    before = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    placement = place(Graph(proto))
    means = dict.fromkeys(("x", "r0", "r1", "r2"), (1.0,) * 16)
    names = correct_bias(proto, placement, quantize_weights(Graph(proto), placement), means)
    assert names == ["c0", "c1", "c2", "c3"]
    for tensor in proto.graph.initializer:
        same = np.array_equal(numpy_helper.to_array(tensor), before[tensor.name])
        assert same == tensor.name.endswith(".w")
