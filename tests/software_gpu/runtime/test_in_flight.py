"""Whatever comes in between, nothing stays in flight unseen, is freed early, or stays for good."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from edge_runtime.backends.tensorrt.context import TensorRTContext
from edge_runtime.backends.tensorrt.resources import SharedMemory
from edge_runtime.cuda import dlpack
from edge_runtime.cuda.array import DeviceArray
from edge_runtime.errors import DeviceError, FeedError, InferenceError
from edge_runtime.gpu_config import GpuConfig
from edge_runtime.session import Session
from tests.software_gpu.runtime.conftest import (
    BATCHES,
    Bench,
    Foreign,
    affine,
    changes,
    nonzero,
    ramp,
    run,
    several,
)

GRAPHS, SHARED = GpuConfig(cuda_graphs=True), GpuConfig(share_memory=True)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("config", [GpuConfig(), GRAPHS, SHARED])
@pytest.mark.parametrize("call", ["cuMemcpyDtoHAsync", "cuEventRecord"])
def test_an_enqueue_that_fails_leaves_nothing_in_flight(
    bench: Bench, call: str, config: GpuConfig
) -> None:
    bench.gpu.mode("lazy")
    context = bench.context(affine(), [BATCHES], config)
    run(context, x=ramp(1))
    bench.gpu.fail(call, error=999)
    with pytest.raises(DeviceError):
        context.enqueue({"x": ramp(2)})
    assert bench.gpu.idle()
    np.testing.assert_array_equal(run(context, x=ramp(64))["y"], 2 * ramp(64) + 1)


def test_a_context_that_is_not_popped_leaves_nothing_in_flight(bench: Bench) -> None:
    bench.gpu.mode("lazy")
    context = bench.context(affine(), [BATCHES])
    run(context, x=ramp(2))
    bench.gpu.fail("cuCtxPopCurrent", error=999)
    with pytest.raises(DeviceError, match="cuCtxPopCurrent"):
        context.enqueue({"x": ramp(2)})
    bench.gpu.function("cuCtxPopCurrent_v2")(None)
    assert bench.gpu.idle()
    np.testing.assert_array_equal(run(context, x=ramp(64))["y"], 2 * ramp(64) + 1)


def test_an_array_that_does_not_fit_leaves_nothing_in_flight(bench: Bench) -> None:
    bench.gpu.mode("lazy")
    shapes = {"a": "1x3,2x3,9x3", "b": "1x3,2x3,9x3"}
    context = bench.context(several(), [shapes])
    a = np.ones((2, 3), np.float32)
    kept = context.run_on_device({"a": a, "b": a})["sum"]
    odd = Foreign(kept, shape=(1, 3), data=(kept.address + 8, False))
    with pytest.raises(FeedError):
        context.enqueue({"a": a[:1], "b": odd})
    assert bench.gpu.idle()
    kept.close()


@pytest.mark.parametrize("place", ["_execute", "_views"])
def test_an_interrupt_while_enqueueing_leaves_nothing_in_flight(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    bench.gpu.mode("lazy")
    context = bench.context(affine(), [BATCHES])
    run(context, x=ramp(2))
    with monkeypatch.context() as patch:
        patch.setattr(context, place, interrupt)
        with pytest.raises(KeyboardInterrupt):
            context.enqueue({"x": ramp(2)})
    assert bench.gpu.idle()
    np.testing.assert_array_equal(run(context, x=ramp(64))["y"], 2 * ramp(64) + 1)


def test_an_interrupt_while_waiting_leaves_nothing_in_flight(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.gpu.mode("lazy")
    context = bench.context(affine(), [BATCHES])
    context.enqueue({"x": ramp(2)})
    with monkeypatch.context() as patch:
        patch.setattr(context._done, "synchronize", interrupt)
        with pytest.raises(KeyboardInterrupt):
            context.wait()
    assert bench.gpu.idle()
    np.testing.assert_array_equal(run(context, x=ramp(64))["y"], 2 * ramp(64) + 1)


def test_a_context_closed_with_work_in_flight_has_nothing_to_wait_for(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    kept = context.run_on_device({"x": ramp(2)})["y"]
    foreign = Foreign(kept)
    held = weakref.ref(foreign)
    context.enqueue({"x": foreign})
    del foreign
    context.close()
    assert held() is None
    with pytest.raises(InferenceError):
        context.wait()
    kept.close()


# Arrays on the GPU.


def test_an_input_on_the_gpu_is_kept_until_it_is_read_and_no_longer(bench: Bench) -> None:
    bench.gpu.mode("lazy")
    engine = bench.engine(affine(), [BATCHES])
    context, other = engine.create_context(), engine.create_context()
    bench.opened.extend([context, other])
    kept = context.run_on_device({"x": ramp(2)})["y"]
    context.enqueue({"x": kept})
    del kept  # Its memory must not be given to others before it is read,
    second = other.run_on_device({"x": ramp(2, 500)})["y"]
    np.testing.assert_array_equal(context.wait()["y"], 4 * ramp(2) + 3)
    counted = changes(bench.gpu, lambda: context.run_on_device({"x": ramp(2)})["y"].close())
    assert "cuMemAlloc" not in counted  # and must be afterwards.
    second.close()


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_read_is_let_go_of(bench: Bench, fails: bool) -> None:
    context = bench.context(affine(), [BATCHES])
    kept = context.run_on_device({"x": ramp(2)})["y"]
    foreign = Foreign(kept)
    held = weakref.ref(foreign)
    context.enqueue({"x": foreign})
    del foreign
    gc.collect()
    assert held() is not None
    if fails:
        bench.gpu.fail("cuEventSynchronize", error=999)
        with pytest.raises(DeviceError):
            context.wait()
    else:
        context.wait()
    gc.collect()
    assert held() is None
    kept.close()


class Loan:
    """Memory that describes itself to numpy, as `dlpack.export` wants it."""

    def __init__(self, array: DeviceArray) -> None:
        self.__array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.address, False),
            "version": 3,
        }


class Lender:
    """A library that has its memory back as soon as nobody holds the capsule."""

    def __init__(self, array: DeviceArray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None, **_: Any) -> object:
        loan = Loan(self.array)
        self.loan = weakref.ref(loan)
        return dlpack.export(loan, 0, max_version)


def test_what_dlpack_lends_is_held_until_it_is_read(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    kept = context.run_on_device({"x": ramp(2)})["y"]
    lender = Lender(kept)
    context.enqueue({"x": lender})
    gc.collect()
    assert lender.loan() is not None
    context.wait()
    gc.collect()
    assert lender.loan() is None
    kept.close()


@pytest.mark.usefixtures("mode")
def test_an_array_that_its_library_is_still_writing_is_waited_for(bench: Bench) -> None:
    device = bench.device
    context = bench.context(affine(), [BATCHES])
    kept = context.run_on_device({"x": ramp(2)})["y"]
    run(context, x=ramp(2))
    producer, source = device.create_stream(), device.allocate_pinned(kept.nbytes)
    for start in range(5):
        source.array.view(np.float32)[:] = ramp(2, start).ravel()
        with device.current():
            device.copy_to_device(kept.address, source, kept.nbytes, producer)
        foreign = Foreign(kept, stream=producer.handle)
        np.testing.assert_array_equal(run(context, x=foreign)["y"], 2 * ramp(2, start) + 1)
    source.close()
    producer.close()
    kept.close()


def test_a_run_on_the_gpu_that_fails_gives_its_memory_back(bench: Bench) -> None:
    bench.gpu.mode("lazy")
    context = bench.context(affine(), [BATCHES])
    context.run_on_device({"x": ramp(2)})["y"].close()
    live = bench.gpu.live()
    for call in ("cuEventRecord", "cuEventSynchronize"):
        bench.gpu.fail(call, error=999)
        with pytest.raises(DeviceError):
            context.run_on_device({"x": ramp(2)})
        assert bench.gpu.idle()
    assert bench.gpu.live() == live
    kept = []
    counted = changes(bench.gpu, lambda: kept.append(context.run_on_device({"x": ramp(2)})["y"]))
    assert "cuMemAlloc" not in counted
    np.testing.assert_array_equal(kept[0].to_host(), 2 * ramp(2) + 1)
    kept[0].close()


def test_outputs_of_unknown_shape_do_not_pile_up(bench: Bench) -> None:
    context = bench.context(nonzero())
    x = np.eye(2, 8, dtype=np.float32)
    context.run_on_device({"x": x})["where"].close()
    live = len(bench.gpu.live())
    for _ in range(5):
        context.run_on_device({"x": x})["where"].close()
    assert len(bench.gpu.live()) == live


def test_the_collector_may_free_an_output_while_another_is_given_back(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])

    class Collecting(dict[int, Any]):
        def setdefault(self, size: int, default: Any) -> Any:
            gc.collect()
            return super().setdefault(size, default)

    pool = context._resources.pool
    pool._free = Collecting(pool._free)
    knot: list[Any] = [context.run_on_device({"x": ramp(3)})]
    knot.append(knot)
    del knot
    context.run_on_device({"x": ramp(2)})["y"].close()


# What else a failure may leave behind.


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("fails", [False, True])
def test_a_turn_on_shared_memory_is_over_when_its_work_is(bench: Bench, fails: bool) -> None:
    device = bench.device
    shared = SharedMemory(device, 256)
    streams = [device.create_stream() for _ in range(2)]
    here, there = device.allocate_pinned(256), device.allocate_pinned(256)
    for value in (5, 7):
        here.array[:] = value
        with device.current():
            with suppress(InferenceError), shared.turn(streams[0]):
                device.copy_to_device(shared.buffer.address, here, 256, streams[0])
                if fails:
                    raise InferenceError("after some work was enqueued")
            with shared.turn(streams[1]):
                device.copy_to_host(there, shared.buffer.address, 256, streams[1])
            streams[1].synchronize()
        assert set(there.array) == {value}
    for thing in (shared, *streams, here, there):
        thing.close()


def test_a_profile_is_known_even_if_waiting_for_it_failed(bench: Bench) -> None:
    context = bench.context(affine(), [{"x": "1x4,1x4,2x4"}, {"x": "8x4,16x4,32x4"}])
    run(context, x=ramp(2))
    bench.gpu.fail("cuStreamSynchronize", error=999)
    with pytest.raises(DeviceError):
        run(context, x=ramp(9))
    np.testing.assert_array_equal(run(context, x=ramp(1))["y"], 2 * ramp(1) + 1)


def test_a_profiled_context_goes_on_without_graphs(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES], GRAPHS)
    for start in range(6):
        np.testing.assert_array_equal(run(context, x=ramp(2, start))["y"], 2 * ramp(2, start) + 1)
        if start > 2:
            assert context.layer_times({"x": ramp(2)})


@pytest.mark.parametrize("config", [GpuConfig(), SHARED])
def test_closing_never_raises(bench: Bench, config: GpuConfig) -> None:
    """Whichever push fails, at most the one thing is left that was to be freed in it."""
    plan_of = bench.engine(affine(), [BATCHES], config)
    for nth in range(1, 10):
        engine = bench.engine(affine(), [BATCHES], config)
        bench.opened.remove(engine)
        session = Session(engine, backend="tensorrt", contexts=2)
        session.run({"x": ramp(2)})
        before = bench.gpu.calls()["cuCtxPushCurrent"]
        bench.gpu.fail("cuCtxPushCurrent", nth=nth, error=719)
        session.close()
        bench.gpu.fail("cuCtxPushCurrent", nth=0)
        assert bench.gpu.calls()["cuCtxPushCurrent"] > before
        del session, engine
    gc.collect()
    plan_of.close()
    bench.opened.clear()
    assert len(bench.gpu.live()) <= 9
    bench.gpu.abandon()


@pytest.mark.parametrize("spin", [False, True])
def test_waiting_spins_only_if_asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, spin: bool
) -> None:
    made: list[bool] = []
    real = bench.device.create_event

    def create_event(*, timing: bool = False, spin: bool = True) -> Any:
        made.append(spin)
        return real(timing=timing, spin=spin)

    monkeypatch.setattr(bench.device, "create_event", create_event)
    context: TensorRTContext = bench.context(affine(), [BATCHES], GpuConfig(spin=spin))
    assert made == [spin]
    assert run(context, x=ramp(1))
