"""Says what this machine can build and run, and what to do about what it cannot."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.backends.registry import Availability, availability
from edge_runtime.board import Board
from edge_runtime.telemetry.conditions import Conditions, read_conditions
from edge_runtime.telemetry.limits import limits

_EXTRAS = (("build", "onnx", "build and check"), ("vision", "opencv", "read pictures"))

_NO_DOT_PRODUCTS = (
    "This CPU has no VNNI: the INT8 kernels of ONNX Runtime and OpenVINO add products in pairs, in "
    "16 bits, and saturate with weights of 8 bits. edge_runtime does not let them: mode exact "
    "computes such layers in FP32, no faster than FP32; mode fast, of bundles built with "
    "--cpu-mode fast, has weights of 7 bits. Do not run graph.onnx with other defaults here."
)


_OLDEST_TENSORRT = (10, 3)
_FIRST_WITH_NUMPY_2 = (10, 16)
_CUDA_12 = "'cuda-bindings>=12.9,<13'"
_CUDA_13 = "'cuda-bindings>=13,<14'"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What this machine is, has and can do.

    Attributes:
        conditions: Facts of the machine, versions of the libraries, power mode, clocks and heat.
        int8: How the CPU sums products of INT8, and what is therefore safe to run on it.
        backends: What can be built and run here, best first.
        advice: What this machine lacks and the command that mends it, one sentence or two each.
        limits: What would limit a benchmark now, and what to do about it, a line each.
    """

    conditions: Conditions
    int8: str
    backends: tuple[Availability, ...]
    advice: tuple[str, ...]
    limits: tuple[str, ...]

    @property
    def board(self) -> Board:
        """Facts of the machine."""
        return self.conditions.board

    @property
    def versions(self) -> Mapping[str, str | None]:
        """Version by library; None where it is not installed, `unknown` without metadata."""
        return self.conditions.versions

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as plain JSON values."""
        return {
            "board": self.board.to_json(),
            "python": self.conditions.python,
            "versions": dict(self.versions),
            "int8": self.int8,
            "backends": [asdict(backend) for backend in self.backends],
            "advice": list(self.advice),
            "limits": list(self.limits),
            "conditions": self.conditions.to_json(),
        }


def diagnose(root: Path = Path("/")) -> Diagnosis:
    """Examines this machine. Nothing is imported, built or run for it.

    Args:
        root: Where the file tree of the machine begins; versions and backends are always those of
            this interpreter.
    """
    conditions = read_conditions(root, folder=None)
    return Diagnosis(
        conditions=conditions,
        int8=_int8(conditions.board),
        backends=availability(),
        advice=tuple(_advice(conditions.board, conditions.versions)),
        limits=tuple(limits(conditions)),
    )


def _int8(board: Board) -> str:
    if board.int8_dot_products:
        return (
            f"sums in 32 bits ({', '.join(board.int8_dot_products)}): safe in mode exact, in mode "
            "fast and in any other kernel"
        )
    return (
        "no dot products, sums may be in 16 bits: safe in mode exact and in mode fast; other "
        "kernels with weights of 8 bits may saturate"
    )


def _advice(board: Board, versions: Mapping[str, str | None]) -> list[str]:
    advice = [
        f"{library} is not installed: edge_runtime cannot {purpose} here. "
        f"To mend it: pip install 'edge-runtime[{extra}]'"
        for extra, library, purpose in _EXTRAS
        if versions[library] is None
    ]
    if board.architecture == "x86_64" and not board.has_int8_dot_products:
        advice.append(_NO_DOT_PRODUCTS)
    advice += _gpu_advice(board, versions)
    if board.l4t and board.jetpack is None:
        advice.append(
            f"Jetson Linux {board.l4t} is newer than this version of edge_runtime, or unusual: "
            "which JetPack it belongs to is not known here."
        )
    return advice


def _gpu_advice(board: Board, versions: Mapping[str, str | None]) -> Iterator[str]:
    """What keeps plans from running on a GPU: each link of the chain that is missing or wrong.

    A machine with neither a GPU nor TensorRT is not told to get them.
    """
    is_jetson = board.l4t is not None or board.jetson is not None
    has_gpu = is_jetson or bool(board.gpu_nodes)
    has_tensorrt = versions["tensorrt"] is not None
    if not has_tensorrt and board.system_tensorrt:
        yield (
            f"TensorRT is in {board.system_tensorrt}, where this Python does not look. To mend it: "
            "python3 -m venv --system-site-packages .venv"
        )
    elif has_gpu and not has_tensorrt and versions["tensorrt-rtx"] is None:
        mend = "sudo apt-get install python3-libnvinfer" if is_jetson else "pip install tensorrt"
        yield f"There is a GPU here, but no TensorRT to run plans on it. To mend it: {mend}"
    if not has_gpu and not has_tensorrt:
        return
    if not board.gpu_nodes:
        yield (
            "No NVIDIA GPU is to be seen here (no device file such as /dev/nvidia0 or "
            "/dev/nvhost-gpu): no plan runs. A container must be started with it: docker run "
            f"{'--runtime nvidia' if is_jetson else '--gpus all'}"
        )
    if board.libcuda is None:
        package = "nvidia-l4t-cuda" if is_jetson else "nvidia-driver"
        yield (
            "NVIDIA's driver library libcuda.so.1 is not here: no plan runs. To mend it, outside "
            f"of a container: sudo apt-get install {package}"
        )
    yield from _binding_advice(board, versions)
    yield from _version_advice(versions)


def _binding_advice(board: Board, versions: Mapping[str, str | None]) -> Iterator[str]:
    """Python's binding of CUDA; on a Jetson, that of the CUDA which its JetPack has."""
    bindings, jetpack = versions["cuda-bindings"], board.jetpack or ""
    fit = {"6": _CUDA_12, "7": _CUDA_13}.get(jetpack[:1], "'edge-runtime[cuda]'")
    if bindings is None and versions["pycuda"] is None:
        yield (
            "Neither cuda-bindings nor pycuda is installed: no plan runs. To mend it: "
            f"pip install {fit}"
        )
    elif bindings is not None and jetpack[:1] == "6" and _numbers(bindings) >= (13,):
        yield (
            f"cuda-bindings {bindings} is made for CUDA {bindings.partition('.')[0]}, and JetPack "
            f"{jetpack} has CUDA 12. To mend it: pip install {fit}"
        )


def _version_advice(versions: Mapping[str, str | None]) -> Iterator[str]:
    """What the installed TensorRT cannot do, and what it does wrong without a word."""
    tensorrt, numpy = versions["tensorrt"], versions["numpy"]
    if not tensorrt or not _numbers(tensorrt):
        return
    if _numbers(tensorrt) < _OLDEST_TENSORRT:
        yield (
            f"TensorRT {tensorrt} cannot keep the precision of a graph; edge_runtime needs 10.3 "
            "or newer, as JetPack 6.1 has it."
        )
    elif _numbers(tensorrt) < _FIRST_WITH_NUMPY_2 and numpy and _numbers(numpy) >= (2,):
        yield (
            f"numpy {numpy} does not go with the Python bindings of TensorRT {tensorrt}: before "
            "10.16 they read arrays such as weights out of TensorRT as zeros, without an error. "
            "To mend it: pip install 'numpy>=1.26,<2'"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """`(10, 3, 0)` of `10.3.0` or `10.3.0.post1`; empty for what is no version."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
