"""The shapes of an execution context: its profile, its inputs' shapes, and what follows from them.

[doc] is NVIDIA's C++ API reference for IExecutionContext. A call that is refused returns False and
logs an ERROR, as in the real library.
"""

from __future__ import annotations

import ctypes
from operator import index
from typing import Any

import numpy as np

from tests.fakes.tensorrt.classes import Behaviour
from tests.fakes.tensorrt.graph import ARRAYS, Tensor

USAGE = "Error Code 3: API Usage Error"


class Shapes(Behaviour):
    """The half of IExecutionContext that is about shapes.

    [doc] All contexts start with profile 0 (TensorRT 9 and newer), and several may use one profile.
    """

    def __init__(self, engine: Any) -> None:
        super().__init__(engine.library)
        self.engine_impl = engine
        self._tensors: dict[str, Tensor] = engine.tensors
        self._host = [tensor for tensor in engine.graph.inputs if tensor.is_shape]
        self._profile = 0
        self._addresses: dict[str, int] = {}
        self._inferred: dict[Any, dict[str, tuple[int, ...]]] = {}
        self._reset_shapes()

    def error(self, call: str, message: str) -> bool:
        self.engine_impl.error(f"IExecutionContext::{call}: {message}")
        return False

    def _default_stream(self, call: str, stream: int) -> None:
        """[doc] On the default stream TensorRT adds synchronisations of the whole device."""
        if not stream:
            self.library.violation(f"{call} on the default stream.")

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """[doc] Shapes of dynamic inputs have to be set again."""
        if not 0 <= profile_index < self.engine_impl.num_optimization_profiles:
            return self.error("setOptimizationProfileAsync", f"{USAGE} (profile {profile_index})")
        self._default_stream("setOptimizationProfileAsync", stream_handle)
        self._profile = profile_index
        self._reset_shapes()
        return True

    def _reset_shapes(self) -> None:
        inputs = self.engine_impl.graph.inputs
        self._shapes = {t.name: t.shape for t in inputs if -1 not in t.shape}
        self._changed()

    def _changed(self) -> None:
        """The next enqueue works out shapes, for which it synchronises."""
        self._fresh, self._prepared = True, None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self._shapes.get(name) == shape:
            return True
        call, tensor, shape = "setInputShape", self._tensors.get(name), tuple(map(index, shape))
        if tensor is None or not tensor.is_input:
            return self.error(call, f"{USAGE} (Given invalid tensor name: {name}.)")
        if len(shape) != len(tensor.shape) or any(
            known not in (-1, size) for known, size in zip(tensor.shape, shape, strict=True)
        ):
            return self.error(
                call,
                f"{USAGE} (Parameter check failed, condition: engineDims.d[i] == dims.d[i]. Static "
                f"dimension mismatch while setting input shape for {name}. Set dimensions are "
                f"{list(shape)}. Expected dimensions are {list(tensor.shape)}.)",
            )
        low, _, high = self.engine_impl.ranges(name, self._profile)
        if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            return self.error(
                call,
                f"{USAGE} (Parameter check failed, condition: satisfyProfile. Set dimension "
                f"{list(shape)} for tensor {name} does not satisfy any optimization profiles. "
                f"Valid range for profile {self._profile}: {list(low)}..{list(high)}.)",
            )
        self._shapes[name] = shape
        self._changed()
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """[doc] -1 for what is not known yet, or depends on data; rank -1 for a wrong name."""
        tensor = self._tensors.get(name)
        if tensor is None:
            self.error("getTensorShape", f"{USAGE} (Given invalid tensor name: {name}.)")
            return (-1,)
        if tensor.is_input:
            return self._shapes.get(name, tensor.shape)
        if self._missing():
            return tensor.shape
        found = self._infer()
        if found is None:
            return tensor.shape
        if tensor.data_dependent:
            return tuple(
                size if known >= 0 else -1
                for known, size in zip(tensor.shape, found[name], strict=True)
            )
        return found[name]

    def get_tensor_strides(self, name: str) -> tuple[int, ...]:
        shape = self.get_tensor_shape(name)
        return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))

    def get_max_output_size(self, name: str) -> int:
        """[doc] An upper bound in bytes, for the input shapes that are set."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.is_input or self._missing():
            return -1
        found = self._infer()
        return -1 if found is None else tensor.nbytes(found[name])

    def infer_shapes(self) -> list[str]:
        """[doc] Names of inputs that are not specified; the bindings raise where it fails."""
        missing = self._missing()
        if not missing and self._infer() is None:
            raise RuntimeError("infer_shapes error code: -1")
        return missing

    @property
    def all_binding_shapes_specified(self) -> bool:
        return not self._missing()

    @property
    def all_shape_inputs_specified(self) -> bool:
        return all(self._addresses.get(tensor.name) for tensor in self._host)

    def _missing(self) -> list[str]:
        return [
            t.name
            for t in self.engine_impl.graph.inputs
            if t.name not in self._shapes or (t.is_shape and not self._addresses.get(t.name))
        ]

    def _values(self) -> dict[str, np.ndarray]:
        """The values of inputs that decide shapes, read now from the host's memory."""
        values = {}
        for tensor in self._host:
            size = tensor.nbytes(self._shapes[tensor.name])
            data = ctypes.string_at(self._addresses[tensor.name], size)
            values[tensor.name] = np.frombuffer(data, ARRAYS[tensor.dtype]).reshape(
                self._shapes[tensor.name]
            )
        return values

    def _infer(self) -> dict[str, tuple[int, ...]] | None:
        """The outputs' shapes; None, and why in the log, where the sizes do not fit."""
        values = self._values()
        key = (*self._shapes.items(), *((name, v.tobytes()) for name, v in values.items()))
        if key not in self._inferred:
            try:
                self._inferred[key] = self.engine_impl.graph.output_shapes(self._shapes, values)
            except Exception as error:  # noqa: BLE001 -- ONNX Runtime has no public base class
                self.error("inferShapes", f"Error Code 7: Internal Error ({error})")
                return None
        return self._inferred[key]
