"""Loading plans: what a plan is told, what is asked of it, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_runtime.backends.tensorrt.runtime import TensorRTRuntime
from edge_runtime.cuda.device import open_device
from edge_runtime.errors import BundleError, ConfigError, InferenceError
from edge_runtime.gpu_config import GpuConfig
from edge_runtime.tensors import TensorSpec
from tests.software_gpu.runtime.conftest import BATCHES, Bench, affine, ramp, run, several

PAIR = {"a": "1x3,2x3,9x3", "b": "1x3,2x3,9x3"}


def specs(*names: str) -> list[TensorSpec]:
    return [TensorSpec(name, "float32", (-1, 3)) for name in names]


def test_the_order_of_the_bundle_is_kept(bench: Bench) -> None:
    plan = bench.plan(several(), [PAIR])
    runtime = TensorRTRuntime(bench.trt, bench.device)
    inputs, outputs = specs("b", "a"), specs("gap", "sum")
    engine = runtime.load(plan.data, key=plan.key, inputs=inputs, outputs=outputs)
    context = engine.create_context()
    bench.opened.extend([engine, context])
    assert [spec.name for spec in engine.inputs] == ["b", "a"]
    assert [spec.name for spec in engine.outputs] == ["gap", "sum"]
    a, b = np.full((4, 3), 5, np.float32), np.full((4, 3), 3, np.float32)
    for found in (run(context, a=a, b=b), run(context, b=b, a=a)):
        assert list(found) == ["gap", "sum"]
        np.testing.assert_array_equal(found["gap"], a - b)
        np.testing.assert_array_equal(found["sum"], a + b)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["a", "b"], ["sum"]),
        (["a"], ["sum", "gap"]),
        (["a", "b"], ["sum", "gap", "more"]),
        (["a", "b"], ["sum", "other"]),
    ],
)
def test_tensors_other_than_the_bundles_are_refused(
    bench: Bench, inputs: list[str], outputs: list[str]
) -> None:
    plan = bench.plan(several(), [PAIR])
    runtime = TensorRTRuntime(bench.trt, bench.device)
    with pytest.raises(BundleError, match="not one of this bundle's graph"):
        runtime.load(plan.data, inputs=specs(*inputs), outputs=specs(*outputs))


def test_a_rank_other_than_the_bundles_is_refused(bench: Bench) -> None:
    plan = bench.plan(affine(), [BATCHES])
    runtime = TensorRTRuntime(bench.trt, bench.device)
    for shape in ((-1,), (-1, 4, 1)):
        with pytest.raises(BundleError, match="not one of this bundle's graph"):
            runtime.load(plan.data, inputs=[TensorSpec("x", "float32", shape)])


def test_a_plan_of_the_other_library_is_refused_before_it_is_loaded(bench: Bench) -> None:
    plan = bench.plan(affine(), [BATCHES])
    loads = bench.trt.calls["Runtime.deserialize_cuda_engine"]
    runtime = TensorRTRuntime(bench.trt, bench.device)
    with pytest.raises(BundleError, match="made by tensorrt 10"):
        runtime.load(plan.data, key=replace(plan.key, backend="tensorrt-rtx"))
    assert bench.trt.calls["Runtime.deserialize_cuda_engine"] == loads


def test_host_code_is_allowed_to_the_plans_that_need_it_alone(bench: Bench) -> None:
    engine = bench.engine(affine(), [BATCHES], version_compatible=True)
    assert engine._runtime.engine_host_code_allowed
    assert not bench.engine(affine(), [BATCHES])._runtime.engine_host_code_allowed
    plan = bench.plan(affine(), [BATCHES], version_compatible=True)
    with pytest.raises(BundleError, match="host code"):
        TensorRTRuntime(bench.trt, bench.device).load(plan.data, key=replace(plan.key, traits=()))


def test_a_plan_for_a_dla_gets_its_core(bench: Bench) -> None:
    bench.trt.options.dla_cores = 2
    plan = bench.plan(affine(), [BATCHES])
    plan = replace(plan, key=replace(plan.key, traits=("dla",)))
    for core in (0, 1):
        runtime = TensorRTRuntime(bench.trt, bench.device, GpuConfig(dla_core=core))
        engine = runtime.load(plan.data, key=plan.key)
        bench.opened.append(engine)
        assert engine._runtime.DLA_core == core
    assert bench.engine(affine(), [BATCHES])._runtime.DLA_core == -1
    bench.trt.options.dla_cores = 1
    with pytest.raises(ConfigError, match="1 DLA core"):
        runtime.load(plan.data, key=plan.key)


@pytest.mark.parametrize("budget", [0, 4])
def test_the_budget_of_weights_is_the_plans(bench: Bench, budget: int) -> None:
    config = GpuConfig(weight_budget=budget)
    engine = bench.engine(affine(), [BATCHES], config, weight_streaming=True)
    assert engine._resources is not None
    assert engine._resources.engine.weight_streaming_budget_v2 == budget


@pytest.mark.parametrize(
    ("kind", "method"),
    [("Refitter", "refit_cuda_engine"), ("OnnxParserRefitter", "refit_from_bytes")],
)
def test_weights_that_tensorrt_does_not_take(bench: Bench, kind: str, method: str) -> None:
    with (
        bench.refusing(kind, method, False),
        pytest.raises(BundleError, match=r"weights of the bundle's graph: the reason"),
    ):
        bench.engine(affine(), [BATCHES], strip_weights=True)
    assert bench.gpu.live() == []


def test_host_memory_is_mapped_only_where_the_gpu_can(bench: Bench) -> None:
    plan = bench.plan(affine(), [BATCHES])
    info = replace(bench.device.info, maps_host_memory=False)
    bench.device.close()
    device = open_device(bench.device.driver)
    device.info = info
    with pytest.raises(ConfigError, match="Software GPU cannot work on host memory"):
        TensorRTRuntime(bench.trt, device, GpuConfig(mapped=True)).load(plan.data)
    device.close()


def test_a_layout_that_is_not_row_major_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = bench.trt.TensorFormat.CHW4
    monkeypatch.setattr(bench.trt.ICudaEngine, "get_tensor_format", lambda *_: packed)
    with pytest.raises(BundleError, match="'x' is not in plain row-major order"):
        bench.engine(affine(), [BATCHES])


def test_a_closed_engine_makes_no_contexts(bench: Bench) -> None:
    engine = bench.engine(affine(), [BATCHES])
    run(engine_context := engine.create_context(), x=ramp(1))
    engine_context.close()
    engine.close()
    engine.close()
    with pytest.raises(InferenceError, match="engine is closed"):
        engine.create_context()
    assert bench.gpu.live() == []


def test_the_engine_goes_before_its_runtime(bench: Bench, monkeypatch: Any) -> None:
    engine = bench.engine(affine(), [BATCHES])
    context = engine.create_context()
    context.close()
    gone: list[str] = []
    for name in ("ICudaEngine", "Runtime"):
        real = getattr(bench.trt, name).__del__
        monkeypatch.setattr(
            getattr(bench.trt, name),
            "__del__",
            lambda this, name=name, real=real: (gone.append(name), real(this))[1],
        )
    engine.close()
    assert gone == ["ICudaEngine", "Runtime"]
