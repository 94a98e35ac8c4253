"""`edge-runtime inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from edge_runtime import Bundle


def test_a_bundle_says_what_it_is_made_of(run, folder: Path, int8_bundle: Path) -> None:
    result = run("inspect", int8_bundle)
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.split())
    for words in (
        "digits.onnx, sha256:",
        "image: float32[?, 1, 16, 16]",
        "size=16x16, resize=stretch, color=gray",
        "16 pictures in digits",
        "INT8: 12 nodes INT8, 18 nodes FP32",
        "node_linear: its matrix has a side below 16",
        "dB SQNR",
        "graph.onnx, the very graph",
        "every byte is verified",
        "calibration.json",
        "Conv 12 -",
    ):
        assert words in text
    assert "node_Conv_180" not in text
    assert all(line == line.rstrip() for line in result.stdout.splitlines())


def test_layers_lists_what_each_node_asked_for_and_carries(run, int8_bundle: Path) -> None:
    lines = run("inspect", int8_bundle, "--layers").stdout.splitlines()
    rows = [" ".join(line.split()) for line in lines]
    assert "node_Conv_180 Conv INT8 INT8" in rows
    assert "node_linear Gemm INT8 FP32 its matrix has a side below 16" in rows


def test_the_cpu_twin_is_explained(run, folder: Path) -> None:
    run("build", "model.onnx", "--precision", "fp16", "--backend", "cpu")
    text = " ".join(run("inspect", "model.edge").stdout.split())
    assert "CPU runs cpu.onnx, its twin: ONNX Runtime has no FP16 kernels" in text


def test_json_is_the_manifest(run, int8_bundle: Path) -> None:
    plain = json.loads(run("inspect", int8_bundle, "--json").stdout)
    bundle = Bundle.open(int8_bundle)
    assert plain["kind"] == "bundle"
    assert plain["digest"] == bundle.digest
    assert plain["manifest"] == bundle.manifest.to_json()


def test_a_damaged_bundle_is_found(run, folder: Path, int8_bundle: Path) -> None:
    data = bytearray(int8_bundle.read_bytes())
    data[len(data) // 2] ^= 1
    Path("damaged.edge").write_bytes(data)
    result = run("inspect", "damaged.edge")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "damaged.edge" in result.stderr


def test_a_model_of_any_name(run, folder: Path) -> None:
    Path("weights.bin").symlink_to("model.onnx")
    result = run("inspect", "weights.bin")
    assert result.stdout.startswith("weights.bin: an ONNX model, ")
    assert "image: float32[?, 1, 16, 16]" in result.stdout
    assert "no, it has no Q/DQ nodes" in result.stdout
    plain = json.loads(run("inspect", "weights.bin", "--json").stdout)
    assert plain["operators"]["Conv"] == 12
    assert plain["parameters"]["float32"] > 10_000
    assert plain["quantized"] is False


def test_weights_in_constants_are_counted(run, folder: Path) -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weights),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, "constant.onnx")
    assert json.loads(run("inspect", "constant.onnx", "--json").stdout)["parameters"] == {
        "float32": 2
    }


def test_calibrations_of_both_kinds(run, folder: Path) -> None:
    options = ("-o", "ours.json", "--trt-cache", "theirs", "--method", "max", "--no-equalize")
    run("calibrate", "model.onnx", "--data", "calibration.npz", *options)
    ours, theirs = run("inspect", "ours.json"), run("inspect", "theirs", "--layers")
    assert "ours.json: a calibration" in ours.stdout
    assert "max, on 16 samples" in ours.stdout
    assert "theirs: TensorRT's calibration cache" in theirs.stdout
    assert "10.3.0, EntropyCalibration2" in theirs.stdout
    assert "image" in theirs.stdout
    ranges = json.loads(run("inspect", "ours.json", "--json").stdout)["ranges"]
    assert ranges["image"] == 1.0


def test_json_that_is_no_calibration_is_refused(run, folder: Path) -> None:
    Path("other.json").write_text('{"name": "x"}')
    result = run("inspect", "other.json")
    assert result.exit_code == 1
    assert "lacks the key 'schema'" in result.stderr


def test_names_cannot_command_the_terminal(run, folder: Path) -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
    node = helper.make_node("Relu", ["x"], ["y"], name="\x1b]0;owned\x07\x1b[2J")
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, "evil.onnx")
    result = run("inspect", "evil.onnx", "--layers")
    assert result.exit_code == 0, result.stderr
    assert "\x1b" not in result.stdout
    assert "\\x1b]0;owned" in result.stdout
