"""What the builder is told, on every TensorRT that is supported, and what one of them refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_runtime.backends.tensorrt.logger import recording
from edge_runtime.backends.tensorrt.memory_guard import Limits
from edge_runtime.backends.tensorrt.options import apply_options, check_options, traits
from edge_runtime.errors import BuildError, ConfigError
from edge_runtime.gpu_config import TensorRTConfig
from tests.fakes.tensorrt import make
from tests.unit.backends.tensorrt.modules import STANDARD, VERSIONS, module

OLD = ["10.3.0", "10.7.0"]  # Before HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY.


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest) -> Any:
    return module(request.param)


def told(trt: Any, options: TensorRTConfig, limits: Limits | None = None) -> Any:
    """An IBuilderConfig with these options."""
    with recording(trt) as (logger, _):
        builder = trt.Builder(logger)
        config = builder.create_builder_config()
        check_options(trt, builder, options)
        apply_options(trt, config, options, limits or Limits())
        return config


def flags(trt: Any, config: Any) -> set[str]:
    return {name for name, flag in trt.BuilderFlag.__members__.items() if config.get_flag(flag)}


def test_without_options_fp32_is_fp32_and_layers_can_be_told(trt: Any) -> None:
    config = told(trt, TensorRTConfig())
    assert flags(trt, config) == set()
    assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
    assert config.default_device_type == trt.DeviceType.GPU
    assert config.builder_optimization_level == 3


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("tf32", {"TF32"}),
        ("sparse_weights", {"SPARSE_WEIGHTS"}),
        ("version_compatible", {"VERSION_COMPATIBLE"}),
        ("refit", {"REFIT"}),
        ("strip_weights", {"STRIP_PLAN", "REFIT_IDENTICAL"}),
        ("weight_streaming", {"WEIGHT_STREAMING"}),
    ],
)
def test_a_flag_is_set_by_its_name(trt: Any, option: str, expected: set[str]) -> None:
    assert flags(trt, told(trt, replace(TensorRTConfig(), **{option: True}))) == expected


def test_stripped_weights_that_may_be_replaced_are_refitted_as_any(trt: Any) -> None:
    options = TensorRTConfig(strip_weights=True, refit=True)
    assert flags(trt, told(trt, options)) == {"STRIP_PLAN", "REFIT"}


def test_numbers_arrive(trt: Any) -> None:
    config = told(trt, TensorRTConfig(optimization_level=0, max_aux_streams=0))
    assert (config.builder_optimization_level, config.max_aux_streams) == (0, 0)


def test_limits_arrive(trt: Any) -> None:
    config = told(trt, TensorRTConfig(), Limits(workspace=2**30, tactics=2**31))
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 2**30
    assert config.get_memory_pool_limit(trt.MemoryPoolType.TACTIC_DRAM) == 2**31


@pytest.mark.parametrize("version", STANDARD)
@pytest.mark.parametrize("level", ["ampere+", "same-compute-capability", "none"])
def test_hardware_compatibility_is_set_or_refused_by_name(version: str, level: str) -> None:
    trt = module(version)
    options = TensorRTConfig(hardware_compatibility=level)
    if level == "same-compute-capability" and version in OLD:
        with pytest.raises(ConfigError, match="'same-compute-capability': TensorRT 10") as refusal:
            told(trt, options)
        assert "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY" in str(refusal.value)
        return
    wanted = level.upper().replace("-", "_").replace("+", "_PLUS")
    member = trt.HardwareCompatibilityLevel.__members__[wanted]
    assert told(trt, options).hardware_compatibility_level == member


def test_on_rtx_the_architectures_are_targets() -> None:
    with pytest.raises(ConfigError, match="name the GPU architectures as targets"):
        told(module("rtx-1.7.1.116"), TensorRTConfig(hardware_compatibility="ampere+"))


@pytest.mark.parametrize("version", STANDARD)
def test_a_dla_takes_what_it_can_and_the_gpu_the_rest(version: str) -> None:
    trt = module(version, dla_cores=2)
    config = told(trt, TensorRTConfig(dla_core=1))
    assert config.default_device_type == trt.DeviceType.DLA
    assert config.DLA_core == 1
    assert flags(trt, config) == {"GPU_FALLBACK"}


@pytest.mark.parametrize(
    ("cores", "core", "words"),
    [
        (0, 0, "dla_core is 0, but TensorRT .* finds no DLA here"),
        (2, 2, "dla_core is 2; this board has the DLA cores 0 to 1"),
    ],
)
def test_a_dla_that_is_not_there_is_refused(cores: int, core: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        told(module("10.3.0", dla_cores=cores), TensorRTConfig(dla_core=core))


@pytest.mark.parametrize(
    ("option", "flag"), [("sparse_weights", "SPARSE_WEIGHTS"), ("strip_weights", "STRIP_PLAN")]
)
def test_an_option_that_a_version_lacks_is_named_with_the_version(option: str, flag: str) -> None:
    trt = make("11.4.0.106")
    members = {k: v for k, v in trt.BuilderFlag.__members__.items() if k != flag}
    trt.BuilderFlag = type("BuilderFlag", (), members)
    with pytest.raises(ConfigError, match=rf"{option}: TensorRT 11\.4.*BuilderFlag\.{flag}"):
        told(trt, replace(TensorRTConfig(), **{option: True}))


def test_a_value_that_tensorrt_ignores_is_refused() -> None:
    class Deaf:
        builder_optimization_level = property(lambda _: 3, lambda _, __: None)

        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    trt = module("10.3.0")
    with pytest.raises(
        BuildError, match=r"did not take 5 for builder_optimization_level.* keeps 3"
    ):
        apply_options(trt, Deaf(), TensorRTConfig(optimization_level=5), Limits())


def test_traits_tell_plans_apart() -> None:
    assert traits(TensorRTConfig(sparse_weights=True, tf32=True)) == ()
    every = TensorRTConfig(version_compatible=True, strip_weights=True, dla_core=0)
    assert traits(every) == ("dla", "stripped", "version-compatible")
