"""TensorRT-RTX: builds plans on any Linux x86-64 machine, with or without a GPU."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import tensorrt_rtx_bindings as trt

from edge_runtime.backends.base import PlanKey
from edge_runtime.backends.tensorrt.builder import TensorRTBuilder
from edge_runtime.backends.tensorrt.child import ChildBuilder
from edge_runtime.backends.tensorrt.compat import target_names, target_number
from edge_runtime.backends.tensorrt.memory_guard import MemoryGuard
from edge_runtime.backends.tensorrt.options import traits
from edge_runtime.errors import ConfigError
from edge_runtime.gpu_config import GpuConfig, TensorRTConfig

if TYPE_CHECKING:
    from edge_runtime.backends.tensorrt.runtime import TensorRTRuntime

VERSION: str = trt.__version__
"""Version of the library, such as `1.7.1.116`."""

TARGETS: tuple[str, ...] = target_names(trt)
"""The GPU architectures that `create_builder` takes, such as `sm86`."""


def machine(driver: str = "auto") -> PlanKey:
    """What plans must be built for to run here.

    Args:
        driver: The Python binding of CUDA, see `GpuConfig`.

    Raises:
        BackendUnavailableError: There is no GPU, or no Python binding of CUDA.
    """
    from edge_runtime.cuda.device import open_device

    return PlanKey(
        backend="tensorrt-rtx",
        version=VERSION,
        compute_capabilities=(open_device(driver).info.compute_capability,),
        platform=f"{sys.platform}-{platform.machine()}",
    )


def create_builder(targets: Sequence[str], config: TensorRTConfig | None = None) -> TensorRTBuilder:
    """A builder of plans for these GPU architectures, all in one plan; none means Ampere and newer.

    It keeps no kernel timings: TensorRT-RTX takes none while it builds.

    Raises:
        ConfigError: TensorRT-RTX does not build for one of them.
    """
    config = config or TensorRTConfig()
    return TensorRTBuilder(trt, _key(targets, config), config, memory=MemoryGuard())


def create_child_builder(
    targets: Sequence[str], config: TensorRTConfig | None = None
) -> ChildBuilder:
    """The same builder in a process of its own.

    Raises:
        ConfigError: TensorRT-RTX does not build for one of the targets.
    """
    config = config or TensorRTConfig()
    return ChildBuilder(
        f"{__name__}:builder_in_worker",
        {"targets": list(targets), "config": asdict(config)},
        _key(targets, config),
    )


def builder_in_worker(targets: Sequence[str], config: Mapping[str, Any]) -> TensorRTBuilder:
    """`create_builder` with plain JSON values: what the process of `create_child_builder` calls."""
    return create_builder(targets, TensorRTConfig(**config))


def create_runtime(gpu: GpuConfig) -> TensorRTRuntime:
    """What loads plans on this machine's GPU.

    Raises:
        BackendUnavailableError: There is no GPU, or no Python binding of CUDA.
    """
    from edge_runtime.backends.tensorrt.runtime import TensorRTRuntime
    from edge_runtime.cuda.device import open_device

    return TensorRTRuntime(trt, open_device(gpu.driver), gpu)


def _key(targets: Sequence[str], config: TensorRTConfig) -> PlanKey:
    for target in targets:
        if target not in TARGETS:
            raise ConfigError(
                f"TensorRT-RTX {VERSION} has no target {target!r}; it builds for "
                f"{', '.join(TARGETS)}. A Jetson (Orin is sm87, Thor sm110) is not among them: its "
                "plan is built on the Jetson, with TensorRT, by `edge-runtime build NAME.edge`."
            )
    return PlanKey(
        backend="tensorrt-rtx",
        version=VERSION,
        compute_capabilities=tuple(sorted(set(targets), key=target_number)),
        platform=f"{sys.platform}-{platform.machine()}",
        traits=traits(config),
    )
