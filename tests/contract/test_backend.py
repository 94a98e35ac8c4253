"""What every backend owes to whoever runs a bundle on it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edge_runtime.backends.base import Engine
from edge_runtime.errors import FeedError, InferenceError, SessionClosedError
from edge_runtime.session import Session
from edge_runtime.tensors import Outputs
from tests import models
from tests.contract.conftest import Case, feeds, network

PROTO = network()


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    noise = ((reference.astype(np.float64) - other) ** 2).sum()
    return float(10 * np.log10((reference.astype(np.float64) ** 2).sum() / max(noise, 1e-30)))


def assert_equal(outputs: Outputs, others: Outputs) -> None:
    assert outputs.keys() == others.keys()
    for name, array in outputs.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)


def copies(outputs: Outputs) -> Outputs:
    return {name: array.copy() for name, array in outputs.items()}


# What goes in and comes out.


def test_it_says_what_the_bundle_says(engine: Engine, case: Case) -> None:
    assert tuple(engine.inputs) == case.bundle.inputs
    assert tuple(engine.outputs) == case.bundle.outputs


@pytest.mark.parametrize(("batch", "side"), [(1, 8), (2, 8), (3, 8), (2, 4), (1, 14)])
def test_outputs_come_close_to_the_model_for_every_size(
    session: Session, case: Case, batch: int, side: int
) -> None:
    inputs = feeds(1, batch, side)
    expected, outputs = models.run(PROTO, inputs), session.run(inputs)
    assert list(outputs) == ["picture", "code", "count"]
    for spec in session.outputs:
        array = outputs[spec.name]
        assert isinstance(array, np.ndarray)
        assert (array.dtype.name, array.shape) == (spec.dtype, expected[spec.name].shape)
    assert outputs["count"].tolist() == [batch]
    for name in ("picture", "code"):
        assert sqnr(expected[name], outputs[name]) > case.noise_floor, name


def test_the_same_feeds_give_the_same_bits(session: Session, case: Case) -> None:
    first = session.run(feeds(1))
    session.run(feeds(2, batch=1, side=4))
    assert_equal(session.run(feeds(1)), first)
    with case.session() as another:
        assert_equal(another.run(feeds(1)), first)


def transposed(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.T).T


def strided(array: np.ndarray) -> np.ndarray:
    return np.repeat(array, 2, axis=-1)[..., ::2]


def backwards(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[..., ::-1])[..., ::-1]


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.setflags(write=False)
    return array


@pytest.mark.parametrize("arrange", [transposed, strided, backwards, read_only])
def test_how_an_array_lies_in_memory_does_not_matter(
    session: Session, arrange: Callable[[np.ndarray], np.ndarray]
) -> None:
    inputs = feeds(1)
    arranged = {**inputs, "image": arrange(inputs["image"])}
    assert_equal(session.run(arranged), session.run(inputs))


# Who owns what.


def test_feeds_stay_as_they_are(session: Session) -> None:
    inputs = feeds(1)
    session.run(inputs)
    assert_equal(inputs, feeds(1))


def test_feeds_may_be_overwritten_once_they_are_enqueued(engine: Engine) -> None:
    context = engine.create_context()
    context.enqueue(feeds(1))
    expected = context.wait()
    inputs = feeds(1)
    context.enqueue(inputs)
    for array in inputs.values():
        array[...] = 1e6
    assert_equal(context.wait(), expected)
    context.close()


def test_outputs_belong_to_the_caller(session: Session) -> None:
    first = session.run(feeds(1))
    kept = copies(first)
    second = session.run(feeds(2))
    assert_equal(first, kept)
    for array in (*first.values(), *second.values()):
        array[...] = 77
    assert_equal(session.run(feeds(1)), kept)


def test_outputs_outlive_the_session(case: Case) -> None:
    with case.session() as session:
        outputs = session.run(feeds(1))
        kept = copies(outputs)
    del session
    with case.session() as session:
        session.run(feeds(2))
    assert_equal(outputs, kept)


# Many at a time.


def test_two_contexts_keep_their_inferences_apart(engine: Engine) -> None:
    first, second = engine.create_context(), engine.create_context()
    expected = []
    for seed in (1, 2):
        first.enqueue(feeds(seed))
        expected.append(first.wait())
    first.enqueue(feeds(1))
    second.enqueue(feeds(2))
    assert_equal(second.wait(), expected[1])
    assert_equal(first.wait(), expected[0])
    first.close()
    second.close()


def test_each_of_many_threads_gets_its_own_answer(session: Session) -> None:
    sizes = [(1, 8), (2, 8), (1, 4), (3, 6)]
    inputs = [feeds(seed, *sizes[seed % 4]) for seed in range(8)]
    expected = [session.run(each) for each in inputs]

    def many(index: int) -> None:
        for _ in range(25):
            assert_equal(session.run(inputs[index]), expected[index])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(many, range(8)))


def test_each_of_many_futures_gets_its_own_answer(session: Session) -> None:
    inputs = [feeds(seed) for seed in range(12)]
    expected = [session.run(each) for each in inputs]
    futures = [session.submit(each) for each in inputs]
    for future, answer in zip(futures, expected, strict=True):
        assert_equal(future.result(), answer)


# What is refused.


def wrong(**changes: object) -> dict[str, object]:
    inputs: dict[str, object] = {**feeds(1), **changes}
    return {name: value for name, value in inputs.items() if value is not None}


IMAGE = feeds(1)["image"]


@pytest.mark.parametrize(
    ("inputs", "tensor", "expected", "found"),
    [
        (wrong(image=None), "image", "float32[?, 16, ?, ?]", "no such key"),
        (wrong(gain=None), "gain", "float32[]", "no such key"),
        (wrong(mask=IMAGE), "mask", "image", "it too"),
        (wrong(image=IMAGE.astype(np.float64)), "image", "float32[?, 16, ?, ?]", "float64[2, 16"),
        (wrong(image=IMAGE.astype(np.float16)), "image", "float32[?, 16, ?, ?]", "float16[2, 16"),
        (wrong(image=IMAGE.astype(">f4")), "image", "float32[?, 16, ?, ?]", "foreign byte order"),
        (wrong(image=IMAGE[0]), "image", "float32[?, 16, ?, ?]", "float32[16, 8, 8]"),
        (wrong(image=IMAGE[:, :3]), "image", "float32[?, 16, ?, ?]", "float32[2, 3, 8, 8]"),
        (wrong(image=IMAGE.tolist()), "image", "a numpy array", "a list"),
        (wrong(gain=1.5), "gain", "a numpy array", "a float"),
        (wrong(gain=np.ones(1, np.float32)), "gain", "float32[]", "float32[1]"),
    ],
)
def test_feeds_that_do_not_fit_are_named(
    session: Session, inputs: dict[str, np.ndarray], tensor: str, expected: str, found: str
) -> None:
    for call in (session.run, session.submit):
        with pytest.raises(FeedError) as caught:
            call(inputs)
        assert caught.value.tensor == tensor
        assert expected in caught.value.expected
        assert found in caught.value.found


def test_sizes_that_the_model_cannot_combine_fail_alone(session: Session) -> None:
    expected = session.run(feeds(1))
    for _ in range(4):  # One more than there are contexts.
        with pytest.raises(InferenceError) as caught:
            session.run(feeds(1, side=7))
        assert "\n" not in str(caught.value)
    assert isinstance(session.submit(feeds(1, side=7)).exception(), InferenceError)
    assert_equal(session.run(feeds(1)), expected)


def test_layers_are_timed_and_the_session_goes_on_as_before(session: Session) -> None:
    before = session.run(feeds(1))
    times = session.layer_times(feeds(1), runs=3)
    assert len({time.name for time in times}) == len(times) > 1
    assert all(len(time.milliseconds) == 3 for time in times)
    assert all(milliseconds >= 0 for time in times for milliseconds in time.milliseconds)
    assert sum(sum(time.milliseconds) for time in times) > 0
    assert_equal(session.run(feeds(1)), before)
    with pytest.raises(FeedError):
        session.layer_times({})
    session.close()
    with pytest.raises(SessionClosedError):
        session.layer_times(feeds(1))


def test_closed_is_closed(case: Case) -> None:
    session = case.session(contexts=2)
    future = session.submit(feeds(1))
    session.close()
    session.close()
    assert future.result()["count"].tolist() == [2]
    with pytest.raises(SessionClosedError):
        session.run(feeds(1))


def test_contexts_and_engines_may_be_closed_twice(case: Case) -> None:
    engine = case.engine()
    contexts = [engine.create_context() for _ in range(3)]
    for context in [*contexts, *contexts]:
        context.close()
    engine.close()
    engine.close()
