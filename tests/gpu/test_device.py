"""What only a real GPU shows: all ways of using it give what the CPU gives, and nothing is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edge_runtime.cuda.device import Device
from edge_runtime.session import load
from tests.contract.conftest import feeds
from tests.contract.test_backend import assert_equal, sqnr
from tests.gpu.conftest import DeviceCase

pytestmark = pytest.mark.timeout(900)  # The first waits until TensorRT has built.

SIZES = [(1, 8), (2, 8), (3, 14), (1, 4), (2, 8), (3, 8)]
"""Batch and side, some of them again."""


def inputs() -> list[dict[str, np.ndarray]]:
    return [feeds(seed, *size) for seed, size in enumerate(SIZES)]


def test_it_comes_close_to_the_cpu_on_the_same_graph(case: DeviceCase) -> None:
    with case.session() as session, load(case.bundle, device="cpu") as twin:
        for each in inputs():
            found, expected = session.run(each), twin.run(each)
            assert found["count"].tolist() == expected["count"].tolist()
            for name in ("picture", "code"):
                assert sqnr(expected[name], found[name]) > case.noise_floor, name


@pytest.mark.parametrize("setting", ["cuda_graphs", "share_memory", "spin"])
def test_a_way_of_using_the_gpu_changes_no_bit(case: DeviceCase, setting: str) -> None:
    with case.session(contexts=3) as session:
        expected = [session.run(each) for each in inputs()]
    with case.session(contexts=3, **{setting: True}) as session:
        for _ in range(3):
            for each, outputs in zip(inputs(), expected, strict=True):
                assert_equal(session.run(each), outputs)
        futures = [session.submit(each) for each in inputs()]
        for future, outputs in zip(futures, expected, strict=True):
            assert_equal(future.result(), outputs)


def test_host_memory_is_used_in_place(case: DeviceCase, device: Device) -> None:
    if not device.info.integrated:
        pytest.skip(f"{device.info.name} is not integrated: it has memory of its own")
    with case.session() as session:
        expected = [session.run(each) for each in inputs()]
    for graphs in (False, True):
        with case.session(mapped=True, cuda_graphs=graphs) as session:
            for each, outputs in zip(inputs(), expected, strict=True):
                assert_equal(session.run(each), outputs)


def test_outputs_that_stay_on_the_gpu_are_taken_as_inputs(case: DeviceCase) -> None:
    with case.session(contexts=2) as session:
        for each in inputs():
            on_host = session.run(each)
            on_device = session.run_on_device(each)
            assert_equal({name: a.to_host() for name, a in on_device.items()}, on_host)
            again = {**each, "image": on_device["picture"]}
            assert_equal(session.run(again), session.run({**each, "image": on_host["picture"]}))


def test_torch_gives_and_takes_without_a_copy(case: DeviceCase) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    with case.session() as session:
        for each in inputs():
            expected = session.run(each)
            given = {name: torch.from_numpy(array).cuda() for name, array in each.items()}
            outputs = session.run_on_device(given)
            taken = {name: torch.from_dlpack(array) for name, array in outputs.items()}
            assert taken["picture"].data_ptr() == outputs["picture"].address
            assert_equal({name: t.cpu().numpy() for name, t in taken.items()}, expected)


def test_cupy_gives_and_takes_without_a_copy(case: DeviceCase) -> None:
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    with case.session() as session:
        for each in inputs():
            expected = session.run(each)
            given = {name: cupy.asarray(array) for name, array in each.items()}
            outputs = session.run_on_device(given)
            taken = {name: cupy.asarray(array) for name, array in outputs.items()}
            assert taken["picture"].data.ptr == outputs["picture"].address
            assert_equal({name: cupy.asnumpy(a) for name, a in taken.items()}, expected)


@pytest.mark.parametrize("graphs", [False, True])
def test_each_of_eight_threads_gets_its_own_answer(case: DeviceCase, graphs: bool) -> None:
    with case.session(contexts=3, cuda_graphs=graphs) as session:
        expected = [session.run(each) for each in inputs()]

        def many(thread: int) -> None:
            for call in range(500):
                index = (thread + call) % len(SIZES)
                assert_equal(session.run(inputs()[index]), expected[index])

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(many, range(8)))


def test_a_thousand_calls_keep_no_memory(case: DeviceCase, device: Device) -> None:
    largest = feeds(1, batch=3, side=14)  # 38 kB; a thousand that are kept are 38 MB.
    with case.session(contexts=2) as session:
        for _ in range(50):
            session.run(largest)
        before = free_memory(device)
        for _ in range(1000):
            session.run(largest)
            for array in session.run_on_device(largest).values():
                array.close()
        # A Jetson's GPU shares its memory with all programs, which breathe.
        assert before - free_memory(device) < 20_000_000


def test_sessions_give_all_back_when_they_are_closed(case: DeviceCase, device: Device) -> None:
    def use() -> None:
        with case.session(contexts=3, cuda_graphs=True) as session:
            session.run(feeds(1, batch=3, side=14))

    use()
    before = free_memory(device)
    for _ in range(20):
        use()
    assert before - free_memory(device) < 20_000_000


def free_memory(device: Device) -> int:
    with device.current():
        return device.memory_info()[0]
