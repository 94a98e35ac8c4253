"""The contract suite's bundle on every TensorRT, through both bindings, on the software GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from edge_runtime.backends.base import Engine, Plan, PlanKey
from edge_runtime.backends.tensorrt.builder import TensorRTBuilder
from edge_runtime.backends.tensorrt.runtime import TensorRTRuntime
from edge_runtime.bundle import CPU_GRAPH, GRAPH, Bundle
from edge_runtime.config import CpuMode, OptimizationProfile, ShapeRange, digest
from edge_runtime.cuda.device import Device, open_device
from tests.contract.conftest import NOISE_FLOOR, Case, bundle, engine, session
from tests.software_gpu.fakes import fake
from tests.software_gpu.gpu import SoftwareGpu

__all__ = ["bundle", "engine", "session"]  # The suite's own fixtures.

VERSIONS = (
    "10.3.0",
    "10.7.0",
    "10.13.3.9",
    "10.16.1.11",
    "11.0.0.114",
    "11.4.0.106",
    "rtx-1.7.1.116",
)
PROFILE: OptimizationProfile = {
    "image": ShapeRange((1, 16, 4, 4), (2, 16, 8, 8), (4, 16, 16, 16)),
}

_plans: dict[tuple[PlanKey, bytes], Plan] = {}  # Built once.


@dataclass(frozen=True)
class GpuCase(Case):
    """The bundle, its plan for one TensorRT, and the GPU that runs it."""

    trt: Any
    plan: Plan
    device: Device

    def engine(self) -> Engine:
        runtime = TensorRTRuntime(self.trt, self.device)
        inputs, outputs = self.bundle.inputs, self.bundle.outputs
        return runtime.load(self.plan.data, key=self.plan.key, inputs=inputs, outputs=outputs)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest, gpu: SoftwareGpu) -> str:
    """A TensorRT whose Python interface the project carries, and a GPU that it builds for."""
    gpu.identity(capability=(8, 6) if request.param.startswith("rtx") else (8, 7))
    return str(request.param)


@pytest.fixture(params=["cuda-bindings", "pycuda"])
def device(request: pytest.FixtureRequest, gpu: SoftwareGpu) -> Iterator[Device]:
    """The software GPU through each of the bindings."""
    device = open_device(request.param)
    yield device
    device.close()


@pytest.fixture
def case(bundle: Bundle, version: str, device: Device, gpu: SoftwareGpu) -> Iterator[Case]:
    """The bundle on one TensorRT."""
    graph = bundle.read(GRAPH)
    entries = {entry.name for entry in bundle.manifest.entries}
    twin = bundle.read(CPU_GRAPH) if CPU_GRAPH in entries else graph
    trt = fake(version, gpu, graphs={digest(graph): twin})
    backend = "tensorrt-rtx" if version.startswith("rtx") else "tensorrt"
    capability = ("sm86",) if backend == "tensorrt-rtx" else ("sm87",)
    key = PlanKey(backend, version.removeprefix("rtx-"), capability, "linux-x86_64")
    if (key, graph) not in _plans:
        _plans[key, graph] = TensorRTBuilder(trt, key).build(graph, [PROFILE])
    plan = _plans[key, graph]
    noise_floor = NOISE_FLOOR[bundle.precision.value]
    yield GpuCase(bundle, backend, CpuMode.EXACT, noise_floor, trt, plan, device)
    assert trt.violations == []
