"""Tells TensorRT's builder what a `TensorRTConfig` asks for, or says what this TensorRT lacks."""

from __future__ import annotations

from typing import Any

from edge_runtime.backends.tensorrt.compat import enum_member, target_names
from edge_runtime.backends.tensorrt.memory_guard import Limits
from edge_runtime.errors import BuildError, ConfigError
from edge_runtime.gpu_config import HardwareCompatibility, TensorRTConfig

_FLAGS = (
    ("sparse_weights", "SPARSE_WEIGHTS"),
    ("version_compatible", "VERSION_COMPATIBLE"),
    ("refit", "REFIT"),
    ("strip_weights", "STRIP_PLAN"),
    ("weight_streaming", "WEIGHT_STREAMING"),
)
_LEVELS = {
    HardwareCompatibility.SAME_COMPUTE_CAPABILITY: "SAME_COMPUTE_CAPABILITY",
    HardwareCompatibility.AMPERE_PLUS: "AMPERE_PLUS",
}


def traits(options: TensorRTConfig) -> tuple[str, ...]:
    """What tells a plan with these options from the usual one: the `traits` of its `PlanKey`."""
    present = {
        "dla": options.dla_core is not None,
        "stripped": options.strip_weights,
        "version-compatible": options.version_compatible,
    }
    return tuple(name for name, yes in present.items() if yes)


def check_options(trt: Any, builder: Any, options: TensorRTConfig) -> None:
    """Refuses what this TensorRT or this board lacks, before anything is parsed.

    Raises:
        ConfigError: An option that cannot be had; names it and says why.
    """
    for option, flag in _FLAGS:
        if getattr(options, option):
            enum_member(trt, "BuilderFlag", flag, option=option)
    if options.hardware_compatibility in _LEVELS:
        if target_names(trt):
            raise ConfigError(
                f"hardware_compatibility is {options.hardware_compatibility.value!r}, which "
                "TensorRT-RTX does not have: name the GPU architectures as targets instead."
            )
        _level(trt, options.hardware_compatibility)
    if options.dla_core is not None:
        _check_dla(trt, builder, options.dla_core)


def apply_options(trt: Any, config: Any, options: TensorRTConfig, limits: Limits) -> None:
    """Sets the options, which `check_options` has passed, on an `IBuilderConfig`.

    Raises:
        BuildError: TensorRT did not take a value.
    """
    # Without it the inspector knows layers by name only. With TensorRT-RTX 1.7 it costs not one
    # byte of a plan; with TensorRT, its documentation says, layer names and parameters.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    for option, flag in _FLAGS:
        if getattr(options, option):
            config.set_flag(enum_member(trt, "BuilderFlag", flag, option=option))
    if options.strip_weights and not options.refit:
        # The bundle's own weights come back: tactics may rely on their values.
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    if limits.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limits.workspace)
    if limits.tactics is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.TACTIC_DRAM, limits.tactics)
    if options.optimization_level is not None:
        _set(config, "builder_optimization_level", options.optimization_level)
    if options.max_aux_streams is not None:
        _set(config, "max_aux_streams", options.max_aux_streams)
    if options.hardware_compatibility in _LEVELS:
        level = _level(trt, options.hardware_compatibility)
        _set(config, "hardware_compatibility_level", level)
    if options.dla_core is not None:
        config.default_device_type = trt.DeviceType.DLA
        _set(config, "DLA_core", options.dla_core)
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _set(config: Any, name: str, value: Any) -> None:
    """Sets a property: TensorRT only logs that it keeps the old value."""
    setattr(config, name, value)
    if getattr(config, name) != value:
        raise BuildError(
            f"TensorRT did not take {value} for {name}; it keeps {getattr(config, name)}."
        )


def _level(trt: Any, level: HardwareCompatibility) -> Any:
    option = f"hardware_compatibility {level.value!r}"
    return enum_member(trt, "HardwareCompatibilityLevel", _LEVELS[level], option=option)


def _check_dla(trt: Any, builder: Any, core: int) -> None:
    cores = builder.num_DLA_cores
    if not cores:
        raise ConfigError(
            f"dla_core is {core}, but TensorRT {trt.__version__} finds no DLA here. Orin AGX and "
            "NX have one with TensorRT 10.3 to 10.7, and AGX Orin from 11.4.1 on; Orin Nano and "
            "Thor have none. Leave dla_core out."
        )
    if core >= cores:
        raise ConfigError(f"dla_core is {core}; this board has the DLA cores 0 to {cores - 1}.")
