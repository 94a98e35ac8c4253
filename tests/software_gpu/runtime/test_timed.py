"""An inference that is repeated as trtexec does, and timed by the GPU's clock."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.backends.base import TimedEngine
from edge_runtime.bench.protocols import Trtexec, protocol
from edge_runtime.bench.trtexec import run_trtexec
from edge_runtime.errors import DeviceError, FeedError
from edge_runtime.gpu_config import GpuConfig
from tests.software_gpu.runtime.conftest import BATCHES, Bench, affine, changes, nonzero, ramp, run

SHORT = {"warmup": 0.0, "duration": 0.001, "iterations": 8}


def trtexec(name: str = "trtexec10", **settings: object) -> Trtexec:
    made = protocol(name, {**SHORT, **settings})
    assert isinstance(made, Trtexec)
    return made


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("config", [GpuConfig(), GpuConfig(cuda_graphs=True), GpuConfig(spin=True)])
def test_queries_are_timed_and_the_context_goes_on(bench: Bench, config: GpuConfig) -> None:
    engine = bench.engine(affine(), [BATCHES], config)
    assert isinstance(engine, TimedEngine)
    queries = engine.timed({"x": ramp(2)}, transfers=True)
    trace = []
    for _ in range(6):
        queries.enqueue()
        found = queries.wait()
        if found is not None:
            trace.append(found)
    assert len(trace) == 5  # One is enqueued ahead.
    trace += queries.drain()
    assert len(trace) == 6
    assert queries.drain() == []
    queries.close()
    queries.close()
    for times in trace:
        assert times.h2d is not None
        assert times.d2h is not None
        assert min(times.enqueue, times.h2d, times.compute, times.d2h) >= 0
        assert times.h2d_start <= times.compute_start <= times.d2h_start
    starts = [times.h2d_start for times in trace]
    assert starts == sorted(starts)
    context = engine.create_context()
    bench.opened.append(context)
    np.testing.assert_array_equal(run(context, x=ramp(3))["y"], 2 * ramp(3) + 1)


def test_no_more_than_two_queries_are_in_flight(bench: Bench) -> None:
    engine = bench.engine(affine(), [BATCHES])
    queries = engine.timed({"x": ramp(2)}, transfers=True)
    done = changes(bench.gpu, lambda: [queries.enqueue() for _ in range(5)])
    assert copies(done) == {"in": 2, "out": 2}
    assert len(queries.drain()) == 2
    queries.close()


def test_without_transfers_nothing_is_copied(bench: Bench) -> None:
    engine = bench.engine(affine(), [BATCHES])
    queries = engine.timed({"x": ramp(2)}, transfers=False)
    trace = []

    def use() -> None:
        queries.enqueue()
        trace.extend(queries.drain())

    assert copies(changes(bench.gpu, use)) == {"in": 0, "out": 0}
    (times,) = trace
    assert times.h2d is None
    assert times.d2h is None
    assert times.h2d_start == times.compute_start
    queries.close()


def test_a_timed_loop_allocates_nothing(bench: Bench) -> None:
    engine = bench.engine(affine(), [BATCHES], GpuConfig(cuda_graphs=True))
    queries = engine.timed({"x": ramp(2)}, transfers=True)
    for _ in range(6):
        queries.enqueue()
        queries.wait()

    def use() -> None:
        for _ in range(5):
            queries.enqueue()
            queries.wait()

    done = changes(bench.gpu, use)
    assert not [name for name in done if "Alloc" in name or "Create" in name or "Capture" in name]
    assert done["cuGraphLaunch"] == 5
    queries.drain()
    queries.close()


def test_outputs_whose_shape_the_data_decides_are_timed_too(bench: Bench) -> None:
    engine = bench.engine(nonzero())
    queries = engine.timed({"x": np.eye(2, 8, dtype=np.float32)}, transfers=True)
    for _ in range(4):
        queries.enqueue()
        queries.wait()
    assert len(queries.drain()) == 1
    queries.close()


@pytest.mark.parametrize("streams", [1, 3])
def test_trtexec10_on_a_gpu(bench: Bench, streams: int) -> None:
    bench.gpu.mode("late")
    engine = bench.engine(affine(), [BATCHES])
    measured = run_trtexec(engine, [{"x": ramp(2)}], trtexec(streams=streams))
    samples = measured.samples
    assert len(samples) >= 8 * streams
    assert samples.h2d is not None
    assert samples.d2h is not None
    assert samples.compute is not None
    np.testing.assert_array_equal(samples.latency, samples.compute + samples.h2d + samples.d2h)
    assert samples.start[0] == 0
    assert (np.diff(samples.start) >= 0).all()
    assert measured.walltime >= samples.start[-1]


def test_trtexec11_leaves_the_copies_out(bench: Bench) -> None:
    engine = bench.engine(affine(), [BATCHES], GpuConfig(cuda_graphs=True, spin=True))
    samples = run_trtexec(engine, [{"x": ramp(2)}], trtexec("trtexec11")).samples
    assert samples.h2d is None
    assert samples.d2h is None
    assert samples.compute is not None
    np.testing.assert_array_equal(samples.latency, samples.compute)


def test_what_the_gpu_refuses_is_raised_and_nothing_leaks(bench: Bench) -> None:
    engine = bench.engine(affine(), [BATCHES])
    with pytest.raises(FeedError):
        run_trtexec(engine, [{"x": ramp(65)}], trtexec())
    for call in ("cuEventCreate", "cuStreamCreate"):
        bench.gpu.fail(call, nth=2)
        with pytest.raises(DeviceError):
            run_trtexec(engine, [{"x": ramp(2)}], trtexec())
    assert len(run_trtexec(engine, [{"x": ramp(2)}], trtexec()).samples) >= 8


def copies(calls: dict[str, int]) -> dict[str, int]:
    def count(way: str) -> int:
        return sum(n for name, n in calls.items() if name.startswith("cuMemcpy" + way))

    return {"in": count("HtoD"), "out": count("DtoH")}
