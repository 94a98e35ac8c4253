"""The context of a GPU: made current in a thread, and freed in from any thread."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edge_runtime.cuda.driver import Driver
from edge_runtime.cuda.result import is_lost
from edge_runtime.errors import DeviceError

_log = logging.getLogger(__name__)


class _Current:
    """Pushes the context and pops it; holds nothing, so one serves all threads at any depth."""

    __slots__ = ("_pop", "_push")

    def __init__(self, driver: Driver) -> None:
        self._push = driver.push
        self._pop = driver.pop

    def __enter__(self) -> None:
        self._push()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._pop()
        except DeviceError as failure:
            if error is None:
                raise
            _log.debug("%s", failure)  # What went wrong inside says more.


class Context:
    """A driver's context, and what has to be freed in it.

    Args:
        driver: Whose context it is.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._current = _Current(driver)
        self._dropped: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._lock = threading.Lock()
        self._captures = 0

    def current(self) -> AbstractContextManager[None]:
        """Makes the context current in this thread; afterwards is current what was before."""
        return self._current

    def free(self, free: Callable[[Any], None], handle: Any) -> None:
        """Calls `free(handle)` in the context. Nothing on the GPU may use it any more.

        Never raises: of a lost device nothing is left to be freed.
        """
        self._free(free, handle, wait=False)

    def drop(self, free: Callable[[Any], None], handle: Any) -> None:
        """Calls `free(handle)` in the context once nothing on the GPU can use it any more.

        For what nobody closed: the garbage collector calls this at any point of any thread. While a
        graph is captured it is put off, since waiting for the GPU would end the capture.
        """
        self._dropped.append((free, handle))
        self._free_dropped()

    def begin_capture(self) -> None:
        """Puts off freeing what is dropped."""
        with self._lock:
            self._captures += 1

    def end_capture(self) -> None:
        """Undoes `begin_capture`."""
        with self._lock:
            self._captures -= 1
        self._free_dropped()

    def _free_dropped(self) -> None:
        # The collector may call this inside of itself, where waiting for the lock would never end:
        # whoever holds the lock looks again after giving it back.
        while self._dropped and self._lock.acquire(blocking=False):
            try:
                if self._captures:
                    return
                while self._dropped:
                    free, handle = self._dropped.popleft()
                    self._free(free, handle, wait=True)
            finally:
                self._lock.release()

    def _free(self, free: Callable[[Any], None], handle: Any, *, wait: bool) -> None:
        try:
            with self._current:
                if wait:
                    self.driver.synchronize()
                free(handle)
        except DeviceError as error:
            _log.log(logging.DEBUG if is_lost(error) else logging.ERROR, "%s", error)


class Resource:
    """What the driver made and has to destroy: by `close()`, or when it is dropped.

    Args:
        context: Where it was made.
        handle: The driver's handle.
        free: The driver's call that destroys it.
    """

    def __init__(self, context: Context, handle: Any, free: Callable[[Any], None]) -> None:
        self._context = context
        self._driver = context.driver
        self._handle = handle
        self._finalizer = weakref.finalize(self, context.drop, free, handle)
        self._finalizer.atexit = False

    def close(self) -> None:
        """Destroys it; nothing on the GPU may use it any more. Calling it again does nothing."""
        alive = self._finalizer.detach()
        if alive is not None:
            del self._handle
            _, _, (free, handle), _ = alive
            self._context.free(free, handle)

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name == "_handle":  # so that testing for it costs calls nothing
                raise ValueError(f"This {type(self).__name__} is closed.")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
