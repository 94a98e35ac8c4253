"""The classes that a caller derives from, and the two loggers and profilers that come with them."""

from __future__ import annotations

import sys
from typing import Any

from tests.fakes.tensorrt.classes import Callback, behaviour


@behaviour("ILogger")
class ILogger(Callback):
    def log(self, severity: str, msg: str) -> None:
        """[ran] What a class that forgot `log` does: a line on stderr, nothing else."""
        print("Exception caught in log(): Tried to call pure virtual function", file=sys.stderr)


@behaviour("Logger")
class Logger(Callback):
    def __init__(self, library: Any, min_severity: str = "WARNING") -> None:
        super().__init__(library)
        self.min_severity = min_severity

    def log(self, severity: str, msg: str) -> None:
        order = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
        if order.index(severity) <= order.index(self.min_severity):
            print(f"[TRT] [{severity[0]}] {msg}", file=sys.stderr)


@behaviour("Profiler")
class Profiler(Callback):
    def report_layer_time(self, layer_name: str, ms: float) -> None:
        print(f"{layer_name}: {ms}ms")


@behaviour(
    "IProgressMonitor",
    "IProfiler",
    "IOutputAllocator",
    "IGpuAllocator",
    "IGpuAsyncAllocator",
    "IErrorRecorder",
    "IStreamReader",
    "IStreamReaderV2",
    "IStreamWriter",
    "IDebugListener",
)
class Interface(Callback):
    """All methods are the caller's. IOutputAllocator's are not even declared (10 and newer)."""
