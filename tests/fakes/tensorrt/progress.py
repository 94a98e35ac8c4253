"""Calls an IProgressMonitor as a build does.

[ran on TensorRT-RTX 1.7] The phase "Building engine" has no parent, the others lie within it and
within each other; a step is counted from 0. `step_complete` that returns False cancels the build,
and so does one that raises: the exception is printed, and goes no further.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.fakes.tensorrt.network import Layer, Network


class Cancelled(Exception):  # noqa: N818
    """The monitor wants no more of this build."""


def report(monitor: Any, network: Network, measure: Callable[[Layer], None]) -> None:
    """Builds, as far as the monitor can tell.

    Raises:
        Cancelled: By the monitor.
    """
    layers = network.layers()
    with _phase(monitor, "Building engine", None, 3) as building:
        with _phase(monitor, "Cloning network graph", "Building engine", 1) as step:
            step(0)
        building(0)
        with _phase(monitor, "Computing profile costs", "Building engine", 1) as costs:
            with _phase(
                monitor, "Timing graph nodes", "Computing profile costs", len(layers)
            ) as step:
                for index, layer in enumerate(layers):
                    measure(layer)
                    step(index)
            costs(0)
        building(1)
        building(2)


@contextmanager
def _phase(
    monitor: Any, name: str, parent: str | None, steps: int
) -> Iterator[Callable[[int], None]]:
    def step(index: int) -> None:
        if monitor is not None and _call(monitor.step_complete, name, index) is not True:
            raise Cancelled

    if monitor is not None:
        _call(monitor.phase_start, name, parent, steps)
    try:
        yield step
    finally:
        if monitor is not None:
            _call(monitor.phase_finish, name)


def _call(method: Any, *arguments: Any) -> Any:
    """What the method returns; None if it raised. Any true value counts as True in C++."""
    try:
        result = method(*arguments)
    except BaseException:  # noqa: BLE001 -- as pybind11's trampolines do, Ctrl-C too
        print(f"[ERROR] Exception caught in {method.__name__}()", file=sys.stderr)
        traceback.print_exc()
        return None
    return bool(result) if result is not None else None
