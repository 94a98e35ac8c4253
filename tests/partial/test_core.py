"""The core alone, without any extra: what a device needs to run a bundle on its CPU."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import edge_runtime as library


def test_the_environment_has_the_core_only() -> None:
    extras = ("onnx", "pydantic", "cv2", "tensorrt_rtx_bindings")
    assert [name for name in extras if find_spec(name)] == []
    assert "site-packages" in library.__file__


def test_a_bundle_opens_and_runs(bundle: Path, digits: object) -> None:
    with library.load(bundle) as session:
        logits = session.run({"image": digits.as_input(digits.images)})["logits"]
    assert (logits.argmax(1) == digits.labels).mean() > 0.9


def test_the_commands_of_a_device_work(
    edge_runtime, bundle: Path, images: Path, tmp_path: Path, digits: object
) -> None:
    assert "build" in edge_runtime("--help").stdout
    plain = json.loads(edge_runtime("inspect", bundle, "--json").stdout)
    assert "image" in json.dumps(plain)
    run = edge_runtime("run", bundle, "--input", f"image={images}", "-o", "out.npz")
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "out.npz") as outputs:
        assert outputs["logits"].shape == (len(digits.images), 10)


def test_doctor_says_what_is_missing(edge_runtime) -> None:
    result = edge_runtime("doctor", "--json")
    assert result.returncode == 0, result.stderr
    diagnosis = json.loads(result.stdout)
    assert diagnosis["versions"]["onnx"] is None
    assert any("edge-runtime[build]" in advice for advice in diagnosis["advice"])


@pytest.mark.parametrize("command", ["build", "check"])
def test_what_needs_an_extra_says_which(edge_runtime, root: Path, command: str) -> None:
    arguments = [root / "tests/data/digits.onnx"]
    if command == "build":
        arguments += ["-o", "digits.edge"]
    result = edge_runtime(command, *arguments)
    assert result.returncode == 1
    assert "pip install 'edge-runtime[build]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_picture_says_which_extra_reads_it(edge_runtime, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = edge_runtime("run", bundle, "--input", "image=one.png")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
