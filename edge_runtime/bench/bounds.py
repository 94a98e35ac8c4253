"""The layers of a profile as a result keeps them: their times, their work, and what bounds them."""

from __future__ import annotations

from typing import Any

from edge_runtime.backends.registry import CPU_BACKENDS
from edge_runtime.bench.layers import LayerProfile, by_time, table
from edge_runtime.bench.roofline import (
    Peaks,
    measured_peaks,
    published_peaks,
    roofline,
    roofline_table,
)
from edge_runtime.board import read_board


def layer_rows(profile: LayerProfile, *, threads: int = 0) -> list[dict[str, Any]]:
    """Rows for `BenchResult.layers`, in the order in which the layers ran.

    Each is `Layer.to_json` with the row of `roofline_table`, and with `peaks`: the machine's name
    and where its peaks are from. Where none are known, that is None and nothing bounds a layer.

    Args:
        profile: The layers, timed on this machine.
        threads: CPU threads that an inference used, 0 for one each core.
    """
    peaks = machine_peaks(profile.backend, threads=threads)
    if peaks is None:
        rows = [{**row, "bound": None, "roof_share": None} for row in table(profile)]
    else:
        rows = roofline_table(profile, roofline(profile, peaks))
    said = None if peaks is None else f"{peaks.name}; {peaks.source}"
    found = dict(zip(by_time(profile), rows, strict=True))
    return [
        {**layer.to_json(), **found[index], "peaks": said}
        for index, layer in enumerate(profile.layers)
    ]


def machine_peaks(backend: str, *, threads: int = 0) -> Peaks | None:
    """What this machine can do at most on a backend.

    A CPU is measured, which takes less than a second; of a Jetson's GPU the published figures are
    taken. None for another GPU.
    """
    board = read_board()
    if backend in CPU_BACKENDS:
        return measured_peaks(board.cpu or "this CPU", threads=threads)
    if board.jetson is None or board.memory is None:
        return None
    return published_peaks(board.jetson, board.memory)
