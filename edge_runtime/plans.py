"""Builds plans from graphs whose precision is written, and adds them to bundles.

A device needs no more than this and a builder: no ONNX library, no data and no calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_runtime.backends import registry
from edge_runtime.backends.base import Builder, Plan
from edge_runtime.backends.tensorrt.profile import missing_range
from edge_runtime.bundle import GRAPH, Bundle, add_plans
from edge_runtime.config import BuildConfig
from edge_runtime.errors import BackendUnavailableError, BuildError, ConfigError
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import TensorSpec


def extend(
    bundle: Bundle, config: BuildConfig | None = None, *, progress: Progress = silent
) -> tuple[Bundle, bool]:
    """Adds this machine's plan to a bundle, with no data set and no calibration.

    Args:
        bundle: The bundle; its file is replaced.
        config: The bundle's own settings, or with another backend, other targets, profiles or
            TensorRT options. Without any: its own, for the best backend that can be built here.
        progress: Told of every step.

    Returns:
        The bundle, and whether a plan was built: False if it had that plan already, built with
        these very profiles and options.

    Raises:
        BackendUnavailableError: No plan can be built here.
        BuildError: The builder refused the graph.
        ConfigError: The settings are those of another graph, or the builder cannot take them.
    """
    own = bundle.manifest.build_config
    config = config or replace(own, backend="auto")
    _check_same_graph(config, own, bundle)
    builder = _create_builder(
        config.backend if config.backend != "auto" else best_builder(), config
    )
    had = bundle.manifest.plan_settings.get(builder.key.entry)
    if had == config.plan_settings:
        bundle.verify()
        return bundle, False
    _check_shapes(config, bundle.inputs)
    plan = _build(builder, bundle.read(GRAPH), config, progress)
    return add_plans(bundle, [plan], config=config), True


def best_builder() -> str:
    """The best backend that builds plans here.

    Raises:
        BackendUnavailableError: There is none.
    """
    plans = [entry for entry in registry.availability() if entry.name not in registry.CPU_BACKENDS]
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
    try:
        builder = _create_builder(backend, config)
    except BackendUnavailableError as error:
        if not is_auto:
            raise
        return None, str(error)
    try:
        _check_shapes(config, inputs)
    except ConfigError as error:
        if not is_auto:
            raise
        return None, str(error)
    return builder, None


def try_plan(
    builder: Builder, graph: bytes, config: BuildConfig, progress: Progress
) -> tuple[Plan | None, str | None]:
    """A plan, or with backend `auto` none, and why not: the bundle is whole without one."""
    try:
        return _build(builder, graph, config, progress), None
    except (BackendUnavailableError, BuildError) as error:
        if config.backend != "auto":
            raise
        return None, str(error)


def _create_builder(backend: str, config: BuildConfig) -> Builder:
    """The builder of `backend`, for which TensorRT-RTX's targets count only if it is that."""
    targets = config.targets if backend == "tensorrt-rtx" else ()
    return registry.create_builder(backend, replace(config, backend=backend, targets=targets))


def _build(builder: Builder, graph: bytes, config: BuildConfig, progress: Progress) -> Plan:
    what = f"Building the {builder.key.backend} plan"
    progress(what, 0, 100)  # Per cent, as builders report it, under this very name.
    plan = builder.build(graph, config.profiles, progress)
    progress(what, 100, 100)
    return plan


def _check_shapes(config: BuildConfig, inputs: Sequence[TensorSpec]) -> None:
    """Refuses profiles without shapes for an input that needs them."""
    for number, profile in enumerate(config.profiles or ({},), 1):
        for spec in inputs:
            if not spec.is_static and spec.name not in profile:
                which = f"Profile {number}: " if number > 1 else ""
                raise ConfigError(which + missing_range(spec.name, spec.shape))


def _check_same_graph(config: BuildConfig, own: BuildConfig, bundle: Bundle) -> None:
    if config.backend == "cpu":
        raise ConfigError(f"Backend cpu has no plans: it runs {bundle.path} as it is.")
    asked = replace(
        config,
        backend=own.backend,
        targets=own.targets,
        profiles=own.profiles,
        tensorrt=own.tensorrt,
    )
    if asked != own:
        raise ConfigError(
            f"The graph in {bundle.path} was written with another precision, calibration or "
            "exclusion than was asked for. Build a bundle of the model instead."
        )
