"""One context: right bytes whatever the GPU puts off, and no more work than needed."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from edge_runtime.cuda.device import Device
from edge_runtime.errors import FeedError, InferenceError
from edge_runtime.gpu_config import GpuConfig
from tests.software_gpu.gpu import SoftwareGpu
from tests.software_gpu.runtime.conftest import (
    BATCHES,
    Bench,
    affine,
    changes,
    measured,
    nonzero,
    ramp,
    run,
    several,
    tiled,
    uneven,
)

ALLOCATIONS = {
    "cuMemAlloc",
    "cuMemHostAlloc",
    "cuMemAllocHost",
    "cuStreamCreate",
    "cuStreamCreateWithPriority",
    "cuEventCreate",
    "cuMemFree",
    "cuMemFreeHost",
}


@pytest.mark.usefixtures("mode")
def test_outputs_are_right_however_late_the_work_is_done(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    for start in range(20):
        x = ramp(2, start)
        np.testing.assert_array_equal(run(context, x=x)["y"], 2 * x + 1)


@pytest.mark.usefixtures("mode")
def test_several_inputs_and_outputs_do_not_mix(bench: Bench) -> None:
    shapes = {"a": "1x3,2x3,9x3", "b": "1x3,2x3,9x3"}
    context = bench.context(several(), [shapes])
    for rows in (1, 5, 2, 9, 1):
        a = np.random.default_rng(rows).integers(-99, 99, (rows, 3)).astype(np.float32)
        b = a[::-1] * 3
        outputs = run(context, b=b, a=a)
        assert list(outputs) == ["sum", "gap"]
        np.testing.assert_array_equal(outputs["sum"], a + b)
        np.testing.assert_array_equal(outputs["gap"], a - b)


@pytest.mark.usefixtures("mode")
def test_tensors_of_any_size_lie_apart(bench: Bench) -> None:
    context = bench.context(uneven(), [{"image": "1x50,2x50,90x50", "code": "1,2,90"}])
    for rows in (1, 90, 7, 64):
        image = np.random.default_rng(rows).integers(0, 99, (rows, 50)).astype(np.float32)
        code = np.arange(rows, dtype=np.int32) * 7
        gain = np.array([rows], np.float32)
        outputs = run(context, gain=gain, image=image, code=code)
        np.testing.assert_array_equal(outputs["wide"], image + rows)
        np.testing.assert_array_equal(outputs["odd"], code)
        assert outputs["twice"].tolist() == [2 * rows]


@pytest.mark.usefixtures("mode")
def test_inputs_may_be_overwritten_once_they_are_enqueued(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    x = ramp(4)
    context.enqueue({"x": x})
    x[:] = -1
    np.testing.assert_array_equal(context.wait()["y"], 2 * ramp(4) + 1)


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize(
    "config", [GpuConfig(), GpuConfig(cuda_graphs=True), GpuConfig(mapped=True)]
)
def test_large_inputs_arrive_whole_and_may_be_overwritten_too(
    bench: Bench, config: GpuConfig
) -> None:
    shapes = {"a": "1x3,2x3,200000x3", "b": "1x3,2x3,200000x3"}
    context = bench.context(several(), [shapes], config)
    for rows in (131_072, 131_071, 131_071, 131_071, 3):
        a = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
        for b in (a[::-1] * 2, a.copy(order="F"), a[:1].repeat(rows, axis=0)):
            expected = a + b
            feeds = {"a": a.copy(), "b": b.copy(order="K")}
            context.enqueue(feeds)
            for feed in feeds.values():
                feed[:] = -1
            np.testing.assert_array_equal(context.wait()["sum"], expected)


@pytest.mark.usefixtures("mode")
def test_outputs_are_new_arrays_that_later_inferences_leave_alone(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    first = run(context, x=ramp(2))["y"]
    context.enqueue({"x": ramp(2, 50)})
    np.testing.assert_array_equal(first, 2 * ramp(2) + 1)
    second = context.wait()["y"]
    first[:] = 0
    np.testing.assert_array_equal(second, 2 * ramp(2, 50) + 1)
    assert not np.shares_memory(first, second)


@pytest.mark.usefixtures("mode")
def test_contexts_in_flight_together_keep_apart(bench: Bench) -> None:
    engine = bench.engine(affine(), [BATCHES])
    contexts = [engine.create_context() for _ in range(4)]
    bench.opened.extend(contexts)
    for turn in range(5):
        for index, context in enumerate(contexts):
            context.enqueue({"x": ramp(index + 1, 100 * index + turn)})
        for index, context in reversed(list(enumerate(contexts))):
            expected = 2 * ramp(index + 1, 100 * index + turn) + 1
            np.testing.assert_array_equal(context.wait()["y"], expected)


def test_shapes_may_change_with_every_inference(bench: Bench, mode: str) -> None:
    context = bench.context(affine(), [BATCHES])
    for rows in (2, 64, 1, 64, 3, 17, 2):
        y = run(context, x=ramp(rows))["y"]
        np.testing.assert_array_equal(y, 2 * ramp(rows) + 1)


def test_nothing_is_allocated_once_buffers_are_large_enough(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    run(context, x=ramp(64))

    def use() -> None:
        for rows in (64, 1, 30, 64, 64):
            run(context, x=ramp(rows))

    counted = changes(bench.gpu, use)
    assert not ALLOCATIONS & counted.keys()
    assert "pageable" not in counted


def test_nothing_is_allocated_for_outputs_of_unknown_shape_either(bench: Bench) -> None:
    context = bench.context(nonzero("n"), [{"x": "2x1,2x8,2x64"}])
    x = np.ones((2, 64), np.float32)

    def use() -> None:
        for columns in (64, 1, 30, 64):
            where = run(context, x=x[:, :columns])["where"]
            np.testing.assert_array_equal(where, np.stack(np.nonzero(x[:, :columns])))

    use()
    assert not ALLOCATIONS & changes(bench.gpu, use).keys()


def test_tensorrt_is_told_nothing_anew_while_shapes_stay(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    kept = context.run_on_device({"x": ramp(2)})["y"]
    run(context, x=kept)
    run(context, x=ramp(2))
    before = dict(bench.trt.calls)
    for start in range(3):
        run(context, x=ramp(2, start))
    told = {name for name, n in bench.trt.calls.items() if n != before.get(name)}
    assert told == {"IExecutionContext.execute_async_v3"}
    kept.close()


def test_an_inference_is_two_copies_however_many_tensors_there_are(bench: Bench) -> None:
    shapes = {"a": "1x3,2x3,9x3", "b": "1x3,2x3,9x3"}
    context = bench.context(several(), [shapes])
    feeds = {name: np.ones((2, 3), np.float32) for name in "ab"}
    run(context, **feeds)
    counted = changes(bench.gpu, lambda: run(context, **feeds))
    assert counted["cuMemcpyHtoDAsync"] == counted["cuMemcpyDtoHAsync"] == 1
    assert counted["cuEventRecord"] == 1
    assert not any("StreamSynchronize" in name for name in counted)


def test_the_first_profile_that_holds_the_shapes_is_taken(bench: Bench) -> None:
    profiles = [{"x": "1x4,1x4,2x4"}, {"x": "8x4,16x4,32x4"}, {"x": "1x4,8x4,64x4"}]
    context = bench.context(affine(), profiles)
    for rows in (1, 16, 2, 40, 8, 5, 32):
        np.testing.assert_array_equal(run(context, x=ramp(rows))["y"], 2 * ramp(rows) + 1)


def test_a_profile_is_kept_while_it_holds_the_shapes(bench: Bench) -> None:
    context = bench.context(affine(), [{"x": "1x4,1x4,2x4"}, {"x": "1x4,8x4,64x4"}])
    switches = []
    for rows in (1, 40, 2, 64):
        np.testing.assert_array_equal(run(context, x=ramp(rows))["y"], 2 * ramp(rows) + 1)
        switches.append(bench.trt.calls["IExecutionContext.set_optimization_profile_async"])
    assert switches == [0, 1, 1, 1]


def test_shapes_outside_of_all_profiles_are_refused_in_words(bench: Bench) -> None:
    context = bench.context(affine(), [{"x": "1x4,1x4,2x4"}, {"x": "8x4,16x4,32x4"}])
    with pytest.raises(FeedError) as caught:
        context.enqueue({"x": ramp(4)})
    assert "1x4 to 2x4, or 8x4 to 32x4" in str(caught.value)
    assert "--shape x=" in str(caught.value)
    np.testing.assert_array_equal(run(context, x=ramp(2))["y"], 2 * ramp(2) + 1)


@pytest.mark.usefixtures("mode")
def test_outputs_whose_shape_the_data_decides(bench: Bench) -> None:
    context = bench.context(nonzero())
    random = np.random.default_rng(0)
    found = []
    for share in (0.5, 1.0, 0.1, 0.0, 0.9):
        x = (random.random((2, 8)) < share).astype(np.float32)
        found.append((run(context, x=x)["where"], np.stack(np.nonzero(x))))
    for where, expected in found:
        np.testing.assert_array_equal(where, expected)


@pytest.mark.usefixtures("mode")
def test_inputs_whose_values_decide_a_shape(bench: Bench) -> None:
    context = bench.context(tiled(), [{"rows": "1x4,2x4,8x4"}])
    x = ramp(1)
    for rows in (2, 5, 5, 1, 8):
        y = run(context, x=x, rows=np.array([rows, 4], np.int64))["y"]
        np.testing.assert_array_equal(y, np.repeat(x, rows, axis=0))


@pytest.mark.usefixtures("mode")
def test_values_that_decide_a_shape_stay_the_callers(bench: Bench) -> None:
    context = bench.context(tiled(), [{"rows": "1x4,2x4,8x4"}])
    for _ in range(3):
        rows = np.array([3, 4], np.int64)
        context.enqueue({"x": ramp(1), "rows": rows})
        rows[0] = 7
        np.testing.assert_array_equal(context.wait()["y"], np.repeat(ramp(1), 3, axis=0))
        run(context, x=ramp(1), rows=np.array([3, 4], np.int64))
        assert rows.tolist() == [7, 4]


@pytest.mark.usefixtures("mode")
def test_outputs_that_the_engine_writes_to_host_memory(bench: Bench) -> None:
    bench.trt.options.host_outputs = ("size",)
    context = bench.context(measured(), [BATCHES])
    for rows in (2, 5, 5, 64, 1):
        context.enqueue({"x": ramp(rows)})
        outputs = context.wait()
        assert list(outputs) == ["y", "size"]
        np.testing.assert_array_equal(outputs["y"], 2 * ramp(rows))
        assert outputs["size"].tolist() == [rows, 4]


def test_an_inference_at_a_time(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    with pytest.raises(InferenceError, match="Nothing was enqueued"):
        context.wait()
    context.enqueue({"x": ramp(1)})
    with pytest.raises(InferenceError, match="in flight"):
        context.enqueue({"x": ramp(2)})
    np.testing.assert_array_equal(context.wait()["y"], 2 * ramp(1) + 1)
    with pytest.raises(InferenceError, match="Nothing was enqueued"):
        context.wait()


@pytest.mark.usefixtures("mode")
def test_a_context_may_be_closed_with_work_in_flight(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    context.enqueue({"x": ramp(64)})
    context.close()
    with pytest.raises(InferenceError, match="closed"):
        context.enqueue({"x": ramp(1)})


@pytest.mark.usefixtures("mode")
def test_a_context_may_be_used_and_closed_in_any_thread(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    found = []

    def use() -> None:
        found.append(run(context, x=ramp(3))["y"])
        context.close()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], 2 * ramp(3) + 1)


def test_what_is_dropped_without_being_closed_is_freed(device: Device, bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    run(context, x=ramp(3))
    bench.opened.clear()
    del context
    gc.collect()
    assert bench.gpu.live() == []


def test_contexts_that_share_memory_take_turns(bench: Bench, mode: str) -> None:
    engine = bench.engine(affine(), [BATCHES], GpuConfig(share_memory=True))
    contexts = [engine.create_context() for _ in range(3)]
    bench.opened.extend(contexts)
    for turn in range(5):
        for index, context in enumerate(contexts):
            context.enqueue({"x": ramp(index + 1, 10 * turn)})
        for index, context in enumerate(contexts):
            expected = 2 * ramp(index + 1, 10 * turn) + 1
            np.testing.assert_array_equal(context.wait()["y"], expected)


@pytest.mark.parametrize(("share", "allocations"), [(True, 0), (False, 1)])
def test_contexts_that_share_memory_bring_none(bench: Bench, share: bool, allocations: int) -> None:
    engine = bench.engine(affine(), [BATCHES], GpuConfig(share_memory=share))
    counted = changes(bench.gpu, lambda: bench.opened.append(engine.create_context()))
    assert counted.get("cuMemAlloc", 0) == allocations


def test_mapped_memory_is_used_without_copies(bench: Bench, mode: str) -> None:
    context = bench.context(affine(), [BATCHES], GpuConfig(mapped=True))
    for rows in (2, 5, 64, 1):
        np.testing.assert_array_equal(run(context, x=ramp(rows))["y"], 2 * ramp(rows) + 1)
    counted = changes(bench.gpu, lambda: run(context, x=ramp(5)))
    assert not any("Memcpy" in name for name in counted)


@pytest.mark.parametrize("contexts", [1, 3])
def test_weights_may_be_streamed(bench: Bench, contexts: int) -> None:
    config = GpuConfig(weight_budget=0)
    context = bench.context(affine(), [BATCHES], config, weight_streaming=True)
    np.testing.assert_array_equal(run(context, x=ramp(1))["y"], 2 * ramp(1) + 1)


def test_a_plan_without_weights_gets_those_of_its_graph(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES], strip_weights=True)
    np.testing.assert_array_equal(run(context, x=ramp(2))["y"], 2 * ramp(2) + 1)


def test_layers_are_timed(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    times = context.layer_times({"x": ramp(2)})
    assert times
    assert all(time.name and min(time.milliseconds) >= 0 for time in times)


def test_the_software_gpu_saw_no_default_stream(bench: Bench, gpu: SoftwareGpu) -> None:
    context = bench.context(affine(), [BATCHES])
    run(context, x=ramp(2))
    assert gpu.violations() == []
