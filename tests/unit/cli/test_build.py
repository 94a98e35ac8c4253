"""`edge-runtime build`."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import Bundle

CPU = ("--backend", "cpu")
FP32 = ("build", "model.onnx", "--precision", "fp32", *CPU)
INT8 = ("build", "model.onnx", "--precision", "int8", *CPU)


def test_int8_from_pictures(run, folder: Path) -> None:
    result = run(
        *(*INT8, "-o", "digits.edge", "--calibration-data", "pictures"),
        *("--preprocess", "size=16,color=gray", "--limit", "4", "--method", "max"),
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("Built digits.edge (")
    assert "INT8: 12 nodes INT8, 18 nodes FP32" in result.stdout
    assert "node_linear: its matrix has a side below 16" in result.stdout
    assert "max, on 4 of 17 pictures in pictures" in result.stdout
    assert "dB SQNR" in result.stdout
    assert "none was asked for" in result.stdout
    manifest = Bundle.open("digits.edge").manifest
    assert manifest.build_config.calibration.method.value == "max"
    assert manifest.preprocessing["color"] == "gray"
    assert manifest.data.samples == 4


def test_phases_are_said_on_stderr_unless_quiet(run, folder: Path) -> None:
    data = ("--calibration-data", "calibration.npz")
    assert "Calibrating ...\n" in run(*INT8, *data).stderr
    assert run(*INT8, *data, "--exclude", "node_Conv_180", "--quiet").stderr == ""


def test_json_is_the_only_thing_on_stdout(run, folder: Path) -> None:
    result = run(*FP32, "--json")
    plain = json.loads(result.stdout)
    assert result.stderr == ""
    assert plain["built"] is True
    assert plain["path"] == "model.edge"
    assert plain["size"] == Path("model.edge").stat().st_size
    assert plain["manifest"] == Bundle.open("model.edge").manifest.to_json()


def test_what_is_up_to_date_is_left_alone(run, folder: Path) -> None:
    run(*FP32)
    before = Path("model.edge").stat()
    result = run(*FP32)
    assert "model.edge is up to date" in result.stdout
    assert Path("model.edge").stat().st_mtime_ns == before.st_mtime_ns
    assert json.loads(run(*FP32, "--json").stdout)["built"] is False
    assert run("build", "model.onnx", "--precision", "fp16", *CPU).stdout.startswith("Built")


def test_fp16_without_data_says_what_was_not_checked(run, folder: Path) -> None:
    result = run("build", "model.onnx", "--precision", "fp16", *CPU)
    assert "were not checked: give --calibration-data" in result.stdout
    result = run(
        *("build", "model.onnx", "--precision", "fp16", *CPU),
        *("--calibration-data", "calibration.npz"),
    )
    assert "were checked on 16 samples of calibration.npz" in result.stdout


def test_a_calibration_serves_instead_of_data(run, folder: Path) -> None:
    run("calibrate", "model.onnx", "--data", "calibration.npz", "--method", "entropy")
    result = run(*INT8, "--calibration", "model.calibration.json")
    assert result.exit_code == 0, result.stderr
    assert "entropy, on 16 samples" in result.stdout


def test_excluded_nodes_are_kept_and_said(run, folder: Path) -> None:
    data = ("--calibration-data", "calibration.npz")
    result = run(*INT8, *data, "--exclude", "node_Conv_180", "--exclude", "node_Conv_182")
    assert "node_Conv_180, node_Conv_182: excluded" in result.stdout
    assert "10 nodes INT8" in result.stdout


def test_a_recipe_says_it_all_and_options_override_it(run, folder: Path) -> None:
    digest = hashlib.sha256(Path("model.onnx").read_bytes()).hexdigest()
    Path("recipe.toml").write_text(
        f"""
