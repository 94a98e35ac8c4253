"""Benchmark results as a Jetson, a PC and a stranger would make them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edge_runtime.bench.result import BenchResult, Samples, Subject
from edge_runtime.bench.statistics import Times
from edge_runtime.telemetry.readings import Reading

SUBJECT = Subject(
    bundle="detector.edge",
    bundle_digest=f"sha256:{'ab' * 32}",
    model="detector.onnx",
    model_digest=f"sha256:{'cd' * 32}",
    precision="int8",
    backend="tensorrt",
    device="Orin",
    cpu_mode=None,
    threads=None,
    shapes={"images": (1, 3, 640, 640)},
    batch=1,
    streams=1,
)

PARAMETERS = {
    "warmup": 0.2,
    "streams": 1,
    "cuda_graph": False,
    "spin": False,
    "percentile": 99.0,
    "duration": 3.0,
    "iterations": 10,
    "transfers": True,
    "unstable": 0.01,
}


def latencies(count: int, seed: int = 0) -> Times:
    """ms: two humps, and a few that took ten times as long."""
    random = np.random.default_rng(seed)
    found = 4.1 + random.gamma(2.0, 0.08, count) + 0.35 * (random.random(count) < 0.2)
    found[random.random(count) < 0.003] *= 9.3
    return found


def on_cpu(count: int = 600, **changes: Any) -> BenchResult:
    """What little a container on a PC gives."""
    latency = latencies(count)
    start = np.cumsum(np.append(0.0, latency[:-1] + 0.01)) / 1000
    result = BenchResult(
        protocol="trtexec10",
        parameters=PARAMETERS,
        subject=replace(SUBJECT, backend="cpu", device="", cpu_mode="exact", threads=0),
        samples=Samples(start=start, latency=latency, enqueue=latency, compute=latency),
        walltime=float(start[-1] + latency[-1] / 1000),
        samples_per_query=1,
        warmup=48,
        created="2026-11-22T21:30:00Z",
        version="0.5.0",
    )
    return replace(result, **changes)


def on_jetson(count: int = 700, readings: int = 40) -> BenchResult:
    """All that a Jetson gives: telemetry, conditions, layers and warnings."""
    plain = on_cpu(count)
    random = np.random.default_rng(1)
    latency = plain.samples.latency
    h2d, d2h = 0.2 + 0.01 * random.random(count), 0.1 + 0.01 * random.random(count)
    samples = replace(
        plain.samples,
        enqueue=0.4 + 0.05 * random.random(count),
        h2d=h2d,
        compute=latency - h2d - d2h,
        d2h=d2h,
        enqueue_start=plain.samples.start,
        compute_start=plain.samples.start + 0.0003,
        d2h_start=plain.samples.start + 0.004,
    )
    moments = np.linspace(-0.4, plain.walltime + 0.1, readings)
    taken = [reading(float(second), random) for second in moments]
    return replace(
        plain,
        subject=SUBJECT,
        samples=samples,
        warnings=(
            "Power mode 15W caps clocks and cores; the largest is MAXN. To change it: sudo "
            "nvpmodel -m 0",
            "GPU Compute Time is unstable, with coefficient of variance = 37.2%. Lock the clocks.",
        ),
        load_before=(0.31, 0.22, 0.18),
        load_after=(0.92, 0.4, 0.25),
        conditions=conditions(taken[0]),
        telemetry={
            "interval": 0.2,
            "joules": 41.5,
            "joules_per_query": 41.5 / count,
            "readings": [item.to_json() for item in taken],
        },
        layers=layers(60),
    )


def reading(second: float, random: np.random.Generator) -> Reading:
    """A moment of an AGX Orin that grows warm."""
    warm = 46 + 3 * max(second, 0) ** 0.5

    def about(value: float, by: float) -> float:
        return round(float(value + by * random.standard_normal()), 3)

    busy = second > 0
    return Reading(
        seconds=second,
        power={
            "VDD_GPU_SOC": about(14 if busy else 4, 0.4),
            "VDD_CPU_CV": about(5, 0.3),
            "VIN_SYS_5V0": about(4.5, 0.1),
        },
        temperatures={"cpu-thermal": about(warm, 0.1), "gpu-thermal": about(warm + 2, 0.1)},
        gpu_load=min(1.0, about(0.93 if busy else 0.02, 0.005)),
        gpu_mhz=1300.5 if busy else 306.0,
        cpu_loads=(about(0.6, 0.02), about(0.3, 0.02), about(0.1, 0.01), None),
        cpu_mhz=(2201.6, 1500.0, 729.6, None),
        emc_load=about(0.41, 0.01),
        emc_mhz=3199.0,
        memory_used=int(8.1e9 + 1e7 * random.random()),
        memory_total=int(64e9),
        swap_used=0,
        throttled=("sw-thermal",) if second > 2 else (),
        over_current={"oc1": 0 if second < 1 else 3},
        load_average=(0.5, 0.3, 0.2),
    )


def conditions(now: Reading) -> dict[str, Any]:
    """Those of an AGX Orin, as `telemetry.conditions` writes them."""
    return {
        "board": {
            "architecture": "aarch64",
            "cpu": "Cortex-A78AE",
            "cores": 12,
            "features": ["asimddp"],
            "memory": 65_890_000_000,
            "jetson": "NVIDIA Jetson AGX Orin Developer Kit",
            "l4t": "36.4.3",
            "jetpack": "6.2",
            "gpu_nodes": ["/dev/nvhost-gpu"],
            "gpu_driver": "540.4.0",
            "libcuda": None,
            "system_tensorrt": None,
        },
        "python": "3.10.12",
        "versions": {"tensorrt": "10.3.0", "onnxruntime": "1.23.2", "openvino": None},
        "commit": "1a2b3c4d-dirty",
        "power_mode": {"number": 2, "name": "15W", "names": {"0": "MAXN", "2": "15W"}},
        "clocks": [
            {
                "part": part,
                "low_mhz": low,
                "high_mhz": high,
                "most_mhz": high,
                "governor": governor,
                "locked": low == high,
            }
            for part, low, high, governor in (
                ("gpu", 306.0, 1300.5, "nvhost_podgov"),
                ("emc", 3199.0, 3199.0, None),
                ("cpu0", 729.6, 2201.6, "schedutil"),
            )
        ],
        "fan": 0.35,
        "on_battery": None,
        "throttle_points": {"cpu-thermal": 99.0, "gpu-thermal": 99.0},
        "now": now.to_json(),
    }


def layers(count: int) -> list[dict[str, Any]]:
    """Rows as `bounds.layer_rows` gives them, of layers of which the first take longest."""
    times = np.sort(np.random.default_rng(2).gamma(0.6, 0.1, count))[::-1]
    total, rows, cumulative = float(times.sum()), [], 0.0
    for index, time in enumerate(map(float, times)):
        cumulative += time / total
        work = index % 5 != 4
        rows.append(
            {
                "name": f"/model.{index}/conv/Conv + /model.{index}/act/Mul",
                "op": "Conv" if work else "Reformat",
                "precision": "int8" if work else None,
                "mean_ms": time * 1.02,
                "median_ms": time,
                "share": time / total,
                "cumulative": min(cumulative, 1.0),
                "macs": 44_236_800 * (index + 1) if work else None,
                "bytes": 1_638_400 + 4096 * index if work else None,
                "intensity": 54.0 + index if work else None,
                "bound": ("memory" if index % 3 else "compute") if work else None,
                "roof_share": 0.62 if work else None,
                "peaks": "Jetson AGX Orin 64GB; NVIDIA's data sheet",
            }
        )
    return rows
