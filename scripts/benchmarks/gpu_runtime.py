"""What the GPU runtime itself costs: CPU time an inference, memory, and how far copies overlap.

    python scripts/benchmarks/gpu_runtime.py                 # all of it, on the software GPU
    python scripts/benchmarks/gpu_runtime.py --calls 10000   # a shorter look at memory

There is no GPU in it: the real CUDA bindings run on the software GPU of tests/software_gpu, whose
engine takes no time in the first part and the declared time in the second. So the figures say what
this package and Python add, not how fast a network is. `bare` is the least that anybody could do
from Python with the same binding: two copies, the engine's launch, an event, and a wait for it.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests import models
from tests.fakes import tensorrt
from tests.software_gpu.gpu import load

GPU = load()  # Before anything else opens libcuda.so.1.

from edge_runtime.backends.base import PlanKey  # noqa: E402
from edge_runtime.backends.tensorrt.builder import TensorRTBuilder  # noqa: E402
from edge_runtime.backends.tensorrt.runtime import TensorRTEngine, TensorRTRuntime  # noqa: E402
from edge_runtime.cuda.device import Device, open_device  # noqa: E402
from edge_runtime.gpu_config import GpuConfig  # noqa: E402
from edge_runtime.session import Session  # noqa: E402

TURN = 200
VERSION = "10.3.0"
FRAME = 250_000  # float32: a megabyte, a millisecond at 1 GB/s.


def four_tensors() -> ModelProto:
    """Two small inputs and two small outputs."""
    net = models.Net()
    a, b = net.input("a", (1, 16)), net.input("b", (1, 16))
    net.op("Add", a, b, name="sum")
    net.op("Sub", a, b, name="gap")
    return net.proto("sum", "gap")


def frame() -> ModelProto:
    """A megabyte in, a megabyte out."""
    net = models.Net()
    return net.proto(net.op("Identity", net.input("x", (FRAME,)), name="y"))


def engine(device: Device, proto: ModelProto, config: GpuConfig, **options: Any) -> TensorRTEngine:
    """An engine of the fake TensorRT."""
    trt = tensorrt.make(VERSION, GPU, **options)
    key = PlanKey("tensorrt", VERSION, ("sm87",), "linux-x86_64")
    plan = TensorRTBuilder(trt, key).build(proto.SerializeToString(), [])
    return TensorRTRuntime(trt, device, config).load(plan.data, key=key)


def bare(device: Device, vendor: Any) -> Callable[[], None]:
    """An inference of the same engine with nothing around it."""
    stream, event = device.create_stream(), device.create_event()
    pinned, memory = device.allocate_pinned(1024), device.allocate(1024)
    for index in range(vendor.engine.num_io_tensors):
        name = vendor.engine.get_tensor_name(index)
        vendor.set_tensor_address(name, memory.address + 256 * index)

    def call() -> None:
        with device.current():
            device.copy_to_device(memory.address, pinned, 512, stream)
            vendor.execute_async_v3(stream.handle)
            device.copy_to_host(pinned, memory.address + 512, 512, stream)
            event.record(stream)
            event.synchronize()

    return call


def microseconds(call: Callable[[], object]) -> float:
    """The median of one turn."""
    times = []
    for _ in range(TURN):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


def host_cost(driver: str, calls: int) -> None:
    """CPU time of an inference of an engine that takes none, and the memory of many."""
    GPU.reset()
    GPU.mode("late", lag_us=0)
    device = open_device(driver)
    feeds = {name: np.ones((1, 16), np.float32) for name in "ab"}
    loaded = engine(device, four_tensors(), GpuConfig(spin=True), null=True)
    context = loaded.create_context()

    def call() -> None:
        context.enqueue(feeds)
        context.wait()

    least = bare(device, loaded._resources.engine.create_execution_context())
    for _ in range(TURN):
        call()
        least()
    ours, theirs = [], []
    for _ in range(15):
        theirs.append(microseconds(least))
        ours.append(microseconds(call))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(calls):
        call()
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    ours_us, bare_us = statistics.median(ours), statistics.median(theirs)
    print(
        f"{driver:14} enqueue + wait {ours_us:6.1f} µs   bare {bare_us:6.1f} µs   "
        f"ratio {ours_us / bare_us:.2f}   memory over {calls:,} calls: {growth:+,} KiB"
    )
    context.close()
    loaded.close()


def pipeline(driver: str, frames: int, *, graphs: bool) -> None:
    """Copies of 1 ms, 4 ms of engine and 2 ms of the host's own work for each frame."""
    GPU.reset()
    GPU.times(h2d_gbps=1.0, d2h_gbps=1.0)
    GPU.mode("timed")
    device = open_device(driver)
    loaded = engine(device, frame(), GpuConfig(cuda_graphs=graphs), null=True, seconds=0.004)
    feeds = {"x": np.ones(FRAME, np.float32)}
    with Session(loaded, backend="tensorrt", contexts=4) as session:
        for _ in range(8):
            session.run(feeds)
        latency = statistics.median(_seconds(lambda: session.run(feeds)) for _ in range(50))
        flying: deque[Any] = deque()
        start = time.perf_counter()
        for _ in range(frames):
            _work(0.002)
            flying.append(session.submit(feeds))
            if len(flying) == 4:
                flying.popleft().result()
        while flying:
            flying.popleft().result()
        period = (time.perf_counter() - start) / frames
    print(
        f"{driver:14} {'graphs' if graphs else 'plain ':6}  one at a time {latency * 1e3:5.2f} ms "
        f"({latency / 0.006 - 1:+.1%} on 6 ms)   in a row {period * 1e3:5.2f} ms a frame "
        f"({0.004 / period:.1%} of the bound of 4 ms)"
    )


def _work(seconds: float) -> None:
    """A busy CPU, as decoding or drawing is; numpy lets other threads run meanwhile."""
    end = time.perf_counter() + seconds
    pixels = np.ones(20_000, np.float32)
    while time.perf_counter() < end:
        np.sqrt(pixels, out=pixels)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=100_000, help="for the look at memory")
    parser.add_argument("--frames", type=int, default=500, help="for the pipeline")
    parser.add_argument("--driver", choices=("cuda-bindings", "pycuda"), action="append")
    arguments = parser.parse_args()
    drivers = arguments.driver or ["cuda-bindings", "pycuda"]
    print("An engine that takes no time, four tensors of 64 bytes:")
    for driver in drivers:
        host_cost(driver, arguments.calls)
    print("Copies of 1 ms each way, an engine of 4 ms, 2 ms of the host's own work a frame:")
    for driver in drivers:
        for graphs in (False, True):
            pipeline(driver, arguments.frames, graphs=graphs)


if __name__ == "__main__":
    main()