[model]
path = "model.onnx"
sha256 = "{digest}"
[build]
precision = "int8"
backend = "cpu"
[calibration]
data = "pictures"
limit = 2
method = "max"
[preprocessing]
size = 16
color = "gray"
"""
    )
    result = run("build", "--recipe", "recipe.toml")
    assert result.exit_code == 0, result.stderr
    assert "max, on 2 of 17 pictures" in result.stdout
    result = run("build", "--recipe", "recipe.toml", "--limit", 3, "--method", "mse")
    assert "mse, on 3 of 17 pictures" in result.stdout
    result = run("build", "--recipe", "recipe.toml", "--precision", "fp32", "-o", "fp32.edge")
    assert result.exit_code == 0, result.stderr
    assert Bundle.open("fp32.edge").precision.value == "fp32"


def test_a_model_that_is_not_the_recipe_s_is_refused(run, folder: Path) -> None:
    Path("recipe.toml").write_text(f'[model]\npath = "model.onnx"\nsha256 = "{"0" * 64}"\n')
    result = run("build", "--recipe", "recipe.toml")
    assert result.exit_code == 1
    assert "model.onnx is not the model of recipe.toml" in result.stderr


def test_all_mistakes_of_a_recipe_are_said(run, folder: Path) -> None:
    Path("recipe.toml").write_text('[build]\nprecision = "int4"\ncolour = "red"\n')
    result = run("build", "model.onnx", "--recipe", "recipe.toml")
    assert result.exit_code == 1
    assert "build.precision" in result.stderr
    assert "build.colour" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build"], "Name an ONNX model"),
        (["build", "model.onnx"], "fp32, fp16, bf16 or int8"),
        (["build", "model.onnx", "--precision", "int4"], "'fp32', 'fp16', 'bf16', 'int8'"),
        ([*FP32, "--exclude", "node_linear"], "--exclude does nothing for fp32"),
        ([*FP32, "--method", "max"], "--method is for int8, not for fp32"),
        ([*FP32, "--limit", "3"], "--limit needs --calibration-data"),
        ([*INT8, "--percentile", "99"], "--percentile is for --method percentile or auto, not mse"),
        ([*INT8, "--method", "percentile", "--percentile", "0"], "--percentile"),
        ([*INT8, "--calibration-data", "pictures", "--limit", "0"], "--limit"),
        ([*FP32, "--shape", "1x1x16x16"], "is not NAME=MIN,OPT,MAX"),
        ([*FP32, "-o", "model.onnx"], "model.onnx is read, and would be overwritten"),
        (
            [*INT8, "--calibration", "c.json", "--calibration-data", "pictures"],
            "--calibration-data does nothing beside --calibration",
        ),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(
    run, folder: Path, arguments: list[str], words: str
) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.split())
    assert list(folder.glob("*.edge")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "nosuch.onnx", "--precision", "fp32"], "nosuch.onnx: no such file"),
        (["build", "text.onnx", "--precision", "fp32"], "text.onnx is not an ONNX model"),
        (["build", "empty.onnx", "--precision", "fp32"], "empty.onnx is empty (0 bytes)"),
        (["build", "pictures", "--precision", "fp32"], "pictures: it is a folder"),
        (["build", "test.npz", "--precision", "fp32"], "test.npz is a zip archive"),
        ([*INT8], "INT8 needs calibration data"),
        ([*INT8, "--calibration-data", "nosuch"], "nosuch is not there"),
        ([*INT8, "--calibration-data", "pictures"], "--preprocess"),
        ([*INT8, "--calibration-data", "wrong.npz"], "float32[?, 1, 16, 16]"),
        ([*INT8, "--calibration-data", "calibration.npz", "--exclude", "no"], "'no'"),
        ([*FP32, "--calibration-data", "calibration.npz"], "does nothing for fp32"),
        ([*FP32, "--preprocess", "sizes=16"], "'sizes'"),
        ([*FP32, "--shape", "imge=1x1x16x16"], "no input 'imge'; its inputs are image"),
        ([*FP32, "--shape", "image=1x3x16x16"], "does not fit input 'image'"),
        ([*FP32, "-o", "nosuch/model.edge"], "nosuch/model.edge: no such file or directory"),
        ([*FP32, "-o", "pictures"], "pictures: it is a folder"),
    ],
)
def test_what_cannot_be_done_is_exit_code_1_and_one_line(
    run, folder: Path, arguments: list[str], words: str
) -> None:
    Path("text.onnx").write_text("a model, said the mail\n")
    Path("empty.onnx").touch()
    np.savez("wrong.npz", image=np.zeros((4, 1, 8, 8), np.float32))
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(folder.glob("*.edge")) == []


def test_the_output_is_refused_before_the_data_are_read(run, folder: Path) -> None:
    result = run(*INT8, "--calibration-data", "calibration.npz", "-o", "nosuch/model.edge")
    assert "Calibrating" not in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="the right to be refused is missing: root writes all")
def test_a_read_only_folder_is_refused(run, folder: Path) -> None:
    Path("fixed").mkdir(mode=0o555)
    result = run(*FP32, "-o", "fixed/model.edge")
    assert result.exit_code == 1
    assert "Choose a folder that you may write to" in result.stderr


def test_a_bundle_takes_no_settings_of_the_model(run, folder: Path, int8_bundle: Path) -> None:
    result = run("build", int8_bundle, "--precision", "fp16")
    assert result.exit_code == 2
    assert "--precision does nothing for" in result.stderr
    result = run("build", int8_bundle, "--backend", "cpu")
    assert result.exit_code == 2
    assert "the CPU runs a bundle as it is" in result.stderr


def test_a_plan_is_added_to_a_bundle(run, folder: Path, int8_bundle: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    Path("digits.edge").write_bytes(int8_bundle.read_bytes())
    shape = ("--shape", "image=1x1x16x16,2x1x16x16,4x1x16x16", "--target", "sm86")
    result = run("build", "digits.edge", *shape)
    assert result.exit_code == 0, result.stderr
    assert "Added a plan to digits.edge" in result.stdout
    assert "for sm86 on linux-x86_64" in result.stdout
    assert "no GPU here ran it" in " ".join(result.stdout.split())
    bundle = Bundle.open("digits.edge")
    assert [key.compute_capabilities for key in bundle.plans.values()] == [("sm86",)]
    result = run("build", "digits.edge", "--target", "sm86")
    assert "digits.edge is up to date: it has this machine's plan" in result.stdout
    assert Bundle.open("digits.edge").digest == bundle.digest
