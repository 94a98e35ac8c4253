"""The accuracy benchmark asks TensorRT-RTX whether it takes a file, and why not."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def net(zero_point: np.ndarray) -> bytes:
    """x -> Q -> DQ with the scale 1."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], "dq"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [
            numpy_helper.from_array(np.array(1, np.float32), "scale"),
            numpy_helper.from_array(zero_point, "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = onnx.ModelProto.SerializeToString(model)
    return data


@pytest.mark.parametrize(
    ("zero_point", "reason"),
    [
        (np.int8(0), None),
        (np.uint8(0), None),
        (np.uint8(128), "Non-zero zero point is not supported"),
    ],
)
def test_tensorrt_rtx_is_asked(
    root: Path, monkeypatch: pytest.MonkeyPatch, zero_point: np.generic, reason: str | None
) -> None:
    monkeypatch.syspath_prepend(str(root / "scripts"))
    view = importlib.import_module("accuracy.tensorrt_view")
    found = view.refusal(net(np.array(zero_point)), {"x": [[1, 4], [2, 4], [8, 4]]})
    for name in [name for name in sys.modules if name.partition(".")[0] == "accuracy"]:
        del sys.modules[name]
    assert found is None if reason is None else reason in found
