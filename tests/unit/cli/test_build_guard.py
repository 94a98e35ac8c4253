"""`edge-runtime build` with a budget of accuracy, and the settings that are INT8's alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import Bundle

CPU = ("--backend", "cpu")
INT8 = ("build", "model.onnx", "--precision", "int8", *CPU)
DATA = ("--calibration-data", "calibration.npz")


@pytest.fixture
def labelled(folder: Path, digits: object) -> Path:
    """The folder with 40 held-out samples: with their labels, and with the labels apart."""
    image = digits.as_input(digits.images[:40])
    np.savez("labelled.npz", image=image, labels=digits.labels[:40])
    np.savez("held.npz", image=image)
    Path("labels.txt").write_text("\n".join(map(str, digits.labels[:40])))
    return folder


def guard(path: str = "model.edge") -> dict[str, object]:
    return dict(Bundle.open(path).manifest.precision["guard"])


def test_a_budget_is_kept_and_recorded(run, labelled: Path) -> None:
    budget = ("--max-drop", "1%", "--metric", "top1", "--confident")
    result = run(*INT8, *DATA, *budget, "--eval-data", "labelled.npz")
    assert result.exit_code == 0, result.stderr
    assert "Keeping to the accuracy budget ...\n" in result.stderr
    found = guard()
    assert (found["metric"], found["max_drop"], found["samples"]) == ("top1", 0.01, 40)
    assert (found["reference"], found["drop"]) == (1.0, 0.0)
    assert Bundle.open("model.edge").manifest.build_config.guard.confident
    again = run(*INT8, *DATA, *budget, "--eval-data", "labelled.npz")
    assert "is up to date" in again.stdout
    apart = ("--eval-data", "held.npz", "--labels", "labels.txt", "--eval-limit", 8)
    assert run(*INT8, *DATA, *budget, *apart).stdout.startswith("Built")
    assert (guard()["samples"], guard()["reference"]) == (8, 1.0)


def test_without_data_to_judge_on_calibration_gives_some(run, folder: Path) -> None:
    result = run(*INT8, *DATA, "--max-drop", "30%")
    assert result.exit_code == 0, result.stderr
    found = guard()
    assert (found["metric"], found["samples"]) == ("agreement", 4)
    assert "every fourth" in found["held_out"]


def test_a_budget_that_cannot_be_kept_is_one_line(run, labelled: Path) -> None:
    result = run(*INT8, *DATA, "--max-drop", "0", "--metric", "sqnr", "--eval-data", "held.npz")
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if not line.endswith("...")]
    assert line.startswith("Error: No INT8 form keeps sqnr at infinite dB on 40 samples")
    assert not Path("model.edge").exists()


def test_pictures_are_judged_with_labels_by_name(run, folder: Path, digits: object) -> None:
    names = [*(f"{index:02}.png" for index in range(16)), "one.png"]
    Path("labels.json").write_text(json.dumps({name: list(range(10)) for name in names}))
    result = run(
        *(*INT8, "--calibration-data", "pictures", "--preprocess", "size=16,color=gray"),
        *("--max-drop", "1%", "--metric", "top1", "--labels", "labels.json"),
    )
    assert result.exit_code == 0, result.stderr
    assert guard()["reference"] == 1


def test_a_recipe_has_a_guard_that_options_override(run, labelled: Path) -> None:
    Path("recipe.toml").write_text(
        """
