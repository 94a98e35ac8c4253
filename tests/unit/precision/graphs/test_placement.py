"""Which tensors become INT8: the edges of each small net, one by one."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from edge_runtime.errors import ConfigError
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import Placement, check_names, place
from edge_runtime.precision.graphs.prepare import prepare
from tests import models
from tests.models import NETS, PICTURE, Net


def placed(proto: ModelProto, *exclude: str) -> Placement:
    return place(Graph(prepare(models.model(proto), min_opset=13)), exclude=exclude)


def edges(placement: Placement) -> dict[str, str]:
    """`node.index` to the tensor it reads as INT8, and behind a colon whose range, if another's."""
    return {
        f"{e.node}.{e.index}": e.tensor if e.range_of == e.tensor else f"{e.tensor}:{e.range_of}"
        for e in placement.activations
    }


def axes(placement: Placement) -> dict[str, int | None]:
    return {weight.node: weight.axis for weight in placement.weights}


EDGES = {
    "conv_bn_relu": {"c1.0": "x", "c2.0": "r1", "gap.0": "r2"},
    "residual": {"c0.0": "x", "c1.0": "r0", "c2.0": "r1", "add.1": "r0", "c3.0": "r2"},
    "shortcut": {"c1.0": "x", "cs.0": "x", "c2.0": "r1", "add.1": "cs", "c3.0": "r2"},
    "concat": {
        "c1.0": "x",
        "c2.0": "x",
        "cat.0": "r1:cat",
        "cat.1": "r2:cat",
        "c3.0": "cat",
    },
    "max_pool": {"c1.0": "x", "pool.0": "r1", "c2.0": "pool:r1"},
    "pools": {
        "c1.0": "x",
        "p1.0": "r1:cat",
        "p2.0": "p1:cat",
        "cat.0": "r1:cat",
        "cat.1": "p1:cat",
        "cat.2": "p2:cat",
        "c2.0": "cat",
    },
    "mean_head": {"c1.0": "x", "mean.0": "r1", "fc.0": "mean"},
    "transposed": {"t1.0": "x", "t2.0": "r1"},
    "dense": {"g1.0": "x", "g2.0": "r1", "m.0": "r2"},
    "attention": {"q.0": "x", "k.0": "x", "v.0": "x", "o.0": "pv"},
    "silu": {"c1.0": "x", "c2.0": "silu", "c3.0": "swish"},
    "scaled": {"c1.0": "x", "c2.0": "r1"},
    "loop": {"c1.0": "x", "c2.0": "known"},
    "shared_weights": {"c1.0": "x", "c2.0": "r1", "c3.0": "r2"},
    "constant_nodes": {"c1.0": "x", "fc.0": "flat"},
    "optional_inputs": {"c1.0": "x", "c2.0": "clip", "c3.0": "resize"},
    "one_dimension": {"c1.0": "x", "c2.0": "r1"},
    "several_outputs": {"c1.0": "x", "c2.0": "sum"},
}


@pytest.mark.parametrize("name", EDGES)
def test_exactly_these_edges_are_int8(name: str) -> None:
    assert edges(placed(NETS[name]())) == EDGES[name]


@pytest.mark.parametrize("name", NETS)
def test_nothing_stands_between_a_convolution_and_its_activation(name: str) -> None:
    proto = prepare(models.model(NETS[name]()), min_opset=13)
    graph = Graph(proto)
    for entry in place(graph).activations:
        reader = models.node(proto, entry.node)
        assert reader.input[entry.index] == entry.tensor
        producer = graph.producer.get(entry.tensor)
        if producer is not None and producer.op_type in ("Conv", "ConvTranspose"):
            # Only a shortcut, which the residual Add reads beside the layer it is fused into.
            assert reader.op_type == "Add"


@pytest.mark.parametrize("name", NETS)
def test_at_most_one_branch_of_an_addition_is_int8(name: str) -> None:
    placement = placed(NETS[name]())
    added = [entry.node for entry in placement.activations if entry.node in ("add", "y", "sum")]
    assert len(added) == len(set(added))


def test_weights_have_a_scale_for_each_output_channel() -> None:
    assert axes(placed(NETS["residual"]())) == dict.fromkeys(("c0", "c1", "c2", "c3"), 0)
    assert axes(placed(NETS["dense"]())) == {"g1": 1, "g2": 0, "m": 1}
    # Each group of a ConvTranspose has its channels on the same axis, so there is one scale.
    assert axes(placed(NETS["transposed"]())) == {"t1": None, "t2": 1}
    assert axes(placed(NETS["one_dimension"]())) == {"c1": 0, "c2": 0}
    assert [w.tensor for w in placed(NETS["shared_weights"]()).weights][1:] == ["c1.w", "c1.w"]


def test_products_of_activations_stay_fp32() -> None:
    kept = placed(NETS["attention"]()).kept
    assert set(kept) == {"qk", "pv"}
    assert "not constant" in kept["qk"]


@pytest.mark.parametrize(
    ("shape", "is_kept"), [((15, 16), True), ((16, 15), True), ((16, 16), False)]
)
@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
def test_small_matrices_stay_fp32(kind: str, shape: tuple[int, int], is_kept: bool) -> None:
    net = Net()
    x = net.input("x", ("n", shape[0]))
    proto = net.proto(net.op(kind, x, net.weight("w", *shape), name="fc"))
    placement = placed(proto)
    assert (placement.weights == []) == is_kept
    assert placement.kept == ({"fc": "its matrix has a side below 16"} if is_kept else {})


