"""scripts/rtx_sweep tells good refusals from bad ones, and outlives what it builds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from tests.models import Net

pytestmark = pytest.mark.timeout(300)


def unsupported() -> ModelProto:
    net = Net(opset=20)
    return net.proto(net.op("Det", net.input("x", (1, 3, 8, 8)), name="det"))


def without_inputs() -> ModelProto:
    net = Net(opset=20)
    value = numpy_helper.from_array(np.ones((2, 3), np.float32))
    return net.proto(net.op("Constant", name="y", value=value))


@pytest.fixture
def models(root: Path, tmp_path: Path) -> Path:
    """A folder with one model of each kind, in their order."""
    (tmp_path / "a_digits.onnx").write_bytes((root / "tests/data/digits.onnx").read_bytes())
    (tmp_path / "b_refused.onnx").write_bytes(unsupported().SerializeToString())
    (tmp_path / "c_garbage.onnx").write_bytes(b"\xff" * 100)
    (tmp_path / "d_constant.onnx").write_bytes(without_inputs().SerializeToString())
    return tmp_path


def sweep(root: Path, models: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the verdicts by model."""
    report = models / "report.json"
    script = root / "scripts" / "rtx_sweep" / "sweep.py"
    command = [sys.executable, script, "--models", models, "--json", report, *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert report.exists(), result.stderr
    verdicts = json.loads(report.read_text(encoding="utf-8"))["verdicts"]
    return result.returncode, {verdict["model"]: verdict for verdict in verdicts}


def test_it_says_what_became_of_each(root: Path, models: Path) -> None:
    code, verdicts = sweep(root, models)
    assert {model: verdict["kind"] for model, verdict in verdicts.items()} == {
        "a_digits": "built",
        "b_refused": "refused, with node, operator and reason",
        "c_garbage": "refused, since it is no ONNX file",
        "d_constant": "built",
    }
    assert "'det' (Det)" in verdicts["b_refused"]["text"]
    assert code == 0


def test_it_ends_what_takes_too_long_and_goes_on(root: Path, models: Path) -> None:
    code, verdicts = sweep(root, models, "--limit", "0.01", "--only", "_")
    assert list(verdicts) == ["a_digits", "b_refused", "c_garbage", "d_constant"]
    assert {verdict["kind"] for verdict in verdicts.values()} == {"took too long, was ended"}
    assert code == 0
