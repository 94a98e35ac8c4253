"""What the builder does when TensorRT itself fails, which the real one cannot be made to do."""

from __future__ import annotations

import enum
import types
from typing import Any

import pytest

from edge_runtime.backends.base import PlanKey
from edge_runtime.backends.tensorrt.builder import TensorRTBuilder
from edge_runtime.errors import BuildError

KEY = PlanKey("tensorrt", "10.3.0", ("sm87",), "linux-aarch64")
PLAN = b"ftrt".ljust(24, b"\0") + bytes([10, 3, 0, 30]) + bytes(36)


class Severity(enum.Enum):
    """TensorRT's, in part."""

    ERROR = 1


class ILogger:
    """TensorRT's base class."""


class Network:
    """A network with no inputs and one output."""

    num_inputs = 0
    num_outputs = 1
    name = ""


class Parser:
    """A parser that takes everything."""

    num_errors = 0

    def __init__(self, network: Network, logger: Any) -> None:
        self.network = network

    def parse(self, graph: bytes) -> bool:
        return True


def tensorrt(*, plan: bytes | None = PLAN, error: str = "", starts: bool = True) -> Any:
    """A TensorRT 10 that gives this plan, or logs this error and gives none."""

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger
            if not starts:
                logger.log(Severity.ERROR, error)
                raise TypeError("factory function returned nullptr")

        def create_network(self, flags: int) -> Network:
            assert flags == 0b10
            return Network()

        def create_builder_config(self) -> types.SimpleNamespace:
            return types.SimpleNamespace()

        def create_optimization_profile(self) -> types.SimpleNamespace:
            return types.SimpleNamespace()

        def build_serialized_network(self, network: Network, config: Any) -> bytes | None:
            assert network.name == "edge-runtime"
            if error:
                self.logger.log(Severity.ERROR, error)
            return plan

    made = types.ModuleType("fake_tensorrt")
    made.ILogger, made.Builder, made.OnnxParser = ILogger, Builder, Parser
    flags = {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    made.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", flags)
    return made


def test_a_plan_for_this_machines_gpu_needs_no_targets() -> None:
    plan = TensorRTBuilder(tensorrt(), KEY).build(b"graph", {})
    assert (plan.key, plan.data) == (KEY, PLAN)


@pytest.mark.parametrize(
    ("trt", "words"),
    [
        (
            tensorrt(starts=False, error="no CUDA-capable device"),
            "cannot start.\n  no CUDA-capable",
        ),
        (
            tensorrt(plan=None, error="out of memory\nby far"),
            "build the graph.\n  out of memory; by",
        ),
        (tensorrt(plan=None), "build the graph.\n  It gave no reason"),
        (tensorrt(plan=b"what?"), "returned a broken plan. These 5 bytes are not"),
        (tensorrt(plan=PLAN[:50]), "returned a broken plan. A plan of 50 bytes is cut off"),
    ],
)
def test_every_failure_of_tensorrt_is_a_build_error_with_its_reason(trt: Any, words: str) -> None:
    with pytest.raises(BuildError) as refusal:
        TensorRTBuilder(trt, KEY).build(b"graph", {})
    assert words in str(refusal.value)
    assert str(refusal.value).startswith("tensorrt 10.3.0 for sm87 on linux-aarch64 ")


def test_a_plan_of_another_library_is_refused() -> None:
    key = PlanKey("tensorrt-rtx", "1.7", (), "linux-x86_64")
    with pytest.raises(BuildError, match="returned a plan for tensorrt"):
        TensorRTBuilder(tensorrt(), key).build(b"graph", {})
