"""Says what this machine can build and run, and what to do about what it cannot."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_runtime.backends.registry import Availability, availability
from edge_runtime.board import Board, read_board

_DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "edge-runtime": ("edge-runtime",),
    "numpy": ("numpy",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "onnx": ("onnx",),
    "pydantic": ("pydantic",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt-rtx": ("tensorrt-rtx-cu12-bindings", "tensorrt-rtx-cu13-bindings"),
    "pycuda": ("pycuda",),
    "cuda-bindings": ("cuda-bindings",),
}
"""Library to the distributions that bring it; their metadata tells the version, unimported."""

_WITHOUT_METADATA = {"opencv": "cv2"}
"""Library to its module where some packages of it carry no metadata, as apt's OpenCV does not."""

_EXTRAS = (("build", "onnx", "build and check"), ("vision", "opencv", "read pictures"))

_NO_DOT_PRODUCTS = (
    "This CPU has no VNNI: ONNX Runtime's default INT8 kernels add products in 16 bits here and "
    "saturate, which costs accuracy. edge_runtime runs its bundles in exact mode, which does not "
    "use those kernels; INT8 is not faster than FP32 on this CPU."
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What this machine is, has and can do.

    Attributes:
        board: Facts of the machine.
        python: Version of the interpreter.
        versions: Version by library; None where it is not installed, `unknown` where it is but
            carries no metadata.
        backends: What can be built and run here, best first.
        advice: What limits this machine and the command that mends it, one sentence or two each.
    """

    board: Board
    python: str
    versions: Mapping[str, str | None]
    backends: tuple[Availability, ...]
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as plain JSON values."""
        return {
            "board": self.board.to_json(),
            "python": self.python,
            "versions": dict(self.versions),
            "backends": [asdict(backend) for backend in self.backends],
            "advice": list(self.advice),
        }


def diagnose(root: Path = Path("/")) -> Diagnosis:
    """Examines this machine. Nothing is imported, built or run for it.

    Args:
        root: Where the file tree of the machine begins; versions and backends are always those of
            this interpreter.
    """
    board = read_board(root)
    versions = {library: _version(library) for library in _DISTRIBUTIONS}
    return Diagnosis(
        board=board,
        python=platform.python_version(),
        versions=versions,
        backends=availability(),
        advice=tuple(_advice(board, versions)),
    )


def _version(library: str) -> str | None:
    for distribution in _DISTRIBUTIONS[library]:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    module = _WITHOUT_METADATA.get(library)
    return "unknown" if module and find_spec(module) else None


def _advice(board: Board, versions: Mapping[str, str | None]) -> list[str]:
    advice = [
        f"{library} is not installed: edge_runtime cannot {purpose} here. "
        f"To mend it: pip install 'edge-runtime[{extra}]'"
        for extra, library, purpose in _EXTRAS
        if versions[library] is None
    ]
    if board.architecture == "x86_64" and not board.has_int8_dot_products:
        advice.append(_NO_DOT_PRODUCTS)
    if board.system_tensorrt and versions["tensorrt"] is None:
        advice.append(
            f"TensorRT is in {board.system_tensorrt}, where this Python does not look. To mend it: "
            "python3 -m venv --system-site-packages .venv"
        )
    if board.l4t and board.jetpack is None:
        advice.append(
            f"Jetson Linux {board.l4t} is newer than this version of edge_runtime, or unusual: "
            "which JetPack it belongs to is not known here."
        )
    return advice
