"""What `build` and `inspect` say of an INT8 bundle: what was asked, what it carries, and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edge_runtime
from edge_runtime import Bundle
from edge_runtime.bundle import write_bundle

GUARD = {
    "metric": "top1",
    "max_drop": 0.005,
    "reference": 0.9,
    "reached": 0.8975,
    "drop": 0.0025,
    "interval": [-0.001, 0.0061],
    "samples": 400,
    "int8_layers": 10,
    "layers": 12,
    "kept": ["node_Conv_180", "node_Conv_182"],
    "speed": {"estimate": 2.345, "of_all_int8": 0.91},
    "curve": [
        {"kept": 0, "drop": 0.02, "interval": [0.01, 0.03], "speed": 2.58},
        {"kept": 2, "drop": 0.0025, "interval": None, "speed": 2.345},
    ],
}


def with_report(bundle: Path, path: Path, **changes: Any) -> Path:
    """A copy of a bundle whose report says other things; None takes a key away."""
    whole = Bundle.open(bundle)
    report = {**whole.manifest.precision, **changes}
    report = {key: value for key, value in report.items() if value is not None}
    contents = {entry.name: whole.read(entry.name) for entry in whole.manifest.entries}
    write_bundle(path, replace(whole.manifest, precision=report), contents)
    return path


def text(run: Any, *arguments: object) -> str:
    result = run("inspect", *arguments)
    assert result.exit_code == 0, result.stderr
    return " ".join(result.stdout.split())


@pytest.fixture(scope="module")
def half_bundle(tmp_path_factory: pytest.TempPathFactory, digits: Any) -> Path:
    """The digits net in INT8 and FP16."""
    path = tmp_path_factory.mktemp("bundle") / "half.edge"
    config = edge_runtime.BuildConfig(
        precision="int8", high_precision="fp16", backend="cpu", exclude=["node_Conv_180"]
    )
    feeds = [{"image": digits.as_input(digits.calibration[i : i + 1])} for i in range(8)]
    edge_runtime.build(digits.model, config, output=path, calibration=feeds)
    return path


def test_a_half_rest_is_said_with_counts_share_and_reasons(run, half_bundle: Path) -> None:
    said = text(run, half_bundle)
    for words in (
        "INT8: 11 nodes INT8, 19 nodes FP16",
        "11 of 13 layers INT8, 98.8 % of all weights",
        "kept FP16 node_Conv_180: excluded node_linear: its matrix has a side below 16",
        "ranges those of activations were checked on 8 samples",
        "cpu.onnx, its twin: ONNX Runtime has no FP16 kernels",
        "Conv 11 1 Relu - 10",
    ):
        assert words in said
    assert "FP32" not in said.partition("CPU runs")[0]


def test_layers_lists_asked_carried_and_why(run, half_bundle: Path) -> None:
    lines = run("inspect", half_bundle, "--layers").stdout.splitlines()
    rows = [" ".join(line.split()) for line in lines]
    assert "node_Conv_180 Conv INT8 FP16 excluded" in rows
    assert "node_Conv_182 Conv INT8 INT8" in rows
    assert "node_relu Relu FP16 FP16" in rows
    assert "node_linear Gemm INT8 FP16 its matrix has a side below 16" in rows


def test_the_bundle_runs_on_a_cpu_as_the_model_does(half_bundle: Path, digits: Any) -> None:
    with edge_runtime.load(half_bundle, device="cpu") as session:
        found = session.run({"image": digits.as_input(digits.images[:50])})["logits"]
    assert found.dtype == "float32"
    assert (found.argmax(1) == digits.labels[:50]).mean() > 0.95


def test_build_says_the_same(run, folder: Path) -> None:
    options = ("--precision", "int8", "--high-precision", "bf16", "--backend", "cpu")
    result = run("build", "model.onnx", *options, "--calibration-data", "calibration.npz")
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "INT8: 12 nodes INT8, 18 nodes BF16" in said
    assert "12 of 13 layers INT8, 99.2 % of all weights" in said
    result = run("compare", "model.onnx", "model.edge", "--data", "test.npz")
    assert result.exit_code == 0, result.stderr


def test_layers_in_fp32_amid_half_are_told_apart(run, half_bundle: Path, tmp_path: Path) -> None:
    full = {"node_Conv_182": "'x' has a scale of 1e-09", "node_Conv_180": "'y' reaches 1e+05"}
    said = text(run, with_report(half_bundle, tmp_path / "b.edge", kept_full=full))
    assert "INT8 amid FP32 node_Conv_182: 'x' has a scale" in said
    assert "node_Conv_180: excluded; 'y' reaches 1e+05" in said


def test_a_calibration_that_saw_too_little_is_said(run, half_bundle: Path, tmp_path: Path) -> None:
    said = text(run, with_report(half_bundle, tmp_path / "b.edge", ranges_checked_on=0))
    assert "ranges not all were checked: calibrate with --high-precision fp16" in said


def test_corrections_and_findings_are_rows(run, half_bundle: Path, tmp_path: Path) -> None:
    changed = with_report(
        half_bundle,
        tmp_path / "b.edge",
        equalized=["a", "b", "c", "d"],
        bias_corrected=["l1"],
        methods={"max": 3, "mse": 10},
        findings=["Only 8 samples.", "Channel 3 of 'a' is dead."],
    )
    said = text(run, changed)
    assert "equalized 4 tensors: a, b, c and 1 more" in said
    assert "bias corrected 1 layer" in said
    assert "ranges by mse 10 tensors, max 3 tensors" in said
    assert "note Only 8 samples. Channel 3 of 'a' is dead." in said


def test_the_guard_is_shown_and_its_curve_with_layers(
    run, half_bundle: Path, tmp_path: Path
) -> None:
    changed = with_report(half_bundle, tmp_path / "b.edge", guard=GUARD)
    said = text(run, changed)
    assert (
        "guard top1: loses 0.25 % (-0.1 % to 0.61 %), 0.5 % allowed, 90 % to 89.8 %, on 400 samples"
        in said
    )
    assert "10 of 12 layers in INT8; left out: node_Conv_180, node_Conv_182" in said
    assert "speed 2.345 times FP32's, an estimate; 91.0 % of all INT8's" in said
    assert "left out of INT8" not in said
    rows = [" ".join(x.split()) for x in run("inspect", changed, "--layers").stdout.splitlines()]
    assert "0 2 % 1 % to 3 % 2.58x" in rows
    assert "2 0.25 % - 2.35x" in rows or "2 0.25 % - 2.34x" in rows


@pytest.mark.parametrize("left_out", [*GUARD, None])
def test_what_a_guard_does_not_say_is_left_out(
    run, half_bundle: Path, tmp_path: Path, left_out: str | None
) -> None:
    guard = {key: value for key, value in GUARD.items() if key != left_out} if left_out else {}
    changed = with_report(half_bundle, tmp_path / "b.edge", guard=guard)
    assert "guard" in text(run, changed, "--layers")


def test_a_guard_of_the_users_has_figures_of_its_own(
    run, half_bundle: Path, tmp_path: Path
) -> None:
    guard = {**GUARD, "metric": "python:mine:score", "drop": 12.5, "interval": None}
    said = text(run, with_report(half_bundle, tmp_path / "b.edge", guard=guard))
    assert "python:mine:score: loses 12.5, 0.005 allowed" in said


def test_a_guard_of_noise_speaks_of_decibels(run, half_bundle: Path, tmp_path: Path) -> None:
    interval = {"drop": 0.001, "interval": [0.0005, 0.01]}
    curve = [{"kept": 1, "speed": 2.0, **interval}, {"kept": 2, "drop": 0.0, "speed": 1.5}]
    guard = {**GUARD, "metric": "sqnr", "max_drop": 0.0032, "curve": curve, **interval}
    said = text(run, with_report(half_bundle, tmp_path / "b.edge", guard=guard), "--layers")
    assert "guard sqnr: 30.0 dB (20.0 dB to 33.0 dB), 24.9 dB asked, on 400 samples" in said
    assert "1 30.0 dB 20.0 dB to 33.0 dB 2.00x" in said
    assert "2 infinite dB - 1.50x" in said


def test_a_report_without_the_newer_keys_shows_nothing_of_them(
    run, half_bundle: Path, tmp_path: Path
) -> None:
    keys = ("kept_full", "weighted_layers", "high_precision", "methods", "equalized", "findings")
    gone = dict.fromkeys((*keys, "bias_corrected", "ranges_checked_on"))
    said = text(run, with_report(half_bundle, tmp_path / "b.edge", **gone), "--layers")
    assert "INT8: 11 nodes INT8, 19 nodes FP16" in said
    for words in ("with weights", "equalized", "note", "bias corrected", "ranges"):
        assert words not in said


def test_a_report_of_another_form_is_refused(run, half_bundle: Path, tmp_path: Path) -> None:
    changed = with_report(half_bundle, tmp_path / "b.edge", guard={"curve": [1]})
    result = run("inspect", changed, "--layers")
    assert result.exit_code == 1
    assert "guard.curve[0] is 1" in result.stderr


def test_a_calibration_says_what_else_it_found(run, folder: Path) -> None:
    options = ("--data", "calibration.npz", "--high-precision", "fp16", "-o", "c.json")
    assert run("calibrate", "model.onnx", *options).exit_code == 0
    said = text(run, "c.json")
    assert "tensors more, for half" in said
    plain = json.loads(Path("c.json").read_text())
    plain.update(findings=["Channel 3 of 'a' is dead."], peaks={})
    Path("c.json").write_text(json.dumps(plain))
    said = text(run, "c.json")
    assert "note Channel 3 of 'a' is dead." in said
    assert "for half" not in said
