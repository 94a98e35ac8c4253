"""The software GPU for the tests of this folder; each must leave it clean."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.software_gpu.build import compiler
from tests.software_gpu.calls import Calls, Frame
from tests.software_gpu.gpu import SoftwareGpu, load


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what is about pycuda, as its name or parameters say, where it is not installed."""
    if "pycuda" in item.name and find_spec("pycuda") is None:
        pytest.skip("pycuda is not installed; CONTRIBUTING.md says how")


@pytest.fixture(scope="session")
def loaded_gpu() -> SoftwareGpu:
    """The library, loaded before any binding opens `libcuda.so.1`."""
    if compiler() is None:
        pytest.skip("gcc is missing, which builds the software GPU")
    return load()


@pytest.fixture(autouse=True)
def gpu(loaded_gpu: SoftwareGpu) -> Iterator[SoftwareGpu]:
    """A fresh GPU in mode "late". After the test no rule is broken and nothing new is alive.

    A test that breaks a rule on purpose takes it with `gpu.violations(forget=True)`.
    """
    loaded_gpu.reset()
    before = set(loaded_gpu.live())
    yield loaded_gpu
    if set(loaded_gpu.live()) - before:
        gc.collect()  # Garbage that was still to be freed is no leak.
    violations = loaded_gpu.violations()
    left = [thing for thing in loaded_gpu.live() if thing not in before]
    if left:
        loaded_gpu.abandon()
    loaded_gpu.reset()
    assert not violations
    assert not left


@pytest.fixture
def calls(gpu: SoftwareGpu) -> Iterator[Calls]:
    """The driver with the primary context current."""
    made = Calls(gpu)
    with made.primary():
        yield made


@pytest.fixture
def frame(calls: Calls) -> Iterator[Frame]:
    """A frame that is closed after the test."""
    made = Frame(calls)
    yield made
    made.close()
