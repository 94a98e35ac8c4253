"""What TensorRT works out about an ONNX graph, and the graph itself run by ONNX Runtime."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

# TensorRT's names of ONNX's element types. DOUBLE is parsed as FLOAT [ran]; the rest is refused.
TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.INT8: "INT8",
    TensorProto.INT32: "INT32",
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.FLOAT8E4M3FN: "FP8",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT64: "INT64",
    TensorProto.INT4: "INT4",
    TensorProto.DOUBLE: "FLOAT",
}
SIZES = {"FLOAT": 4, "HALF": 2, "BF16": 2, "INT8": 1, "INT32": 4, "INT64": 8, "BOOL": 1, "UINT8": 1}
ARRAYS = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "BF16": np.uint16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}
# Where an operator takes a shape or an index as a tensor: these inputs decide a shape.
SHAPE_OPERANDS = {
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "TopK": (1,),
    "Pad": (1,),
    "OneHot": (1,),
}
DATA_DEPENDENT = {"NonZero", "NonMaxSuppression", "Unique", "Compress"}


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name, TensorRT's type and its shape, -1 where dynamic."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_input: bool
    is_shape: bool = False
    data_dependent: bool = False

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of this tensor with this shape."""
        return int(np.prod(shape, dtype=np.int64)) * SIZES[self.dtype]


class Graph:
    """One parsed model.

    Args:
        data: The model's bytes.
        twin: What to compute with instead; its inputs and outputs have the same names.
        shape_inputs: The inputs that decide a shape; None finds them.
        data_dependent: The outputs whose shape depends on data; None finds them.
        host_outputs: The outputs that are written to host memory.
    """

    def __init__(
        self,
        data: bytes,
        twin: bytes | None = None,
        *,
        shape_inputs: tuple[str, ...] | None = None,
        data_dependent: tuple[str, ...] | None = None,
        host_outputs: tuple[str, ...] = (),
    ) -> None:
        self.data, self._compute = data, twin or data
        self.model = onnx.load_model_from_string(data)
        inferred = onnx.shape_inference.infer_shapes(self.model, data_prop=True)
        self.types = {
            value.name: TYPES.get(value.type.tensor_type.elem_type, "FLOAT")
            for values in (inferred.graph.input, inferred.graph.value_info, inferred.graph.output)
            for value in values
        }
        self.types.update(
            {w.name: TYPES.get(w.data_type, "") for w in self.model.graph.initializer}
        )
        weights = {weight.name for weight in self.model.graph.initializer}
        inputs = [value for value in self.model.graph.input if value.name not in weights]
        shapes = self._shape_inputs() if shape_inputs is None else set(shape_inputs)
        loose = self._data_dependent() if data_dependent is None else set(data_dependent)
        self.inputs = tuple(self._tensor(v, True, v.name in shapes) for v in inputs)
        self.outputs = tuple(
            self._tensor(v, False, v.name in host_outputs, v.name in loose)
            for v in inferred.graph.output
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Inputs, then outputs: the order of `get_tensor_name`."""
        return (*self.inputs, *self.outputs)

    def _tensor(self, value: Any, is_input: bool, is_shape: bool, loose: bool = False) -> Tensor:
        kind = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
        return Tensor(value.name, TYPES.get(kind.elem_type, "?"), shape, is_input, is_shape, loose)

    def _shape_inputs(self) -> set[str]:
        """Walks back from every operand that is a shape; what `Shape` gives is no input's value."""
        makers = {out: node for node in self.model.graph.node for out in node.output}
        names = {value.name for value in self.model.graph.input}
        found: set[str] = set()
        todo = [
            node.input[index]
            for node in self.model.graph.node
            for index in SHAPE_OPERANDS.get(node.op_type, ())
            if index < len(node.input)
        ]
        seen: set[str] = set()
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in names:
                found.add(name)
            elif name in makers and makers[name].op_type not in ("Shape", "Size"):
                todo.extend(makers[name].input)
        return found

    def _data_dependent(self) -> set[str]:
        """What comes from an operator whose output is as long as the data says."""
        tainted: set[str] = set()
        for node in self.model.graph.node:
            if node.op_type in DATA_DEPENDENT or tainted & set(node.input):
                tainted.update(node.output)
        return {
            value.name
            for value in self.model.graph.output
            if value.name in tainted and self._open_with_fixed_inputs(value.name)
        }

    def _open_with_fixed_inputs(self, output: str) -> bool:
        """Whether a size of the output stays unknown when all sizes of the inputs are known."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        for value in copy.graph.input:
            for size in value.type.tensor_type.shape.dim:
                if not size.HasField("dim_value"):
                    size.dim_value = 2
        del copy.graph.value_info[:]
        for value in copy.graph.output:
            value.type.tensor_type.ClearField("shape")
        done = onnx.shape_inference.infer_shapes(copy, data_prop=True)
        (found,) = [value for value in done.graph.output if value.name == output]
        shape = found.type.tensor_type.shape
        return not shape.dim or not all(size.HasField("dim_value") for size in shape.dim)

    @functools.cached_property
    def session(self) -> Any:
        """ONNX Runtime on the graph, in the same arithmetic as edge_runtime's CPU backend."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        return onnxruntime.InferenceSession(
            self._compute, options, providers=["CPUExecutionProvider"]
        )

    @functools.cached_property
    def _twin_types(self) -> dict[str, Any]:
        names = {
            "tensor(float)": np.float32,
            "tensor(float16)": np.float16,
            "tensor(double)": np.float64,
        }
        return {a.name: names.get(a.type) for a in self.session.get_inputs()}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes all outputs, each in its tensor's own type."""
        given = {}
        for tensor in self.inputs:
            array = feeds[tensor.name]
            if tensor.dtype == "BF16":
                array = (array.astype(np.uint32) << 16).view(np.float32)
            wanted = self._twin_types[tensor.name]
            given[tensor.name] = array if wanted is None else array.astype(wanted, copy=False)
        names = [tensor.name for tensor in self.outputs]
        found = self.session.run(names, given)
        return {t.name: _typed(a, t.dtype) for t, a in zip(self.outputs, found, strict=True)}

    def output_shapes(
        self, shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, np.ndarray]
    ) -> dict[str, tuple[int, ...]]:
        """The outputs' shapes; of data-dependent ones, the largest that they can have.

        ONNX Runtime raises where the sizes do not fit each other.
        """
        feeds = {
            t.name: values[t.name] if t.name in values else np.ones(shapes[t.name], ARRAYS[t.dtype])
            for t in self.inputs
        }
        return {name: array.shape for name, array in self.run(feeds).items()}

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(len(w.raw_data) or 4 * len(w.float_data) for w in self.model.graph.initializer)


def _typed(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16" and array.dtype == np.float32:
        bits = np.ascontiguousarray(array).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(
            np.uint16
        )  # Nearest, ties to even.
    return np.ascontiguousarray(array.astype(ARRAYS[dtype], copy=False)).reshape(array.shape)


def digest(data: bytes) -> str:
    """`sha256:<hex>`, as bundles name their entries."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
