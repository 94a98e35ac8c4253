"""A small bundle with an entry of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.bundle import Bundle, Manifest, PlanKey, write_bundle
from edge_runtime.bundle.manifest import DataRecord, ModelRecord
from edge_runtime.config import BuildConfig, digest
from edge_runtime.tensors import TensorSpec

KEY = PlanKey("tensorrt", "10.3.0", ("sm87",), "linux-aarch64")

MANIFEST = Manifest(
    model=ModelRecord("digits.onnx", digest(b"model")),
    config=BuildConfig(precision="int8").to_json(),
    inputs=(TensorSpec("image", "float32", (-1, 1, 16, 16)),),
    outputs=(TensorSpec("logits", "float32", (-1, 10)), TensorSpec("größe", "int64", ())),
    build_key=digest(b"key"),
    tools={"onnx": "1.23.0", "edge_runtime": "0.1.0"},
    preprocessing={"scale": 0.5, "layout": "nchw"},
    data=DataRecord(digest(b"data"), 64, "64 digits"),
    precision={"quantized": 7, "kept": [{"node": "/head", "reason": "excluded"}]},
    plans={KEY.entry: KEY},
    verdicts={KEY.entry: {"layers": 3, "reformats": [], "source": "größe"}},
    plan_settings={KEY.entry: BuildConfig(precision="int8").plan_settings},
)

CONTENTS = {
    KEY.entry: b"plan" * 1500,
    "calibration.cache": b"TRT-100300-EntropyCalibration2\nimage: 3c010204\n",
    "graph.onnx": b"graph" * 1000,
    "cpu.onnx": b"c",
    "cpu_fast.onnx": b"cf",
    "calibration.json": b"{}\n",
}


@pytest.fixture(scope="session")
def key() -> PlanKey:
    """The key of the plan in the bundle."""
    return KEY


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """What `write_bundle` makes the bundle of, with `contents`."""
    return MANIFEST


@pytest.fixture(scope="session")
def contents() -> dict[str, bytes]:
    """The content of each entry, in no particular order."""
    return dict(CONTENTS)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The bundle, written afresh."""
    return write_bundle(tmp_path / "digits.edge", MANIFEST, CONTENTS)


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of the bundle."""
    path = tmp_path_factory.mktemp("sound") / "digits.edge"
    return write_bundle(path, MANIFEST, CONTENTS).path.read_bytes()
