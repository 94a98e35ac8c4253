"""What each quantizer's script shares: the job it is given, its samples, and its result.

A job is a JSON file: `model`, `calibration` (a folder of .npz), `options` and `output`. The result,
`output` with the ending .json, has the seconds that quantizing took, imports left out: `seconds` by
the clock, `cpu_seconds` of all threads and children, which other work on the machine changes less;
further the most memory that the process had, imports included, and the first line of the error
where it failed.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Job:
    """What is to be quantized, how, and where the result goes."""

    model: Path
    calibration: Path
    options: dict[str, Any]
    output: Path

    @property
    def files(self) -> list[Path]:
        return sorted(self.calibration.glob("*.npz"))

    def feeds(self) -> Iterator[Feeds]:
        """The samples, each read when it is asked for."""
        for path in self.files:
            with np.load(path) as arrays:
                yield {name: arrays[name] for name in arrays.files}


def peak_mib() -> float:
    """The most memory that this process has had (not what its parent had, as getrusage says)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def cpu_seconds() -> float:
    """Seconds on the processor so far, of all threads of this process and of its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def run(quantize: Callable[[Job], None]) -> None:
    """Runs the job named on the command line and writes its result."""
    plain = json.loads(Path(sys.argv[1]).read_text())
    job = Job(
        Path(plain["model"]), Path(plain["calibration"]), plain["options"], Path(plain["output"])
    )
    result: dict[str, Any] = {"error": None}
    start, start_cpu = time.perf_counter(), cpu_seconds()
    try:
        quantize(job)
    except Exception as error:  # noqa: BLE001 - whatever a tool raises is its row of the table
        traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        result["error"] = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
    result["seconds"] = time.perf_counter() - start
    result["cpu_seconds"] = cpu_seconds() - start_cpu
    result["peak_mib"] = peak_mib()
    job.output.with_suffix(".json").write_text(json.dumps(result))
