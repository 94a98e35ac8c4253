"""CUDA graphs: replayed while shapes stay, and never with stale shapes, addresses or values."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.errors import InferenceError
from edge_runtime.gpu_config import GpuConfig
from tests.software_gpu.runtime.conftest import (
    BATCHES,
    Bench,
    affine,
    changes,
    nonzero,
    ramp,
    run,
    tiled,
)

GRAPHS = GpuConfig(cuda_graphs=True)


@pytest.mark.usefixtures("mode")
def test_an_inference_is_replayed_with_new_values(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES], GRAPHS)
    for start in range(8):
        np.testing.assert_array_equal(run(context, x=ramp(2, start))["y"], 2 * ramp(2, start) + 1)
    counted = changes(bench.gpu, lambda: run(context, x=ramp(2)))
    assert counted["cuGraphLaunch"] == 1
    assert counted["cuMemcpyHtoDAsync"] == counted["cuMemcpyDtoHAsync"] == 1
    assert (
        bench.trt.calls["IExecutionContext.execute_async_v3"] == 2
    )  # The first run, and the one that is captured.


@pytest.mark.usefixtures("mode")
def test_a_graph_is_captured_anew_when_a_shape_changes(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES], GRAPHS)
    for rows in (2, 2, 2, 5, 5, 5, 2, 2, 2, 64, 64, 64, 1):
        np.testing.assert_array_equal(run(context, x=ramp(rows))["y"], 2 * ramp(rows) + 1)


@pytest.mark.usefixtures("mode")
def test_a_graph_is_captured_anew_when_a_value_changes_a_shape(bench: Bench) -> None:
    context = bench.context(tiled(), [{"rows": "1x4,2x4,8x4"}], GRAPHS)
    for rows in (2, 2, 2, 3, 3, 3, 2):
        y = run(context, x=ramp(1), rows=np.array([rows, 4], np.int64))["y"]
        np.testing.assert_array_equal(y, np.repeat(ramp(1), rows, axis=0))


@pytest.mark.usefixtures("mode")
def test_graphs_of_contexts_that_share_memory_take_turns(bench: Bench) -> None:
    config = GpuConfig(cuda_graphs=True, share_memory=True)
    engine = bench.engine(affine(), [BATCHES], config)
    contexts = [engine.create_context() for _ in range(3)]
    bench.opened.extend(contexts)
    for turn in range(6):
        for index, context in enumerate(contexts):
            context.enqueue({"x": ramp(3, 100 * index + turn)})
        for index, context in enumerate(contexts):
            expected = 2 * ramp(3, 100 * index + turn) + 1
            np.testing.assert_array_equal(context.wait()["y"], expected)


def test_arrays_on_the_gpu_are_read_where_they_are_and_not_where_the_graph_was(
    bench: Bench,
) -> None:
    context = bench.context(affine(), [BATCHES], GRAPHS)
    for _ in range(3):
        run(context, x=ramp(2))
    kept = context.run_on_device({"x": ramp(2, 7)})["y"]
    np.testing.assert_array_equal(run(context, x=kept)["y"], 4 * ramp(2, 7) + 3)
    np.testing.assert_array_equal(run(context, x=ramp(2, 5))["y"], 2 * ramp(2, 5) + 1)
    np.testing.assert_array_equal(kept.to_host(), 2 * ramp(2, 7) + 1)
    kept.close()


def test_what_cannot_be_captured_is_refused_in_words(bench: Bench) -> None:
    context = bench.context(nonzero(), gpu=GRAPHS)
    with pytest.raises(InferenceError, match=r"where.*CUDA graph.*without cuda_graphs"):
        run(context, x=np.ones((2, 8), np.float32))


def test_steady_replay_allocates_nothing(bench: Bench) -> None:
    context = bench.context(affine(), [BATCHES], GRAPHS)
    for _ in range(3):
        run(context, x=ramp(2))
    live = bench.gpu.live()
    for _ in range(50):
        run(context, x=ramp(2))
    assert bench.gpu.live() == live
