"""The inputs and outputs of a TensorRT engine: types, places, shapes and optimization profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_runtime.config import ShapeRange
from edge_runtime.errors import BundleError, FeedError
from edge_runtime.tensors import TensorSpec

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""numpy's names of the members of TensorRT's `DataType` that numpy has."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of an engine.

    Attributes:
        spec: Name, element type and shape.
        on_host: Whether the engine wants its address in host memory, as it does for the values
            that decide a shape.
    """

    spec: TensorSpec
    on_host: bool


@dataclass(frozen=True, slots=True)
class Interface:
    """All of them.

    Attributes:
        inputs: The inputs, in the model's order.
        outputs: The outputs, in the model's order.
        profiles: For each optimization profile, the range of each dynamic input's shape.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    profiles: tuple[Mapping[str, ShapeRange], ...]

    def profile_for(self, shapes: Mapping[str, Shape], active: int) -> int:
        """The profile that holds these shapes: the active one if it does, else the first.

        Raises:
            FeedError: None does.
        """
        name = _misfit(self.profiles[active], shapes)
        if name is None:
            return active
        for index, profile in enumerate(self.profiles):
            if _misfit(profile, shapes) is None:
                return index
        ranges = ", or ".join(
            f"{_sizes(profile[name].min)} to {_sizes(profile[name].max)}"
            for profile in self.profiles
            if name in profile
        )
        raise FeedError(
            name,
            expected=f"a shape of the plan's optimization profiles, {ranges}",
            found=_sizes(shapes[name]),
            hint=f"For other shapes: edge-runtime build NAME.edge --shape {name}=MIN,OPT,MAX.",
        )


def read_interface(
    trt: Any, engine: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Interface:
    """Reads it from an engine.

    Args:
        trt: TensorRT's module.
        engine: An `ICudaEngine`.
        inputs: What the bundle says of them, whose order is kept; empty takes the engine's.
        outputs: Likewise.

    Raises:
        BundleError: The engine is not one of the bundle's graph, or has a tensor that numpy arrays
            or plain memory cannot hold.
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = {name: engine.get_tensor_mode(name) for name in names}
    found = {
        mode: {name: _tensor(trt, engine, name) for name in names if modes[name] == mode}
        for mode in (trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT)
    }
    ordered_inputs = _ordered(found[trt.TensorIOMode.INPUT], inputs, "inputs")
    return Interface(
        ordered_inputs,
        _ordered(found[trt.TensorIOMode.OUTPUT], outputs, "outputs"),
        tuple(
            _profile(engine, ordered_inputs, index)
            for index in range(engine.num_optimization_profiles)
        ),
    )


def _tensor(trt: Any, engine: Any, name: str) -> Tensor:
    dtype = engine.get_tensor_dtype(name).name
    if dtype not in _DTYPES:
        raise BundleError(
            f"The plan's tensor {name!r} is {dtype}, which numpy arrays cannot hold. Keep the "
            "model's inputs and outputs FP32; --precision makes the inside narrower."
        )
    if engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
        layout = engine.get_tensor_format_desc(name)
        raise BundleError(f"The plan's tensor {name!r} is not in plain row-major order: {layout}.")
    shape = tuple(engine.get_tensor_shape(name))
    on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
    return Tensor(TensorSpec(name, _DTYPES[dtype], shape), on_host)


def _ordered(
    found: Mapping[str, Tensor], wanted: Sequence[TensorSpec], what: str
) -> tuple[Tensor, ...]:
    """The engine's tensors under the bundle's specs, which know the model's dynamic axes."""
    if not wanted:
        return tuple(found.values())
    kept = []
    for spec in wanted:
        tensor = found.get(spec.name)
        if tensor is None or not _agree(spec, tensor.spec) or len(found) != len(wanted):
            listed = ", ".join(f"{name}: {entry.spec}" for name, entry in found.items())
            raise BundleError(
                f"The plan is not one of this bundle's graph: the {what} of the graph are "
                f"{', '.join(f'{spec.name}: {spec}' for spec in wanted)}, those of the plan "
                f"{listed or 'none'}. Build the plan again."
            )
        kept.append(Tensor(spec, tensor.on_host))
    return tuple(kept)


def _agree(one: TensorSpec, other: TensorSpec) -> bool:
    """Same type and rank, and no size that both know and that differs."""
    return (
        one.dtype == other.dtype
        and len(one.shape) == len(other.shape)
        and all(a == b or a < 0 or b < 0 for a, b in zip(one.shape, other.shape, strict=True))
    )


def _profile(engine: Any, inputs: Sequence[Tensor], index: int) -> dict[str, ShapeRange]:
    return {
        tensor.spec.name: ShapeRange(
            *(tuple(dims) for dims in engine.get_tensor_profile_shape(tensor.spec.name, index))
        )
        for tensor in inputs
        if not tensor.spec.is_static
    }


def _misfit(profile: Mapping[str, ShapeRange], shapes: Mapping[str, Shape]) -> str | None:
    """The first input whose shape is outside."""
    for name, limits in profile.items():
        for low, size, high in zip(limits.min, shapes[name], limits.max, strict=True):
            if not low <= size <= high:
                return name
    return None


def _sizes(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a scalar"
