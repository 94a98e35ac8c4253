"""Engines of small nets on the software GPU, made by the project's own builder and runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from edge_runtime.backends.base import Plan, PlanKey
from edge_runtime.backends.tensorrt.builder import TensorRTBuilder
from edge_runtime.backends.tensorrt.context import TensorRTContext
from edge_runtime.backends.tensorrt.logger import ThreadErrors
from edge_runtime.backends.tensorrt.options import traits
from edge_runtime.backends.tensorrt.runtime import TensorRTEngine, TensorRTRuntime
from edge_runtime.config import BuildConfig
from edge_runtime.cuda.array import DeviceArray
from edge_runtime.cuda.device import Device, open_device
from edge_runtime.gpu_config import GpuConfig, TensorRTConfig
from tests import models
from tests.software_gpu.fakes import fake
from tests.software_gpu.gpu import SoftwareGpu

VERSION = "10.3.0"
BATCHES = {"x": "1x4,2x4,64x4"}


def affine() -> ModelProto:
    """`y = 2 x + 1`; float32 [n, 4]. Every result is exact."""
    net = models.Net()
    x = net.input("x", ("n", 4))
    twice = net.op("Mul", x, net.constant("two", 2.0), name="twice")
    return net.proto(net.op("Add", twice, net.constant("one", 1.0), name="y"))


def several() -> ModelProto:
    """Two inputs, two outputs: `sum = a + b` float32 [n, 3], `gap = a - b`."""
    net = models.Net()
    a, b = net.input("a", ("n", 3)), net.input("b", ("n", 3))
    net.op("Add", a, b, name="sum")
    net.op("Sub", a, b, name="gap")
    return net.proto("sum", "gap")


def nonzero(columns: int | str = 8) -> ModelProto:
    """`where`: int64 [2, k], the places of x's values other than zero; float32 [2, columns]."""
    net = models.Net()
    net.op("NonZero", net.input("x", (2, columns)), name="where")
    proto = net.proto("where", shapes={"where": [2, "k"]})
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return proto


def tiled() -> ModelProto:
    """`y`: x, float32 [1, 4], in `rows` rows, where `rows` is int64 [2]: a shape from values."""
    net = models.Net()
    x = net.input("x", (1, 4))
    rows = net.input("rows", (2,), TensorProto.INT64)
    net.op("Expand", x, rows, name="y")
    return net.proto("y", shapes={"y": ["r", 4]})


def measured() -> ModelProto:
    """`y = 2 x`, and `size`, its shape: int64 [2]; x is float32 [n, 4]."""
    net = models.Net()
    x = net.input("x", ("n", 4))
    net.op("Add", x, x, name="y")
    net.op("Shape", x, name="size")
    proto = net.proto("y", "size", shapes={"size": [2]})
    proto.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    return proto


def uneven() -> ModelProto:
    """`wide = image + gain`, float32 [n, 50]; `odd = code`, int32 [n]; `twice = 2 gain`, [1]."""
    net = models.Net()
    gain, image = net.input("gain", (1,)), net.input("image", ("n", 50))
    net.op("Identity", net.input("code", ("n",), TensorProto.INT32), name="odd")
    net.op("Add", gain, gain, name="twice")
    net.op("Add", image, gain, name="wide")
    proto = net.proto("wide", "odd", "twice", shapes={"odd": ["n"]})
    proto.graph.output[1].type.tensor_type.elem_type = TensorProto.INT32
    return proto


