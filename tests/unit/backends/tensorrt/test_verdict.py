"""What the verdict makes of an inspector's JSON, and of what a network was asked."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.backends.tensorrt.verdict import (
    EngineLayer,
    asked_precisions,
    assess,
    describe,
    read_inspector,
)

Kind = enum.Enum("LayerType", "CONSTANT QUANTIZE DEQUANTIZE CONVOLUTION ACTIVATION CAST NORMALIZE")
Dtype = enum.Enum("DataType", "FLOAT HALF BF16 INT8 FP8 INT32 INT64 BOOL")


@dataclass
class Tensor:
    """An ITensor."""

    name: str
    dtype: Dtype


@dataclass
class Layer:
    """An ILayer."""

    name: str
    type: Kind
    inputs: list[Tensor]
    outputs: list[Tensor] = field(default_factory=list)
    metadata: str = ""

    def __post_init__(self) -> None:
        self.num_inputs = len(self.inputs)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]


class Network:
    """An INetworkDefinition."""

    def __init__(self, *layers: Layer) -> None:
        self._layers = layers
        self.num_layers = len(layers)

    def get_layer(self, index: int) -> Layer:
        return self._layers[index]


def asked(*layers: Layer) -> dict[str, str]:
    trt: Any = type("trt", (), {"LayerType": Kind})
    return asked_precisions(trt, Network(*layers))


def entry(
    name: str, kind: str = "CaskConvolution", inputs: str | None = "FP32", **more: Any
) -> dict[str, Any]:
    """A layer as the inspector writes it."""
    tensors = [] if inputs is None else [{"Name": "x", "Format/Datatype": inputs}]
    return {"Name": name, "LayerType": kind, "Inputs": tensors, "Outputs": tensors, **more}


def verdict(*layers: object, **asked_: str) -> dict[str, Any]:
    read = read_inspector(json.dumps({"Layers": layers, "Bindings": ["x"]}))
    assert read is not None
    return assess(read, asked_)


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("Row major linear FP32", "FP32"),
        ("Row major linear FP16 format", "FP16"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "INT8"),
        ("Channel major FP16 format where channel % 8 == 0", "FP16"),
        ("Half", "FP16"),
        ("Float", "FP32"),
        ("BFloat16", "BF16"),
        ("BF16", "BF16"),
        ("FP8", "FP8"),
        ("Int64", "INT64"),
        ("Bool", "BOOL"),
        ("N/A due to dynamic shapes", "unknown"),
        ("", "unknown"),
        ("Halfway", "unknown"),
    ],
)
def test_a_precision_is_found_in_every_spelling(text: str, precision: str) -> None:
    assert verdict(entry("a", inputs=text))["precisions"] == {precision: 1}


def test_the_weights_say_more_than_the_operands() -> None:
    conv = entry("conv", inputs="FP32", Weights={"Type": "Int8", "Count": 54})
    assert verdict(conv)["precisions"] == {"INT8": 1}


def test_an_index_does_not_hide_what_is_gathered() -> None:
    gather = entry("g", "Gather", inputs="Int64")
    gather["Inputs"].append({"Name": "table", "Format/Datatype": "Half"})
    assert verdict(gather)["precisions"] == {"FP16": 1}


def test_layers_are_counted_by_precision_and_reformats_apart() -> None:
    told = verdict(
        entry("c1", inputs="Int8"),
        entry("c2", inputs="Int8"),
        entry("c3", inputs="Half"),
        entry("Reformatting CopyNode for Input Tensor 0 to c1", "Reformat"),
        entry("w", "Constant", None),
    )
    assert told["layers"] == 3
    assert list(told["precisions"].items()) == [("INT8", 2), ("FP16", 1)]
    assert told["reformats"] == 1
    assert told["notes"] == told["fell_back"] == []


def test_what_is_within_a_fused_region_is_not_guessed() -> None:
    told = verdict(entry("{ForeignNode[a...b]}", "Myelin", "Half"), entry("c1"), a="INT8")
    assert told["precisions"] == {"FP32": 1, "unknown": 1}
    assert told["fell_back"] == []
    assert told["notes"] == ["TensorRT does not tell the precision within 1 of 2 layers."]


def test_a_plan_that_only_names_its_layers_is_all_unknown() -> None:
    told = verdict("c1 + r1", "Reformatting CopyNode for Output Tensor 0 to c1", c1="INT8")
    assert (told["layers"], told["reformats"]) == (1, 1)
    assert told["precisions"] == {"unknown": 1}
    assert told["fell_back"] == []


@pytest.mark.parametrize(
    "more",
    [{"Metadata": "[ONNX Layer: c1]\u001e[ONNX Layer: r1]"}, {}],
    ids=["metadata", "names"],
)
def test_a_layer_that_runs_wider_than_asked_fell_back(more: dict[str, str]) -> None:
    fused = entry("c1 + r1", inputs="Half", **more)
    assert verdict(fused, c1="INT8", r1="FP32")["fell_back"] == [
        {"layer": "c1", "asked": "INT8", "ran": "FP16"}
    ]
    assert verdict(fused, c1="FP16", r1="FP32")["fell_back"] == []
    assert verdict(fused, c1="BF16")["fell_back"] == []
    assert verdict(entry("c1", inputs="Int8"), c1="FP16")["fell_back"] == []


def test_the_metadata_names_nodes_with_brackets_and_pluses() -> None:
    told = verdict(entry("fused", Metadata="[ONNX Layer: a + b[0]]"), **{"a + b[0]": "FP16"})
    assert [describe(e) for e in told["fell_back"]] == ["a + b[0]: asked for FP16, runs in FP32"]


def test_a_reformat_is_no_fallback() -> None:
    assert verdict(entry("c1", "Reformat"), c1="INT8")["fell_back"] == []


def test_on_a_dla_what_the_gpu_runs_fell_back() -> None:
    layers = [
        EngineLayer("{ForeignNode[a...b]}", "DLA", "unknown", ()),
        EngineLayer("pool", "Pooling", "FP16", ("pool",)),
        EngineLayer("copy", "Reformat", "FP16", ()),
    ]
    assert assess(layers, {}, dla=True)["fell_back"] == [
        {"layer": "pool", "asked": "DLA", "ran": "GPU"}
    ]
    assert assess(layers, {})["fell_back"] == []


def test_times_are_summed_by_precision() -> None:
    layers = [
        EngineLayer("a", "", "INT8", ()),
        EngineLayer("b", "", "FP32", ()),
        EngineLayer("c", "", "FP32", ()),
        EngineLayer("d", "Reformat", "FP32", ()),
    ]
    times = {"a": 1.0, "b": 0.5, "c": 2.0, "d": 0.25, "elsewhere": 9.0}
    told = assess(layers, {}, milliseconds=times)
    assert told["milliseconds"] == {"FP32": 2.5, "INT8": 1.0, "reformats": 0.25}
    assert "milliseconds" not in assess(layers, {})


def test_a_product_of_dequantized_operands_was_asked_in_their_type() -> None:
    x, q, d, y = (
        Tensor("x", Dtype.FLOAT),
        Tensor("q", Dtype.INT8),
        Tensor("d", Dtype.FLOAT),
        Tensor("y", Dtype.FLOAT),
    )
    assert asked(
        Layer("q1", Kind.QUANTIZE, [x], [q]),
        Layer("d1", Kind.DEQUANTIZE, [q], [d]),
        Layer("c1 (Conv)", Kind.CONVOLUTION, [d], [y], "[ONNX Layer: c1]"),
        Layer("r1", Kind.ACTIVATION, [d], [y]),
        Layer("c2", Kind.CONVOLUTION, [y], [y]),
    ) == {"c1": "INT8", "r1": "FP32", "c2": "FP32"}


def test_half_precision_was_asked_where_all_of_a_node_has_it() -> None:
    half, wide = Tensor("h", Dtype.HALF), Tensor("w", Dtype.FLOAT)
    assert asked(
        Layer("relu", Kind.ACTIVATION, [half], [half], "[ONNX Layer: relu]"),
        Layer("cast", Kind.CAST, [half], [wide], "[ONNX Layer: norm]"),
        Layer("norm", Kind.NORMALIZE, [wide], [wide], "[ONNX Layer: norm]"),
        Layer("shape", Kind.ACTIVATION, [Tensor("s", Dtype.INT64)], [], "[ONNX Layer: shape]"),
        Layer("weight", Kind.CONSTANT, [], [wide]),
    ) == {"relu": "FP16"}


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"Layers": 1}', "[" * 100_000])
def test_what_is_no_inspectors_answer_is_none(text: str) -> None:
    assert read_inspector(text) is None


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Name", "LayerType", "Inputs", "Outputs", "Weights", "Type", "Format/Datatype"]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.lists(anything, max_size=5), st.dictionaries(st.text(max_size=5), st.just("INT8")))
def test_any_layers_give_a_verdict_that_is_json_and_adds_up(
    layers: list[object], wanted: dict[str, str]
) -> None:
    read = read_inspector(json.dumps({"Layers": layers}))
    assert read is not None
    told = assess(read, wanted)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert sum(told["precisions"].values()) == told["layers"]
    assert told["layers"] + told["reformats"] <= len(read)
