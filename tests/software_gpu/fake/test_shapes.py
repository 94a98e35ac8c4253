"""Outputs whose shape depends on data, inputs that are shapes, profilers and weights."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import onnx
import pytest

from tests.software_gpu.fake.conftest import CONV, PROFILE, Cuda, Lab, X, Y
from tests.software_gpu.gpu import SoftwareGpu

NON_ZERO = """<ir_version: 10, opset_import: ["" : 20]>
g (float[4] x) => (int64[1,k] y, float[4] z) { [nz] y = NonZero(x) [n] z = Neg(x) }"""
RESHAPE = """<ir_version: 10, opset_import: ["" : 20]>
g (float[2,6] x, int64[2] to) => (float[a,b] y) { [r] y = Reshape(x, to) }"""


def allocator_of(trt: Any, cuda: Cuda, *, give: bool = True, asynchronous: bool = True) -> Any:
    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.seen: list[Any] = []
            self.address = 0

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            self.seen.append((name, memory, size, alignment))
            self.address = cuda.alloc(size) if give else 0
            return self.address

        def notify_shape(self, name: str, shape: Any) -> None:
            self.seen.append((name, tuple(shape)))

    if asynchronous:

        def reallocate_output_async(  # type: ignore[no-untyped-def]
            self, name, memory, size, alignment, stream
        ) -> int:
            return int(self.reallocate_output(name, memory, size, alignment))

        Allocator.reallocate_output_async = reallocate_output_async  # type: ignore[attr-defined]
    return Allocator()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_data_dependent_output(cuda: Cuda, lab: Lab, asynchronous: bool) -> None:
    engine = lab.engine(NON_ZERO)
    context = engine.create_execution_context()
    assert tuple(engine.get_tensor_shape("y")) == (1, -1)
    assert tuple(context.get_tensor_shape("y")) == (1, -1)
    assert tuple(context.get_tensor_shape("z")) == (4,)
    x, z, stream = cuda.alloc(16), cuda.alloc(16), cuda.stream()
    for array in (np.array([1, 0, 2, 0], np.float32), np.zeros(4, np.float32)):
        cuda.put(x, array)
        context.set_tensor_address("x", x)
        context.set_tensor_address("z", z)
        allocator = allocator_of(lab.trt, cuda, asynchronous=asynchronous)
        assert context.set_output_allocator("y", allocator)
        assert context.execute_async_v3(stream), lab.errors
        count = np.count_nonzero(array)
        assert allocator.seen == [("y", 0, max(8 * count, 1), 256), ("y", (1, count))]
        cuda.sync(stream)
        np.testing.assert_array_equal(
            cuda.get(allocator.address, (1, count), "i8"), np.nonzero(array)
        )


def test_a_data_dependent_output_without_memory(cuda: Cuda, lab: Lab) -> None:
    context = lab.engine(NON_ZERO).create_execution_context()
    x, z, stream = cuda.alloc(16), cuda.alloc(16), cuda.stream()
    cuda.put(x, np.ones(4, np.float32))
    context.set_tensor_address("x", x)
    context.set_tensor_address("z", z)
    assert context.execute_async_v3(stream) is False
    assert "no output allocator" in lab.errors[-1]
    allocator = allocator_of(lab.trt, cuda, give=False)
    context.set_output_allocator("y", allocator)
    assert context.execute_async_v3(stream) is False
    assert "OutOfMemory" in lab.errors[-1]
    assert context.set_output_allocator("y", None)
    assert context.get_output_allocator("y") is None


def test_an_allocator_that_nobody_keeps_is_a_violation(cuda: Cuda, lab: Lab) -> None:
    context = lab.engine(NON_ZERO).create_execution_context()
    x, z, stream = cuda.alloc(16), cuda.alloc(16), cuda.stream()
    cuda.put(x, np.ones(4, np.float32))
    context.set_tensor_address("x", x)
    context.set_tensor_address("z", z)
    context.set_output_allocator("y", allocator_of(lab.trt, cuda))
    assert context.execute_async_v3(stream) is False
    assert lab.trt.violations == ["The output allocator of 'y' was destroyed."]
    lab.trt.violations.clear()


def test_an_input_that_is_a_shape_is_read_from_the_host(
    cuda: Cuda, lab: Lab, gpu: SoftwareGpu
) -> None:
    engine = lab.engine(RESHAPE, {}, values={"to": ([1, 1], [3, 4], [12, 12])})
    assert engine.get_tensor_location("to") == lab.trt.TensorLocation.HOST
    assert engine.get_tensor_location("x") == lab.trt.TensorLocation.DEVICE
    assert engine.is_shape_inference_io("to")
    assert engine.get_tensor_profile_values(0, "to") == [[1, 1], [3, 4], [12, 12]]
    context = engine.create_execution_context()
    assert context.infer_shapes() == ["to"]
    to, stream = np.array([3, 4]), cuda.stream()
    x, y = cuda.alloc(48), cuda.alloc(48)
    data = np.arange(12, dtype=np.float32)
    cuda.put(x, data)
    for name, address in (("to", to.ctypes.data), ("x", x), ("y", y)):
        assert context.set_tensor_address(name, address)
    assert context.infer_shapes() == []
    assert tuple(context.get_tensor_shape("y")) == (3, 4)
    to[:] = 4, 3  # The address is read again.
    assert tuple(context.get_tensor_shape("y")) == (4, 3)
    assert context.execute_async_v3(stream)
    to[:] = 12, 1  # Not after the enqueue, and it must not change then.
    cuda.sync(stream)
    np.testing.assert_array_equal(cuda.get(y, (4, 3)), data.reshape(4, 3))
    assert any("'to' changed after the enqueue" in line for line in lab.trt.violations)
    lab.trt.violations.clear()
    gpu.violations(forget=True)


def test_sizes_that_do_not_fit(cuda: Cuda, lab: Lab) -> None:
    engine = lab.engine(RESHAPE, {}, values={"to": ([1, 1], [3, 4], [12, 12])})
    context, to = engine.create_execution_context(), np.array([5, 5])
    context.set_tensor_address("to", to.ctypes.data)
    with pytest.raises(RuntimeError, match="infer_shapes error code"):
        context.infer_shapes()
    assert context.execute_async_v3(cuda.stream()) is False


def test_a_profiler_gets_each_layer(cuda: Cuda, lab: Lab) -> None:
    trt = lab.trt

    class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.layers: list[str] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.layers.append(layer_name)

    context = lab.engine(CONV, PROFILE).create_execution_context()
    x, y = cuda.alloc(X.nbytes), cuda.alloc(Y.nbytes)
    cuda.put(x, X)
    context.set_input_shape("x", X.shape)
    context.set_tensor_address("x", x)
    context.set_tensor_address("y", y)
    context.profiler = Profiler()
    assert context.execute_async_v3(cuda.stream())
    assert context.profiler.layers == ["c1", "r1"]
    np.testing.assert_allclose(cuda.get(y, Y.shape), Y, rtol=1e-5)


def test_the_input_consumed_event(gpu: SoftwareGpu, cuda: Cuda, lab: Lab) -> None:
    gpu.mode("lazy")
    context = lab.engine(CONV, PROFILE).create_execution_context()
    x, y, event = cuda.alloc(X.nbytes), cuda.alloc(Y.nbytes), ctypes.c_void_p()
    cuda.put(x, X)
    cuda.call("cuEventCreate", ctypes.byref(event), 2)
    context.set_input_shape("x", X.shape)
    context.set_tensor_address("x", x)
    context.set_tensor_address("y", y)
    assert context.set_input_consumed_event(event.value)
    assert context.execute_async_v3(cuda.stream())
    assert cuda.call("cuEventSynchronize", event) == 0
    np.testing.assert_allclose(cuda.get(y, Y.shape), Y, rtol=1e-5)
    cuda.call("cuEventDestroy_v2", event)


def test_a_stripped_plan_takes_its_weights_back(cuda: Cuda, lab: Lab) -> None:
    model = onnx.parser.parse_model(CONV)
    engine = lab.engine(CONV, PROFILE, flags=("STRIP_PLAN",))
    assert engine.create_execution_context() is None
    assert "stripped" in lab.errors[-1]
    refitter = lab.trt.Refitter(engine, lab.logger)
    assert refitter.get_missing_weights() == ["w"]
    parser = lab.trt.OnnxParserRefitter(refitter, lab.logger)
    assert parser.refit_from_bytes(model.SerializeToString())
    assert refitter.refit_cuda_engine()
    assert engine.create_execution_context() is not None


def test_weight_streaming(lab: Lab) -> None:
    engine = lab.engine(CONV, PROFILE, flags=("WEIGHT_STREAMING",))
    assert engine.streamable_weights_size == 24
    engine.weight_streaming_budget_v2 = 12
    assert engine.weight_streaming_budget_v2 == 12
    context = engine.create_execution_context()
    with pytest.raises(RuntimeError):
        engine.weight_streaming_budget_v2 = 0
    del context
    assert lab.engine(CONV, PROFILE).streamable_weights_size == 0
