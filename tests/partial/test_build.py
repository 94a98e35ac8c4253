"""The core and the extra `build`: what makes bundles, without OpenCV and without a plan builder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

import edge_runtime as library


def test_the_environment_has_the_extra_build_only() -> None:
    assert [name for name in ("cv2", "tensorrt_rtx_bindings") if find_spec(name)] == []
    assert find_spec("onnx")
    assert "site-packages" in library.__file__


def test_int8_is_built_and_runs(edge_runtime, root: Path, tmp_path: Path, digits: object) -> None:
    np.savez(tmp_path / "calibration.npz", image=digits.as_input(digits.calibration))
    model = root / "tests/data/digits.onnx"
    options = ["--precision", "int8", "--calibration-data", "calibration.npz"]
    result = edge_runtime("build", model, "-o", "digits.edge", *options)
    assert result.returncode == 0, result.stderr
    with library.load(tmp_path / "digits.edge") as session:
        logits = session.run({"image": digits.as_input(digits.images)})["logits"]
    assert (logits.argmax(1) == digits.labels).mean() > 0.9


def test_a_model_is_checked(edge_runtime, root: Path) -> None:
    result = edge_runtime("check", root / "tests/data/digits.onnx")
    assert result.returncode == 0, result.stderr


def test_pictures_say_which_extra_reads_them(edge_runtime, root: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/one.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    options = ["--precision", "int8", "--calibration-data", "pictures", "--preprocess", "size=16"]
    model = root / "tests/data/digits.onnx"
    result = edge_runtime("build", model, "-o", "digits.edge", *options)
    assert result.returncode == 1
    assert "edge-runtime[vision]" in result.stderr
