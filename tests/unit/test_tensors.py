"""Specs of tensors, and the refusal of arrays that do not fit them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import FeedError
from edge_runtime.tensors import TensorSpec, check_feeds

IMAGE = TensorSpec("image", "float32", (-1, 3, 8, 8))
SIZE = TensorSpec("size", "int64", ())
GOOD = {"image": np.zeros((2, 3, 8, 8), np.float32), "size": np.array(4)}


def refusal(feeds: Mapping[str, object]) -> FeedError:
    """The error, which names tensor, expected and found in one line."""
    with pytest.raises(FeedError) as caught:
        check_feeds((IMAGE, SIZE), feeds)
    error = caught.value
    assert "\n" not in str(error)
    assert repr(error.tensor) in str(error)
    assert error.expected in str(error)
    assert error.found in str(error)
    return error


def test_what_fits_passes() -> None:
    check_feeds((IMAGE, SIZE), GOOD)
    check_feeds((IMAGE, SIZE), dict(reversed(GOOD.items())))
    check_feeds((), {})


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3, 8, 8), np.float32),
        np.zeros((8, 8, 3, 2), np.float32).T,
        np.zeros((2, 3, 8, 16), np.float32)[..., ::2],
    ],
)
def test_any_batch_and_any_strides_fit(array: np.ndarray) -> None:
    check_feeds((IMAGE,), {"image": array})


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((2, 3, 8, 8)), "float64[2, 3, 8, 8]"),
        (np.zeros((2, 3, 8, 8), np.float16), "float16[2, 3, 8, 8]"),
        (np.zeros((2, 3, 8, 8), np.uint8), "uint8[2, 3, 8, 8]"),
        (np.zeros((2, 3, 8, 8), ">f4"), "float32 of foreign byte order[2, 3, 8, 8]"),
        (np.zeros((3, 8, 8), np.float32), "float32[3, 8, 8]"),
        (np.zeros((1, 2, 3, 8, 8), np.float32), "float32[1, 2, 3, 8, 8]"),
        (np.zeros((2, 8, 8, 3), np.float32), "float32[2, 8, 8, 3]"),
        (np.zeros((2, 3, 8, 9), np.float32), "float32[2, 3, 8, 9]"),
        (np.float32(1), "a float32"),
        ([[1.0]], "a list"),
        (1.0, "a float"),
        ("image.png", "a str"),
    ],
)
def test_another_type_or_shape_is_refused_never_cast(array: object, found: str) -> None:
    error = refusal({**GOOD, "image": array})
    assert (error.tensor, error.found) == ("image", found)
    assert "float32[?, 3, 8, 8]" in error.expected


def test_a_scalar_wants_no_dimension() -> None:
    error = refusal({**GOOD, "size": np.array([4])})
    assert (error.tensor, error.expected, error.found) == ("size", "int64[]", "int64[1]")


def test_an_input_that_is_missing_is_named_with_what_is_there() -> None:
    error = refusal({"Image": GOOD["image"], "size": GOOD["size"]})
    assert error.tensor == "image"
    assert "Image" in error.found
    assert refusal({}).tensor == "image"


def test_an_input_that_the_model_lacks_is_named() -> None:
    error = refusal({**GOOD, "mask": np.zeros(3)})
    assert error.tensor == "mask"
    assert "image, size" in error.expected


def test_whether_a_shape_is_static() -> None:
    assert SIZE.is_static
    assert TensorSpec("x", "float32", (1, 0)).is_static
    assert not IMAGE.is_static


SHAPES = st.lists(st.integers(1, 4), max_size=4)


@given(SHAPES, st.data())
def test_a_shape_fits_itself_with_any_dimension_dynamic(
    shape: list[int], data: st.DataObject
) -> None:
    dynamic = tuple(data.draw(st.sampled_from([-1, size])) for size in shape)
    spec = TensorSpec("x", "float32", dynamic)
    assert spec.accepts(shape)
    assert not spec.accepts([*shape, 1])
    for axis, size in enumerate(dynamic):
        for change in (-1, 1):
            other = [*shape[:axis], shape[axis] + change, *shape[axis + 1 :]]
            assert spec.accepts(other) == (size == -1)
