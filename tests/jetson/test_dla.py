"""A bundle built for the DLA, where there is one, gives what the CPU gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edge_runtime.building import build
from edge_runtime.config import BuildConfig
from edge_runtime.errors import BackendUnavailableError, BuildError, ConfigError
from edge_runtime.gpu_config import TensorRTConfig
from edge_runtime.session import load

if TYPE_CHECKING:
    from tests.conftest import Net

pytestmark = pytest.mark.timeout(900)  # The first waits until TensorRT has built.

CONFIG = BuildConfig(
    backend="tensorrt", profiles={"image": "8x1x16x16"}, tensorrt=TensorRTConfig(dla_core=0)
)


@pytest.fixture(scope="session")
def dla_cores(trt: Any) -> int:
    """How many TensorRT finds."""
    cores: int = trt.Builder(trt.Logger(trt.Logger.ERROR)).num_DLA_cores
    return cores


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_it_comes_close_to_the_cpu(
    dla_cores: int, digits: Net, tmp_path: Path, precision: str
) -> None:
    if not dla_cores:
        pytest.skip("this board, or this TensorRT, has no DLA")
    samples = [{"image": digits.as_input(digits.calibration[i : i + 8])} for i in range(0, 64, 8)]
    config = replace(CONFIG, precision=precision)
    bundle = build(digits.model, config, output=tmp_path / "dla.edge", calibration=samples)
    (key,) = bundle.plans.values()
    assert "dla" in key.traits
    feeds = {"image": digits.as_input(digits.images[:8])}
    with load(bundle, device="tensorrt") as session, load(bundle, device="cpu") as twin:
        found, expected = session.run(feeds)["logits"], twin.run(feeds)["logits"]
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 0.1


def test_without_one_it_is_refused(dla_cores: int, digits: Net, tmp_path: Path) -> None:
    if dla_cores:
        pytest.skip(f"this board has {dla_cores} DLA cores")
    config = replace(CONFIG, precision="fp16")
    with pytest.raises((BackendUnavailableError, BuildError, ConfigError), match="DLA"):
        build(digits.model, config, output=tmp_path / "dla.edge")
