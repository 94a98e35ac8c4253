"""TensorRT-RTX itself. It has wheels for Linux x86-64, and there it must be: no skip hides it."""

from __future__ import annotations

import platform
import sys
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def rtx() -> Any:
    """The backend's module."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("TensorRT-RTX (the extra rtx) has wheels for Linux x86-64 only")
    from edge_runtime.backends import tensorrt_rtx

    return tensorrt_rtx
