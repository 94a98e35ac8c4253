"""What the package costs beside a peer that does the least of the same."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import calibrate

import edge_runtime as er
from edge_runtime.backends.cpu import open_session
from edge_runtime.bundle import GRAPH
from edge_runtime.model import read_model
from edge_runtime.precision.rewrite import rewrite

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
MODEL = DATA / "fashion.onnx"
INT8 = er.BuildConfig(precision="int8", backend="cpu")
CALLS = 50


@pytest.fixture(scope="module")
def samples() -> list[dict[str, np.ndarray]]:
    """64 pictures, as the model takes them."""
    images = np.load(DATA / "fashion.npz")["calibration"][:64, None, None]
    return [{"image": image.astype(np.float32) / 255} for image in images]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An FP32 bundle."""
    return er.build(MODEL, output=tmp_path_factory.mktemp("speed") / "net.edge").path


def test_session_run(pair, bundle: Path, samples: list) -> None:
    """Against ONNX Runtime's session on the same graph; 50 calls a round."""
    opened = er.Bundle.open(bundle)
    bare = open_session(opened.read(GRAPH), threads=1)
    names = [spec.name for spec in opened.outputs]
    feeds = samples[0]
    with er.load(bundle, device="cpu", threads=1) as session:
        pair(
            lambda: [session.run(feeds) for _ in range(CALLS)],
            lambda: [bare.run(names, feeds) for _ in range(CALLS)],
            rounds=40,
        )


def test_bundle_open(pair, bundle: Path) -> None:
    """With the graph read and its digest checked, against zipfile's reading of all entries."""

    def unzip() -> None:
        with zipfile.ZipFile(bundle) as archive:
            for name in archive.namelist():
                archive.read(name)

    pair(lambda: er.Bundle.open(bundle).read(GRAPH), unzip, rounds=200)


def test_qdq_insertion(pair, samples: list) -> None:
    """A calibrated model written in INT8, against onnx loading and saving it."""
    model = read_model(MODEL)
    cache = er.calibrate(model, samples, INT8)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.onnx"
        pair(
            lambda: rewrite(model, INT8, cache=cache),
            lambda: onnx.save(onnx.load(MODEL), copy),
            rounds=10,
        )


def test_calibration(pair, samples: list) -> None:
    """64 pictures, against ONNX Runtime's MinMax calibrator, fed one by one."""
    with tempfile.TemporaryDirectory() as folder:
        pair(
            lambda: er.calibrate(MODEL, samples),
            lambda: min_max(Path(folder), samples),
            rounds=3,
        )


def test_import(pair) -> None:
    """`import edge_runtime`, against a bare start of Python."""
    pair(lambda: python("import edge_runtime"), lambda: python("pass"), rounds=15)


def test_help(pair) -> None:
    """`edge-runtime --help`, against `import click`."""
    command = "import sys; sys.argv = ['edge-runtime', '--help']; import edge_runtime.__main__"
    pair(lambda: python(command), lambda: python("import click"), rounds=10)


def python(code: str) -> None:
    """Runs it in a Python of its own."""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def min_max(folder: Path, samples: list) -> None:
    """ONNX Runtime's cheapest calibration."""

    class One(calibrate.CalibrationDataReader):
        def __init__(self, feeds: dict[str, np.ndarray]) -> None:
            self.left = [feeds]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    calibrator = calibrate.create_calibrator(
        str(MODEL),
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=calibrate.CalibrationMethod.MinMax,
    )
    for feeds in samples:
        calibrator.collect_data(One(feeds))
    calibrator.compute_data()
