"""`edge-runtime sensitivity`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SENSITIVITY = ("sensitivity", "model.onnx", "--data", "calibration.npz")


def test_the_worst_layers_and_tensors_come_first(run, folder: Path) -> None:
    plain = json.loads(run(*SENSITIVITY, "--json").stdout)
    assert plain["samples"] == 8
    assert plain["calibration"] == {"method": "mse", "samples": 16}
    assert len(plain["layers"]) == 12
    assert [row["index"] for row in plain["layers"]] == sorted(
        row["index"] for row in plain["layers"]
    )
    assert 1e-5 < plain["total_noise"] < 1e-2
    result = run(*SENSITIVITY)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    worst = max(plain["layers"], key=lambda row: row["output_noise"])
    first = next(line for line in lines if "Conv" in line)
    assert first.split()[0] == worst["name"]
    shown = [line.split()[2] for line in lines if " Conv " in line]
    assert shown == sorted(shown, key=float)
    assert len(shown) == 12
    assert "on 8 samples" in lines[0]
    assert "--data" in run("sensitivity", "model.onnx").stderr


def test_the_issues_own_spelling_of_build_is_taken_too(run, folder: Path) -> None:
    options = ("--preprocess", "size=16,color=gray", "--samples", 1, "--limit", 4, "--json")
    result = run("sensitivity", "model.onnx", "--calibration-data", "pictures", *options)
    plain = json.loads(result.stdout)
    assert (plain["samples"], plain["calibration"]["samples"]) == (1, 4)


def test_a_calibration_takes_the_place_of_calibrating(run, folder: Path) -> None:
    run("calibrate", "model.onnx", "--data", "calibration.npz", "-o", "c.json", "--method", "max")
    result = run(*SENSITIVITY, "--calibration", "c.json", "--samples", 2)
    assert result.exit_code == 0
    assert "Calibrating" not in result.stderr
    plain = json.loads(run(*SENSITIVITY, "--calibration", "c.json", "--json").stdout)
    assert plain["calibration"] == {"method": "max", "samples": 16}
    for option in (("--method", "mse"), ("--no-equalize",)):
        refused = run(*SENSITIVITY, "--calibration", "c.json", *option)
        assert refused.exit_code == 2
        assert "--calibration" in refused.stderr


def test_an_excluded_layer_is_no_more_listed(run, folder: Path) -> None:
    plain = json.loads(run(*SENSITIVITY, "--json").stdout)
    name = plain["layers"][3]["name"]
    left = json.loads(run(*SENSITIVITY, "--exclude", name, "--json").stdout)
    assert name not in {row["name"] for row in left["layers"]}
    assert len(left["layers"]) == 11
    refused = run(*SENSITIVITY, "--exclude", "nosuch")
    assert refused.exit_code == 1
    assert "nosuch" in refused.stderr


def test_long_lists_are_cut(run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.cli.sensitivity._TOP", 5)
    short, whole = run(*SENSITIVITY).stdout, run(*SENSITIVITY, "--all").stdout
    assert short.count(" Conv ") == 5
    assert "the worst 5 of 12" in short
    assert whole.count(" Conv ") == 12


def test_a_page_holds_what_json_says(run, folder: Path) -> None:
    result = run(*SENSITIVITY, "--html", "page.html", "--json")
    plain = json.loads(result.stdout)
    assert plain.pop("written") == "page.html"
    text = Path("page.html").read_text(encoding="utf-8")
    embedded = text.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(embedded) == plain
    assert "Wrote page.html" in run(*SENSITIVITY, "--html", "page.html").stdout


@pytest.mark.parametrize(
    ("page", "code"), [("nosuch/page.html", 1), ("model.onnx", 2), ("calibration.npz", 2)]
)
def test_a_page_that_cannot_be_written_is_refused_at_once(
    run, folder: Path, page: str, code: int
) -> None:
    result = run(*SENSITIVITY, "--html", page)
    assert result.exit_code == code
    assert result.stderr.strip()
    assert "Calibrating" not in result.stderr