[model]
path = "model.onnx"
[build]
precision = "int8"
backend = "cpu"
[calibration]
data = "calibration.npz"
equalize = false
[guard]
max_drop = "5%"
metric = "top1"
data = "held.npz"
labels = "labels.txt"
limit = 20
"""
    )
    result = run("build", "--recipe", "recipe.toml")
    assert result.exit_code == 0, result.stderr
    assert (guard()["max_drop"], guard()["samples"]) == (0.05, 20)
    assert not Bundle.open("model.edge").manifest.build_config.calibration.equalize
    run("build", "--recipe", "recipe.toml", "--max-drop", "2%", "--equalize", "--eval-limit", 30)
    assert (guard()["max_drop"], guard()["samples"]) == (0.02, 30)
    assert Bundle.open("model.edge").manifest.build_config.calibration.equalize
    # Its labels are not those of other samples.
    result = run("build", "--recipe", "recipe.toml", "--eval-data", "test.npz")
    assert "top1 needs labels" in result.stderr
    result = run("build", "--recipe", "recipe.toml", "--precision", "fp16")
    assert result.exit_code == 0, result.stderr
    assert "guard" not in Bundle.open("model.edge").manifest.precision


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--metric", "top1"), "--metric needs --max-drop"),
        (("--eval-data", "test.npz"), "--eval-data needs --max-drop"),
        (("--max-drop", "1%", "--eval-limit", 3), "--eval-limit needs --eval-data"),
    ],
)
def test_options_without_a_budget_are_refused(
    run, folder: Path, options: tuple, reason: str
) -> None:
    result = run(*INT8, *DATA, *options)
    assert result.exit_code == 2
    assert reason in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--max-drop", "much"), "max_drop is 'much'"),
        (("--max-drop", "1%", "--metric", "top5"), "metric is 'top5'"),
        (("--max-drop", "1%", "--metric", "top1"), "top1 needs labels"),
        (("--max-drop", "1%", "--labels", "labels.txt"), "no use"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(
    run, labelled: Path, options: tuple, reason: str
) -> None:
    result = run(*INT8, *DATA, *options)
    assert result.exit_code == 1
    assert reason in result.stderr


# Settings of INT8 alone.


@pytest.mark.parametrize(
    "option",
    [
        *(("--equalize",), ("--no-equalize",), ("--no-bias-correction",), ("--effort", "high")),
        *(("--high-precision", "fp16"), ("--cpu-mode", "fast"), ("--max-drop", "1%")),
        ("--eval-data", "test.npz"),
    ],
)
def test_they_are_refused_elsewhere(run, folder: Path, option: tuple[str, ...]) -> None:
    name = option[0].replace("--no-", "--")
    result = run("build", "model.onnx", "--precision", "fp16", *CPU, *option)
    assert result.exit_code == 2
    assert f"{name} is for int8, not for fp16" in " ".join(result.stderr.split())
    run("build", "model.onnx", "--precision", "fp32", "-o", "there.edge", *CPU)
    result = run("build", "there.edge", *option)
    assert result.exit_code == 2
    assert f"{name} does nothing for there.edge" in " ".join(result.stderr.split())


def test_they_reach_the_settings(run, folder: Path) -> None:
    result = run(
        *(*INT8, *DATA, "--no-equalize", "--no-bias-correction", "--high-precision", "fp16"),
        *("--cpu-mode", "fast", "--method", "auto", "--percentile", "99.5"),
    )
    assert result.exit_code == 0, result.stderr
    config = Bundle.open("model.edge").manifest.build_config
    assert (config.calibration.equalize, config.calibration.bias_correction) == (False, False)
    assert (config.calibration.method.value, config.calibration.percentile) == ("auto", 99.5)
    assert (config.high_precision.value, config.cpu_mode.value) == ("fp16", "fast")


def test_a_calibration_takes_samples_beside_it_only_to_round_weights(run, folder: Path) -> None:
    run("calibrate", "model.onnx", "--data", "calibration.npz")
    made = ("--calibration", "model.calibration.json")
    result = run(*INT8, *made, *DATA)
    assert result.exit_code == 2
    assert "without --effort high" in " ".join(result.stderr.split())
    result = run(*INT8, *made, "--no-equalize")
    assert result.exit_code == 2
    assert "--equalize does nothing beside --calibration" in " ".join(result.stderr.split())
    result = run(*INT8, *made, "--effort", "high")
    assert result.exit_code == 1
    assert "effort high rounds weights on samples" in result.stderr
    # What an earlier calibration has seen cannot be set aside to judge on.
    result = run(*INT8, *made, *DATA, "--effort", "high", "--max-drop", "5%")
    assert result.exit_code == 1
    assert "--eval-data" in result.stderr
    result = run(*INT8, *made, *DATA, "--effort", "high", "--limit", 2)
    assert result.exit_code == 0, result.stderr
    assert Bundle.open("model.edge").manifest.build_config.calibration.effort.value == "high"
