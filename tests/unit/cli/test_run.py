"""`edge-runtime run`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import edge_runtime


def test_arrays_go_in_and_figures_come_out(run, folder: Path, int8_bundle: Path) -> None:
    result = run("run", int8_bundle, "--input", "image=test.npz", "-o", "logits.npz")
    assert result.exit_code == 0, result.stderr
    with edge_runtime.load(int8_bundle) as session:
        expected = session.run({"image": np.load("test.npz")["image"]})["logits"]
    with np.load("logits.npz") as kept:
        assert kept.files == ["logits"]
        np.testing.assert_array_equal(kept["logits"], expected)
    assert "[300, 10]" in result.stdout
    best = expected[0].argmax()
    assert f"logits[0]  top 5: {best} ({expected[0, best]:.4g})" in result.stdout
    assert "and 295 rows more" in result.stdout


def test_json_has_the_same_figures(run, folder: Path, int8_bundle: Path) -> None:
    plain = json.loads(run("run", int8_bundle, "--input", "one.npy", "--json").stdout)
    with edge_runtime.load(int8_bundle) as session:
        expected = session.run({"image": np.load("one.npy")})["logits"]
    assert plain["device"] == "cpu"
    figures = plain["outputs"]["logits"]
    assert (figures["dtype"], figures["shape"]) == ("float32", [1, 10])
    assert figures["max"] == pytest.approx(expected.max())
    assert figures["mean"] == pytest.approx(expected.mean())
    assert [entry["index"] for entry in figures["top"][0]] == list((-expected[0]).argsort()[:5])


def test_a_picture_becomes_the_input_as_the_bundle_says(
    run, folder: Path, int8_bundle: Path
) -> None:
    by_picture = run("run", int8_bundle, "--input", "pictures/one.png", "--json")
    by_array = run("run", int8_bundle, "--input", "image=one.npy", "--json")
    assert json.loads(by_picture.stdout)["outputs"] == json.loads(by_array.stdout)["outputs"]


def test_preprocess_overrides_what_the_bundle_says(run, folder: Path, int8_bundle: Path) -> None:
    picture = cv2.imread("pictures/one.png", cv2.IMREAD_GRAYSCALE)
    np.save("twice.npy", picture[None, None].astype("float32") * 2)
    by_array = run("run", int8_bundle, "--input", "twice.npy", "--json")
    by_picture = run(
        *("run", int8_bundle, "--input", "pictures/one.png", "--json"),
        *("--preprocess", "size=16,color=gray,scale=2"),
    )
    assert json.loads(by_picture.stdout)["outputs"] == json.loads(by_array.stdout)["outputs"]


def test_a_picture_without_preprocessing_is_refused_with_an_example(run, folder: Path) -> None:
    run("build", "model.onnx", "--precision", "fp32", "--backend", "cpu", "-o", "plain.edge")
    result = run("run", "plain.edge", "--input", "pictures/one.png")
    assert result.exit_code == 1
    assert "--preprocess; for example size=" in result.stderr
    assert "no such file" in run("run", "plain.edge", "--input", "pictures/two.png").stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "image=nosuch.npy"], "nosuch.npy: no such file or directory"),
        (["--input", "imge=one.npy"], "no input 'imge'; its inputs are image"),
        (["--input", "image=one.npy", "--input", "one.npy"], "'image' is fed already"),
        (["--input", "wrong.npy"], "expected float32[?, 1, 16, 16], got uint8[1, 16, 16]"),
        (["--input", "names.npz"], "has the arrays picture; the model's inputs are image"),
        (["--input", "model.onnx"], "is not a JPEG, PNG, WebP or BMP picture"),
        (["--input", "one.npy", "--device", "tensorrt"], "cannot run on 'tensorrt'"),
        (["--input", "one.npy", "-o", "nosuch/out.npz"], "nosuch/out.npz: no such file"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(
    run, folder: Path, int8_bundle: Path, arguments: list[str], words: str
) -> None:
    np.save("wrong.npy", np.zeros((1, 16, 16), np.uint8))
    np.savez("names.npz", picture=np.load("one.npy"))
    result = run("run", int8_bundle, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_wrong_command_line_is_exit_code_2(run, folder: Path, int8_bundle: Path) -> None:
    assert run("run", int8_bundle).exit_code == 2
    assert run("run", int8_bundle, "--input", "one.npy", "-o", "out.npy").exit_code == 2
    assert run("run", int8_bundle, "--input", "test.npz", "-o", "test.npz").exit_code == 2


def test_a_model_is_not_a_bundle(run, folder: Path) -> None:
    result = run("run", "model.onnx", "--input", "one.npy")
    assert result.exit_code == 1
    assert "edge-runtime build model.onnx" in result.stderr


def test_names_that_would_confuse_others_are_fine(run, folder: Path) -> None:
    """Names of tensors that look like options of numpy.savez, markup, or NAME=FILE."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("a=b", "file")]
    node = helper.make_node("Log", ["a=b"], ["file"], name="[red]log[/]")
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, "odd.onnx")
    run("build", "odd.onnx", "--precision", "fp32", "--backend", "cpu")
    np.save("zeros.npy", np.array([0, 1], np.float32))
    result = run("run", "odd.edge", "--input", "a=b=zeros.npy", "-o", "out.npz")
    assert result.exit_code == 0, result.stderr
    assert "NaN or infinite: 1 value" in result.stdout
    with np.load("out.npz") as kept:
        np.testing.assert_array_equal(kept["file"], np.array([-np.inf, 0], np.float32))
    assert json.loads(run("run", "odd.edge", "--input", "zeros.npy", "--json").stdout)
    assert "[red]log[/]" in run("inspect", "odd.edge", "--layers").stdout


def test_fast_runs_the_second_graph_of_a_bundle(run, folder: Path, int8_bundle: Path) -> None:
    run(
        *("build", "model.onnx", "-o", "fast.edge", "--precision", "int8", "--backend", "cpu"),
        *("--cpu-mode", "fast", "--calibration-data", "calibration.npz"),
    )
    command = ("run", "fast.edge", "--input", "image=one.npy", "--json")
    exact, fast = (
        json.loads(run(*command, *words).stdout) for words in ((), ("--cpu-mode", "fast"))
    )
    assert fast["device"] == "cpu"
    assert fast["outputs"] != exact["outputs"]
    best = [plain["outputs"]["logits"]["top"][0][0]["index"] for plain in (exact, fast)]
    assert best[0] == best[1]
    refused = run("run", int8_bundle, "--input", "image=one.npy", "--cpu-mode", "fast")
    assert refused.exit_code == 1
    assert "has no graph for cpu_mode fast" in refused.stderr
    refused = run(*command[:-1], "--cpu-mode", "fast", "--device", "tensorrt")
    assert refused.exit_code == 1
    assert "is no CPU" in refused.stderr


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_openvino_is_one_more_device(run, folder: Path, int8_bundle: Path) -> None:
    command = ("run", int8_bundle, "--input", "image=one.npy", "--device", "openvino")
    assert json.loads(run(*command, "--json").stdout)["device"] == "openvino"
    refused = run(*command, "--cuda-graphs")
    assert refused.exit_code == 2
    assert "it does nothing with --device openvino" in refused.stderr
