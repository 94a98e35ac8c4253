"""`edge-runtime check`."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

SHAPE = ("--shape", "image=1x1x16x16")


def save(path: str, op: str, **attributes: object) -> None:
    """A model of one node, which has no name."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], **attributes)], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def test_a_model_without_faults_is_exit_code_0(run, folder: Path) -> None:
    result = run("check", "model.onnx", *SHAPE, "--no-build")
    assert result.exit_code == 0, result.stderr
    assert "model.onnx: 0 errors, 0 warnings" in result.stdout


def test_no_plan_is_built_unless_wanted(run, folder: Path) -> None:
    plain = json.loads(run("check", "model.onnx", *SHAPE, "--no-build", "--json").stdout)
    assert plain["builder"]["outcome"] in ("parsed", "not-run")
    plain = json.loads(run("check", "model.onnx", *SHAPE, "--json").stdout)
    assert plain["builder"]["outcome"] in ("built", "not-run")


def test_a_missing_shape_is_a_warning_that_says_what_to_give(run, folder: Path) -> None:
    result = run("check", "model.onnx", "--no-build")
    assert result.exit_code == 0
    assert "1 warning" in result.stdout
    assert "--shape" in result.stdout


def test_a_fault_is_exit_code_1_and_says_where_why_and_what_to_do(run, folder: Path) -> None:
    save("det.onnx", "Det")
    result = run("check", "det.onnx", "--no-build")
    assert result.exit_code == 1
    assert "1 error," in result.stdout
    assert "Det" in result.stdout
    assert "TensorRT has no operator Det" in " ".join(result.stdout.split())


def test_json_is_the_report(run, folder: Path) -> None:
    save("det.onnx", "Det")
    result = run("check", "det.onnx", "--no-build", "--json")
    plain = json.loads(result.stdout)
    assert result.exit_code == 1
    assert plain["ok"] is False
    assert "Det" in [finding["op"] for finding in plain["findings"]]


def test_targets_and_shapes_are_checked(run, folder: Path) -> None:
    assert "orin" in run("check", "model.onnx", "--target", "orin").stderr
    assert "'imge'" in run("check", "model.onnx", "--shape", "imge=1x1x16x16").stderr


def test_a_bundle_is_sent_back_to_its_model(run, folder: Path, int8_bundle: Path) -> None:
    result = run("check", int8_bundle)
    assert result.exit_code == 1
    assert "check the ONNX model that it was built from" in result.stderr


def test_what_many_nodes_share_is_said_once(run, folder: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8, 8])
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [4]) for i in range(5)]
    nodes = [helper.make_node("Det", ["x"], [y.name], name=f"det-{y.name}") for y in outputs]
    graph = helper.make_graph(nodes, "g", [x], outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "five.onnx")
    text = run("check", "five.onnx", "--no-build").stdout
    assert "5 errors" in text
    assert text.count("TensorRT has no operator Det") == 1
    assert "det-y0 (Det), det-y1 (Det), det-y2 (Det) and 2 more" in text
