"""What a tensor looks like from outside: its spec, and the check that an array fits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import FeedError

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
DeviceFeeds = Mapping[str, Any]
"""Feeds of which some may be arrays in a GPU's memory, which have no common type."""
Outputs = dict[str, Array]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type and shape of a model's input or output.

    Attributes:
        name: The tensor's name in the ONNX graph.
        dtype: numpy's name of the element type, such as `float32` or `int64`.
        shape: One size a dimension; -1 where it is dynamic.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def is_static(self) -> bool:
        """Whether every dimension is known."""
        return all(size >= 0 for size in self.shape)

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape fits: equal rank, and equal sizes where they are known."""
        if len(shape) != len(self.shape):
            return False
        for want, size in zip(self.shape, shape, strict=True):
            if want != size and want >= 0:
                return False
        return True

    def __str__(self) -> str:
        sizes = ", ".join("?" if size < 0 else str(size) for size in self.shape)
        return f"{self.dtype}[{sizes}]"


def check_feeds(
    specs: Sequence[TensorSpec],
    feeds: DeviceFeeds,
    is_on_device: Callable[[object], bool] | None = None,
) -> None:
    """Checks that `feeds` holds one fitting array for each of `specs` and nothing else.

    Nothing is converted: an array of another type or shape is refused, never cast.

    Args:
        specs: The model's inputs.
        feeds: Array by input.
        is_on_device: Says which feeds are arrays in a GPU's memory; these are let through as they
            are. None where there is no such memory.

    Raises:
        FeedError: Names the tensor, what it wants and what was passed.
    """
    for spec in specs:
        array = feeds.get(spec.name)
        # This is on the way of every inference: one pass of cheap tests, then the words.
        fits = (
            isinstance(array, np.ndarray)
            and array.dtype == _dtype(spec.dtype)
            and spec.accepts(array.shape)
        )
        if not fits and (array is None or is_on_device is None or not is_on_device(array)):
            raise _misfit(spec, array, feeds)
    if len(feeds) != len(specs):
        names = {spec.name for spec in specs}
        extra = next(name for name in feeds if name not in names)
        raise FeedError(
            extra, expected=f"only the model's inputs ({', '.join(sorted(names))})", found="it too"
        )


@cache
def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(name)


def _misfit(spec: TensorSpec, array: object, feeds: DeviceFeeds) -> FeedError:
    if array is None:
        names = ", ".join(feeds) or "nothing"
        return FeedError(spec.name, expected=str(spec), found=f"no such key (there is: {names})")
    if not isinstance(array, np.ndarray):
        return FeedError(
            spec.name,
            expected=f"a numpy array {spec}",
            found=f"a {type(array).__name__}",
            hint=f"Pass numpy.asarray(value, dtype={spec.dtype!r}).",
        )
    order = "" if array.dtype.isnative else " of foreign byte order"
    found = f"{array.dtype.name}{order}{list(array.shape)}"
    if array.dtype != _dtype(spec.dtype):
        hint = f"Convert it with array.astype({spec.dtype!r})."
        return FeedError(spec.name, expected=str(spec), found=found, hint=hint)
    return FeedError(spec.name, expected=str(spec), found=found)
