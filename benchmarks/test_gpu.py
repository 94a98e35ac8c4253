"""What an inference on a GPU costs the host, on the software GPU, whose engine takes no time."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.gpu_config import GpuConfig

CALLS = 50


@pytest.mark.skipif(find_spec("cuda") is None, reason="cuda-bindings is not installed")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc, which builds the GPU, is not there")
def test_gpu_inference(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against two copies, the engine's launch and an event by the same binding."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "scripts" / "benchmarks"))
    import gpu_runtime  # It loads the software GPU, before anything opens libcuda.

    gpu_runtime.GPU.reset()
    gpu_runtime.GPU.mode("late", lag_us=0)
    device = gpu_runtime.open_device("cuda-bindings")
    config = GpuConfig(spin=True)
    loaded = gpu_runtime.engine(device, gpu_runtime.four_tensors(), config, null=True)
    context = loaded.create_context()
    least = gpu_runtime.bare(device, loaded._resources.engine.create_execution_context())
    feeds = {name: np.ones((1, 16), np.float32) for name in "ab"}

    def call() -> None:
        context.enqueue(feeds)
        context.wait()

    pair(
        lambda: [call() for _ in range(CALLS)],
        lambda: [least() for _ in range(CALLS)],
        rounds=40,
    )
    context.close()
    loaded.close()
