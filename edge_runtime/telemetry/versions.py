"""Versions of the libraries that decide what runs and how fast; nothing is imported for them."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

from edge_runtime.version import __version__

DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "numpy": ("numpy",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "onnx": ("onnx",),
    "pydantic": ("pydantic",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt-rtx": ("tensorrt-rtx-cu12-bindings", "tensorrt-rtx-cu13-bindings"),
    "pycuda": ("pycuda",),
    "cuda-bindings": ("cuda-bindings",),
}
"""Library to the distributions that bring it; their metadata tells the version, unimported."""

_WITHOUT_METADATA = {"opencv": "cv2", "tensorrt": "tensorrt"}
"""Library to its module where some packages of it may carry no metadata, as apt's OpenCV."""


def installed_versions() -> dict[str, str | None]:
    """Version by library; None where it is not installed, `unknown` where it has no metadata."""
    others = {library: _version(library) for library in DISTRIBUTIONS}
    return {"edge-runtime": __version__, **others}


def _version(library: str) -> str | None:
    for distribution in DISTRIBUTIONS[library]:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    module = _WITHOUT_METADATA.get(library)
    return "unknown" if module and find_spec(module) else None
