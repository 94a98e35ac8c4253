"""`edge-runtime bench` on a machine that has a TensorRT and a GPU, both pretended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Net
from tests.software_gpu.test_command_line import SHAPES, command, prepared

__all__ = ["command", "prepared"]  # Fixtures.

SHORT = ("--duration", "0.05", "--warmup", "10", "--iterations", "3")


@pytest.fixture
def bundle(command: Any, prepared: Path, digits: Net) -> str:
    built = ("--precision", "fp32", "--backend", "tensorrt", *SHAPES)
    command("build", str(digits.model), "-o", "digits.edge", *built)
    return "digits.edge"


def test_the_gpus_clock_times_every_part(command: Any, prepared: Path, bundle: str) -> None:
    options = ("--export-times", "t.json", "--streams", "2")
    ten = command("bench", bundle, *SHORT, *options)
    samples = ten["samples"]
    assert ten["subject"]["backend"] == "tensorrt"
    assert ten["subject"]["cpu_mode"] is None
    for latency, *parts in zip(
        samples["latency"], samples["compute"], samples["h2d"], samples["d2h"], strict=True
    ):
        assert latency == pytest.approx(sum(parts))
    rows = json.loads((prepared / "t.json").read_text())
    assert len(rows) == len(samples["start"])
    for row in rows:
        assert row["startH2dMs"] <= row["startComputeMs"] <= row["startD2hMs"]
        assert row["endH2dMs"] - row["startH2dMs"] == pytest.approx(row["h2dMs"])
    eleven = command("bench", bundle, *SHORT, "--protocol", "trtexec11")
    assert eleven["samples"]["h2d"] is eleven["samples"]["d2h"] is None
    assert eleven["samples"]["latency"] == eleven["samples"]["compute"]


@pytest.mark.parametrize("protocol", ["single-stream", "offline"])
def test_scenarios_run_on_a_gpu(command: Any, bundle: str, protocol: str) -> None:
    found = command("bench", bundle, *SHORT, "--protocol", protocol, "--cuda-graph")
    assert found["subject"]["backend"] == "tensorrt"
    assert found["summary"]["queries"] >= 3
