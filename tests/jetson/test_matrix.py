"""jetson/matrix.toml says of this Jetson what it is."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from edge_runtime.board import Board
from edge_runtime.cuda.device import open_device
from edge_runtime.doctor import diagnose


def test_the_jetpack_is_the_boards(board: Board, stack: dict[str, Any]) -> None:
    assert stack["l4t"][board.l4t] == board.jetpack


def test_python(stack: dict[str, Any]) -> None:
    assert ".".join(platform.python_version_tuple()[:2]) == stack["python"]


def test_tensorrt(stack: dict[str, Any], trt: Any) -> None:
    assert f"{trt.__version__}.".startswith(f"{stack['tensorrt']}.")


def test_cuda(stack: dict[str, Any]) -> None:
    facts = Path("/usr/local/cuda/version.json")
    if not facts.exists():
        pytest.skip(f"JetPack's CUDA toolkit is not installed: there is no {facts}")
    version = json.loads(facts.read_text())["cuda"]["version"]
    assert f"{version}.".startswith(f"{stack['cuda']}.")


@pytest.mark.parametrize("name", ["numpy", "cuda_bindings"])
def test_what_setup_installs(stack: dict[str, Any], name: str) -> None:
    if name not in stack:
        pytest.skip(f"{stack['name']} needs no {name}")
    wanted = Requirement(stack[name])
    assert wanted.specifier.contains(metadata.version(wanted.name)), wanted


def test_the_gpu(kind: dict[str, Any], trt: Any) -> None:
    info = open_device().info
    assert info.compute_capability == f"sm{kind['compute_capability'].replace('.', '')}"
    assert info.integrated
    assert info.maps_host_memory


def test_the_dla_cores(stack: dict[str, Any], kind: dict[str, Any], trt: Any) -> None:
    cores = trt.Builder(trt.Logger(trt.Logger.ERROR)).num_DLA_cores
    if stack["dla"] == "no":
        assert cores == 0
    elif stack["dla"] == "yes":
        assert str(cores) in kind["dla"].split(" or ")
    else:
        pytest.skip(f"the matrix is unsure; TensorRT {trt.__version__} says {cores} DLA cores")


def test_the_doctor_finds_it_ready(trt: Any) -> None:
    found = {backend.name: backend for backend in diagnose().backends}["tensorrt"]
    assert (found.can_build, found.can_run) == (True, True), found.reason