@dataclass
class Bench:
    """A software GPU, a driver of it and a fake TensorRT, which build and load nets.

    Attributes:
        trt: The fake module.
        device: The GPU, through one of the bindings.
        gpu: The GPU itself.
    """

    trt: Any
    device: Device
    gpu: SoftwareGpu
    opened: list[TensorRTEngine | TensorRTContext] = field(default_factory=list)

    def plan(
        self, proto: ModelProto, profiles: Sequence[Mapping[str, str]] = (), **options: Any
    ) -> Plan:
        """Builds a plan."""
        config = BuildConfig(profiles=profiles)
        tensorrt_config = TensorRTConfig(**options)
        key = PlanKey("tensorrt", VERSION, ("sm87",), "linux-x86_64", traits(tensorrt_config))
        builder = TensorRTBuilder(self.trt, key, tensorrt_config)
        return builder.build(proto.SerializeToString(), config.profiles)

    def engine(
        self,
        proto: ModelProto,
        profiles: Sequence[Mapping[str, str]] = (),
        gpu: GpuConfig | None = None,
        **options: Any,
    ) -> TensorRTEngine:
        """Builds and loads an engine, which is closed after the test."""
        plan = self.plan(proto, profiles, **options)
        runtime = TensorRTRuntime(self.trt, self.device, gpu)
        engine = runtime.load(plan.data, key=plan.key, graph=proto.SerializeToString)
        self.opened.append(engine)
        return engine

    def context(
        self,
        proto: ModelProto,
        profiles: Sequence[Mapping[str, str]] = (),
        gpu: GpuConfig | None = None,
        **options: Any,
    ) -> TensorRTContext:
        """A context of a new engine, closed after the test."""
        context = self.engine(proto, profiles, gpu, **options).create_context()
        self.opened.append(context)
        return context

    @contextmanager
    def refusing(self, kind: str, method: str, answer: object) -> Iterator[None]:
        """Lets TensorRT log "the reason" and answer this, whenever the method is called."""
        owner = getattr(self.trt, kind)
        real = getattr(owner, method)

        def refuse(*_: object) -> object:
            logger = ThreadErrors(self.trt).logger
            logger.log(self.trt.ILogger.Severity.ERROR, "the reason")
            return answer

        setattr(owner, method, refuse)
        try:
            yield
        finally:
            setattr(owner, method, real)

    def close(self) -> None:
        """Closes contexts before their engines."""
        for thing in reversed(self.opened):
            thing.close()
        self.opened.clear()


class Foreign:
    """Another library's array on the GPU, as CuPy and Numba show theirs."""

    def __init__(self, array: DeviceArray, **changes: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, **changes}


@pytest.fixture(params=["cuda-bindings", "pycuda"])
def device(request: pytest.FixtureRequest, gpu: SoftwareGpu) -> Iterator[Device]:
    """The software GPU through each of the bindings."""
    device = open_device(request.param)
    yield device
    device.close()


@pytest.fixture
def bench(device: Device, gpu: SoftwareGpu) -> Iterator[Bench]:
    """A bench of TensorRT 10.3, JetPack 6's."""
    bench = Bench(fake(VERSION, gpu), device, gpu)
    yield bench
    bench.close()
    assert bench.trt.violations == []


@pytest.fixture(params=["lazy", "late"])
def mode(request: pytest.FixtureRequest, gpu: SoftwareGpu) -> str:
    """The two ways in which work is put off."""
    gpu.mode(request.param)
    return str(request.param)


def run(context: TensorRTContext, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    """One inference."""
    context.enqueue(feeds)
    return context.wait()


def ramp(rows: int, start: float = 0.0) -> np.ndarray:
    """float32 [rows, 4], every value another."""
    return (np.arange(rows * 4, dtype=np.float32) + start).reshape(rows, 4)


def changes(gpu: SoftwareGpu, use: Callable[[], object]) -> dict[str, int]:
    """How often each driver function was called in `use`."""
    before = gpu.calls()
    use()
    return {
        name: n - before.get(name, 0) for name, n in gpu.calls().items() if n != before.get(name)
    }


def add_output(proto: ModelProto, name: str, kind: int, shape: list[Any]) -> None:
    """Declares one more output of the graph."""
    proto.graph.output.append(helper.make_tensor_value_info(name, kind, shape))
