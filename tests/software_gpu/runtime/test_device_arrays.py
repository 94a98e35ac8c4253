"""Inputs and outputs that stay in the GPU's memory."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from edge_runtime.backends.tensorrt.resources import BufferPool
from edge_runtime.cuda.array import DeviceArray
from edge_runtime.errors import BackendUnavailableError, FeedError
from edge_runtime.session import Session
from tests import models
from tests.software_gpu.runtime.conftest import (
    BATCHES,
    Bench,
    Foreign,
    affine,
    changes,
    measured,
    nonzero,
    ramp,
    run,
    several,
    tiled,
)


class Dlpack:
    """An array that only speaks DLPack, as JAX's."""

    def __init__(self, array: DeviceArray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


@pytest.mark.usefixtures("mode")
def test_an_output_goes_into_the_next_inference_without_a_copy(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    kept = context.run_on_device({"x": ramp(2)})["y"]
    run(context, x=ramp(1))
    counted = changes(bench.gpu, lambda: context.enqueue({"x": kept}))
    assert not any("HtoD" in name or "DtoD" in name for name in counted)
    np.testing.assert_array_equal(context.wait()["y"], 4 * ramp(2) + 3)
    kept.close()


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("wrap", [Foreign, Dlpack])
def test_arrays_of_other_libraries_are_read_in_place(bench: Bench, wrap: Any) -> None:
    context = bench.context(affine(), [BATCHES])
    kept = context.run_on_device({"x": ramp(2)})["y"]
    np.testing.assert_array_equal(run(context, x=wrap(kept))["y"], 4 * ramp(2) + 3)
    del kept
    gc.collect()


@pytest.mark.usefixtures("mode")
def test_host_and_gpu_arrays_may_be_mixed(bench: Bench) -> None:
    shapes = {"a": "1x3,2x3,9x3", "b": "1x3,2x3,9x3"}
    context = bench.context(several(), [shapes])
    a, b = np.full((2, 3), 7, np.float32), np.full((2, 3), 2, np.float32)
    kept = context.run_on_device({"a": a, "b": b})
    for other in (b, b + 1, b + 5):
        outputs = run(context, a=kept["sum"], b=other)
        np.testing.assert_array_equal(outputs["sum"], a + b + other)
        outputs = run(context, a=other, b=kept["gap"])
        np.testing.assert_array_equal(outputs["gap"], other - (a - b))
        outputs = run(context, a=kept["gap"], b=kept["sum"])
        np.testing.assert_array_equal(outputs["sum"], (a - b) + (a + b))
        np.testing.assert_array_equal(run(context, a=a, b=other)["sum"], a + other)
        there = context.run_on_device({"a": other, "b": kept["sum"]})
        np.testing.assert_array_equal(there["sum"].to_host(), other + a + b)
        for array in there.values():
            array.close()
    for array in kept.values():
        array.close()


@pytest.mark.usefixtures("mode")
def test_an_array_on_the_gpu_next_to_values_that_decide_a_shape(bench: Bench) -> None:
    context = bench.context(tiled(), [{"rows": "1x4,2x4,8x4"}])
    feeder = bench.context(affine(), [BATCHES])
    kept = feeder.run_on_device({"x": ramp(1)})["y"]
    for rows in (2, 5, 5, 1):
        found = run(context, x=kept, rows=np.array([rows, 4], np.int64))["y"]
        np.testing.assert_array_equal(found, np.repeat(2 * ramp(1) + 1, rows, axis=0))
    kept.close()


@pytest.mark.usefixtures("mode")
def test_outputs_on_the_gpu_belong_to_the_caller(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    first = context.run_on_device({"x": ramp(2)})["y"]
    second = context.run_on_device({"x": ramp(2, 9)})["y"]
    run(context, x=ramp(2, 50))
    np.testing.assert_array_equal(first.to_host(), 2 * ramp(2) + 1)
    np.testing.assert_array_equal(second.to_host(), 2 * ramp(2, 9) + 1)
    first.close()
    second.close()


def test_outputs_on_the_gpu_outlive_the_engine(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    kept = [context.run_on_device({"x": ramp(2, start)})["y"] for start in range(3)]
    bench.close()
    for start, array in enumerate(kept):
        np.testing.assert_array_equal(array.to_host(), 2 * ramp(2, start) + 1)
        array.close()
        assert len(bench.gpu.live()) == 2 - start  # Nobody is left who could use it again.


def test_their_memory_is_used_again(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES])
    context.run_on_device({"x": ramp(2)})["y"].close()

    def use() -> None:
        for start in range(10):
            kept = context.run_on_device({"x": ramp(2, start)})["y"]
            assert kept.address
            kept.close()

    counted = changes(bench.gpu, use)
    assert "cuMemAlloc" not in counted
    assert "cuMemcpyDtoHAsync" not in counted


def test_two_threads_never_get_the_same_memory(bench: Bench) -> None:
    pool = BufferPool(bench.device)
    pool.give_back(bench.device.allocate(256))

    class Slow(list[Any]):
        def __bool__(self) -> bool:
            found = len(self) > 0
            time.sleep(0.01)
            return found

    pool._free[256] = Slow(pool._free[256])
    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(pool.take, [256] * 4))
    assert len({buffer.address for buffer in taken}) == 4
    for buffer in taken:
        pool.give_back(buffer)
    pool.close()
    assert bench.gpu.live() == []


@pytest.mark.usefixtures("mode")
def test_outputs_of_unknown_shape_may_stay_too(bench: Bench) -> None:
    context = bench.context(nonzero())
    x = np.eye(2, 8, dtype=np.float32)
    first = context.run_on_device({"x": x})["where"]
    second = context.run_on_device({"x": 1 - x})["where"]
    assert type(first.shape) is tuple
    np.testing.assert_array_equal(first.to_host(), np.stack(np.nonzero(x)))
    np.testing.assert_array_equal(second.to_host(), np.stack(np.nonzero(1 - x)))
    first.close()
    second.close()


@pytest.mark.usefixtures("mode")
def test_outputs_in_host_memory_go_to_the_gpu_too(bench: Bench) -> None:
    bench.trt.options.host_outputs = ("size",)
    context = bench.context(measured(), [BATCHES])
    for rows in (2, 3):
        kept = context.run_on_device({"x": ramp(rows)})
        np.testing.assert_array_equal(kept["y"].to_host(), 2 * ramp(rows))
        assert kept["size"].to_host().tolist() == [rows, 4]
        for array in kept.values():
            array.close()
    live = bench.gpu.live()
    for array in context.run_on_device({"x": ramp(3)}).values():
        array.close()
    assert bench.gpu.live() == live


@pytest.mark.usefixtures("mode")
def test_arrays_without_elements(bench: Bench) -> None:
    net = models.Net()
    x = net.input("x", ("n", 4))
    bounds = [net.constant(name, np.array([size])) for name, size in (("from", 4), ("to", 9))]
    net.op("Slice", x, *bounds, net.constant("axis", np.array([1])), name="none")
    net.op("Add", x, x, name="all")
    context = bench.context(net.proto("none", "all", shapes={"none": ["n", 0]}), [BATCHES])
    for rows in (2, 5):
        assert run(context, x=ramp(rows))["none"].shape == (rows, 0)
        kept = context.run_on_device({"x": ramp(rows)})
        assert kept["none"].to_host().shape == (rows, 0)
        np.testing.assert_array_equal(kept["all"].to_host(), 2 * ramp(rows))
        for array in kept.values():
            array.close()


def test_wrong_arrays_on_the_gpu_are_named(bench: Bench) -> None:
    engine = bench.engine(affine(), [BATCHES])
    with Session(engine, backend="tensorrt") as session:
        kept = session.run_on_device({"x": ramp(4)})["y"]
        wrong = {
            "float64": Foreign(kept, typestr="<f8"),
            "2, 2, 4": Foreign(kept, shape=(2, 2, 4)),
            "not contiguous": Foreign(kept, shape=(2, 4), strides=(32, 4)),
            "multiple of 256": Foreign(kept, shape=(1, 4), data=(kept.address + 16, False)),
        }
        for words, array in wrong.items():
            with pytest.raises(FeedError) as caught:
                session.run({"x": array})
            assert words in str(caught.value)
            assert caught.value.tensor == "x"
        np.testing.assert_array_equal(session.run({"x": ramp(1)})["y"], 2 * ramp(1) + 1)
        kept.close()


def test_values_that_decide_a_shape_must_be_on_the_host(bench: Bench) -> None:
    context = bench.context(tiled(), [{"rows": "1x4,2x4,8x4"}])
    where = bench.context(nonzero())
    kept = where.run_on_device({"x": np.eye(2, 8, dtype=np.float32)})["where"]
    rows = Foreign(kept, shape=(2,))
    with pytest.raises(FeedError, match="host memory"):
        context.enqueue({"x": ramp(1), "rows": rows})
    kept.close()


def test_the_cpu_says_that_it_has_no_gpu_memory() -> None:
    from edge_runtime.backends.cpu import CpuRuntime

    engine = CpuRuntime().load(affine().SerializeToString())
    with Session(engine, backend="cpu") as session, pytest.raises(BackendUnavailableError):
        session.run_on_device({"x": ramp(1)})
