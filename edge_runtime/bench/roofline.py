"""What bounds a layer, the memory or the arithmetic, and how near it comes to that bound.

The roofline (Williams et al. 2009, doi:10.1145/1498765.1498785): a layer takes at least as long as
its bytes at the memory's peak, and as its operations at the arithmetic's; the longer of the two is
its roof. A multiply-accumulate is two operations. Layers that fit into caches may beat the roof of
the memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from edge_runtime.bench.layers import Layer, LayerProfile, by_time, table
from edge_runtime.tensors import Array

MEMORY, COMPUTE = "memory", "compute"
"""What may bound a layer."""

_AMPERE = {"int8": 1.0, "fp16": 1 / 2, "bf16": 1 / 2, "fp32": 1 / 4}
"""Rates of Ampere's tensor cores; FP32 is TF32, which TensorRT takes for it unless told otherwise
(NVIDIA Ampere GA102 GPU Architecture whitepaper, table of tensor cores)."""

_COPIED = 64 << 20
_SIDE = 256  # Large enough to come near a core's peak, and small enough to stay in its cache.
_PRODUCTS = f"""
import time
import numpy as np

a = np.ones(({_SIDE}, {_SIDE}), np.float32)
out = np.empty_like(a)
least, end = float("inf"), time.perf_counter() + 0.25
while time.perf_counter() < end:
    start = time.perf_counter()
    np.matmul(a, a, out=out)
    least = min(least, time.perf_counter() - start)
