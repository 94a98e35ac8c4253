"""Lints for what a model shows: its opset, inputs, outputs, dimensions and element types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from onnx import TensorProto, ValueInfoProto

from edge_runtime.backends.tensorrt.profile import example_range
from edge_runtime.preflight.findings import Severity
from edge_runtime.preflight.graph import GraphView, to_array, type_name
from edge_runtime.preflight.rule import Hit, Rule, at

_OLDEST_OPSET = 9
_JETPACK_OPSET = 20
_NEWEST_OPSET = 25
_KNOWN_TYPES = {
    TensorProto.UNDEFINED,  # Not inferred; or a sequence, which the operator's own lint is about.
    TensorProto.FLOAT,
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.BFLOAT16,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.INT4,
    TensorProto.FLOAT4E2M1,
}


def opset(view: GraphView) -> Iterator[Hit]:
    """Operator sets that TensorRT does not promise to read.

    onnx-tensorrt's operators.md: TensorRT 10.0 reads opsets 9 to 20; NVIDIA's ONNX Opset Guide:
    11.x up to 25. Below 7 the parser says "Pre-opset 7 broadcasting is unsupported".
    """
    if 0 < view.opset < _OLDEST_OPSET:
        yield Hit(
            f"The opset is {view.opset}; TensorRT promises to read {_OLDEST_OPSET} and above."
        )
    elif view.opset > _NEWEST_OPSET:
        yield Hit(f"The opset is {view.opset}; TensorRT 11 reads up to {_NEWEST_OPSET}.")
    elif view.opset > _JETPACK_OPSET:
        yield Hit(
            f"The opset is {view.opset}; TensorRT 10.3, which JetPack 6 has, documents up to "
            f"{_JETPACK_OPSET}. Operators that did not change since then are no problem.",
            severity=Severity.NOTE,
        )


def unknown_type(view: GraphView) -> Iterator[Hit]:
    """Element types that TensorRT has not.

    TensorRT-RTX 1.7's parser, which was given each type as input, initializer and target of Cast:
    "Failed to convert ONNX date type", "Found unsupported datatype", "Unsupported data type for the
    Cast operator".
    """
    for value in view.fed:
        if _elem_type(value) not in _KNOWN_TYPES:
            yield Hit(f"The input is {type_name(_elem_type(value))}.", value.name)
    for tensor in view.constants:
        if tensor.data_type not in _KNOWN_TYPES:
            yield Hit(f"The constant is {type_name(tensor.data_type)}.", tensor.name)
    for node in view.nodes:
        to = node.attribute("to", 0) if node.op == "Cast" else 0
        if isinstance(to, int) and to not in _KNOWN_TYPES:
            yield at(node, f"The result is {type_name(to)}.")


def double(view: GraphView) -> Iterator[Hit]:
    """DOUBLE, which TensorRT-RTX 1.7's parser reads as FLOAT, inputs and outputs included."""
    for value in (*view.fed, *view.proto.graph.output):
        if _elem_type(value) == TensorProto.DOUBLE:
            yield Hit("The tensor is DOUBLE; TensorRT makes it FLOAT.", value.name)
    nodes = [node for node in view.nodes if node.output(0).elem_type == TensorProto.DOUBLE]
    if nodes:
        yield at(
            nodes[0],
            f"TensorRT computes DOUBLE as FLOAT; of {len(nodes)} such node(s) this is the first.",
        )


def int64(view: GraphView) -> Iterator[Hit]:
    """INT64 inputs and outputs stay INT64 since TensorRT 9 (onnx-tensorrt's changelog)."""
    for value in (*view.fed, *view.proto.graph.output):
        if _elem_type(value) == TensorProto.INT64:
            yield Hit("The tensor is INT64, and stays so in the plan.", value.name)


def repeated_dimension(view: GraphView) -> Iterator[Hit]:
    """One name for several axes of an input; TensorRT takes equal names for equal sizes.

    PP-OCR's classifier calls height and width both "?". TensorRT-RTX 1.7's builder: "?: Input
    dimensions with this name have different constant values or have contradictory
    IOptimizationProfile kMIN/kMAX constraints".
    """
    for value in view.fed:
        dims = [dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for name, count in Counter(filter(None, dims)).items():
            if count == 1:
                continue
            axes = [axis for axis, dim in enumerate(dims) if dim == name]
            clash = any(
                len({sizes[axis] for axis in axes}) > 1
                for given in view.ranges(value.name)
                for sizes in (given.min, given.opt, given.max)
                if len(sizes) == len(dims)
            )
            yield Hit(
                f"Axes {', '.join(map(str, axes))} are all called {name!r}, so TensorRT takes "
                f"their sizes for equal{'; those of --shape are not' if clash else ''}.",
                value.name,
                severity=Severity.ERROR if clash else None,
            )


def dynamic_dimension(view: GraphView) -> Iterator[Hit]:
    """Dynamic inputs without a range: "no optimization profile has been defined" at build."""
    for value in view.fed:
        shape = input_shape(value)
        if -1 in shape and not view.has_range(value.name):
            yield Hit(
                "It has dynamic dimensions; TensorRT needs their smallest, usual, largest sizes: "
                f"--shape {value.name}={example_range(shape)}",
                value.name,
            )


def infinite_weight(view: GraphView) -> Iterator[Hit]:
    """FP16 constants that hold an infinity, likely a value beyond 65504 that was converted."""
    for tensor in view.constants:
        if tensor.data_type == TensorProto.FLOAT16:
            count = int(np.isinf(to_array(tensor)).sum())
            if count:
                yield Hit(f"{count} of its FP16 values are infinite.", tensor.name)


def input_shape(value: ValueInfoProto) -> tuple[int, ...]:
    """The shape of an input; -1 is dynamic."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)


def _elem_type(value: ValueInfoProto) -> int:
    return value.type.tensor_type.elem_type


RULES = (
    Rule("opset", Severity.WARNING, opset, "Export with an opset from 17 to 20."),
    Rule(
        "unknown-type",
        Severity.ERROR,
        unknown_type,
        "TensorRT has no such type: use int32, int64, float16 or float32.",
    ),
    Rule("double", Severity.WARNING, double, "Export in FP32 if the precision is not needed."),
    Rule("int64", Severity.NOTE, int64, "Feed and expect int64."),
    Rule(
        "repeated-dimension",
        Severity.WARNING,
        repeated_dimension,
        "If they can differ, give each dynamic axis a name of its own when exporting.",
    ),
    Rule(
        "dynamic-dimension",
        Severity.WARNING,
        dynamic_dimension,
        "Give the range, or export with fixed sizes.",
    ),
    Rule(
        "infinite-weight",
        Severity.WARNING,
        infinite_weight,
        "Convert from the FP32 model with `edge-runtime build --precision fp16`.",
    ),
)
