"""The module that imports `tensorrt`, in a fresh interpreter that finds the fake by that name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

# A package `tensorrt` of JetPack 6.2, on a GPU that says what it is and has no memory left.
TENSORRT = """
from contextlib import nullcontext
from types import SimpleNamespace
import edge_runtime.cuda.device as device
from edge_runtime.errors import DeviceError
from tests.fakes.tensorrt import make
globals().update(vars(make("10.3.0", fell_back={"c1": "FP32"})))
info = SimpleNamespace(compute_capability="sm87", name="Orin", integrated=True)
def create_stream():
    raise DeviceError(2, "CUDA_ERROR_OUT_OF_MEMORY", "cuStreamCreate")
here = SimpleNamespace(info=info, current=nullcontext, create_stream=create_stream)
device.open_device = lambda driver="auto", ordinal=0: here
"""
START = """
import json, sys
from pathlib import Path
from edge_runtime.backends import tensorrt_standard as standard
from edge_runtime.gpu_config import TensorRTConfig
graph = Path(sys.argv[1]).read_bytes()
"""
CONV = """<ir_version: 10, opset_import: ["" : 20]> g
    (float[1,3,8,8] x) => (float[1,2,8,8] y) <float[2,3,1,1] w = {1,2,3,4,5,6}>
    { [c1] y = Conv(x, w) }"""


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Runs code that prints JSON."""
    (tmp_path / "tensorrt.py").write_text(TENSORRT)
    (tmp_path / "graph").write_bytes(onnx.parser.parse_model(CONV).SerializeToString())
    path = os.pathsep.join([str(tmp_path), *(entry or str(Path.cwd()) for entry in sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "EDGE_RUNTIME_CACHE": str(tmp_path / "cache")}

    def call(code: str) -> Any:
        result = subprocess.run(
            [sys.executable, "-c", START + code, str(tmp_path / "graph")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return call


def test_the_machine_is_told_in_words_of_plan_keys(run: Any) -> None:
    key = run("k = standard.machine(); print(json.dumps([k.backend, k.version, str(k)]))")
    assert key[:2] == ["tensorrt", "10.3.0"]
    assert "sm87" in key[2]


def test_a_build_in_the_child_is_one_here_and_keeps_its_timings(run: Any, tmp_path: Path) -> None:
    plans = run("""
config = TensorRTConfig(version_compatible=True)
builders = standard.create_builder(config), standard.create_child_builder(config)
plans = [builder.build(graph, []) for builder in builders]
print(json.dumps([[str(p.key), p.key.traits, p.data.hex(), p.verdict] for p in plans]))
""")
    assert plans[0] == plans[1]
    assert plans[0][1] == ["version-compatible"]
    assert plans[0][3]["precisions"] == {"FP32": 1}
    (note,) = plans[0][3]["notes"]
    assert note.startswith("The layers were not timed: cuStreamCreate failed")
    (file,) = (tmp_path / "cache" / "edge-runtime" / "timing").glob("*.cache")
    assert file.name == "10.3.0-sm87-Orin.cache"


def test_a_plan_for_ampere_and_newer_has_the_key_that_says_so(run: Any) -> None:
    keys = run("""
levels = "none", "ampere+"
configs = [TensorRTConfig(hardware_compatibility=level) for level in levels]
keys = [make(c).key for c in configs
        for make in (standard.create_builder, standard.create_child_builder)]
print(json.dumps([key.compute_capabilities for key in keys]))
""")
    assert keys == [["sm87"], ["sm87"], [], []]


def test_the_memory_guard_knows_that_a_jetson_shares_its_memory(run: Any) -> None:
    assert run("print(json.dumps(standard.create_builder()._memory.shared))")
