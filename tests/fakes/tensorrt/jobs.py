"""What an engine does on the GPU: read the inputs, compute, write the outputs, when its turn comes.

The kernel reads and writes the addresses of the enqueue, and reads them when it runs: an input that
is overwritten too early, or an output that is read too early, shows as wrong bytes.
"""

from __future__ import annotations

import ctypes
import itertools
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.fakes.tensorrt.driver import Run
from tests.fakes.tensorrt.graph import ARRAYS, Graph, Tensor

_TOKEN_BYTES = 16
_NUMBERS = itertools.count(1)
_JOBS: dict[int, Job] = {}
_RUNNING: dict[int, Job] = {}  # By scratch memory.
_SCRATCH_SECONDS = 200e-6  # A shared scratch is in use for at least so long: overlaps then show.

Bound = tuple[Tensor, tuple[int, ...], int]
"""A tensor, its shape and its address."""


class Job:
    """One enqueued inference.

    Args:
        context: Whose it is; not kept alive.
        bound: Inputs and outputs, of the enqueue.
        values: Of the inputs that decide shapes: read from the host when enqueued.
        scratch: Address of activation memory; written, and checked, while this runs.
        captured: It is a node of a CUDA graph, and may run any number of times.
    """

    def __init__(
        self,
        context: Any,
        bound: Sequence[Bound],
        values: dict[str, Any],
        scratch: int,
        captured: bool,
    ) -> None:
        self.number = next(_NUMBERS)
        self._context, self._bound, self._values = weakref.ref(context), bound, values
        self._graph: Graph = context.engine_impl.graph
        self._library, self._driver = context.library, context.library.driver
        self._scratch, self.captured, self._spoiled = scratch, captured, False
        self._shared = context.user_managed
        _JOBS[self.number] = self

    def forget(self) -> None:
        """It will not run, or not again."""
        _JOBS.pop(self.number, None)

    def orphan(self) -> None:
        """Its context is gone; a graph that still has it must not be launched again."""
        self._graph = self._bound = self._values = None  # type: ignore[assignment]

    def run(self) -> None:
        """Computes. Two that run at a time on the same scratch spoil each other's outputs."""
        context = self._context()
        if context is None or not context.alive:
            self._library.violation("An inference ran after its execution context was destroyed.")
            return
        self._spoiled = False
        token = self._enter_scratch()
        self._check_values()
        feeds = {
            tensor.name: self._values.get(tensor.name, _read(tensor, shape, address))
            for tensor, shape, address in self._bound
            if tensor.is_input
        }
        outputs = self._graph.run(feeds)
        if self._shared:
            time.sleep(_SCRATCH_SECONDS)
        self._leave_scratch(token)
        for tensor, shape, address in self._bound:
            if not tensor.is_input:
                self._write(tensor, shape, address, outputs[tensor.name])

    def _check_values(self) -> None:
        """[doc] of enqueueV3: inputs must not change before the stream comes to it."""
        for tensor, shape, address in self._bound:
            if tensor.name in self._values and not self.captured:
                now = _read(tensor, shape, address)
                if not np.array_equal(now, self._values[tensor.name]):
                    self._library.violation(f"{tensor.name!r} changed after the enqueue, to {now}.")

    def _enter_scratch(self) -> bytes:
        token = self.number.to_bytes(_TOKEN_BYTES, "little")
        with self._library.lock:
            other = _RUNNING.get(self._scratch)
            if other is not None:
                other._spoiled = self._spoiled = True
            _RUNNING[self._scratch] = self
        ctypes.memmove(self._scratch, token, _TOKEN_BYTES)
        return token

    def _leave_scratch(self, token: bytes) -> None:
        with self._library.lock:
            if _RUNNING.get(self._scratch) is self:
                del _RUNNING[self._scratch]
        if ctypes.string_at(self._scratch, _TOKEN_BYTES) != token:
            self._spoiled = True

    def _write(
        self, tensor: Tensor, shape: tuple[int, ...], address: int, array: np.ndarray
    ) -> None:
        if array.shape != shape:
            self._library.violation(
                f"Output {tensor.name!r} became {array.shape}; {shape} was enqueued: the data "
                "changed between the enqueue and the run."
            )
            return
        data = array.tobytes()
        if self._spoiled:
            data = bytes(byte ^ 0xFF for byte in data)
        ctypes.memmove(address, data, len(data))

    def fail(self, error: BaseException) -> None:
        """A kernel that cannot compute breaks its context, as an illegal access does."""
        self._library.violation(f"An inference failed while it ran: {error}")
        self._driver.fail_running(719)

    def done(self) -> None:
        """Tells the context."""
        context = self._context()
        if context is not None and not self.captured:
            context.job_done()
        if not self.captured:
            self.forget()


@Run
def run(number: int) -> None:
    """The kernel of every engine; its argument is the job's number."""
    job = _JOBS[number]
    try:
        job.run()
    except Exception as error:  # noqa: BLE001 -- nothing may pass through C
        job.fail(error)
    finally:
        job.done()


def _read(tensor: Tensor, shape: tuple[int, ...], address: int) -> np.ndarray:
    data = ctypes.string_at(address, tensor.nbytes(shape))
    return np.frombuffer(data, ARRAYS[tensor.dtype]).reshape(shape)
