"""TensorRT: builds plans on the GPU that they are for, such as a Jetson's, and runs them there."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import tensorrt as trt

from edge_runtime.backends.base import PlanKey
from edge_runtime.backends.tensorrt.builder import TensorRTBuilder
from edge_runtime.backends.tensorrt.child import ChildBuilder
from edge_runtime.backends.tensorrt.logger import ThreadErrors
from edge_runtime.backends.tensorrt.memory_guard import MemoryGuard
from edge_runtime.backends.tensorrt.options import traits
from edge_runtime.backends.tensorrt.timing_cache import TimingCacheFile, timing_cache_path
from edge_runtime.cuda.device import open_device
from edge_runtime.gpu_config import GpuConfig, HardwareCompatibility, TensorRTConfig

if TYPE_CHECKING:
    from edge_runtime.backends.tensorrt.runtime import TensorRTRuntime

VERSION: str = trt.__version__
"""Version of the library, such as `10.3.0`."""


def machine(driver: str = "auto") -> PlanKey:
    """What plans must be built for to run here. Its traits say whether there is a DLA.

    Args:
        driver: The Python binding of CUDA, see `GpuConfig`.

    Raises:
        BackendUnavailableError: There is no GPU, or no Python binding of CUDA.
    """
    device = open_device(driver)
    with device.current():
        runtime = trt.Runtime(ThreadErrors(trt).logger)
        has_dla = runtime.num_DLA_cores > 0
        del runtime
    return PlanKey(
        backend="tensorrt",
        version=VERSION,
        compute_capabilities=(device.info.compute_capability,),
        platform=f"{sys.platform}-{platform.machine()}",
        traits=("dla",) if has_dla else (),
    )


def create_builder(config: TensorRTConfig | None = None) -> TensorRTBuilder:
    """A builder of plans for this machine's GPU. It keeps kernel timings in the user's cache.

    Raises:
        BackendUnavailableError: There is no GPU, or no Python binding of CUDA.
    """
    config = config or TensorRTConfig()
    device = open_device()
    info = device.info
    name = f"{info.compute_capability} {info.name}"
    return TensorRTBuilder(
        trt,
        _key(config),
        config,
        timing_cache=TimingCacheFile(timing_cache_path(VERSION, name, os.environ)),
        memory=MemoryGuard(shared=info.integrated),
        device=device,
    )


def create_child_builder(config: TensorRTConfig | None = None) -> ChildBuilder:
    """The same builder in a process of its own.

    Raises:
        BackendUnavailableError: There is no GPU, or no Python binding of CUDA.
    """
    config = config or TensorRTConfig()
    return ChildBuilder(f"{__name__}:builder_in_worker", {"config": asdict(config)}, _key(config))


def builder_in_worker(config: Mapping[str, Any]) -> TensorRTBuilder:
    """`create_builder` with plain JSON values: what the process of `create_child_builder` calls."""
    return create_builder(TensorRTConfig(**config))


def create_runtime(gpu: GpuConfig) -> TensorRTRuntime:
    """What loads plans on this machine's GPU.

    Raises:
        BackendUnavailableError: There is no GPU, or no Python binding of CUDA.
    """
    from edge_runtime.backends.tensorrt.runtime import TensorRTRuntime

    return TensorRTRuntime(trt, open_device(gpu.driver), gpu)


def _key(config: TensorRTConfig) -> PlanKey:
    key = replace(machine(), traits=traits(config))
    if config.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS:
        return replace(key, compute_capabilities=())
    return key
