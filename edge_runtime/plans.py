"""Builds plans from graphs whose precision is written, and adds them to bundles.

A device needs no more than this and a builder: no ONNX library, no data and no calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_runtime.backends import registry
from edge_runtime.backends.base import Builder, Plan
from edge_runtime.backends.tensorrt.profile import example_range, missing_range
from edge_runtime.bundle import GRAPH, Bundle, add_plans
from edge_runtime.config import BuildConfig, OptimizationProfile
from edge_runtime.errors import BuildError, ConfigError
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import TensorSpec


def extend(
    bundle: Bundle,
    *,
    backend: str = "auto",
    targets: tuple[str, ...] = (),
    profile: OptimizationProfile | None = None,
    progress: Progress = silent,
) -> tuple[Bundle, bool]:
    """Adds this machine's plan to a bundle, with no data set and no calibration.

    Args:
        bundle: The bundle; its file is replaced.
        backend: `tensorrt-rtx`, `tensorrt`, or `auto` for the best that can be built here.
        targets: GPU architectures for TensorRT-RTX.
        profile: Shape ranges; the bundle's own without any.
        progress: Told of every step.

    Returns:
        The bundle, and whether a plan was built: False if it had that plan already.

    Raises:
        BackendUnavailableError: No plan can be built here.
        BuildError: The builder refused the graph.
    """
    own = bundle.manifest.build_config
    config = replace(
        own, backend=backend, targets=targets or own.targets, profile=profile or own.profile
    )
    name = backend if backend != "auto" else best_builder()
    builder = registry.create_builder(name, config.targets)
    if builder.key.entry in bundle.plans and (profile is None or profile == own.profile):
        bundle.verify()
        return bundle, False
    progress(f"Building the {name} plan", 0, 1)
    plan = builder.build(bundle.read(GRAPH), config.profile)
    progress(f"Building the {name} plan", 1, 1)
    return add_plans(bundle, {plan.key: plan.data}, profile=profile), True


def best_builder() -> str:
    """The best backend that builds plans here.

    Raises:
        BackendUnavailableError: There is none.
    """
    plans = [entry for entry in registry.availability() if entry.name != "cpu"]
    return next((entry.name for entry in plans if entry.can_build), plans[0].name)


def plan_builder(
    config: BuildConfig, inputs: Sequence[TensorSpec]
) -> tuple[Builder | None, str | None]:
    """What builds the plan, or with backend `cpu` or `auto` nothing, and why not."""
    if config.backend == "cpu":
        return None, "none was asked for (backend cpu)"
    is_auto = config.backend == "auto"
    backend = best_builder() if is_auto else config.backend
    if is_auto and not any(e.can_build for e in registry.availability() if e.name == backend):
        return None, "no builder of plans is installed here"
    builder = registry.create_builder(backend, config.targets)
    for spec in inputs:
        if not spec.is_static and spec.name not in config.profile:
            if not is_auto:
                raise ConfigError(missing_range(spec.name, spec.shape))
            return None, (
                f"input {spec.name!r} has dynamic dimensions: give its shapes, such as --shape "
                f"{spec.name}={example_range(spec.shape)}"
            )
    return builder, None


def try_plan(
    builder: Builder, graph: bytes, config: BuildConfig, progress: Progress
) -> tuple[Plan | None, str | None]:
    """A plan, or with backend `auto` none, and why not: the bundle is whole without one."""
    what = f"Building the {builder.key.backend} plan"
    progress(what, 0, 1)
    try:
        plan = builder.build(graph, config.profile)
    except BuildError as error:
        if config.backend != "auto":
            raise
        return None, str(error)
    progress(what, 1, 1)
    return plan, None
