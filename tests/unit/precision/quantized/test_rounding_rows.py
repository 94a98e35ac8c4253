"""A layer's rows times its matrix are what ONNX Runtime computes, for every kind of layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from edge_runtime.precision.quantized.layer_rows import layer_rows
from tests import models
from tests.models import Net

CASES: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("Conv", (8, 4, 3, 3), (2, 4, 9, 7), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", (8, 4, 3, 2), (2, 4, 9, 7), {"dilations": [1, 2]}),
    ("Conv", (8, 2, 3, 3), (2, 4, 9, 8), {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", (8, 2, 3, 2), (2, 4, 9, 8), {"group": 2, "auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    ("Conv", (4, 1, 5), (2, 4, 20), {"group": 4, "auto_pad": "VALID", "strides": [3]}),
    ("Conv", (4, 2, 2, 3, 2), (2, 2, 5, 6, 4), {"pads": [0, 1, 0, 1, 1, 0]}),
    (
        "ConvTranspose",
        (4, 3, 3, 2),
        (2, 4, 5, 6),
        {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 0]},
    ),
    ("ConvTranspose", (4, 3, 3, 2), (2, 4, 5, 6), {"dilations": [2, 1], "group": 2}),
    ("ConvTranspose", (4, 3, 2), (2, 4, 5), {"pads": [2, 1]}),  # Less than its input.
    ("Gemm", (4, 3), (5, 4), {}),
    ("Gemm", (3, 4), (5, 4), {"transB": 1}),
    ("MatMul", (4, 3), (2, 5, 4), {}),
]


@pytest.mark.parametrize(("op", "weight_shape", "shape", "attributes"), CASES)
def test_rows_times_matrix_are_the_outputs(
    op: str, weight_shape: tuple[int, ...], shape: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    net = Net()
    net.op(op, net.input("x", shape), net.weight("w", *weight_shape), name="y", **attributes)
    proto = net.proto("y")
    weight = np.frombuffer(net.initializers[0].raw_data, np.float32).reshape(weight_shape)
    inputs = models.feeds(proto)
    y = models.run(proto, inputs)["y"]
    layer = layer_rows(proto.graph.node[0], weight_shape)
    assert layer is not None
    matrix = layer.matrix(weight)
    assert matrix.shape == layer.matrix_shape
    np.testing.assert_array_equal(layer.weight(matrix), weight)
    rows = layer.rows(inputs["x"], 10**6, np.random.default_rng(0))
    found = (rows @ matrix.swapaxes(1, 2)).swapaxes(0, 1).reshape(rows.shape[1], -1)
    axis = 1 if op.startswith("Conv") else -1
    expected = np.moveaxis(y, axis, -1).reshape(-1, y.shape[axis])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_some_rows_are_taken_from_everywhere() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    layer = layer_rows(node, (1, 1, 1, 1))
    assert layer is not None
    values = np.arange(64 * 64, dtype=np.float32).reshape(1, 1, 64, 64)
    rows = layer.rows(values, 64, np.random.default_rng(0)).ravel()
    assert len(set(rows)) == 64
    assert (np.diff(rows) < 128).all()
    assert len({int(row) % 64 for row in rows}) > 20  # Not one column alone.


def test_an_output_shape_without_padding_is_not_read() -> None:
    for attributes in ({"output_shape": [9]}, {"auto_pad": "SAME_UPPER"}):
        node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2], **attributes)
        assert layer_rows(node, (4, 4, 3)) is None
