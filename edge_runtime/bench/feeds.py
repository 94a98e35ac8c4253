"""What a benchmark feeds: arrays of given shapes, from samples or made up as trtexec does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from edge_runtime.data import Source, open_samples
from edge_runtime.errors import ConfigError
from edge_runtime.tensors import Array, Feeds, TensorSpec
from edge_runtime.vision.preprocess import Preprocessing

Shape = tuple[int, ...]

_MOST = 256
"""Samples that are kept in memory and come round."""

_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What is fed.

    Attributes:
        feeds: At least one, each of the same shapes unless samples differ.
        batch: Samples in one of them.
        shapes: The shape of each input, in the model's order, in the first of them.
    """

    feeds: Sequence[Feeds]
    batch: int
    shapes: Mapping[str, Shape]


def made_up(
    specs: Sequence[TensorSpec],
    *,
    usual: Mapping[str, Shape],
    shapes: Mapping[str, Shape],
    batch: int | None,
) -> Inputs:
    """Random arrays: floats from -1 to 1, integers from 0 to 127, the same ones in every run.

    Args:
        specs: The model's inputs.
        usual: Shapes that a plan was optimized for, as far as anybody said.
        shapes: Shapes that were asked for.
        batch: The first dimension of each input where that is dynamic; None leaves it as it is.

    Raises:
        ConfigError: A shape does not fit, or no input has a dynamic batch.
    """
    chosen = _shapes(specs, usual, shapes, batch)
    generator = np.random.default_rng(_SEED)
    feeds = {spec.name: _random(spec, chosen[spec.name], generator) for spec in specs}
    return Inputs([feeds], _batch(specs, chosen), chosen)


def from_samples(
    source: Source,
    specs: Sequence[TensorSpec],
    *,
    batch: int | None,
    preprocessing: Preprocessing | None = None,
) -> Inputs:
    """The first samples of some data, as many as `batch` in each feed; they come round.

    Args:
        source: See `open_samples`.
        specs: The model's inputs.
        batch: Samples in one feed, put together along the first dimension; None takes each sample
            as it is.
        preprocessing: How a picture becomes the input.

    Raises:
        ConfigError: The inputs have no dynamic batch, or the samples are not of one shape.
        DataError: A sample cannot be read, or does not fit.
    """
    samples = list(islice(open_samples(source, specs, preprocessing=preprocessing), _MOST))
    if batch is not None and batch > 1:
        _check_batch(specs, batch)
        samples = _put_together(samples, specs, batch)
    shapes = {spec.name: samples[0][spec.name].shape for spec in specs}
    return Inputs(samples, _batch(specs, shapes), shapes)


def has_batch(specs: Sequence[TensorSpec]) -> bool:
    """Whether inputs may be given a batch: every first dimension is dynamic."""
    return all(map(_is_batched, specs))


def _shapes(
    specs: Sequence[TensorSpec],
    usual: Mapping[str, Shape],
    given: Mapping[str, Shape],
    batch: int | None,
) -> dict[str, Shape]:
    names = [spec.name for spec in specs]
    for name in given:
        if name not in names:
            raise ConfigError(
                f"A shape is given for input {name!r}; the inputs are {', '.join(names)}."
            )
    if batch is not None:
        _check_batch(specs, batch)
    chosen = {}
    for spec in specs:
        shape = given.get(spec.name) or usual.get(spec.name)
        if shape is None:  # trtexec too takes 1 where nobody says a size.
            shape = tuple(max(size, 1) if size < 0 else size for size in spec.shape)
        if batch is not None and spec.name not in given and _is_batched(spec):
            shape = (batch, *shape[1:])
        if not spec.accepts(shape):
            raise ConfigError(
                f"Input {spec.name!r} is {spec}, and shape {'x'.join(map(str, shape))} does not "
                "fit it."
            )
        chosen[spec.name] = shape
    return chosen


def _check_batch(specs: Sequence[TensorSpec], batch: int) -> None:
    if batch < 1:
        raise ConfigError(f"The batch is {batch}; it must be at least 1.")
    fixed = [spec for spec in specs if spec.shape and spec.shape[0] not in (-1, batch)]
    if fixed or not any(map(_is_batched, specs)):
        spec = fixed[0] if fixed else specs[0]
        raise ConfigError(
            f"A batch of {batch} needs inputs whose first dimension is dynamic, but {spec.name!r} "
            f"is {spec}. Export the model so, or leave the batch out."
        )


def _is_batched(spec: TensorSpec) -> bool:
    return bool(spec.shape) and spec.shape[0] < 0


def _batch(specs: Sequence[TensorSpec], shapes: Mapping[str, Shape]) -> int:
    """Samples in a feed: the first dimension where it is dynamic, and the same everywhere."""
    sizes = {shapes[spec.name][0] for spec in specs if _is_batched(spec)}
    return max(sizes.pop(), 1) if len(sizes) == 1 else 1


def _random(spec: TensorSpec, shape: Shape, generator: np.random.Generator) -> Array:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return generator.uniform(-1, 1, shape).astype(dtype)
    if dtype.kind in "iu":
        return generator.integers(0, 128, shape).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    raise ConfigError(f"Input {spec.name!r} is {spec}, which cannot be made up: give --data.")


def _put_together(samples: Sequence[Feeds], specs: Sequence[TensorSpec], batch: int) -> list[Feeds]:
    count = -(-len(samples) // batch)
    feeds: list[Feeds] = []
    for index in range(count):
        chosen = [samples[(index * batch + step) % len(samples)] for step in range(batch)]
        feed = {}
        for spec in specs:
            arrays = [sample[spec.name] for sample in chosen]
            odd = next((a for a in arrays if a.shape != arrays[0].shape or a.shape[0] != 1), None)
            if odd is not None:
                raise ConfigError(
                    f"Samples of shapes {list(arrays[0].shape)} and {list(odd.shape)} of input "
                    f"{spec.name!r} make no batch: give samples of one row and one shape."
                )
            feed[spec.name] = np.concatenate(arrays)
        feeds.append(feed)
    return feeds
