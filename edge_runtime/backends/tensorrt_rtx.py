"""TensorRT-RTX: builds plans on any Linux x86-64 machine, with or without a GPU."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence

import tensorrt_rtx_bindings as trt

from edge_runtime.backends.base import PlanKey
from edge_runtime.backends.tensorrt.builder import TensorRTBuilder
from edge_runtime.backends.tensorrt.compat import target_names, target_number
from edge_runtime.errors import ConfigError

VERSION: str = trt.__version__
"""Version of the library, such as `1.7.1.116`."""

TARGETS: tuple[str, ...] = target_names(trt)
"""The GPU architectures that `create_builder` takes, such as `sm86`."""


def create_builder(targets: Sequence[str]) -> TensorRTBuilder:
    """A builder of plans for these GPU architectures, all in one plan; none means Ampere and newer.

    Raises:
        ConfigError: TensorRT-RTX does not build for one of them.
    """
    for target in targets:
        if target not in TARGETS:
            raise ConfigError(
                f"TensorRT-RTX {VERSION} has no target {target!r}; it builds for "
                f"{', '.join(TARGETS)}. A Jetson (Orin is sm87, Thor sm110) is not among them: its "
                "plan is built on the Jetson, with TensorRT, by `edge-runtime build NAME.edge`."
            )
    key = PlanKey(
        backend="tensorrt-rtx",
        version=VERSION,
        compute_capabilities=tuple(sorted(set(targets), key=target_number)),
        platform=f"{sys.platform}-{platform.machine()}",
    )
    return TensorRTBuilder(trt, key)
