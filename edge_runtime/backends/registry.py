"""Which backends there are, what this machine can do with each, and the choice between them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from edge_runtime.backends.base import Builder, Engine
from edge_runtime.bundle import CPU_GRAPH, GRAPH, Bundle
from edge_runtime.errors import BackendUnavailableError, ConfigError

CPU_GRAPHS = (CPU_GRAPH, GRAPH)
"""Bundle entries that the CPU runs, best first: the FP16 or BF16 twin, else the graph itself."""

_NO_RUNTIME = "this version of edge_runtime builds its plans but does not run them yet"


@dataclass(frozen=True, slots=True)
class Availability:
    """What this machine can do with a backend.

    Attributes:
        name: The backend, as `load` and `build` take it.
        can_build: Whether a plan for it can be built here.
        can_run: Whether a bundle can run on it here.
        reason: Why something is not possible and what would mend it; empty if all is.
    """

    name: str
    can_build: bool
    can_run: bool
    reason: str


def availability() -> tuple[Availability, ...]:
    """Every backend, best first."""
    return (_tensorrt(), _tensorrt_rtx(), _cpu())


def choose(bundle: Bundle, device: str) -> tuple[str, Sequence[str]]:
    """The backend that runs `bundle` for `device`, and why each better one was passed over.

    Raises:
        ConfigError: There is no such device.
        BackendUnavailableError: The device was asked for by name and cannot run the bundle here.
    """
    backends = {entry.name: entry for entry in availability()}
    if device not in ("auto", *backends):
        raise ConfigError(f"device is {device!r}; it must be auto, {', '.join(backends)}.")
    if device != "auto":
        if not backends[device].can_run:
            raise BackendUnavailableError(
                f"{bundle.path} cannot run on {device!r}: {backends[device].reason}. "
                "Use device 'cpu', or 'auto' for the best that this machine has."
            )
        return device, ()
    reasons: list[str] = []
    for entry in backends.values():
        if entry.can_run:
            return entry.name, reasons
        reasons.append(f"{entry.name} was passed over: {entry.reason}")
    raise AssertionError("the CPU is always there")


def open_engine(bundle: Bundle, backend: str, *, threads: int = 0) -> Engine:
    """Loads what `bundle` holds for `backend`, as `choose` named it."""
    assert backend == "cpu", backend
    from edge_runtime.backends.cpu import CpuRuntime

    present = {entry.name for entry in bundle.manifest.entries}
    graph = next(name for name in CPU_GRAPHS if name in present)
    return CpuRuntime(threads=threads).load(bundle.read(graph))


def create_builder(backend: str, targets: Sequence[str]) -> Builder:
    """The builder of a backend's plans.

    Raises:
        ConfigError: A target that the backend does not have.
        BackendUnavailableError: This machine cannot build for the backend.
    """
    entry = next(entry for entry in availability() if entry.name == backend)
    if not entry.can_build or backend == "cpu":
        raise BackendUnavailableError(f"No {backend} plan can be built here: {entry.reason}.")
    from edge_runtime.backends import tensorrt_rtx

    return tensorrt_rtx.create_builder(targets)


def _cpu() -> Availability:
    can_build = find_spec("onnx") is not None
    reason = "" if can_build else "onnx is not installed: pip install 'edge-runtime[build]'"
    return Availability("cpu", can_build, True, reason)


def _tensorrt() -> Availability:
    reason = "this version of edge_runtime has no TensorRT backend yet"
    if find_spec("tensorrt") is None:
        reason += ", and TensorRT is not installed here"
    return Availability("tensorrt", False, False, reason)


def _tensorrt_rtx() -> Availability:
    name = "tensorrt-rtx"
    if find_spec("tensorrt_rtx_bindings") is not None:
        return Availability(name, True, False, _NO_RUNTIME)
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return Availability(name, False, False, "TensorRT-RTX is installed on Linux x86-64 only")
    reason = "TensorRT-RTX is not installed: pip install 'edge-runtime[rtx]'"
    return Availability(name, False, False, reason)
