"""Times of single queries in the JSON that trtexec writes with `--exportTimes`."""

from __future__ import annotations

import json

from edge_runtime.bench.result import BenchResult
from edge_runtime.bench.statistics import Times
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.files import StrPath, atomic_write


def export_times(result: BenchResult, path: StrPath) -> None:
    """Writes a list with an object for each query, in trtexec's names; times in milliseconds.

    They count from the start of the first query that was measured; what does not apply is null. On
    a CPU, enqueueing and computing are one call. Source: NVIDIA/TensorRT,
    samples/common/sampleReporting.cpp, `exportJSONTrace`.

    Raises:
        ConfigError: The result is of another protocol than trtexec's.
        DataError: The system refused to write.
    """
    check_exportable(result.protocol)
    samples = result.samples
    begun = 1000 * samples.start
    on_gpu = samples.compute_start is not None
    starts: dict[str, Times | None] = {
        "Enq": _ms(samples.enqueue_start) if on_gpu else begun,
        "H2d": None if samples.h2d is None else begun,
        "Compute": _ms(samples.compute_start) if on_gpu else begun,
        "D2h": None if samples.d2h is None else _ms(samples.d2h_start),
    }
    taken = {
        "Enq": samples.enqueue,
        "H2d": samples.h2d,
        "Compute": samples.compute,
        "D2h": samples.d2h,
    }
    columns: dict[str, Times | None] = {}
    for name, start in starts.items():
        columns[f"start{name}Ms"] = start
        length = taken[name]
        columns[f"end{name}Ms"] = None if start is None or length is None else start + length
    for name in ("H2d", "Compute", "D2h"):
        columns[f"{name[0].lower()}{name[1:]}Ms"] = taken[name]
    columns["latencyMs"] = samples.latency
    plain = {k: None if times is None else times.tolist() for k, times in columns.items()}
    rows = [
        {name: None if values is None else values[index] for name, values in plain.items()}
        for index in range(len(samples))
    ]
    text = "[\n  " + "\n, ".join(json.dumps(row, allow_nan=False) for row in rows) + "\n]\n"
    with atomic_write(path, error=DataError) as file:
        file.write(text.encode())


def check_exportable(protocol: str) -> None:
    """Refuses protocols whose queries have no such parts.

    Raises:
        ConfigError: It is none of trtexec's.
    """
    if not protocol.startswith("trtexec"):
        raise ConfigError(
            f"Times in trtexec's form are of its protocols, trtexec10 and trtexec11, not of "
            f"{protocol}. The result's own file has all samples."
        )


def _ms(moments: Times | None) -> Times | None:
    return None if moments is None else 1000 * moments