def test_layers_that_cannot_be_int8_say_why() -> None:
    net = Net()
    x = net.input("x", ("n", 16))
    y = net.op("Gemm", net.input("z", (16, "m")), net.weight("w", 16, 16), name="flip", transA=1)
    stack = net.op("Unsqueeze", x, net.constant("one", np.array([1])), name="stack")
    stack = net.op("MatMul", stack, net.weight("w3", 2, 16, 16), name="batched")
    placement = placed(net.proto(y, stack, shapes={y: ["m", 16], stack: [2, "n", 16]}))
    assert placement.weights == []
    assert set(placement.kept.values()) == {"its weights are not one matrix"}


def test_excluded_nodes_and_what_only_they_need_stay_fp32() -> None:
    placement = placed(NETS["residual"](), "c1")
    assert edges(placement) == {"c0.0": "x", "c2.0": "r1", "add.1": "r0", "c3.0": "r2"}
    assert placement.kept == {"c1": "excluded"}
    assert "c1" not in axes(placement)
    assert "r0" not in placed(NETS["residual"](), "c1", "add").tensors


def test_a_residual_addition_is_int8_only_beside_an_int8_convolution() -> None:
    assert "add.1" not in edges(placed(NETS["residual"](), "c2"))
    # Of the two of a shortcut the other one takes over.
    assert edges(placed(NETS["shortcut"](), "c2"))["add.0"] == "c2"


def test_pools_and_concats_can_be_excluded() -> None:
    assert edges(placed(NETS["concat"](), "cat")) == {"c1.0": "x", "c2.0": "x", "c3.0": "cat"}
    assert edges(placed(NETS["max_pool"](), "pool")) == {"c1.0": "x", "c2.0": "pool"}
    assert "gap.0" not in edges(placed(NETS["conv_bn_relu"](), "gap"))


def test_an_unknown_node_is_refused_with_those_that_are_meant() -> None:
    with pytest.raises(ConfigError, match=r"'c4'.*c1"):
        placed(NETS["residual"](), "c4")
    with pytest.raises(ConfigError, match="nowhere"):
        check_names(Graph(NETS["residual"]()), ("c1", "nowhere"))


def test_an_addition_of_a_tensor_to_itself_is_no_residual() -> None:
    net = Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    assert edges(placed(net.proto(net.op("Add", x, x, name="add")))) == {"c1.0": "x"}


def test_a_branch_that_is_read_elsewhere_too_is_not_fused() -> None:
    net = Net()
    x = net.input("x", PICTURE)
    y = net.conv("c1", x, (16, 16))
    total = net.op("Add", y, x, name="add")
    placement = placed(net.proto(total, net.op("Sigmoid", y, name="other")))
    assert edges(placement) == {"c1.0": "x"}


def test_a_pool_or_mean_that_something_reads_in_fp32_stays_fp32() -> None:
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    mean = net.op("GlobalAveragePool", x, name="gap")
    gate = net.op("Sigmoid", net.conv("c2", mean, (16, 16), 1), name="gate")
    proto = net.proto(net.op("Mul", x, gate, name="scaled"))  # Squeeze and excitation.
    assert edges(placed(proto)) == {"c1.0": "x", "c2.0": "gap"}
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    pool = net.op("MaxPool", x, name="pool", kernel_shape=[2, 2])
    assert edges(placed(net.proto(pool))) == {"c1.0": "x"}


def test_a_mean_over_channels_is_no_pool() -> None:
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    mean = net.op("ReduceMean", x, name="mean", axes=[1])
    assert edges(placed(net.proto(mean))) == {"c1.0": "x"}


def test_a_pool_that_a_concat_and_a_convolution_read_serves_the_convolution() -> None:
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    pool = net.op("MaxPool", x, name="pool", kernel_shape=[3, 3], pads=[1] * 4)
    cat = net.op("Concat", pool, net.op("Tanh", x, name="tanh"), name="cat", axis=1)
    proto = net.proto(net.conv("c2", cat, (32, 16)), net.conv("c3", pool, (16, 16)))
    found = edges(placed(proto))
    assert (found["c3.0"], found["pool.0"]) == ("pool:r1", "r1")
    assert (found["cat.0"], found["cat.1"]) == ("pool:cat", "tanh:cat")


def test_concats_in_a_row_share_the_last_ones_range() -> None:
    net = Net()
    x = net.input("x", PICTURE)
    parts = [net.op("Relu", net.conv(f"c{i}", x, (16, 16)), name=f"r{i}") for i in (1, 2, 3)]
    first = net.op("Concat", *parts[:2], name="first", axis=1)
    last = net.op("Concat", first, parts[2], name="last", axis=1)
    found = edges(placed(net.proto(net.conv("c4", last, (48, 16)))))
    assert {found[f"first.{i}"] for i in (0, 1)} == {"r1:last", "r2:last"}
    assert {found[f"last.{i}"] for i in (0, 1)} == {"first:last", "r3:last"}


def test_a_concat_with_a_constant_stays_fp32() -> None:
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", (1, 16, 8, 8)), (16, 16)), name="r1")
    cat = net.op("Concat", x, net.weight("k", 1, 16, 8, 8), name="cat", axis=1)
    found = edges(placed(net.proto(net.conv("c2", cat, (32, 16)))))
    assert found == {"c1.0": "x", "c2.0": "cat"}
