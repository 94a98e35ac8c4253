"""The GPU through each of the two bindings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_runtime.cuda.device import Device, open_device
from tests.software_gpu.gpu import SoftwareGpu

DRIVERS = ("cuda-bindings", "pycuda")


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """A binding's name."""
    return request.param


@pytest.fixture
def device(gpu: SoftwareGpu, driver: str) -> Iterator[Device]:
    """The GPU, opened anew: what a test does to it is not seen by the next."""
    device = open_device(driver)
    yield device
    device.close()
