"""The commands on a machine that has a TensorRT and a GPU: both pretended, in their own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT, Net
from tests.software_gpu.build import build

# What JetPack 6.2 installs, as far as Python sees it.
TENSORRT = """
from tests.fakes.tensorrt import make
from tests.software_gpu.gpu import load
names = vars(make("10.3.0", load())).items()
globals().update({k: v for k, v in names if not k.startswith("__") or k == "__version__"})
"""


@pytest.fixture
def command(tmp_path: Path) -> Any:
    """Runs `edge-runtime` there; returns what --json prints, or the error line."""
    (tmp_path / "tensorrt.py").write_text(TENSORRT)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "LD_LIBRARY_PATH": str(build().parent),
        "EDGE_RUNTIME_CACHE": str(tmp_path / "cache"),
    }

    def run(*arguments: str, code: int = 0) -> Any:
        result = subprocess.run(
            [sys.executable, "-m", "edge_runtime", *arguments, *(["--json"] if not code else [])],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stderr
        return result.stderr if code else json.loads(result.stdout)

    return run


@pytest.fixture
def prepared(tmp_path: Path, digits: Net) -> Path:
    """A folder with the samples and a bundle that was built elsewhere and has no plan."""
    np.savez(tmp_path / "calibration.npz", image=Net.as_input(digits.calibration))
    np.savez(tmp_path / "test.npz", image=Net.as_input(digits.images[:20]))
    np.save(tmp_path / "one.npy", Net.as_input(digits.images[:1]))
    return tmp_path


SHAPES = ("--shape", "image=1x1x16x16,8x1x16x16,32x1x16x16")


def test_a_device_adds_its_plan_runs_it_and_agrees_with_the_cpu(
    command: Any, prepared: Path, digits: Net
) -> None:
    data = ("--precision", "int8", "--calibration-data", "calibration.npz", *SHAPES)
    command("build", str(digits.model), "-o", "digits.edge", "--backend", "cpu", *data)
    refused = command("run", "digits.edge", "--input", "one.npy", "--device", "tensorrt", code=1)
    assert "it has no plan for it" in refused
    assert "edge-runtime build digits.edge --backend tensorrt" in refused

    built = command("build", "digits.edge", "--backend", "tensorrt")
    (plan,) = built["manifest"]["plans"]
    assert (plan["version"], plan["compute_capabilities"]) == ("10.3.0", ["sm87"])
    assert plan["verdict"]["precisions"]["INT8"] > 0
    assert plan["verdict"]["milliseconds"]["INT8"] >= 0
    assert not command("build", "digits.edge", "--backend", "tensorrt")["built"]

    run = command("run", "digits.edge", "--input", "one.npy", "-o", "gpu.npz")
    assert run["device"] == "tensorrt"
    for options in (["--driver", "cuda-bindings", "--cuda-graphs"], ["--on-device-error", "cpu"]):
        again = command("run", "digits.edge", "--input", "one.npy", *options)
        assert again["outputs"] == run["outputs"]
    command("run", "digits.edge", "--input", "one.npy", "--device", "cpu", "-o", "cpu.npz")
    with np.load(prepared / "gpu.npz") as gpu, np.load(prepared / "cpu.npz") as cpu:
        np.testing.assert_array_equal(gpu["logits"], cpu["logits"])


def test_a_plan_of_another_machine_is_passed_over_in_words(
    command: Any, prepared: Path, digits: Net
) -> None:
    command("build", str(digits.model), "--precision", "fp32", "--backend", "tensorrt", *SHAPES)
    shim = prepared / "tensorrt.py"
    shim.write_text(TENSORRT.replace("10.3.0", "10.7.0"))
    run = command("run", "digits.edge", "--input", "one.npy")
    assert run["device"] == "cpu"
    passed_over = " ".join(run["passed_over"])
    assert "for tensorrt 10.3.0, here is 10.7.0" in passed_over


def test_a_tensorrt_that_cannot_be_imported_is_passed_over_in_words(
    command: Any, prepared: Path, digits: Net
) -> None:
    command("build", str(digits.model), "--precision", "fp32", "--backend", "tensorrt", *SHAPES)
    text = "libnvdla_compiler.so: cannot open shared object file"
    (prepared / "tensorrt.py").write_text(f'raise ImportError("{text}")')
    run = command("run", "digits.edge", "--input", "one.npy")
    assert run["device"] == "cpu"
    assert text in " ".join(run["passed_over"])
    line = command("run", "digits.edge", "--input", "one.npy", "--device", "tensorrt", code=1)
    assert text in line


def test_doctor_sees_a_whole_chain(command: Any) -> None:
    backends = {entry["name"]: entry for entry in command("doctor")["backends"]}
    assert (backends["tensorrt"]["can_build"], backends["tensorrt"]["can_run"]) == (True, True)
