"""The half precision types."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from onnx import TensorProto

from edge_runtime.config import Precision


@dataclass(frozen=True)
class HalfType:
    """A half precision type.

    Attributes:
        elem_type: ONNX's number of the element type.
        dtype: numpy's type of it.
        label: Its name in ONNX's schemas.
        min_opset: The first operator set whose convolutions take it.
        max: The largest finite value.
        min_normal: The smallest value that has the full precision; below it digits are lost.
        quantized_opset: The first operator set whose QuantizeLinear and convolutions take it.
        refused: Operators that take it by ONNX's schema, but that TensorRT-RTX does not build.
    """

    elem_type: int
    dtype: np.dtype[np.generic]
    label: str
    min_opset: int
    max: float
    min_normal: float
    quantized_opset: int
    refused: frozenset[str] = frozenset()


HALF_TYPES = {
    Precision.FP16: HalfType(
        TensorProto.FLOAT16, np.dtype(np.float16), "tensor(float16)", 13, 65504.0, 2.0**-14, 19
    ),
    Precision.BF16: HalfType(
        TensorProto.BFLOAT16,
        np.dtype(ml_dtypes.bfloat16),
        "tensor(bfloat16)",
        22,
        3.38e38,
        2.0**-126,
        22,
        frozenset({"ConvTranspose"}),
    ),
}
