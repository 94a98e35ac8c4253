"""What is asked of a TensorRT module, with modules that have one version's names each."""

from __future__ import annotations

import enum
import types

import pytest

from edge_runtime.backends.tensorrt.compat import network_flags, set_targets, target_names
from edge_runtime.errors import BackendUnavailableError, BuildError


def module(**names: dict[str, int]) -> types.ModuleType:
    """A TensorRT that has these enums."""
    made = types.ModuleType("fake_tensorrt")
    made.__version__ = "1.2.3"
    for name, members in names.items():
        setattr(made, name, enum.IntEnum(name, members))
    return made


V8_6 = module(NetworkDefinitionCreationFlag={"EXPLICIT_BATCH": 0}, BuilderFlag={"FP16": 0})
V10 = module(
    NetworkDefinitionCreationFlag={"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1},
    BuilderFlag={"FP16": 0},
)
V11 = module(NetworkDefinitionCreationFlag={"STRONGLY_TYPED": 0}, BuilderFlag={"TF32": 5})
LATER = module(NetworkDefinitionCreationFlag={}, BuilderFlag={"TF32": 0})
RTX = module(ComputeCapability={"NONE": 0, "CURRENT": 1, "SM120": 120, "SM86": 86, "SM75": 75})


@pytest.mark.parametrize(("trt", "bits"), [(V10, 0b10), (V11, 0b1), (LATER, 0)])
def test_networks_are_strongly_typed_whatever_the_number_of_the_flag(
    trt: object, bits: int
) -> None:
    assert network_flags(trt) == bits


def test_a_tensorrt_that_would_choose_precisions_itself_is_refused() -> None:
    with pytest.raises(BackendUnavailableError, match=r"TensorRT 1\.2\.3 .* 10\.3"):
        network_flags(V8_6)


def test_targets_are_the_real_architectures_oldest_first() -> None:
    assert target_names(RTX) == ("sm75", "sm86", "sm120")
    assert target_names(V10) == ()


class Config:
    """An IBuilderConfig that takes every architecture but Turing."""

    def __init__(self) -> None:
        self.num_compute_capabilities = 0
        self.slots: dict[int, str] = {}

    def set_compute_capability(self, member: enum.IntEnum, index: int) -> bool:
        self.slots[index] = member.name
        return member.name != "SM75"


def test_every_target_gets_a_slot_and_a_refused_one_is_named() -> None:
    config = Config()
    set_targets(RTX, config, ["sm86", "sm120"])
    assert config.num_compute_capabilities == 2
    assert config.slots == {0: "SM86", 1: "SM120"}
    with pytest.raises(BuildError, match="sm75"):
        set_targets(RTX, Config(), ["sm75"])


def test_a_tensorrt_without_targets_is_not_asked_for_any() -> None:
    set_targets(V10, config := Config(), [])
    assert config.slots == {}
