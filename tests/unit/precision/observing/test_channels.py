"""What is observed of channels is what numpy finds in the tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from onnx import ModelProto, helper

from edge_runtime.data import open_samples
from edge_runtime.errors import DataError
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import place
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.observing.channels import ChannelStats, constant_channels, dead_channels
from tests import models
from tests.channels import observe_channels
from tests.models import NETS, Net

Feeds = Mapping[str, np.ndarray]


def observed(proto: ModelProto, feeds: Sequence[Feeds], *also: str) -> dict[str, ChannelStats]:
    samples = open_samples(list(feeds), models.model(proto).inputs)
    return observe_channels(proto, place(Graph(proto)), samples, *also)


def values(proto: ModelProto, name: str, feeds: Sequence[Feeds]) -> list[np.ndarray]:
    copy = ModelProto()
    copy.CopyFrom(proto)
    if name not in {value.name for value in copy.graph.output}:
        copy.graph.output.append(helper.make_tensor_value_info(name, 1, None))
    return [models.run(copy, inputs)[name] for inputs in feeds]


def check(seen: ChannelStats, arrays: Sequence[np.ndarray]) -> None:
    by_item = [np.moveaxis(item, seen.axis - 1, -1) for array in arrays for item in array]
    rows = np.concatenate([item.reshape(-1, item.shape[-1]) for item in by_item]).astype("f8")
    tops = np.stack([np.abs(item.reshape(-1, item.shape[-1])).max(0) for item in by_item])
    np.testing.assert_allclose(seen.amax, np.abs(rows).max(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(seen.top, rows.max(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(seen.mean, rows.mean(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(seen.mean_square, (rows**2).mean(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(seen.nonzero, (rows != 0).mean(0), atol=0.01)
    if len(tops) > 1:
        np.testing.assert_allclose(seen.runner_up, np.sort(tops, 0)[-2], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_statistics_are_those_of_numpy(name: str) -> None:
    proto = prepare(models.model(NETS[name]()), min_opset=13)
    feeds = [models.feeds(proto, seed, batch=1 + seed % 2) for seed in range(4)]
    found = observed(proto, feeds)
    placement = place(Graph(proto))
    by_name = {node.name: node for node in proto.graph.node}
    assert {by_name[weight.node].input[0] for weight in placement.weights} <= set(found)
    for tensor, seen in found.items():
        arrays = [f[tensor] for f in feeds] if tensor in feeds[0] else values(proto, tensor, feeds)
        assert seen.axis in (1, arrays[0].ndim - 1)
        check(seen, arrays)


def test_one_sample_has_no_runner_up() -> None:
    proto = NETS["residual"]()
    assert not observed(proto, [models.feeds(proto, batch=1)])["r1"].runner_up.any()


def test_more_tensors_may_be_observed() -> None:
    proto = NETS["residual"]()
    feeds = [models.feeds(proto, seed) for seed in range(3)]
    check(observed(proto, feeds, "add")["add"], values(proto, "add", feeds))


def test_pictures_of_several_sizes() -> None:
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", ("n", 16, "h", "w")), (16, 16)), name="r1")
    proto = net.proto(net.conv("c2", x, (16, 16)))
    feeds = [{"x": np.full((1, 16, 4 + i, 9 - i), i, np.float32)} for i in range(4)]
    check(observed(proto, feeds)["r1"], values(proto, "r1", feeds))


def test_a_few_samples_suffice_evenly_spread() -> None:
    proto = NETS["residual"]()
    feeds = [{"x": np.full((1, 16, 8, 8), i, np.float32)} for i in range(330)]
    seen = observed(proto, feeds)["x"]
    assert seen.amax[0] == 31 * 330 // 32
    assert seen.mean[0] == pytest.approx(np.mean([i * 330 // 32 for i in range(32)]))
    net = Net()
    x = net.input("x", ("n", 16, "h", "w"))
    large = [{"x": np.full((1, 16, 256, 512), i, np.float32)} for i in range(24)]
    seen = observed(net.proto(net.conv("c", x, (16, 1), 1)), large)["x"]
    assert seen.amax[0] == 7 * 24 // 8


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_named(value: float) -> None:
    proto = NETS["residual"]()
    feeds = [models.feeds(proto, seed) for seed in range(3)]
    feeds[1]["x"][0, 3, 2, 1] = value
    with pytest.raises(DataError, match=r"'x'.*sample 2"):
        observed(proto, feeds)


def test_huge_values_have_finite_squares() -> None:
    proto = NETS["residual"]()
    feeds = [{"x": np.full((1, 16, 8, 8), 1e30, np.float32)}]
    assert observed(proto, feeds)["x"].mean_square[0] == pytest.approx(1e60)


def test_dead_and_constant_channels() -> None:
    proto = NETS["residual"]()
    feeds = [models.feeds(proto, seed) for seed in range(3)]
    for inputs in feeds:
        inputs["x"][:, [2, 5]] = 0
        inputs["x"][:, 7] = -3
        inputs["x"][:, 8] = np.sign(inputs["x"][:, 8])
    found = observed(proto, feeds)
    assert dead_channels(found)["x"] == [2, 5]
    assert constant_channels(found) == {"x": [7]}
    assert "r1" not in dead_channels({"r1": found["r1"]})
