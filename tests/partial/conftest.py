"""For tests in an environment with a part of the extras only, which `nox -s partial` makes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def bundle() -> Path:
    """A bundle of the digits net that an environment with all extras built."""
    return Path(os.environ["EDGE_RUNTIME_TEST_BUNDLE"])


@pytest.fixture
def images(tmp_path: Path, digits: object) -> Path:
    """The digits net's test pictures, as it takes them: float32 [300, 1, 16, 16]."""
    path = tmp_path / "images.npy"
    np.save(path, digits.as_input(digits.images))
    return path


@pytest.fixture
def edge_runtime(tmp_path: Path) -> Run:
    """Runs the command in an empty folder, away from the sources."""
    command = Path(sys.executable).with_name("edge-runtime")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [str(command), *map(str, arguments)]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run
