"""The software GPU as tests see it: loading it, and asking it for faults, time and reports.

    gpu = load()
    gpu.mode("lazy")
    ...
    assert gpu.violations() == []
    assert gpu.live() == []

Load it before anything opens `libcuda.so.1`: the loader knows a library by its name, so that
pycuda and cuda-bindings then get this one. It cannot live in a process that has NVIDIA's own.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
from collections.abc import Callable, Sequence
from ctypes import c_double, c_int, c_long, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any, Final

from tests.software_gpu.build import build

KERNEL: Final = ctypes.CFUNCTYPE(None, c_void_p)
"""The C type of a kernel: `void(void *argument)`."""

MODES: Final = ("lazy", "late", "timed")
LAG_US: Final = 100.0
MEMORY: Final = 8 << 30
NAME: Final = "Software GPU"
VIOLATIONS, CALLS, LIVE = -1, 0, 1


class SoftwareGpu:
    """The loaded library. One per process: make it with `load`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        lib = library
        lib.swgpu_launch.argtypes = [
            c_void_p, c_void_p, c_void_p, c_void_p, c_int, c_int, c_double, c_uint,
        ]  # fmt: skip
        lib.swgpu_mode.argtypes = [c_int, c_double]
        lib.swgpu_times.argtypes = [c_double] * 4
        lib.swgpu_memory.argtypes = [c_uint64]
        lib.swgpu_identity.argtypes = [ctypes.c_char_p, c_int, c_int, c_int, c_int]
        lib.swgpu_fail.argtypes = [ctypes.c_char_p, c_long, c_int, c_int]
        lib.swgpu_fail_launch.argtypes = [c_long, c_int]
        lib.swgpu_list.argtypes = [c_int, c_void_p, c_size_t]
        lib.swgpu_violations.argtypes = [c_void_p, c_size_t, c_int]
        lib.swgpu_list.restype = lib.swgpu_violations.restype = c_size_t
        for name in ("launch", "mode", "times", "memory", "identity", "fail", "fail_launch"):
            if name != "launch":
                getattr(lib, f"swgpu_{name}").restype = None

    # What the GPU is, and how it runs work.

    def mode(self, mode: str, *, lag_us: float = LAG_US) -> None:
        """How work runs: "lazy", "late" or "timed".

        lazy: only when something waits for it, and only what that wait needs; a query runs one.
        late: by a thread per stream, each piece after a random lag of up to `lag_us` microseconds.
        timed: as late without lag, but each piece takes the time that `times` says, on one engine
        for copies to the device, one for copies to the host and one for kernels.
        """
        self.library.swgpu_mode(MODES.index(mode), lag_us)

    def times(
        self,
        *,
        h2d_gbps: float = 0.0,
        d2h_gbps: float = 0.0,
        launch_us: float = 0.0,
        copy_us: float = 0.0,
    ) -> None:
        """What work costs in timed mode: GB/s (1e9 bytes; 0: no time) and microseconds a piece."""
        self.library.swgpu_times(h2d_gbps, d2h_gbps, launch_us, copy_us)

    def memory(self, size: int) -> None:
        """The GPU's memory in bytes. Allocations above it fail."""
        self.library.swgpu_memory(size)

    def identity(
        self,
        *,
        name: str = NAME,
        capability: tuple[int, int] = (8, 7),
        integrated: bool = True,
        memory: int = MEMORY,
        version: int = 12060,
    ) -> None:
        """What the device and the driver say that they are."""
        self.library.swgpu_identity(name.encode(), *capability, integrated, version)
        self.memory(memory)

    def launch(
        self,
        stream: int,
        function: object,
        argument: int = 0,
        reads: Sequence[tuple[int, int]] = (),
        writes: Sequence[tuple[int, int]] = (),
        seconds: float = 0.0,
        *,
        alignment: int = 1,
    ) -> int:
        """Enqueues a kernel: `function(argument)`, a `KERNEL` (keep it alive) or 0 for none.

        `reads` and `writes` are (address, bytes) of what it touches: checked when it runs, also
        for `alignment`. `seconds` is its time in timed mode. Returns the CUresult.
        """
        flat = [number for pair in (*reads, *writes) for number in pair]
        ranges = (c_uint64 * len(flat))(*flat)
        at = ctypes.cast(function, c_void_p) if function else None
        return int(
            self.library.swgpu_launch(
                stream, at, argument, ranges, len(reads), len(writes), seconds, alignment
            )
        )

    def fail_running(self, error: int) -> None:
        """Called by a kernel from within: it has failed with this CUresult."""
        self.library.swgpu_kernel_failed(error)

    # Faults.

    def fail(self, call: str, nth: int = 1, error: int = 2, sticky: bool = False) -> None:
        """The n-th call from now of a driver function returns `error`, and does nothing.

        "cuMemAlloc" also means cuMemAlloc_v2. `sticky`: so does every later call in that context.
        `nth` 0 takes back what was set for that function.
        """
        self.library.swgpu_fail(call.encode(), nth, error, sticky)

    def fail_launch(self, nth: int = 1, error: int = 719) -> None:
        """The n-th kernel to run from now fails, and breaks its context."""
        self.library.swgpu_fail_launch(nth, error)

    def lose_device(self, error: int = 719) -> None:
        """Every call from now on fails; pending work never runs."""
        self.library.swgpu_lose_device(error)

    # Reports.

    def calls(self) -> dict[str, int]:
        """How often each driver function was called since `reset`, by its name without version.

        "pageable": asynchronous copies from or to memory that is not pinned; "launch": kernels.
        """
        counts: dict[str, int] = {}
        for line in self._lines(CALLS):
            name, _, count = line.rpartition(" ")
            name = name.removeprefix("swgpu_")
            for version in ("_v2", "_v3", "_v4"):
                name = name.removesuffix(version)
            counts[name] = counts.get(name, 0) + int(count)
        return counts

    def live(self) -> list[str]:
        """What was made and not freed, and contexts that are pushed. Not the primary context."""
        return self._lines(LIVE)

    def violations(self, *, forget: bool = False) -> list[str]:
        """Every broken rule since `reset`, in words. `forget` is for those that a test expects."""
        return self._lines(VIOLATIONS, forget)

    def violation(self, words: str) -> None:
        """Adds a broken rule that somebody else found, such as a fake engine."""
        self.library.swgpu_violation(words.encode())

    def idle(self) -> bool:
        """Whether no stream has work."""
        return bool(self.library.swgpu_idle())

    def reset(self) -> None:
        """Drops pending work; forgets faults, counts, violations, a lost device and settings."""
        self.library.swgpu_reset()
        self.violations(forget=True)
        self.times()
        self.identity()
        self.mode("late")

    def abandon(self) -> None:
        """Takes away all that is live, after a test that leaked."""
        self.library.swgpu_abandon()

    def _lines(self, which: int, forget: bool = False) -> list[str]:
        size = 4096
        while True:
            text = ctypes.create_string_buffer(size)
            if which == VIOLATIONS:
                needed = self.library.swgpu_violations(text, size, forget)
            else:
                needed = self.library.swgpu_list(which, text, size)
            if needed <= size:
                return text.value.decode().splitlines()
            size = needed * 2

    def function(self, name: str) -> Callable[..., Any]:
        """A function of the driver, for calls from Python without a binding."""
        found = getattr(self.library, name)
        found.restype = c_int
        return found  # type: ignore[no-any-return]  # ctypes knows no signatures


@functools.cache
def load() -> SoftwareGpu:
    """Builds the library if need be and loads it for this process."""
    library = ctypes.CDLL(str(build()), mode=ctypes.RTLD_GLOBAL)
    atexit.register(library.swgpu_drop_pending)  # No kernel may run in an interpreter that ends.
    return SoftwareGpu(library)
