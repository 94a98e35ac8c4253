"""Which backends there are, what this machine can do with each, and the choice between them."""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from edge_runtime.backends.base import Builder, Engine, PlanKey, Runtime
from edge_runtime.backends.tensorrt.match import mismatch
from edge_runtime.bundle import CPU_FAST_GRAPH, CPU_GRAPH, GRAPH, Bundle
from edge_runtime.config import BuildConfig, CpuMode
from edge_runtime.errors import BackendUnavailableError, ConfigError, DeviceError
from edge_runtime.gpu_config import GpuConfig

CPU_GRAPHS = (CPU_GRAPH, GRAPH)
"""Bundle entries that the CPU runs, best first: the FP16 or BF16 twin, else the graph itself."""

CPU_BACKENDS = ("cpu", "openvino")
"""Backends that run a graph of the bundle and no plan."""

_MODULES = {"tensorrt": "tensorrt_standard", "tensorrt-rtx": "tensorrt_rtx"}
"""Module of each backend that runs plans; importing one imports its vendor's library."""


@dataclass(frozen=True, slots=True)
class Availability:
    """What this machine can do with a backend.

    Attributes:
        name: The backend, as `load` and `build` take it.
        can_build: Whether a plan for it can be built here.
        can_run: Whether it can run here, given a plan for this machine.
        reason: Why something is not possible and what would mend it; empty if all is.
    """

    name: str
    can_build: bool
    can_run: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs a bundle.

    Attributes:
        backend: Name of the backend.
        plan: Name of the plan's entry in the bundle; None on a CPU, which runs a graph.
        passed_over: Why each better backend was passed over.
    """

    backend: str
    plan: str | None
    passed_over: tuple[str, ...]


def availability() -> tuple[Availability, ...]:
    """Every backend, in the order in which `auto` looks at them. Nothing is imported for it.

    As `cpu` always runs, `auto` never gets to what follows it: that is taken by name only.
    """
    return (_tensorrt(), _tensorrt_rtx(), _cpu(), _openvino())


def choose(
    bundle: Bundle, device: str, gpu: GpuConfig, cpu_mode: CpuMode = CpuMode.EXACT
) -> Choice:
    """What runs `bundle` for `device`.

    Raises:
        ConfigError: There is no such device, or it has no such mode.
        BackendUnavailableError: The device was asked for by name and cannot run the bundle here, or
            the bundle has no graph for the mode.
    """
    backends = {entry.name: entry for entry in availability()}
    if device not in ("auto", *backends):
        raise ConfigError(f"device is {device!r}; it must be auto, {', '.join(backends)}.")
    if cpu_mode is CpuMode.FAST:
        _check_fast(bundle, device)
    reasons: list[str] = []
    for entry in backends.values() if device == "auto" else [backends[device]]:
        if entry.name in CPU_BACKENDS:
            if not entry.can_run:
                raise BackendUnavailableError(f"Nothing runs on {device!r} here: {entry.reason}.")
            return Choice(entry.name, None, tuple(reasons))
        try:
            plan = _find_plan(bundle, entry, gpu)
        except (BackendUnavailableError, DeviceError) as error:
            reason = str(error).rstrip(".")
            if device != "auto":
                raise BackendUnavailableError(
                    f"{bundle.path} cannot run on {device!r}: {reason}. "
                    "Use device 'cpu', or 'auto' for the best that this machine has."
                ) from error
            reasons.append(f"{entry.name} was passed over: {reason}")
        else:
            return Choice(entry.name, plan, tuple(reasons))
    raise AssertionError("the CPU is always there")


def find_plan(bundle: Bundle, machine: PlanKey) -> str:
    """The entry of the bundle's plan for a machine. Nothing is deserialised for it.

    Raises:
        BackendUnavailableError: It has none; says what its plans are for, and what would mend it.
    """
    own = {name: key for name, key in bundle.plans.items() if key.backend == machine.backend}
    reasons = {name: mismatch(key, machine) for name, key in own.items()}
    for name, reason in reasons.items():
        if not reason:
            return name
    command = f"edge-runtime build {bundle.path} --backend {machine.backend}"
    found = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    have = f"none of its plans runs here ({found})" if own else "it has no plan for it"
    raise BackendUnavailableError(f"{have}. To add one, here: {command}")


def open_engine(
    bundle: Bundle,
    choice: Choice,
    *,
    threads: int = 0,
    gpu: GpuConfig | None = None,
    cpu_mode: CpuMode = CpuMode.EXACT,
) -> Engine:
    """Loads what `bundle` holds for the backend that was chosen."""
    if choice.plan is None:
        runtime = cpu_runtime(choice.backend, threads=threads, fast=cpu_mode is CpuMode.FAST)
        read = partial(bundle.read, cpu_graph(bundle, cpu_mode))
        return runtime.load(read(), graph=read)
    vendor = _module(choice.backend).create_runtime(gpu or GpuConfig())
    with bundle.map(choice.plan) as data:
        engine: Engine = vendor.load(
            data,
            key=bundle.plans[choice.plan],
            inputs=bundle.inputs,
            outputs=bundle.outputs,
            graph=partial(bundle.read, GRAPH),
        )
    return engine


def cpu_graph(bundle: Bundle, cpu_mode: CpuMode) -> str:
    """The entry of the graph that a CPU runs in a mode that the bundle has."""
    present = {entry.name for entry in bundle.manifest.entries}
    graphs = (CPU_FAST_GRAPH,) if cpu_mode is CpuMode.FAST else CPU_GRAPHS
    return next(name for name in graphs if name in present)


def cpu_runtime(backend: str, *, threads: int = 0, fast: bool = False) -> Runtime:
    """The runtime of one of `CPU_BACKENDS`.

    Args:
        backend: Its name.
        threads: Threads that one inference uses; 0 means one for each core.
        fast: Whether the graphs that it will load are of the form for the mode `fast`.
    """
    if backend == "openvino":
        from edge_runtime.backends.openvino import OpenVinoRuntime

        return OpenVinoRuntime(threads=threads, fast=fast)
    from edge_runtime.backends.cpu import CpuRuntime

    return CpuRuntime(threads=threads, fast=fast)


def create_builder(backend: str, config: BuildConfig) -> Builder:
    """The builder of a backend's plans, which works in a process of its own.

    Raises:
        ConfigError: A setting that the backend does not have.
        BackendUnavailableError: This machine cannot build for the backend.
    """
    entry = next(entry for entry in availability() if entry.name == backend)
    if not entry.can_build or backend in CPU_BACKENDS:
        raise BackendUnavailableError(f"No {backend} plan can be built here: {entry.reason}.")
    module = _module(backend)
    targets = (config.targets,) if backend == "tensorrt-rtx" else ()
    builder: Builder = module.create_child_builder(*targets, config.tensorrt)
    return builder


def _module(backend: str) -> ModuleType:
    try:
        return import_module(f"edge_runtime.backends.{_MODULES[backend]}")
    except ImportError as error:  # Such as a JetPack that lacks a library of the DLA's.
        reason = f"{backend} is installed but cannot be imported: {error}"
        raise BackendUnavailableError(reason) from error


def _find_plan(bundle: Bundle, entry: Availability, gpu: GpuConfig) -> str:
    if not entry.can_run:
        raise BackendUnavailableError(entry.reason)
    return find_plan(bundle, _module(entry.name).machine(gpu.driver))


def _check_fast(bundle: Bundle, device: str) -> None:
    if device not in ("auto", *CPU_BACKENDS):
        raise ConfigError(f"cpu_mode is fast, and device {device!r} is no CPU; leave cpu_mode out.")
    if all(entry.name != CPU_FAST_GRAPH for entry in bundle.manifest.entries):
        raise BackendUnavailableError(
            f"{bundle.path} has no graph for cpu_mode fast. Build it again, with: edge-runtime "
            f"build {bundle.manifest.model.name} --precision int8 --cpu-mode fast"
        )


def _cpu() -> Availability:
    can_build = find_spec("onnx") is not None
    reason = "" if can_build else "onnx is not installed: pip install 'edge-runtime[build]'"
    return Availability("cpu", can_build, True, reason)


def _openvino() -> Availability:
    if find_spec("openvino") is not None:
        return replace(_cpu(), name="openvino")
    reason = "OpenVINO is not installed: pip install 'edge-runtime[openvino]'"
    return Availability("openvino", False, False, reason)


def _tensorrt() -> Availability:
    name = "tensorrt"
    if find_spec("tensorrt") is None:
        return Availability(
            name, False, False, "TensorRT is not installed here; on a Jetson, JetPack brings it"
        )
    reason = _no_cuda()
    return Availability(name, not reason, not reason, reason)


def _tensorrt_rtx() -> Availability:
    name = "tensorrt-rtx"
    if find_spec("tensorrt_rtx_bindings") is not None:
        reason = _no_cuda()
        return Availability(name, True, not reason, reason)
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return Availability(name, False, False, "TensorRT-RTX is installed on Linux x86-64 only")
    reason = "TensorRT-RTX is not installed: pip install 'edge-runtime[rtx]'"
    return Availability(name, False, False, reason)


def _no_cuda() -> str:
    """Why nothing runs on a GPU here; empty if something may."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "this machine has no NVIDIA driver (libcuda.so.1)"
    if not _has("cuda.bindings") and not _has("pycuda"):
        return "neither cuda-bindings nor pycuda is installed: pip install 'edge-runtime[cuda]'"
    return ""


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # Its parent package is not there.
        return False
