"""Estimated times: the sizes of layers counted by hand, and what they come to."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from edge_runtime.accuracy.cost import Cost, Layer, estimate_cost
from edge_runtime.config import BuildConfig, Precision
from edge_runtime.model import model_from_proto
from tests.models import Net


def cost(proto: ModelProto, shapes: dict[str, tuple[int, ...]], **settings: object) -> Cost:
    config = BuildConfig(precision="int8", **settings)
    feeds = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return estimate_cost(model_from_proto(proto, name="net"), config, feeds)


def net() -> ModelProto:
    net = Net()
    x = net.input("x", ("n", 16, "h", "w"))
    x = net.conv("wide", x, (16, 32), strides=[2, 2])
    x = net.conv("depth", x, (1, 32), group=32)
    up = net.op("ConvTranspose", x, net.weight("up.w", 32, 16, 2, 2), name="up", strides=[2, 2])
    pool = net.op("GlobalAveragePool", up, name="pool")
    flat = net.op("Flatten", pool, name="flat")
    return net.proto(net.op("Gemm", flat, net.weight("fc.w", 16, 10), name="fc"))


def test_multiply_accumulates_and_values_are_counted() -> None:
    layers = {layer.name: layer for layer in cost(net(), {"x": (2, 16, 8, 8)}).layers}
    assert {name: layer.macs for name, layer in layers.items()} == {
        "wide": 2 * 32 * 4 * 4 * 16 * 9,
        "depth": 2 * 32 * 4 * 4 * 9,
        "up": 2 * 32 * 4 * 4 * 16 * 4,
        "fc": 2 * 16 * 10,
    }
    assert layers["wide"].values == 2 * 16 * 64 + 32 * 16 * 9 + 2 * 32 * 16
    assert layers["fc"].values == 2 * 16 + 160 + 20


def test_a_product_of_activations_is_counted() -> None:
    net = Net()
    x = net.input("x", (4, 32))
    y = net.op("MatMul", x, net.weight("w", 32, 16), name="dense")
    z = net.op("MatMul", y, net.op("Transpose", y, name="t", perm=[1, 0]), name="attention")
    found = cost(net.proto(z), {"x": (4, 32)})
    assert [(layer.name, layer.macs) for layer in found.layers] == [
        ("dense", 4 * 32 * 16),
        ("attention", 4 * 16 * 4),
    ]
    assert found.int8 == ("dense",)
    # What INT8 does not take stays as slow as it was.
    assert found.speed(()) < 4


def test_the_profile_s_best_shape_counts_before_the_sample_s() -> None:
    profiles = {"x": "1x16x8x8,4x16x8x8,8x16x8x8"}
    small = cost(net(), {"x": (1, 16, 8, 8)})
    large = cost(net(), {"x": (1, 16, 8, 8)}, profiles=profiles)
    assert large.layers[0].macs == 4 * small.layers[0].macs
    assert "x 4x16x8x8" in large.basis


def test_a_layer_takes_as_long_as_its_macs_or_its_bytes() -> None:
    computing = Layer("a", 42_500_000_000_000, 1)
    moving = Layer("b", 1, 204_800_000_000)
    for layer in (computing, moving):
        assert layer.seconds(Precision.INT8) == pytest.approx(1)
        assert layer.seconds(Precision.FP16) == layer.seconds(Precision.BF16) == pytest.approx(2)
        assert layer.seconds(Precision.FP32) == pytest.approx(4)


def test_speed_falls_with_every_layer_that_is_left_out() -> None:
    found = cost(net(), {"x": (1, 16, 8, 8)}, high_precision="fp16")
    assert "fc" not in found.int8
    speeds = [found.speed(found.int8[:count]) for count in range(4)]
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[-1] == pytest.approx(2)
    assert found.seconds(()) + found.saved("wide") == pytest.approx(found.seconds({"wide"}))
    assert cost(net(), {"x": (1, 16, 8, 8)}).speed(found.int8) == pytest.approx(1)


def test_shapes_that_only_a_run_shows_are_counted() -> None:
    inner = Net()
    x = inner.input("x", ("n", 16, 8, 8))
    shape = inner.input("shape", (4,), 7)
    y = inner.op("Reshape", x, shape, name="r")
    y = inner.conv("c", y, (16, 16))
    proto = inner.proto(y, shapes={y: ["n", 16, "h", "w"]})
    model = model_from_proto(proto, name="net")
    feeds = {"x": np.zeros((1, 16, 8, 8), "f4"), "shape": np.array([1, 16, 32, 2])}
    found = estimate_cost(model, BuildConfig(precision="int8"), feeds)
    assert found.layers[0].macs == 16 * 64 * 16 * 9
    assert "not a measurement" in found.basis
