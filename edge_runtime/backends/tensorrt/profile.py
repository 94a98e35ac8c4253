"""Gives a network the optimization profiles that its dynamic inputs need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edge_runtime.config import OptimizationProfile, ShapeRange
from edge_runtime.errors import BuildError, ConfigError
from edge_runtime.tensors import TensorSpec

_EXAMPLE_SIZES = ((32, 640, 960), (1, 1, 4))  # Of a dynamic axis; of the first one, the batch.


def add_profiles(
    builder: Any, config: Any, network: Any, profiles: Sequence[OptimizationProfile]
) -> None:
    """Adds the profiles in their order, which is that of their numbers in the engine.

    Raises:
        ConfigError: A range is missing, is of an unknown input, or does not fit its input.
        BuildError: TensorRT refused a profile.
    """
    for profile in profiles or ({},):
        add_profile(builder, config, network, profile)


def add_profile(builder: Any, config: Any, network: Any, profile: OptimizationProfile) -> None:
    """Sets a range for each input of `network` that has dynamic dimensions or holds a shape.

    For an input that holds a shape (TensorRT's shape tensor), the range is of its values.

    Raises:
        ConfigError: A range is missing, is of an unknown input, or does not fit its input.
        BuildError: TensorRT refused the profile.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    check_names(profile, [tensor.name for tensor in inputs])
    vendor = builder.create_optimization_profile()
    needed = False
    for tensor in inputs:
        shape = tuple(tensor.shape)
        shapes = profile.get(tensor.name)
        if tensor.is_shape_tensor:
            shapes = _value_range(tensor.name, math.prod(shape), shapes)
            setter = vendor.set_shape_input
        elif shapes is not None:
            check_range(tensor.name, shape, shapes)
            setter = vendor.set_shape
        elif -1 in shape:
            raise ConfigError(missing_range(tensor.name, shape))
        else:
            continue
        needed = True
        setter(tensor.name, shapes.min, shapes.opt, shapes.max)
    if needed and config.add_optimization_profile(vendor) < 0:
        raise BuildError(f"TensorRT refused the shapes {_describe(profile)}.")


def check_profile(profile: OptimizationProfile, inputs: Sequence[TensorSpec]) -> None:
    """Refuses what cannot fit a model's inputs, before anything is built.

    Raises:
        ConfigError: A range is of an unknown input, or does not fit its input.
    """
    check_names(profile, [spec.name for spec in inputs])
    for spec in inputs:
        # The range of a small integer tensor may be one of its values: the builder knows.
        values = spec.is_static and len(spec.shape) <= 1 and spec.dtype in ("int32", "int64")
        if spec.name in profile and not values:
            check_range(spec.name, spec.shape, profile[spec.name])


def check_names(profile: OptimizationProfile, names: list[str]) -> None:
    """Refuses a profile with a range for an input that is not among `names`."""
    for name in profile:
        if name not in names:
            raise ConfigError(
                f"--shape {name}=…: the model has no input {name!r}; its inputs are "
                f"{', '.join(names)}."
            )


def check_range(name: str, shape: tuple[int, ...], shapes: ShapeRange) -> None:
    """Refuses a range whose rank or known sizes are not those of the input; -1 is dynamic."""
    for given in (shapes.min, shapes.opt, shapes.max):
        if len(given) != len(shape) or any(
            want not in (-1, size) for want, size in zip(shape, given, strict=True)
        ):
            raise ConfigError(
                f"--shape {name}={shapes}: {'x'.join(map(str, given))} does not fit input "
                f"{name!r}, which is {_sizes(shape)}."
            )


def missing_range(name: str, shape: tuple[int, ...]) -> str:
    """The message for an input with dynamic dimensions that the profile leaves out."""
    return (
        f"Input {name!r} has dynamic dimensions "
        f"({_sizes(shape)}); TensorRT needs their smallest, usual and largest sizes: "
        f"--shape {name}={example_range(shape)}"
    )


def example_range(shape: tuple[int, ...]) -> ShapeRange:
    """Plausible sizes to show for an input of this shape, where -1 is dynamic."""
    columns = [
        (size,) * 3 if size >= 0 else _EXAMPLE_SIZES[axis == 0] for axis, size in enumerate(shape)
    ]
    return ShapeRange(*zip(*columns, strict=True))


def _value_range(name: str, count: int, shapes: ShapeRange | None) -> ShapeRange:
    if shapes is None or len(shapes.opt) != count:
        given = f"--shape {name}={shapes}: " if shapes else ""
        example = ",".join("x".join([size] * count) for size in ("1", "8", "64"))
        raise ConfigError(
            f"{given}Input {name!r} decides a shape in the model, so TensorRT needs the smallest, "
            f"usual and largest of its {count} value(s): --shape {name}={example}"
        )
    return shapes


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join("?" if size < 0 else str(size) for size in shape)


def _describe(profile: OptimizationProfile) -> str:
    return " ".join(f"{name}={shapes}" for name, shapes in sorted(profile.items()))
