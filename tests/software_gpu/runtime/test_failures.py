"""A GPU that fails: the error is the driver's own, nothing leaks, and what can go on does."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

from edge_runtime.backends.tensorrt.logger import ThreadErrors
from edge_runtime.backends.tensorrt.runtime import TensorRTRuntime
from edge_runtime.errors import BundleError, ConfigError, DeviceError, InferenceError
from edge_runtime.gpu_config import GpuConfig
from tests.software_gpu.gpu import MEMORY
from tests.software_gpu.runtime.conftest import (
    BATCHES,
    Bench,
    affine,
    nonzero,
    ramp,
    run,
    several,
)

OUT_OF_MEMORY, LAUNCH_FAILED = 2, 719


@pytest.mark.parametrize(
    "config", [GpuConfig(), GpuConfig(share_memory=True), GpuConfig(cuda_graphs=True)]
)
@pytest.mark.parametrize(
    "call", ["cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate"]
)
def test_whichever_allocation_fails_nothing_leaks(
    bench: Bench, call: str, config: GpuConfig
) -> None:
    plan = bench.plan(affine(), [BATCHES])
    for nth in itertools.count(1):
        bench.gpu.fail(call, nth=nth, error=OUT_OF_MEMORY)
        before = bench.gpu.calls().get(call, 0)
        engine = context = None
        failed = True
        try:
            engine = TensorRTRuntime(bench.trt, bench.device, config).load(plan.data, key=plan.key)
            context = engine.create_context()
            for rows in (1, 64, 64, 64):
                np.testing.assert_array_equal(run(context, x=ramp(rows))["y"], 2 * ramp(rows) + 1)
            failed = False
        except DeviceError as error:
            assert (error.code, error.name) == (OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY")
        except (BundleError, InferenceError) as error:  # It was TensorRT that did not get it.
            assert "OutOfMemory" in str(error)
        finally:
            bench.gpu.fail(call, nth=0)
            if context is not None:
                context.close()
            if engine is not None:
                engine.close()
        assert bench.gpu.live() == []
        if bench.gpu.calls().get(call, 0) - before < nth:
            break
        # pycuda itself asks for device memory a second time, after collecting garbage.
        assert failed or (bench.device.driver, call) == ("pycuda", "cuMemAlloc")
    assert nth > 1


@pytest.mark.parametrize("call", ["cuMemAlloc", "cuMemHostAlloc"])
def test_a_context_goes_on_after_it_ran_out_of_memory(bench: Bench, call: str) -> None:
    context = bench.context(affine(), [BATCHES])
    run(context, x=ramp(2))
    for nth in (1, 2):  # pycuda asks for device memory a second time.
        bench.gpu.fail(call, nth=nth, error=OUT_OF_MEMORY)
    with pytest.raises(DeviceError) as caught:
        run(context, x=ramp(64))
    assert caught.value.code == OUT_OF_MEMORY
    bench.gpu.fail(call, nth=0)
    np.testing.assert_array_equal(run(context, x=ramp(2))["y"], 2 * ramp(2) + 1)
    np.testing.assert_array_equal(run(context, x=ramp(64))["y"], 2 * ramp(64) + 1)


@pytest.mark.usefixtures("mode")
def test_memory_that_tensorrt_asks_for_and_does_not_get(bench: Bench) -> None:
    context = bench.context(nonzero(64))
    few = np.eye(2, 64, dtype=np.float32)
    for _ in range(2):  # Where it has some that is too small, and where it has none.
        np.testing.assert_array_equal(run(context, x=few)["where"], np.stack(np.nonzero(few)))
        bench.gpu.memory(1)
        with pytest.raises(DeviceError) as caught:
            run(context, x=np.ones((2, 64), np.float32))
        assert (caught.value.code, caught.value.call) == (OUT_OF_MEMORY, "cuMemAlloc")
        bench.gpu.memory(MEMORY)
    assert run(context, x=np.ones((2, 64), np.float32))["where"].shape == (2, 128)


def test_an_engine_that_cannot_run_for_the_gpu_is_lost(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    kept = context.run_on_device({"x": ramp(2)})["y"]
    context.enqueue({"x": kept})
    context.wait()
    bench.gpu.lose_device()
    with pytest.raises(DeviceError):  # And not that TensorRT did not run the engine.
        context.enqueue({"x": kept})
    kept.close()


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("config", [GpuConfig(), GpuConfig(cuda_graphs=True)])
def test_a_kernel_that_fails_is_told_by_wait(bench: Bench, config: GpuConfig) -> None:
    engine = bench.engine(affine(), [BATCHES], config)
    context, other = engine.create_context(), engine.create_context()
    bench.opened.extend([context, other])
    for _ in range(3):
        run(context, x=ramp(2))
    bench.gpu.fail_launch(error=LAUNCH_FAILED)
    with pytest.raises(DeviceError) as caught:
        run(context, x=ramp(2))
    assert (caught.value.code, caught.value.name) == (LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED")
    assert caught.value.call.startswith("cu")
    for each in (context, other):  # The driver's context is lost for good.
        with pytest.raises(DeviceError):
            run(each, x=ramp(2))


@pytest.mark.parametrize(
    "call",
    [
        "cuMemcpyHtoDAsync",
        "cuMemcpyDtoHAsync",
        "cuEventRecord",
        "cuEventSynchronize",
        "cuCtxPushCurrent",
    ],
)
def test_every_driver_call_is_checked(bench: Bench, call: str) -> None:
    context = bench.context(affine(), [BATCHES])
    run(context, x=ramp(2))
    bench.gpu.fail(call, error=999)
    with pytest.raises(DeviceError) as caught:
        run(context, x=ramp(2))
    assert caught.value.code == 999
    assert call in caught.value.call
    np.testing.assert_array_equal(run(context, x=ramp(3))["y"], 2 * ramp(3) + 1)


@pytest.mark.parametrize("call", ["cuStreamBeginCapture", "cuGraphInstantiate", "cuGraphLaunch"])
def test_a_graph_that_fails_is_told_and_tried_again(bench: Bench, call: str) -> None:
    context = bench.context(affine(), [BATCHES], GpuConfig(cuda_graphs=True))
    run(context, x=ramp(2))
    bench.gpu.fail(call, error=999)
    with pytest.raises(DeviceError) as caught:
        run(context, x=ramp(2))
    assert caught.value.code == 999
    for start in range(3):
        np.testing.assert_array_equal(run(context, x=ramp(2, start))["y"], 2 * ramp(2, start) + 1)


def test_an_engine_that_cannot_be_captured(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES], GpuConfig(cuda_graphs=True))
    run(context, x=ramp(2))
    refusing = bench.refusing("IExecutionContext", "execute_async_v3", False)
    with refusing, pytest.raises(InferenceError, match=r"captured in a CUDA graph.*the reason"):
        run(context, x=ramp(2, 1))
    for start in range(4):
        np.testing.assert_array_equal(run(context, x=ramp(2, start))["y"], 2 * ramp(2, start) + 1)


@pytest.mark.parametrize(
    ("method", "answer", "words"),
    [
        ("set_optimization_profile_async", False, "take optimization profile 1"),
        ("set_input_shape", False, r"take shape \[9, 4\] for input 'x'"),
        ("infer_shapes", ["x"], "infer all shapes"),
        ("infer_shapes", [], "infer all shapes"),
        ("set_tensor_address", False, "take an address for tensor 'x'"),
        ("execute_async_v3", False, "run the engine"),
    ],
)
def test_every_refusal_of_tensorrt_is_an_error_with_its_reason(
    bench: Bench, method: str, answer: object, words: str
) -> None:
    context = bench.context(affine(), [{"x": "1x4,1x4,2x4"}, {"x": "8x4,16x4,32x4"}])
    run(context, x=ramp(2))
    refusing = bench.refusing("IExecutionContext", method, answer)
    with refusing, pytest.raises(InferenceError, match=f"TensorRT did not {words}.*the reason"):
        run(context, x=ramp(9))
    np.testing.assert_array_equal(run(context, x=ramp(9))["y"], 2 * ramp(9) + 1)


def test_sizes_that_layers_cannot_combine(bench: Bench) -> None:
    context = bench.context(several(), [{"a": "1x3,2x3,9x3", "b": "1x3,2x3,9x3"}])
    two, five = np.ones((2, 3), np.float32), np.ones((5, 3), np.float32)
    for _ in range(2):
        with pytest.raises(InferenceError, match="infer the shapes that follow"):
            run(context, a=two, b=five)
        np.testing.assert_array_equal(run(context, a=two, b=two)["sum"], two + two)


def test_a_shape_that_tensorrt_does_not_tell(bench: Bench) -> None:
    context = bench.context(nonzero())
    x = np.eye(2, 8, dtype=np.float32)
    run(context, x=x)
    refusing = bench.refusing("IExecutionContext", "execute_async_v3", True)
    with refusing, pytest.raises(InferenceError, match="what shape output 'where' has"):
        run(context, x=x)
    np.testing.assert_array_equal(run(context, x=1 - x)["where"], np.stack(np.nonzero(1 - x)))


def test_shapes_that_tensorrt_misses_without_a_word(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = bench.context(affine(), [BATCHES])
    with monkeypatch.context() as patch:
        patch.setattr(bench.trt.IExecutionContext, "infer_shapes", lambda _: ["x"])
        with pytest.raises(InferenceError, match=r"lacks \w+ of x"):
            run(context, x=ramp(2))
    np.testing.assert_array_equal(run(context, x=ramp(2))["y"], 2 * ramp(2) + 1)


def test_the_reasons_of_one_thread_are_not_those_of_another(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    errors = ThreadErrors(bench.trt)

    def log(text: str) -> None:
        errors.logger.log(bench.trt.ILogger.Severity.ERROR, text)

    with errors as recorded:
        log("mine")
        thread = threading.Thread(target=log, args=("another's",))
        thread.start()
        thread.join()
    log("too late")
    assert recorded.errors == ("mine",)
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said == ["another's", "too late"]


def test_an_allocator_that_tensorrt_refuses(bench: Bench) -> None:
    context = bench.context(nonzero())
    refusing = bench.refusing("IExecutionContext", "set_output_allocator", False)
    with refusing, pytest.raises(InferenceError, match="the reason"):
        run(context, x=np.ones((2, 8), np.float32))
    assert run(context, x=np.ones((2, 8), np.float32))["where"].shape == (2, 16)


def test_an_engine_that_makes_no_context(bench: Bench) -> None:
    engine = bench.engine(affine(), [BATCHES])
    refusing = bench.refusing("ICudaEngine", "create_execution_context", None)
    with refusing, pytest.raises(InferenceError, match="the reason"):
        engine.create_context()


def test_an_interrupt_while_waiting_leaves_nothing_in_flight(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = bench.context(affine(), [BATCHES])
    run(context, x=ramp(2))
    context.enqueue({"x": ramp(2)})

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(context._done, "synchronize", interrupt)
        with pytest.raises(KeyboardInterrupt):
            context.wait()
    np.testing.assert_array_equal(run(context, x=ramp(3))["y"], 2 * ramp(3) + 1)


def test_a_plan_of_another_tensorrt_is_refused_before_it_is_loaded(bench: Bench) -> None:
    plan = bench.plan(affine(), [BATCHES])
    data = bytearray(plan.data)
    data[25] += 1
    loads = bench.trt.calls["Runtime.deserialize_cuda_engine"]
    with pytest.raises(BundleError, match=r"10\.4\.0.*Build it again"):
        TensorRTRuntime(bench.trt, bench.device).load(bytes(data), key=plan.key)
    assert bench.trt.calls["Runtime.deserialize_cuda_engine"] == loads


def test_a_plan_that_tensorrt_refuses_says_why(bench: Bench) -> None:
    plan = bench.plan(affine(), [BATCHES])
    with pytest.raises(BundleError, match=r"cannot be loaded: .+"):
        TensorRTRuntime(bench.trt, bench.device).load(plan.data[:70])


def test_a_plan_of_another_graph_is_refused(bench: Bench) -> None:
    from edge_runtime.tensors import TensorSpec

    plan = bench.plan(affine(), [BATCHES])
    runtime = TensorRTRuntime(bench.trt, bench.device)
    y = [TensorSpec("y", "float32", (-1, 4))]
    for inputs in (
        [TensorSpec("z", "float32", (-1, 4))],
        [TensorSpec("x", "float16", (-1, 4))],
        [TensorSpec("x", "float32", (-1, 5))],
        [TensorSpec("x", "float32", (-1, 4)), TensorSpec("w", "float32", (1,))],
    ):
        with pytest.raises(BundleError, match="not one of this bundle's graph"):
            runtime.load(plan.data, inputs=inputs, outputs=y)
    assert bench.gpu.live() == []


def test_what_the_plan_or_the_gpu_lacks_is_refused(bench: Bench) -> None:
    plan = bench.plan(affine(), [BATCHES])
    with pytest.raises(ConfigError, match="--weight-streaming"):
        TensorRTRuntime(bench.trt, bench.device, GpuConfig(weight_budget=1)).load(plan.data)
    stripped = bench.plan(affine(), [BATCHES], strip_weights=True)
    with pytest.raises(BundleError, match="no weights of its own"):
        TensorRTRuntime(bench.trt, bench.device).load(stripped.data, key=stripped.key)
