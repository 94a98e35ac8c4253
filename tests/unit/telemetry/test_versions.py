"""Versions of libraries, from their metadata alone."""

from __future__ import annotations

from importlib import metadata

import pytest

from edge_runtime.telemetry import versions
from edge_runtime.version import __version__


def test_each_library_has_a_version_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"numpy": "2.1", "onnxruntime-gpu": "1.23", "opencv-python": "4.11"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(versions.metadata, "version", version)
    monkeypatch.setattr(versions, "find_spec", lambda name: name == "tensorrt" or None)
    found = versions.installed_versions()
    assert found["edge-runtime"] == __version__
    assert {name: found[name] for name in ("numpy", "onnxruntime", "opencv", "onnx")} == {
        "numpy": "2.1",
        "onnxruntime": "1.23",
        "opencv": "4.11",
        "onnx": None,
    }
    assert found["tensorrt"] == "unknown"
