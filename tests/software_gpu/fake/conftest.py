"""A small driver-level stand-in for edge_runtime: buffers, streams and a built engine."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest

from tests.fakes.tensorrt import make
from tests.software_gpu.gpu import SoftwareGpu

CONV = """<ir_version: 10, opset_import: ["" : 20]>
g (float[n,3,8,8] x) => (float[n,2,8,8] y) <float[2,3,1,1] w = {1,2,3,4,5,6}>
{ [c1] h = Conv(x, w) [r1] y = Relu(h) }"""


class Cuda:
    """The driver, raw: `alloc`, `stream`, copies. Everything is freed at the end."""

    def __init__(self) -> None:
        self.lib = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)
        self._context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), 0)
        self.call("cuCtxPushCurrent_v2", self._context)
        self._undo: list[Callable[[], object]] = []

    def call(self, name: str, *arguments: Any) -> int:
        return int(getattr(self.lib, name)(*arguments))

    def alloc(self, size: int) -> int:
        address = ctypes.c_uint64()
        assert self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size)) == 0
        self._undo.append(lambda: self.call("cuMemFree_v2", address))
        return int(address.value)

    def stream(self) -> int:
        handle = ctypes.c_void_p()
        assert self.call("cuStreamCreate", ctypes.byref(handle), 1) == 0
        self._undo.append(lambda: self.call("cuStreamDestroy_v2", handle))
        return int(handle.value or 0)

    # The software GPU's memory is the host's: a test may look at it without a copy's stream.

    def put(self, address: int, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array).tobytes()
        ctypes.memmove(address, data, len(data))

    def get(self, address: int, shape: tuple[int, ...], dtype: str = "f4") -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(ctypes.string_at(address, size), dtype).reshape(shape)

    def sync(self, stream: int) -> int:
        return self.call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def close(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self.call("cuCtxPopCurrent_v2", ctypes.byref(self._context))
        self.call("cuDevicePrimaryCtxRelease_v2", 0)


@pytest.fixture
def cuda(gpu: SoftwareGpu) -> Iterator[Cuda]:
    driver = Cuda()
    yield driver
    driver.close()


class Lab:
    """A module, its logger, and engines built from ONNX text."""

    def __init__(self, version: str, gpu: Any, **faults: Any) -> None:
        self.trt = trt = make(version, gpu, **faults)
        self.errors: list[str] = []
        lab = self

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity.name in ("ERROR", "INTERNAL_ERROR"):
                    lab.errors.append(msg)

        self.logger = Logger()
        self.runtime = trt.Runtime(self.logger)

    def plan(
        self,
        text: str = CONV,
        *profiles: dict[str, Any],
        flags: tuple[str, ...] = (),
        values: dict[str, Any] | None = None,
        model: Any = None,
    ) -> Any:
        trt = self.trt
        builder = trt.Builder(self.logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self.logger)
        proto = model if model is not None else onnx.parser.parse_model(text)
        assert parser.parse(proto.SerializeToString()), self.errors
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        for flag in flags:
            config.set_flag(getattr(trt.BuilderFlag, flag))
        for shapes in profiles:
            profile = builder.create_optimization_profile()
            for name, (low, mid, high) in shapes.items():
                profile.set_shape(name, low, mid, high)
            for name, (low, mid, high) in (values or {}).items():
                profile.set_shape_input(name, low, mid, high)
            assert config.add_optimization_profile(profile) >= 0
        return builder.build_serialized_network(network, config)

    def engine(self, *args: Any, **kwargs: Any) -> Any:
        plan = self.plan(*args, **kwargs)
        assert plan is not None, self.errors
        engine = self.runtime.deserialize_cuda_engine(plan)
        assert engine is not None, self.errors
        return engine


PROFILE = {"x": ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}
X = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
Y = np.einsum("oc,nchw->nohw", np.array([[1, 2, 3], [4, 5, 6]], np.float32), X)


@pytest.fixture
def lab(gpu: SoftwareGpu) -> Iterator[Lab]:
    made = Lab("10.3.0", gpu)
    yield made
    assert made.trt.violations == []
