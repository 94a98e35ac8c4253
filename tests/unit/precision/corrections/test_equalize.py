"""Equalized nets compute the same in FP32, and INT8 holds channels that are far from equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, helper, numpy_helper

from edge_runtime.backends.cpu import open_session
from edge_runtime.config import BuildConfig, CalibrationConfig
from edge_runtime.data import open_samples
from edge_runtime.errors import CalibrationCacheError
from edge_runtime.model import Model, read_model
from edge_runtime.precision.corrections.channel_rules import map_channels
from edge_runtime.precision.corrections.equalize import apply_scales, choose_scales
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import place
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from edge_runtime.precision.rewrite import rewrite
from tests import models
from tests.channels import observe_channels
from tests.models import NETS, PICTURE, Net

DATA = Path(__file__).parents[3] / "data"


def squeeze_excite() -> ModelProto:
    """Channels multiplied by a gate that is made of their means."""
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    gate = net.op("Relu", net.conv("s1", net.op("GlobalAveragePool", x), (16, 16), 1), name="s1r")
    gate = net.op("Sigmoid", net.conv("s2", gate, (16, 16), 1), name="gate")
    return net.proto(net.conv("c2", net.op("Mul", gate, x, name="gated"), (16, 16)))


def product() -> ModelProto:
    """The product of two activations, either of which could be scaled, but not both."""
    net = Net()
    x = net.input("x", PICTURE)
    parts = [net.op("Relu", net.conv(f"c{i}", x, (16, 16)), name=f"r{i}") for i in (1, 2)]
    return net.proto(net.conv("c3", net.op("Mul", *parts, name="product"), (16, 16)))


def dense_block() -> ModelProto:
    """Batch normalisation behind a concat, which nothing folds it into, one part of it an input."""
    net = Net()
    x = net.input("x", PICTURE)
    y = net.op("Relu", net.conv("c1", x, (16, 16)), name="r1")
    z = net.op("Concat", y, x, net.conv("c2", y, (16, 8)), axis=1, name="cat")
    z = net.op("Relu", net.batch_norm("bn", z, 40), name="r2")
    return net.proto(net.conv("c3", z, (40, 16)))


def shuffle() -> ModelProto:
    """Grouped and depthwise convolutions, channels split, shuffled, padded, enlarged and cut."""
    net = Net()
    x = net.op("PRelu", net.conv("c1", net.input("x", PICTURE), (16, 32)), net.weight("slope", 1))
    x = net.op("Conv", x, net.weight("g.w", 32, 8, 3, 3), name="g", group=4, pads=[1] * 4)
    x = net.op("Reshape", x, net.constant("five", np.array([0, 4, 8, 8, 8])))
    x = net.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    x = net.op("Reshape", x, net.constant("four", np.array([-1, 32, 8, 8])), name="shuffled")
    w, b = net.weight("dw.w", 32, 1, 3, 3), net.weight("dw.b", 32)
    x = net.op("Relu", net.op("Conv", x, w, b, name="dw", group=32), name="r1")
    net.nodes.append(helper.make_node("Split", [x], ["left", "right"], name="split", axis=1))
    net.nodes[-1].input.append(net.constant("parts", np.array([12, 20])))
    x = net.op("Concat", "right", "left", axis=1)
    x = net.op("Pad", x, net.constant("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    x = net.op("Resize", x, "", net.constant("by", [1, 1, 2, 2]), mode="linear")
    cut = [net.constant(n, np.array(v)) for n, v in (("from", [1, 2]), ("to", [31, 14]))]
    x = net.op("Slice", x, *cut, net.constant("axes", np.array([1, 2])), name="cut")
    return net.proto(net.conv("c2", x, (30, 16)))


def flattened() -> ModelProto:
    """A flattened picture, every channel of it spread over 64 inputs of a Gemm."""
    net = Net()
    x = net.op("LeakyRelu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    x = net.op("Flatten", net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), name="flat")
    bias = net.weight("g1.b", 1, 24)
    x = net.op("Gemm", x, net.weight("g1.w", 256, 24), bias, name="g1", alpha=0.5, beta=2.0)
    x = net.op(
        "Gemm", net.op("Relu", x, name="r2"), net.weight("g2.w", 16, 24), name="g2", transB=1
    )
    return net.proto(x)


def transformer() -> ModelProto:
    """Layer normalisations, a product with one weight a channel, a sum and a token taken out."""
    net = Net()
    x = net.input("x", ("n", 6, 16))
    gamma, beta = net.weight("gamma", 16), net.weight("beta", 16)
    y = net.op("LayerNormalization", x, gamma, beta, name="ln")
    y = net.op("MatMul", y, net.weight("m1.w", 16, 32), name="m1")
    y = net.op("Relu", net.op("Add", y, net.weight("m1.b", 32)), name="r1")
    y = net.op("MatMul", y, net.weight("m2.w", 32, 16), name="m2")
    y = net.op("Div", net.op("Mul", net.weight("scale", 16), y), net.weight("by", 16), name="div")
    y = net.op("Sub", net.op("Add", x, y), net.weight("less", 16), name="sum")
    y = net.op("LayerNormalization", y, gamma, beta, name="ln2")  # Shares its constants.
    y = net.op("Gather", y, net.constant("first", np.array(0)), axis=1, name="token")
    return net.proto(net.op("Gemm", y, net.weight("fc.w", 16, 16), "less", name="fc"))


def relu6() -> ModelProto:
    """An inverted residual block; most channels of what its Clips make stay far below 6."""
    net = Net()
    x = net.conv("c0", net.input("x", PICTURE), (16, 16), 1)
    limits = net.constant("zero", 0.0), net.constant("six", 6.0)
    y = net.op("Conv", x, net.weight("c1.w", 32, 16, 1, 1), name="c1")
    factors = net.constant("factors", np.geomspace(4, 0.02, 32, dtype="f4")[:, None, None])
    y = net.op("Mul", y, factors, name="uneven")
    y = net.op("Clip", y, *limits, name="clip1")
    y = net.op("Conv", y, net.weight("dw.w", 32, 1, 3, 3), name="dw", group=32, pads=[1] * 4)
    y = net.op("Clip", y, *limits, name="clip2")
    return net.proto(net.op("Add", net.conv("c2", y, (32, 16), 1), x, name="add"))


MORE: dict[str, Callable[[], ModelProto]] = {
    make.__name__: make
    for make in (squeeze_excite, product, dense_block, shuffle, flattened, transformer, relu6)
}

FREE = {
    "residual": {"r0", "c1", "r1", "c2", "add", "r2"},
    "shortcut": {"r1", "c2", "cs", "add", "r2"},
    "concat": {"r1", "r2", "cat"},
    "pools": {"r1", "p1", "p2", "cat"},
    "max_pool": {"r1", "pool"},
    "mean_head": {"r1", "mean"},
    "dense": {"r1", "r2"},
    "silu": set(),
    "squeeze_excite": {"r1", "s1r", "gated"},
    "product": {"r1", "product"},
    "dense_block": {"r1", "c2", "r2"},
    "shuffle": {"shuffled", "r1", "cut"},
    "flattened": {"r1", "flat", "r2"},
    "transformer": {"ln", "r1", "ln2", "token"},
    "relu6": {"clip1", "clip2"},
    "shared_weights": set(),
}
"""Tensors with channels that can be scaled, of those that have names in the net."""


def prepared(name: str) -> ModelProto:
    return prepare(models.model({**NETS, **MORE}[name]()), min_opset=13)


def random_scales(proto: ModelProto, seed: int) -> dict[str, tuple[float, ...]]:
    """Scales for every tensor, but for those behind a Clip."""
    channels = map_channels(Graph(proto))
    values = np.exp(np.random.default_rng(seed).uniform(-3, 3, channels.size))
    values[0] = 1.0
    for name in channels.clips:
        values[channels.labels[name]] = 1.0
    return {name: tuple(values[label].reshape(-1)) for name, label in channels.labels.items()}


def imbalanced(model: Model, seed: int) -> Model:
    """The model with the channels of all that can be scaled by 1/20 to 20; it computes the same."""
    proto = prepare(model, min_opset=13)
    apply_scales(proto, random_scales(proto, seed))
    return models.model(proto)


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    noise = ((reference.astype(np.float64) - other) ** 2).sum()
    return float(10 * np.log10((reference.astype(np.float64) ** 2).sum() / max(noise, 1e-30)))


def changed(before: ModelProto, after: ModelProto) -> int:
    values = [
        {t.name: numpy_helper.to_array(t) for t in p.graph.initializer} for p in (before, after)
    ]
    return sum(1 for name, v in values[1].items() if not np.array_equal(v, values[0].get(name)))


@pytest.mark.parametrize("name", [*NETS, *MORE])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=3, deadline=None)
def test_scales_leave_what_a_net_computes(name: str, seed: int) -> None:
    proto = prepared(name)
    scales = random_scales(proto, seed)
    inputs = models.feeds(proto, seed)
    expected = models.run(proto, inputs)
    scaled = ModelProto()
    scaled.CopyFrom(proto)
    apply_scales(scaled, scales)
    for output, array in models.run(scaled, inputs).items():
        assert sqnr(expected[output], array) > 100, output
    if any(value != 1 for vector in scales.values() for value in vector):
        assert changed(proto, scaled)


@pytest.mark.parametrize("name", FREE)
def test_what_can_be_scaled(name: str) -> None:
    proto = prepared(name)
    labels = map_channels(Graph(proto)).labels
    named = {node.output[0] for node in ({**NETS, **MORE}[name]()).graph.node}
    free = {tensor for tensor, label in labels.items() if label.any()}
    assert free & named >= FREE[name]
    assert free.isdisjoint(value.name for value in (*proto.graph.input, *proto.graph.output))
    if not FREE[name]:
        assert not free


def test_a_depthwise_convolution_decouples_its_input_from_its_output() -> None:
    labels = map_channels(Graph(prepared("relu6"))).labels
    assert not np.isin(labels["clip1"], labels["clip2"]).any()


@pytest.mark.parametrize(("net", "floor"), [("digits", 29.0), ("fashion", 28.0)])
def test_int8_of_unequal_channels_is_as_good_as_of_equal_ones(net: str, floor: float) -> None:
    data = np.load(DATA / f"{net}.npz")
    model = imbalanced(read_model(DATA / f"{net}.onnx"), 1)
    calibration = [{"image": image[None, None] / np.float32(255)} for image in data["calibration"]]
    images = {"image": data["images"][:, None] / np.float32(255)}
    expected = models.run(model.proto, images)
    found = {}
    for equalize in (True, False):
        config = BuildConfig("int8", CalibrationConfig(equalize=equalize))
        result = rewrite(model, config, samples=open_samples(calibration, model.inputs))
        assert bool(result.report["equalized"]) == equalize
        logits = open_session(result.graph).run(None, images)[0]
        found[equalize] = sqnr(next(iter(expected.values())), logits)
    assert found[True] > floor
    assert found[False] < 10


def test_the_last_feature_map_is_equalized_for_its_average_alone() -> None:
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", ["n", 8, 12, 12]), (8, 16)), name="r1")
    x = net.op("Relu", net.conv("c2", x, (16, 24)), name="r2")
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="mean"), name="flat")
    w = net.weight("w", 24, 4)  # Too small for INT8: only the average reads the map as INT8.
    proto = prepare(models.model(net.proto(net.op("MatMul", x, w, name="y"))), min_opset=13)
    times = {"r2": tuple(np.geomspace(0.02, 20, 24))}
    apply_scales(proto, times)
    model = models.model(proto)
    feeds = [models.feeds(proto, seed) for seed in range(16)]
    result = rewrite(model, BuildConfig("int8"), samples=open_samples(feeds, model.inputs))
    assert result.report["equalized"] == ["c2"]
    inputs = models.feeds(proto, 99)
    (expected,) = models.run(proto, inputs).values()
    assert sqnr(expected, open_session(result.graph).run(None, dict(inputs))[0]) > 30


def chosen(
    proto: ModelProto, feeds: list[Mapping[str, np.ndarray]]
) -> dict[str, tuple[float, ...]]:
    placement = place(Graph(proto))
    samples = open_samples(feeds, models.model(proto).inputs)
    graph = Graph(proto)
    stats = observe_channels(proto, placement, samples)
    return choose_scales(graph, placement, map_channels(graph), stats)


def test_equal_channels_are_left_alone() -> None:
    for name in ("residual", "max_pool", "concat"):
        proto = prepared(name)
        feeds = [models.feeds(proto, seed) for seed in range(4)]
        assert chosen(proto, feeds) == {}


def test_a_clip_clips_as_before_and_weak_channels_are_scaled_up() -> None:
    proto = prepared("relu6")
    feeds = [models.feeds(proto, seed) for seed in range(8)]
    scales = chosen(proto, feeds)
    vector = np.array(scales["uneven"])
    assert (vector <= 1).all()
    assert (vector[:8] == 1).all()  # These reach 6, or could.
    assert (vector[-8:] < 0.3).all()
    scaled = ModelProto()
    scaled.CopyFrom(proto)
    apply_scales(scaled, scales)
    for inputs in (*feeds, *(models.feeds(proto, seed) for seed in range(100, 140))):
        expected, found = (models.run(each, inputs)["add"] for each in (proto, scaled))
        assert sqnr(expected, found) > 100


def test_dead_channels_behind_a_clip_keep_their_scale() -> None:
    proto = prepared("relu6")
    graph = Graph(proto)
    first = graph.initializers[models.node(proto, "c1").input[1]]
    weight = graph.constant(first.name).copy()
    weight[[9, 30]] = 0
    first.CopyFrom(numpy_helper.from_array(weight, first.name))
    scales = chosen(proto, [models.feeds(proto, seed) for seed in range(8)])
    assert scales["uneven"][9] == scales["uneven"][30] == 1


@pytest.mark.parametrize(
    "scales",
    [
        {"nothing": [1.0]},
        {"x": [2.0] * 16},
        {"r1": [2.0] * 15},
        {"r1": [-2.0] * 16},
        {"r1": [float("nan")] * 16},
        {"r1": [0.0] * 16},
        {"r1": [2.0] * 16, "c1": [3.0] * 16},
    ],
)
def test_scales_of_another_graph_are_refused(scales: dict[str, list[float]]) -> None:
    proto = prepared("residual")
    before = proto.SerializeToString(deterministic=True)
    with pytest.raises(CalibrationCacheError, match="Calibrate again"):
        apply_scales(proto, scales)
    assert proto.SerializeToString(deterministic=True) == before


def test_scaling_down_what_is_clipped_is_refused() -> None:
    with pytest.raises(CalibrationCacheError, match="clip1"):
        apply_scales(prepared("relu6"), {"clip1": [2.0] * 32})


def test_a_saved_calibration_gives_the_same_graph() -> None:
    model = imbalanced(models.model(NETS["residual"]()), 3)
    config = BuildConfig("int8")
    samples = open_samples([models.feeds(model.proto, seed) for seed in range(4)], model.inputs)
    result = rewrite(model, config, samples=samples)
    assert result.cache is not None
    assert result.cache.equalization
    cache = CalibrationCache.from_json_bytes(result.cache.to_json_bytes())
    assert rewrite(model, config, cache=cache).graph == result.graph
