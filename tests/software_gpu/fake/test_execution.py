"""What an engine of the fake does on the software GPU, and what it refuses."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numpy as np
import onnx
import pytest

from tests.fakes.tensorrt import labels
from tests.fakes.tensorrt.graph import digest
from tests.software_gpu.fake.conftest import CONV, PROFILE, Cuda, Lab, X, Y
from tests.software_gpu.gpu import SoftwareGpu

HALF = """<ir_version: 10, opset_import: ["" : 20]>
g (float16[4] x) => (float16[4] y) <float16 two = {16384}> { [m] y = Mul(x, two) }"""


def ready(lab: Lab, cuda: Cuda, *strategy: Any) -> tuple[Any, int, int]:
    """A context whose shapes and addresses are set, with x uploaded; its x and y."""
    context = lab.engine(CONV, PROFILE).create_execution_context(*strategy)
    x, y = cuda.alloc(X.nbytes), cuda.alloc(Y.nbytes)
    cuda.put(x, X)
    assert context.set_input_shape("x", X.shape)
    assert context.set_tensor_address("x", x)
    assert context.set_tensor_address("y", y)
    return context, x, y


@pytest.mark.parametrize("version", labels())
@pytest.mark.parametrize("mode", ["lazy", "late", "timed"])
def test_every_version_computes(gpu: SoftwareGpu, cuda: Cuda, version: str, mode: str) -> None:
    gpu.mode(mode)
    if version.startswith("rtx"):
        gpu.identity(capability=(8, 6))
    lab = Lab(version, gpu)
    context, _, y = ready(lab, cuda)
    stream = cuda.stream()
    assert context.infer_shapes() == []
    assert tuple(context.get_tensor_shape("y")) == Y.shape
    assert context.execute_async_v3(stream)
    assert cuda.sync(stream) == 0
    np.testing.assert_allclose(cuda.get(y, Y.shape), Y, rtol=1e-5)
    assert lab.trt.violations == []


def test_an_output_read_before_the_stream_was_waited_for_is_wrong(
    gpu: SoftwareGpu, cuda: Cuda, lab: Lab
) -> None:
    gpu.mode("lazy")
    context, _, y = ready(lab, cuda)
    stream = cuda.stream()
    assert context.execute_async_v3(stream)
    early = ctypes.string_at(y, Y.nbytes)
    cuda.sync(stream)
    assert early != cuda.get(y, Y.shape).tobytes()


def test_an_input_overwritten_too_early_is_what_is_computed(
    gpu: SoftwareGpu, cuda: Cuda, lab: Lab
) -> None:
    gpu.mode("lazy")
    context, x, y = ready(lab, cuda)
    stream = cuda.stream()
    assert context.execute_async_v3(stream)
    ctypes.memset(x, 0, X.nbytes)
    cuda.sync(stream)
    assert not cuda.get(y, Y.shape).any()


def test_addresses_are_those_of_the_enqueue(gpu: SoftwareGpu, cuda: Cuda, lab: Lab) -> None:
    gpu.mode("lazy")
    context, _, y = ready(lab, cuda)
    stream, other = cuda.stream(), cuda.alloc(Y.nbytes)
    assert context.execute_async_v3(stream)
    assert context.set_tensor_address("y", other)
    assert context.execute_async_v3(stream)
    cuda.sync(stream)
    for address in (y, other):
        np.testing.assert_allclose(cuda.get(address, Y.shape), Y, rtol=1e-5)


def test_what_is_refused_returns_false_and_says_why(cuda: Cuda, lab: Lab) -> None:
    context = lab.engine(CONV, PROFILE).create_execution_context()
    stream, x = cuda.stream(), cuda.alloc(4096)
    for call, words in (
        (lambda: context.execute_async_v3(stream), "Not specified: x"),
        (lambda: context.set_input_shape("x", (9, 3, 8, 8)), "satisfyProfile"),
        (lambda: context.set_input_shape("x", (1, 4, 8, 8)), "Static dimension mismatch"),
        (lambda: context.set_input_shape("z", (1,)), "invalid tensor name"),
        (lambda: context.set_tensor_address("x", x + 4), "aligned"),
        (lambda: context.set_optimization_profile_async(1, stream), "profile 1"),
        (lambda: context.set_input_shape("x", X.shape) and context.execute_async_v3(stream),
         "Neither address or allocator"),
    ):  # fmt: skip
        lab.errors.clear()
        assert call() is False
        assert words in lab.errors[0]
    assert context.infer_shapes() == []


def test_the_default_stream_is_a_violation(cuda: Cuda, gpu: SoftwareGpu, lab: Lab) -> None:
    context, _, _ = ready(lab, cuda)
    context.execute_async_v3(0)
    cuda.call("cuCtxSynchronize")
    gpu.violations(forget=True)
    assert lab.trt.violations == ["enqueueV3 on the default stream."]
    lab.trt.violations.clear()


def test_a_context_destroyed_while_it_runs_is_a_violation(
    gpu: SoftwareGpu, cuda: Cuda, lab: Lab
) -> None:
    gpu.mode("lazy")
    context, _, _ = ready(lab, cuda)
    stream = cuda.stream()
    assert context.execute_async_v3(stream)
    del context
    cuda.sync(stream)
    assert any("destroyed while its work" in line for line in lab.trt.violations)
    lab.trt.violations.clear()
    gpu.violations(forget=True)


def test_the_first_enqueue_after_a_shape_change_cannot_be_captured(cuda: Cuda, lab: Lab) -> None:
    context, _, y = ready(lab, cuda, lab.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    context.set_device_memory(cuda.alloc(4096), 4096)
    stream, graph, made = cuda.stream(), ctypes.c_void_p(), ctypes.c_void_p()
    handle = ctypes.c_void_p(stream)
    assert cuda.call("cuStreamBeginCapture_v2", handle, 2) == 0
    assert context.execute_async_v3(stream) is False
    assert cuda.call("cuStreamEndCapture", handle, ctypes.byref(graph)) != 0
    assert context.execute_async_v3(stream)
    assert cuda.call("cuStreamBeginCapture_v2", handle, 2) == 0
    assert context.execute_async_v3(stream)
    assert cuda.call("cuStreamEndCapture", handle, ctypes.byref(graph)) == 0
    assert (
        cuda.call("cuGraphInstantiateWithFlags", ctypes.byref(made), graph, ctypes.c_ulonglong(0))
        == 0
    )
    for _ in range(2):
        cuda.put(y, np.zeros_like(Y))
        assert cuda.call("cuGraphLaunch", made, handle) == 0
        cuda.sync(stream)
        np.testing.assert_allclose(cuda.get(y, Y.shape), Y, rtol=1e-5)
    context = None
    assert cuda.call("cuGraphLaunch", made, handle) == 0
    cuda.sync(stream)
    assert "after its execution context was destroyed" in lab.trt.violations.pop()
    assert cuda.call("cuGraphExecDestroy", made) == 0
    assert cuda.call("cuGraphDestroy", graph) == 0


def test_contexts_that_share_scratch_at_a_time_spoil_each_other(
    gpu: SoftwareGpu, cuda: Cuda, lab: Lab
) -> None:
    engine = lab.engine(CONV, PROFILE)
    strategy = lab.trt.ExecutionContextAllocationStrategy.USER_MANAGED
    size = engine.device_memory_size_v2
    shared, wrong = cuda.alloc(size), 0
    runs = []
    for _ in range(2):
        context = engine.create_execution_context(strategy)
        x, y = cuda.alloc(X.nbytes), cuda.alloc(Y.nbytes)
        cuda.put(x, X)
        context.set_input_shape("x", X.shape)
        context.set_tensor_address("x", x)
        context.set_tensor_address("y", y)
        stream = cuda.stream()
        assert context.execute_async_v3(stream) is False  # No memory yet.
        context.set_device_memory(shared, size)
        runs.append((context, stream, y))
    for _ in range(20):
        for context, stream, _ in runs:
            assert context.execute_async_v3(stream)
        for _, stream, y in runs:
            cuda.sync(stream)
            wrong += not np.allclose(cuda.get(y, Y.shape), Y)
    assert wrong
    assert all("race" in line for line in gpu.violations(forget=True))
    for context, stream, y in runs:  # One after the other they do not.
        assert context.execute_async_v3(stream)
        cuda.sync(stream)
        np.testing.assert_allclose(cuda.get(y, Y.shape), Y, rtol=1e-5)


def test_two_profiles(cuda: Cuda, lab: Lab) -> None:
    big = {"x": ((8, 3, 8, 8), (8, 3, 8, 8), (16, 3, 8, 8))}
    context = lab.engine(CONV, PROFILE, big).create_execution_context()
    stream = cuda.stream()
    assert not context.set_input_shape("x", (8, 3, 8, 8))
    assert context.set_optimization_profile_async(1, stream)
    assert context.active_optimization_profile == 1
    assert context.set_input_shape("x", (8, 3, 8, 8))


def test_a_plan_of_another_gpu_or_version_is_refused(gpu: SoftwareGpu, lab: Lab) -> None:
    plan = lab.plan(CONV, PROFILE)
    newer = Lab("10.7.0", gpu)
    assert newer.runtime.deserialize_cuda_engine(plan) is None
    assert "Version tag does not match" in newer.errors[0]
    gpu.identity(capability=(7, 2))
    assert lab.runtime.deserialize_cuda_engine(plan) is None
    assert "expecting compute 7.2 got compute 8.7" in lab.errors[0]


def test_out_of_memory(gpu: SoftwareGpu, lab: Lab) -> None:
    plan = lab.plan(CONV, PROFILE)
    gpu.fail("cuMemAlloc", nth=1)
    assert lab.runtime.deserialize_cuda_engine(plan) is None
    engine = lab.runtime.deserialize_cuda_engine(plan)
    gpu.fail("cuMemAlloc", nth=1)
    assert engine.create_execution_context() is None
    assert "OutOfMemory" in lab.errors[-1]


def test_a_graph_in_half_precision_computes_with_its_twin(gpu: SoftwareGpu, cuda: Cuda) -> None:
    half = onnx.parser.parse_model(HALF)
    twin = onnx.parser.parse_model(HALF.replace("float16", "float").replace("16384", "2"))
    name = digest(half.SerializeToString())
    for graphs, factor in (({}, 2), ({name: twin.SerializeToString()}, 2)):
        lab = Lab("11.4.0.106", gpu, graphs=graphs)
        engine = lab.engine(HALF)
        assert engine.get_tensor_dtype("x") == lab.trt.DataType.HALF
        context, stream = engine.create_execution_context(), cuda.stream()
        x, y = cuda.alloc(8), cuda.alloc(8)
        cuda.put(x, np.arange(4, dtype=np.float16))
        context.set_tensor_address("x", x)
        context.set_tensor_address("y", y)
        assert context.execute_async_v3(stream)
        cuda.sync(stream)
        assert (cuda.get(y, (4,), "f2") == np.arange(4) * factor).all()
        assert lab.trt.violations == []


def test_an_enqueue_that_fails_on_request(gpu: SoftwareGpu, cuda: Cuda, lab: Lab) -> None:
    context, _, _ = ready(lab, cuda)
    stream = cuda.stream()
    lab.trt.options.fail_enqueue = 2
    assert [context.execute_async_v3(stream) for _ in range(3)] == [True, False, True]
    cuda.sync(stream)


def test_a_null_engine_costs_no_computing(gpu: SoftwareGpu, cuda: Cuda) -> None:
    lab = Lab("10.3.0", gpu, null=True)
    context, _, y = ready(lab, cuda)
    stream, before = cuda.stream(), cuda.get(y, Y.shape).tobytes()
    for _ in range(3):
        assert context.execute_async_v3(stream)
    cuda.sync(stream)
    assert cuda.get(y, Y.shape).tobytes() == before
    assert gpu.calls()["launch"] == 3


def test_an_engine_takes_its_time(gpu: SoftwareGpu, cuda: Cuda) -> None:
    gpu.mode("timed")
    lab = Lab("10.3.0", gpu, seconds=0.02, null=True)
    context, _, _ = ready(lab, cuda)
    stream, start = cuda.stream(), time.monotonic()
    for _ in range(3):
        assert context.execute_async_v3(stream)
    cuda.sync(stream)
    assert time.monotonic() - start >= 0.06
