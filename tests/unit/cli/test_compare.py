"""`edge-runtime compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

COMPARE = ("compare", "model.onnx")


def test_the_figures_of_each_output(run, folder: Path, int8_bundle: Path) -> None:
    result = run(*COMPARE, int8_bundle, "--data", "test.npz", "--json")
    plain = json.loads(result.stdout)
    assert result.exit_code == 0
    assert plain["samples"] == 300
    figures = plain["outputs"]["logits"]
    assert 20 < figures["sqnr_db"] < 60
    table = run(*COMPARE, int8_bundle, "--data", "test.npz").stdout
    assert f"{figures['sqnr_db']:.1f} dB" in table
    assert "on 300 samples" in table


def test_pictures_become_inputs_as_the_bundle_says(run, folder: Path, int8_bundle: Path) -> None:
    result = run(*COMPARE, int8_bundle, "--data", "pictures", "--limit", 2)
    assert result.exit_code == 0, result.stderr
    assert "on 2 samples" in result.stdout


@pytest.mark.parametrize(("decibels", "code"), [(10, 0), (90, 1)])
def test_fail_below_is_for_scripts(
    run, folder: Path, int8_bundle: Path, decibels: int, code: int
) -> None:
    options = ("--data", "calibration.npz", "--fail-below", decibels)
    result = run(*COMPARE, int8_bundle, *options)
    assert result.exit_code == code
    assert ("Below 90 dB: logits" in result.stdout) == bool(code)
    result = run(*COMPARE, int8_bundle, *options, "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout)["below"] == (["logits"] if code else [])


def test_equal_models_are_below_nothing(run, folder: Path) -> None:
    result = run(*COMPARE, "model.onnx", "--data", "test.npz", "--limit", 4, "--fail-below", 999)
    assert result.exit_code == 0
    assert "equal" in result.stdout


def test_models_that_do_not_fit_are_refused(run, folder: Path, fashion: object) -> None:
    result = run(*COMPARE, fashion.model, "--data", "calibration.npz")
    assert result.exit_code == 1
    assert "[?, 1, 28, 28]" in result.stderr
    assert "nosuch" in run(*COMPARE, "nosuch", "--data", "calibration.npz").stderr


def test_exact_against_fast(run, folder: Path) -> None:
    built = run(
        *("build", "model.onnx", "-o", "fast.edge", "--precision", "int8", "--backend", "cpu"),
        *("--cpu-mode", "fast", "--calibration-data", "calibration.npz"),
    )
    assert built.exit_code == 0, built.stderr
    result = run(
        *("compare", "fast.edge", "fast.edge", "--data", "test.npz", "--cpu-mode", "fast", "--json")
    )
    assert 20 < json.loads(result.stdout)["outputs"]["logits"]["sqnr_db"] < 60


def test_fast_of_a_bundle_without_it_is_refused(run, folder: Path, int8_bundle: Path) -> None:
    result = run(*COMPARE, int8_bundle, "--data", "test.npz", "--cpu-mode", "fast")
    assert result.exit_code == 1
    assert "--precision int8 --cpu-mode fast" in result.stderr
