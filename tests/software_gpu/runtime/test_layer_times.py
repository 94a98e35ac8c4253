"""The time of each layer: asked of a session, and measured when a plan was built."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto

from edge_runtime.backends.tensorrt.builder import TensorRTBuilder
from edge_runtime.backends.tensorrt.measure import layer_milliseconds
from edge_runtime.config import BuildConfig, OptimizationProfile
from edge_runtime.errors import SessionClosedError
from edge_runtime.gpu_config import GpuConfig
from edge_runtime.session import Session
from tests.software_gpu.runtime.conftest import BATCHES, Bench, affine, ramp, tiled

LAYERS = {"twice", "y"}


def profiles(shapes: dict[str, str]) -> tuple[OptimizationProfile, ...]:
    return BuildConfig(profiles=shapes).profiles


def test_a_session_times_layers_and_goes_on(bench: Bench) -> None:
    engine = bench.engine(affine(), [BATCHES])
    bench.opened.remove(engine)
    with Session(engine, backend="tensorrt") as session:
        times = session.layer_times({"x": ramp(2)}, runs=3)
        assert {time.name for time in times} == LAYERS
        assert all(len(time.milliseconds) == 3 for time in times)
        assert all(min(time.milliseconds) >= 0 for time in times)
        np.testing.assert_array_equal(session.run({"x": ramp(2)})["y"], 2 * ramp(2) + 1)
    with pytest.raises(SessionClosedError):
        session.layer_times({"x": ramp(2)})


@pytest.mark.parametrize(("net", "shapes"), [(affine, BATCHES), (tiled, {"rows": "1x4,2x4,8x4"})])
def test_layers_are_measured_at_the_usual_shapes(
    bench: Bench, net: Callable[[], ModelProto], shapes: dict[str, str]
) -> None:
    graph = net().SerializeToString()
    plan = bench.plan(net(), [shapes])
    times = layer_milliseconds(
        bench.trt,
        bench.device,
        plan,
        graph=graph,
        profiles=profiles(shapes),
        config=GpuConfig(),
    )
    assert times
    assert all(milliseconds >= 0 for milliseconds in times.values())


def test_a_verdict_has_the_time_of_each_precision(bench: Bench) -> None:
    plan = bench.plan(affine(), [BATCHES])
    builder = TensorRTBuilder(bench.trt, plan.key, device=bench.device)
    verdict = builder.build(affine().SerializeToString(), profiles(BATCHES)).verdict
    assert verdict is not None
    assert verdict["milliseconds"].keys() == {"FP32"}
    assert verdict["notes"] == []


def test_a_verdict_says_why_layers_were_not_timed(bench: Bench) -> None:
    plan = bench.plan(affine(), [BATCHES])
    builder = TensorRTBuilder(bench.trt, plan.key, device=bench.device)
    bench.gpu.fail("cuStreamCreate", error=2)
    verdict = builder.build(affine().SerializeToString(), profiles(BATCHES)).verdict
    assert verdict is not None
    assert "milliseconds" not in verdict
    (note,) = verdict["notes"]
    assert note.startswith("The layers were not timed: cuStreamCreate failed")
