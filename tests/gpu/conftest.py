"""A bundle in every precision with a plan for this machine's GPU; skips say what is missing for it.

Not among the default tests: `pytest tests/gpu`, where there is a GPU with TensorRT or TensorRT-RTX.
The tests of the contract come here by `test_contract.py` and take `case`, `engine` and `session` as
they do for every other backend.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.backends import registry
from edge_runtime.backends.base import Engine
from edge_runtime.building import build
from edge_runtime.bundle import Bundle
from edge_runtime.config import BuildConfig
from edge_runtime.cuda.device import Device, open_device
from edge_runtime.errors import BackendUnavailableError
from edge_runtime.gpu_config import GpuConfig
from edge_runtime.plans import extend
from edge_runtime.session import Session, load
from tests.contract.conftest import feeds, network

pytest.register_assert_rewrite("tests.contract.test_backend")

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}
INSTALLED = [name for name, module in MODULES.items() if find_spec(module)]
PROFILE = {"image": "1x16x4x4,2x16x8x8,3x16x14x14"}
NOISE_FLOOR = {"fp32": 90.0, "fp16": 45.0, "bf16": 30.0, "int8": 22.0}
"""The least signal to noise, in dB, of a precision against FP32 on the CPU, and against the CPU on
the same graph. A GPU adds up in another order, and rounds less often where it fuses layers."""


@pytest.fixture(scope="session", params=INSTALLED or ["tensorrt"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each TensorRT that is installed."""
    name: str = request.param
    if name not in INSTALLED:
        pytest.skip(f"TensorRT is not installed: there is no module {MODULES[name]!r}")
    _open("auto")
    return name


@pytest.fixture(scope="session", params=["cuda-bindings", "pycuda"])
def driver(request: pytest.FixtureRequest, backend: str) -> str:
    """Each binding of CUDA that is installed."""
    name: str = request.param
    _open(name)
    return name


@pytest.fixture
def device(driver: str) -> Device:
    """The GPU."""
    return _open(driver)


def _open(driver: str) -> Device:
    try:
        return open_device(driver)
    except BackendUnavailableError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session", params=list(NOISE_FLOOR))
def plain(
    request: pytest.FixtureRequest, backend: str, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The contract's network in each precision, with no plan, as a PC without a GPU makes it."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    (folder / "net.onnx").write_bytes(network().SerializeToString())
    config = BuildConfig(precision=request.param, backend="cpu", profiles=PROFILE)
    samples = None if request.param == "fp32" else [feeds(seed) for seed in range(100, 108)]
    return build(folder / "net.onnx", config, output=folder / "net.edge", calibration=samples)


@pytest.fixture(scope="session")
def bundle(plain: Bundle, backend: str) -> Bundle:
    """The same with this machine's plan."""
    path = plain.path.with_name(f"{backend}.edge")
    shutil.copy(plain.path, path)
    config = replace(plain.manifest.build_config, backend=backend)
    extended, built = extend(Bundle.open(path), config)
    assert built
    return extended


@dataclass(frozen=True)
class DeviceCase:
    """A bundle on the GPU, as the contract's tests take it."""

    bundle: Bundle
    backend: str
    driver: str
    noise_floor: float

    def engine(self) -> Engine:
        """A new engine."""
        gpu = GpuConfig(driver=self.driver)
        choice = registry.choose(self.bundle, self.backend, gpu)
        return registry.open_engine(self.bundle, choice, gpu=gpu)

    def session(self, contexts: int = 1, **settings: Any) -> Session:
        """A new session; settings are those of `GpuConfig`."""
        gpu = GpuConfig(driver=self.driver, **settings)
        return load(self.bundle, device=self.backend, contexts=contexts, gpu=gpu)


@pytest.fixture
def case(bundle: Bundle, backend: str, driver: str) -> DeviceCase:
    """The bundle on the GPU."""
    return DeviceCase(bundle, backend, driver, NOISE_FLOOR[bundle.precision.value])


@pytest.fixture
def engine(case: DeviceCase) -> Iterator[Engine]:
    """An engine that is closed afterwards."""
    engine = case.engine()
    yield engine
    engine.close()


@pytest.fixture
def session(case: DeviceCase) -> Iterator[Session]:
    """A session with three contexts."""
    with case.session(contexts=3) as session:
        yield session