print(2 * {_SIDE}**3 / least)
"""
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Peaks:
    """What a machine can do at most.

    Attributes:
        name: The machine.
        source: Where the figures are from.
        bytes_per_second: Bytes that its memory moves, reading and writing.
        operations_per_second: Dense operations by precision, such as `int8`; without those of which
            nothing is known.
        measured: Whether they were measured on it, rather than published.
    """

    name: str
    source: str
    bytes_per_second: float
    operations_per_second: Mapping[str, float]
    measured: bool = False

    def to_json(self) -> dict[str, Any]:
        """The peaks as plain JSON values."""
        return {
            "name": self.name,
            "source": self.source,
            "bytes_per_second": self.bytes_per_second,
            "operations_per_second": dict(self.operations_per_second),
            "measured": self.measured,
        }


def _orin(name: str, source: str, gigabytes: float, sparse_tops: float) -> Peaks:
    """A module of the Orin family; data sheets give INT8 with sparsity, which doubles the rate."""
    rates = {kind: sparse_tops / 2 * 1e12 * rate for kind, rate in _AMPERE.items()}
    return Peaks(f"Jetson {name}", source, gigabytes * 1e9, rates)


_AGX = "NVIDIA Jetson AGX Orin Series data sheet DS-10662-001"
_NX = "NVIDIA Jetson Orin NX Series data sheet DS-10712-001"
_NANO = "NVIDIA Jetson Orin Nano Series data sheet DS-11105-001"

AGX_ORIN_64 = _orin("AGX Orin 64GB", _AGX, 204.8, 170)

_PUBLISHED: tuple[tuple[str, int, Peaks], ...] = (
    ("AGX Orin", 64, AGX_ORIN_64),
    ("AGX Orin", 32, _orin("AGX Orin 32GB", _AGX, 204.8, 108)),
    ("Orin NX", 16, _orin("Orin NX 16GB", f"{_NX}: 100 TOPS, of which the DLAs have 40", 102, 60)),
    ("Orin NX", 8, _orin("Orin NX 8GB", f"{_NX}: 70 TOPS, of which the DLA has 20", 102, 50)),
    ("Orin Nano", 8, _orin("Orin Nano 8GB", _NANO, 68, 40)),
    ("Orin Nano", 4, _orin("Orin Nano 4GB", _NANO, 34, 20)),
    (
        "Orin Nano Super",
        8,
        _orin("Orin Nano 8GB Super", "NVIDIA Jetson Orin Nano Super Developer Kit", 102, 67),
    ),
    *(
        (
            "AGX Xavier",
            memory,
            Peaks(
                f"Jetson AGX Xavier {memory}GB",
                "NVIDIA Developer Blog, 'Jetson AGX Xavier Delivers 32 TeraOps', 2018",
                136.5e9,
                {"int8": 22e12, "fp16": 11e12},
            ),
        )
        for memory in (16, 32, 64)
    ),
    # Of these, no figure is published for INT8 or FP16 without sparsity on the GPU alone.
    *(
        (
            "Xavier NX",
            memory,
            Peaks(f"Jetson Xavier NX {memory}GB", "NVIDIA Jetson Xavier NX data sheet", 59.7e9, {}),
        )
        for memory in (8, 16)
    ),
    ("Thor", 128, Peaks("Jetson T5000", "NVIDIA Jetson Thor Series data sheet", 273e9, {})),
)
"""Words of the device tree's model, memory in GiB, and NVIDIA's figures at the highest clocks."""


def published_peaks(jetson: str, memory: int) -> Peaks | None:
    """NVIDIA's figures of a Jetson's GPU and memory, at the highest clocks that its modes allow.

    Args:
        jetson: The board's model, as `Board.jetson` says it.
        memory: Its memory in bytes, as `Board.memory` says it: somewhat less than is built in.

    Returns:
        The figures; None for a board, or a form of one, of which none are known here.
    """
    words = set(jetson.replace("-", " ").lower().split())
    if "industrial" in words:
        return None
    gigabytes = memory / 2**30
    for model, size, peaks in _PUBLISHED:
        wanted = set(model.lower().split())
        same = wanted <= words and ("super" in words) == ("super" in wanted)
        if same and 0.75 * size < gigabytes <= size:
            return peaks
    return None


def measured_peaks(name: str = "this CPU", *, threads: int = 0) -> Peaks:
    """What this CPU does, measured in less than a second: large copies, and products in FP32.

    INT8 has no figure, since NumPy does not multiply it fast.

    Args:
        name: What to call it.
        threads: How many work at a time, as an inference does; 0 means one for each core.
    """
    workers = min(threads or _cores(), _cores())
    part = np.ones(_COPIED // workers, np.uint8)
    copies = [(part.copy(), part.copy()) for _ in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        copied = _best(lambda: list(pool.map(_copy, copies)))
    return Peaks(
        name=name,
        source=f"measured: the best of copies of {_COPIED >> 20} MiB, and of products of "
        f"{_SIDE} x {_SIDE} FP32 matrices on one core, times {workers}",
        bytes_per_second=2 * part.nbytes * workers / copied,
        operations_per_second={"fp32": _products_on_one_core() * workers},
        measured=True,
    )


def _products_on_one_core() -> float:
    """FP32 operations a second, in a process of its own: BLAS reads its threads at its start."""
    done = subprocess.run(  # noqa: S603 - this very Python and the text above
        [sys.executable, "-c", _PRODUCTS],
        env={**os.environ, **_ONE_THREAD},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def _cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _copy(pair: tuple[Array, Array]) -> None:
    np.copyto(pair[1], pair[0])


@dataclass(frozen=True, slots=True)
class Bound:
    """What bounds a layer.

    Attributes:
        kind: `MEMORY` or `COMPUTE`.
        roof_ms: The time below which it cannot come from the memory.
        share: What part of the roof it reaches: `roof_ms` over its median time. None where it took
            no time that the backend could measure; above 1 where it was served from caches.
    """

    kind: str
    roof_ms: float
    share: float | None


@dataclass(frozen=True, slots=True)
class Roofline:
    """The bounds of a profile's layers.

    Attributes:
        peaks: What the machine can do.
        bounds: Of each layer, in the profile's order; None where its work is not known, or nothing
            is known of the machine at its precision.
        milliseconds: The sum of the median times of layers bound by each, and under the name
            `unknown` of those of which it cannot be said.
        total: Of all layers with a bound together: what most of their time is bound by, and how
            much of the roof they reach. None where there is none.
    """

    peaks: Peaks
    bounds: Sequence[Bound | None]
    milliseconds: Mapping[str, float]
    total: Bound | None

    def to_json(self) -> dict[str, Any]:
        """The roofline as plain JSON values."""
        return {
            "peaks": self.peaks.to_json(),
            "bounds": [_bound_json(bound) for bound in self.bounds],
            "milliseconds": dict(self.milliseconds),
            "total": _bound_json(self.total),
        }


def bound(layer: Layer, peaks: Peaks) -> Bound | None:
    """What bounds a layer; None where its work or the machine's peak is not known.

    A layer that multiplies nothing is bound by the memory.
    """
    if layer.bytes is None or layer.macs is None:
        return None
    moving = 1000 * layer.bytes / peaks.bytes_per_second
    computing = 0.0
    if layer.macs:
        rate = peaks.operations_per_second.get(layer.precision or "")
        if rate is None:
            return None
        computing = 1000 * 2 * layer.macs / rate
    roof = max(moving, computing)
    share = roof / layer.median_ms if layer.median_ms else None
    return Bound(COMPUTE if computing > moving else MEMORY, roof, share)


def roofline(profile: LayerProfile, peaks: Peaks) -> Roofline:
    """What bounds each layer, and all of them together."""
    bounds = tuple(bound(layer, peaks) for layer in profile.layers)
    times = dict.fromkeys((MEMORY, COMPUTE, "unknown"), 0.0)
    for layer, found in zip(profile.layers, bounds, strict=True):
        times["unknown" if found is None else found.kind] += layer.median_ms
    known = [found for found in bounds if found is not None]
    total = None
    if known:
        roof, taken = sum(found.roof_ms for found in known), times[MEMORY] + times[COMPUTE]
        kind = max((MEMORY, COMPUTE), key=times.__getitem__)
        total = Bound(kind, roof, roof / taken if taken else None)
    return Roofline(peaks, bounds, times, total)


def roofline_table(profile: LayerProfile, roof: Roofline) -> list[dict[str, Any]]:
    """The rows of `layers.table` with what bounds each layer, and its share of the roof."""
    rows = table(profile)
    for row, layer in zip(rows, by_time(profile), strict=True):
        found = roof.bounds[layer]
        row["bound"] = None if found is None else found.kind
        row["roof_share"] = None if found is None else found.share
    return rows


def _bound_json(found: Bound | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"kind": found.kind, "roof_ms": found.roof_ms, "share": found.share}


def _best(work: Callable[[], object]) -> float:
    """The shortest time of many, in seconds; what else runs only ever adds to it."""
    work()
    shortest = float("inf")
    end = perf_counter() + _SECONDS
    while (start := perf_counter()) < end:
        work()
        shortest = min(shortest, perf_counter() - start)
    return shortest
