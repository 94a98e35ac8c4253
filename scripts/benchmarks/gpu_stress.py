"""Eight threads on shared and own GPU sessions: no wrong byte, no broken rule, nothing left alive.

    python scripts/benchmarks/gpu_stress.py                      # 8 x 10,000 calls, over a minute
    python scripts/benchmarks/gpu_stress.py --faults --driver pycuda

It runs on the software GPU of tests/software_gpu. With --faults, driver calls fail at random; an
inference then raises, and every one that does not must still be right. Ends with 1 if one is not.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from gpu_runtime import GPU, engine
from onnx import ModelProto

from edge_runtime.cuda.device import open_device
from edge_runtime.errors import DeviceError
from edge_runtime.gpu_config import GpuConfig
from edge_runtime.session import Session
from tests import models

THREADS = 8
CALLS = ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuEventRecord", "cuMemAlloc"]


def affine() -> ModelProto:
    """`y = 2 x + 1`; float32 [4, 4]. Every result is exact."""
    net = models.Net()
    twice = net.op("Mul", net.input("x", (4, 4)), net.constant("two", 2.0), name="twice")
    return net.proto(net.op("Add", twice, net.constant("one", 1.0), name="y"))


def use(session: Session, number: int, calls: int, disturb: Callable[[], None]) -> tuple[int, int]:
    """How many of a thread's calls failed, and how many were wrong."""
    failed = wrong = 0
    for turn in range(calls):
        x = np.arange(16, dtype=np.float32).reshape(4, 4) + number * 1000 + turn % 997
        try:
            y = session.run({"x": x})["y"]
        except DeviceError:
            failed += 1
        else:
            wrong += not np.array_equal(y, 2 * x + 1)
        disturb()
    return failed, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000, help="of each of the 8 threads")
    parser.add_argument("--driver", choices=("cuda-bindings", "pycuda"), default="cuda-bindings")
    parser.add_argument("--faults", action="store_true", help="driver calls fail at random")
    arguments = parser.parse_args()
    GPU.reset()
    GPU.mode("late", lag_us=20)
    device, dice = open_device(arguments.driver), random.Random(1)
    before = set(GPU.live())

    def disturb() -> None:
        if arguments.faults and dice.random() < 0.02:
            GPU.fail(dice.choice(CALLS), nth=dice.randint(1, 9), error=2)

    def opened(contexts: int) -> Session:
        loaded = engine(device, affine(), GpuConfig())
        return Session(loaded, backend="tensorrt", contexts=contexts)

    shared, own = opened(3), [opened(1) for _ in range(THREADS // 2)]
    sessions = [shared] * (THREADS // 2) + own
    start = time.monotonic()
    with ThreadPoolExecutor(THREADS) as threads:
        futures = [
            threads.submit(use, session, number, arguments.calls, disturb)
            for number, session in enumerate(sessions)
        ]
        counts = [future.result() for future in futures]
    for session in (shared, *own):
        session.close()
    gc.collect()
    failed, wrong = (sum(column) for column in zip(*counts, strict=True))
    rules, left = GPU.violations(), set(GPU.live()) - before
    print(
        f"{arguments.driver}: {THREADS * arguments.calls:,} calls in "
        f"{time.monotonic() - start:.0f} s; {failed:,} failed, {wrong} wrong, "
        f"{len(rules)} rules broken, {len(left)} things left"
    )
    return 1 if wrong or rules or left or (failed and not arguments.faults) else 0


if __name__ == "__main__":
    sys.exit(main())
