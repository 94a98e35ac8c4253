"""How long each layer of a plan takes on this GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from edge_runtime.backends.base import Plan
from edge_runtime.backends.tensorrt.interface import Tensor
from edge_runtime.backends.tensorrt.runtime import TensorRTRuntime
from edge_runtime.config import OptimizationProfile
from edge_runtime.cuda.device import Device
from edge_runtime.gpu_config import GpuConfig
from edge_runtime.tensors import Array

_WARM_UP = 3
_RUNS = 10


def layer_milliseconds(
    trt: Any,
    device: Device,
    plan: Plan,
    *,
    graph: bytes,
    profiles: Sequence[OptimizationProfile],
    config: GpuConfig,
) -> Mapping[str, float]:
    """Mean time of each layer, by its name, at the usual shapes of the first profile.

    The inputs are zeros: what a layer takes rarely depends on them.

    Args:
        trt: TensorRT's module.
        device: The GPU.
        plan: The plan, built for this GPU.
        graph: What it was built from, for a plan without weights.
        profiles: What it was built with.
        config: How to load it.

    Raises:
        BundleError: TensorRT does not load it.
        InferenceError: It does not run on zeros.
        DeviceError: The GPU failed, or has not enough memory.
    """
    runtime = TensorRTRuntime(trt, device, config)
    engine = runtime.load(plan.data, key=plan.key, graph=lambda: graph)
    try:
        context = engine.create_context()
        try:
            profile = profiles[0] if profiles else {}
            feeds = {t.spec.name: _zeros(t, profile) for t in engine.interface.inputs}
            times = context.layer_times(feeds, runs=_WARM_UP + _RUNS)
        finally:
            context.close()
    finally:
        engine.close()
    return {time.name: fmean(time.milliseconds[_WARM_UP:]) for time in times}


def _zeros(tensor: Tensor, profile: OptimizationProfile) -> Array:
    """An input of the profile's usual shape; for one that decides a shape, its usual values."""
    spec = tensor.spec
    if tensor.on_host and spec.name in profile:
        return np.array(profile[spec.name].opt, spec.dtype).reshape(spec.shape)
    return np.zeros(spec.shape if spec.is_static else profile[spec.name].opt, spec.dtype)
