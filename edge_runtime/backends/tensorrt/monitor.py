"""Lets a build report how far it is, and be cancelled: TensorRT's `IProgressMonitor`.

TensorRT swallows an exception in one of its callbacks, so none may leave them: the first is kept,
the build is cancelled, and `watching` raises it. A Ctrl-C that arrives while TensorRT works would
be raised where a callback begins, so it is only noted until the build has ended.

Phases nest: a step of a phase may be a phase of its own. Most of the time goes into few of them, so
the share that is reported is no measure of time.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from edge_runtime.progress import Progress

_TOTAL = 100


@dataclass(slots=True)
class _Phase:
    parent: str
    steps: int
    done: int = 0


class Watch:
    """What one build has reported."""

    def __init__(self, what: str, progress: Progress) -> None:
        """Reports `what` and a percentage to `progress` at every step, never less than before."""
        self._what = what
        self._progress = progress
        self._phases: dict[str, _Phase] = {}
        self._share = 0
        self._error: BaseException | None = None
        self._lock = threading.Lock()  # TensorRT may report from several threads.

    def start(self, name: str, parent: str, steps: int) -> None:
        """A phase begins."""
        with self._lock:
            self._phases[name] = _Phase(parent, steps)
            self._report()

    def step(self, name: str, step: int) -> bool:
        """The phase has done its step of this index. Returns whether to go on."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = step + 1
            self._report()
            return self._error is None

    def finish(self, name: str) -> None:
        """A phase ends, or was cancelled."""
        with self._lock:
            self._phases.pop(name, None)

    def cancel(self, error: BaseException) -> None:
        """Ends the build at its next step with this error."""
        self._error = self._error or error

    def check(self) -> None:
        """Raises the error that cancelled the build, if one did."""
        if self._error is not None:
            raise self._error

    def complete(self) -> None:
        """Reports the end."""
        self._progress(self._what, _TOTAL, _TOTAL)

    def _report(self) -> None:
        roots = [name for name, phase in self._phases.items() if phase.parent not in self._phases]
        share = int(_TOTAL * max((self._fraction(name) for name in roots), default=0))
        self._share = max(share, self._share)
        if self._error is not None:
            return
        try:
            self._progress(self._what, self._share, _TOTAL)
        except BaseException as error:  # noqa: BLE001  # TensorRT would swallow it; see above.
            self._error = error

    def _fraction(self, name: str) -> float:
        phase = self._phases[name]
        inner = [self._fraction(n) for n, child in self._phases.items() if child.parent == name]
        return min(1.0, (phase.done + max(inner, default=0.0)) / max(phase.steps, 1))


@contextmanager
def watching(trt: Any, what: str, progress: Progress) -> Iterator[tuple[Any, Watch]]:
    """The monitor for one build's `IBuilderConfig`, and what it has heard.

    Raises:
        BaseException: When the block ends: what `progress` raised, or KeyboardInterrupt.
    """
    watch = Watch(what, progress)
    with _interrupts_to(watch.cancel):
        yield _monitor_type(trt)(watch), watch
    watch.check()


@contextmanager
def _interrupts_to(cancel: Callable[[BaseException], None]) -> Iterator[None]:
    """Notes Ctrl-C instead of raising it; only where Python's own handler would raise it."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: cancel(KeyboardInterrupt()))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@cache
def _monitor_type(trt: Any) -> Callable[[Watch], Any]:
    def init(self: Any, watch: Watch) -> None:
        trt.IProgressMonitor.__init__(self)
        self.watch = watch

    def phase_start(self: Any, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        self.watch.start(phase_name, parent_phase or "", num_steps)

    def step_complete(self: Any, phase_name: str, step: int) -> bool:
        return bool(self.watch.step(phase_name, step))

    def phase_finish(self: Any, phase_name: str) -> None:
        self.watch.finish(phase_name)

    methods = {
        "__init__": init,
        "phase_start": phase_start,
        "step_complete": step_complete,
        "phase_finish": phase_finish,
    }
    return type("Monitor", (trt.IProgressMonitor,), methods)
