"""What was asked is what the graph carries, or there is a reason; anything else is refused."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto

from edge_runtime.config import BuildConfig
from edge_runtime.data import open_samples
from edge_runtime.errors import BuildError
from edge_runtime.precision import quantization
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.prepare import prepare
from edge_runtime.precision.halves import half
from edge_runtime.precision.quantized import int8
from edge_runtime.precision.report import Intent, count_weights, report_of
from edge_runtime.precision.rewrite import rewrite
from edge_runtime.precision.rewritten import Rewritten
from tests import models
from tests.models import NETS, Net


def written(precision: str, name: str = "residual", **settings: object) -> Rewritten:
    model = models.model(NETS[name]())
    given = None
    if precision != "fp32":
        given = open_samples([models.feeds(model.proto)], model.inputs)
    return rewrite(model, BuildConfig(precision=precision, **settings), samples=given)


def refusal(precision: str, name: str = "residual", **settings: object) -> str:
    with pytest.raises(BuildError) as caught:
        written(precision, name, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Seeded faults: a writer that does not write what it was told to.


@pytest.mark.parametrize("rest", ["fp32", "fp16"])
def test_a_layer_whose_weights_the_writer_forgot_is_refused(
    monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    weight = int8._Writer.weight
    monkeypatch.setattr(
        int8._Writer,
        "weight",
        lambda self, entry: entry.tensor if entry.node == "c1" else weight(self, entry),
    )
    message = refusal("int8", high_precision=rest)
    assert f"c1 (int8 was asked, it carries {rest})" in message
    assert "c2" not in message
    assert "--exclude" in message


def test_a_layer_whose_activation_the_writer_forgot_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    activation = int8._Writer.activation
    monkeypatch.setattr(
        int8._Writer,
        "activation",
        lambda self, tensor, amax: tensor if tensor == "r1" else activation(self, tensor, amax),
    )
    assert "c2 (int8 was asked, it carries fp32)" in refusal("int8")


def test_a_layer_that_placement_forgot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    place = quantization.place

    def forgetful(graph: Graph, **settings: object) -> object:
        placement = place(graph, **settings)
        placement.weights = [entry for entry in placement.weights if entry.node != "c2"]
        return placement

    monkeypatch.setattr(quantization, "place", forgetful)
    assert "c2 (int8 was asked, it carries fp32)" in refusal("int8")


def test_a_layer_that_is_gone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def bypassed(proto: ModelProto, nodes: list[NodeProto]) -> None:
        kept = [node for node in nodes if node.name != "c1"]
        for node in kept:
            for index, name in enumerate(node.input):
                if name == "c1":
                    node.input[index] = "r0"
        set_nodes(proto, kept)

    set_nodes = int8.set_nodes
    monkeypatch.setattr(int8, "set_nodes", bypassed)
    assert "c1 (int8 was asked, it carries nothing)" in refusal("int8")


def test_many_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8._Writer, "weight", lambda self, entry: entry.tensor)
    assert " and 1 more. No reason" in refusal("int8")


def test_a_rest_that_stayed_fp32_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lower = half._Writer.lower

    def skips(self: half._Writer, node: NodeProto, inputs: set[int], outputs: set[int]) -> None:
        if node.name == "r1":
            self.keep(node)
        else:
            lower(self, node, inputs, outputs)

    monkeypatch.setattr(half._Writer, "lower", skips)
    assert "r1 (fp16 was asked, it carries fp32)" in refusal("int8", high_precision="fp16")
    assert "r1 (bf16 was asked, it carries fp32)" in refusal("bf16")


def test_a_cast_between_a_layer_and_its_int8_values_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then TensorRT would not fuse them, and compute in FP16."""
    quantize = half._Writer.quantization

    def kept(self: half._Writer, node: NodeProto) -> None:
        if node.input[0].startswith("c3.w"):
            self.keep(node)
        else:
            quantize(self, node)

    monkeypatch.setattr(half._Writer, "quantization", kept)
    assert "c3 (int8 was asked, it carries fp16)" in refusal("int8", high_precision="fp16")


# What there is a reason for.


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("name", NETS)
def test_every_layer_that_is_not_what_was_asked_has_a_reason(name: str, precision: str) -> None:
    report = written(precision, name).report
    graph = Graph(prepare(models.model(NETS[name]()), min_opset=13))
    counts = count_weights(graph)
    assert counts
    for node in report["nodes"]:
        if node["name"] in counts and node["precision"] != precision:
            assert report["kept"][node["name"]]
    share = report["weighted_layers"]
    assert share["count"] == len(counts)
    assert share["values"] == sum(counts.values())
    carried = [n["name"] for n in report["nodes"] if n["precision"] == precision]
    assert share["as_asked"] == len(counts.keys() & set(carried))
    assert share["values_as_asked"] == sum(counts.get(name, 0) for name in carried)


def test_half_precision_says_why_a_layer_stays_fp32() -> None:
    assert written("bf16", "transposed").report["kept"] == {
        "t1": "ConvTranspose has no form of that type",
        "t2": "ConvTranspose has no form of that type",
    }
    assert written("fp16", "branches").report["kept"] == {"if": "its branches compute in FP32"}


def test_weights_are_matrices_and_kernels() -> None:
    net = Net()
    x = net.conv("c", net.input("x", models.PICTURE), (16, 32))
    x = net.op("Mul", x, net.weight("scale", 1, 32, 1, 1), name="mul")
    x = net.op("PRelu", x, net.weight("slope", 32, 1, 1), name="prelu")
    x = net.op("MatMul", x, net.weight("m.w", 8, 4), name="m")
    graph = Graph(net.proto(net.op("MatMul", x, net.op("Transpose", x, perm=[0, 1, 3, 2]))))
    assert count_weights(graph) == {"c": 32 * 16 * 9, "m": 32}


def test_a_graph_quantized_by_others_says_what_it_carries() -> None:
    proto = models.model(ModelProto.FromString(written("int8").graph))
    report = rewrite(proto, BuildConfig()).report
    carries = {node["name"]: node["precision"] for node in report["nodes"]}
    assert carries["c1"] == "int8"
    assert carries["r1"] == "fp32"
    assert report["weighted_layers"]["count"] == 4


def test_integers_are_told() -> None:
    net = Net()
    x = net.op("ArgMax", net.input("x", ("n", 4)), name="top", axis=1)
    y = net.op("Add", x, net.constant("one", np.array(1)), name="plus")
    proto = net.proto(net.op("Cast", y, name="y", to=TensorProto.FLOAT))
    report = report_of(BuildConfig(), proto, Intent({}))
    carries = {node["name"]: node["precision"] for node in report["nodes"]}
    assert carries == {"top": "fp32", "plus": "integer"}
