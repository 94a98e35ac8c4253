"""The bundle that every backend runs, in every precision that it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from edge_runtime.backends import registry
from edge_runtime.backends.base import Engine
from edge_runtime.backends.registry import Choice
from edge_runtime.building import build
from edge_runtime.bundle import Bundle
from edge_runtime.config import BuildConfig, CpuMode
from edge_runtime.session import Session
from tests import models

BACKENDS = ("cpu", "cpu fast", "openvino", "openvino fast")
"""Backends that this machine runs, and modes of theirs; a new one joins here."""

NOISE_FLOOR = {"fp32": 110.0, "fp16": 55.0, "bf16": 35.0, "int8": 25.0}
"""The least signal to noise, in dB, of a precision against FP32; far below what it reaches."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Drops the mode `fast` of bundles that have no such mode."""
    items[:] = [item for item in items if not _is_fast_float(item)]


def _is_fast_float(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    case, precision = parameters.get("case"), parameters.get("bundle")
    return case in BACKENDS and case.endswith(" fast") and precision != "int8"


def network() -> ModelProto:
    """Down, up, and added to the picture: height and width are dynamic, but must be even.

    Inputs: `image` float32 [n, 16, h, w], and `gain` float32, a scalar that multiplies it. Outputs:
    `picture` float32 [n, 16, h, w], `code` float32 [n, 16] and `count` int64 [1], the batch size.
    """
    net = models.Net()
    image, gain = net.input("image", ("n", 16, "h", "w")), net.input("gain", ())
    x = net.op("Relu", net.conv("c1", net.op("Mul", image, gain, name="loud"), (16, 32)), name="r1")
    x = net.op("Relu", net.conv("down", x, (32, 32), strides=[2, 2]), name="r2")
    up = net.op("ConvTranspose", x, net.weight("up.w", 32, 16, 2, 2), name="up", strides=[2, 2])
    y = net.op("Add", up, image, name="picture")
    code = net.op("Flatten", net.op("GlobalAveragePool", x, name="gap"), name="flat")
    net.op("Gemm", code, net.weight("fc.w", 32, 16), name="code")
    size = net.op("Shape", image, name="size", start=0, end=1)
    net.op("Identity", size, name="count")
    proto = net.proto(y, "code", shapes={"picture": ["n", 16, "h", "w"], "code": ["n", 16]})
    proto.graph.output.append(helper.make_tensor_value_info("count", TensorProto.INT64, [1]))
    return proto


def feeds(seed: int, batch: int = 2, side: int = 8) -> dict[str, np.ndarray]:
    """Feeds that differ with the seed."""
    random = np.random.default_rng(seed)
    image = random.standard_normal((batch, 16, side, side)).astype(np.float32)
    return {"image": image, "gain": np.array(1 + seed % 5 / 4, np.float32)}


@dataclass(frozen=True)
class Case:
    """A bundle, the backend and mode that run it, and how close it comes to FP32."""

    bundle: Bundle
    backend: str
    cpu_mode: CpuMode
    noise_floor: float

    def engine(self) -> Engine:
        """A new engine."""
        choice = Choice(self.backend, None, ())
        return registry.open_engine(self.bundle, choice, threads=1, cpu_mode=self.cpu_mode)

    def session(self, contexts: int = 1) -> Session:
        """A new session."""
        return Session(self.engine(), backend=self.backend, contexts=contexts)


@pytest.fixture(scope="session", params=["fp32", "fp16", "bf16", "int8"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle in one precision, with no plan: what a backend needs besides is its own matter."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    (folder / "net.onnx").write_bytes(network().SerializeToString())
    cpu_mode = "fast" if request.param == "int8" else "exact"
    config = BuildConfig(precision=request.param, backend="cpu", cpu_mode=cpu_mode)
    samples = None if request.param == "fp32" else [feeds(seed) for seed in range(100, 108)]
    return build(folder / "net.onnx", config, output=folder / "net.edge", calibration=samples)


@pytest.fixture(params=BACKENDS)
def case(request: pytest.FixtureRequest, bundle: Bundle) -> Case:
    """The bundle on one backend, in one of its modes."""
    backend, _, mode = request.param.partition(" ")
    if backend == "openvino" and find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    cpu_mode = CpuMode(mode or "exact")
    return Case(bundle, backend, cpu_mode, NOISE_FLOOR[bundle.precision.value])


@pytest.fixture
def engine(case: Case) -> Iterator[Engine]:
    """An engine that is closed afterwards."""
    engine = case.engine()
    yield engine
    engine.close()


@pytest.fixture
def session(case: Case) -> Iterator[Session]:
    """A session with three contexts."""
    with case.session(contexts=3) as session:
        yield session
