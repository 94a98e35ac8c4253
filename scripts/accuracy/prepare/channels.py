"""Scales inner channels of a net up and down, and what reads them by the inverse.

Where one convolution reads what another makes, through nothing but Relu, channel i of the first is
multiplied by a factor and what reads it divided by the same. Relu passes a positive factor on, so
nothing changes in FP32; but a single INT8 scale for the tensor no longer fits all its channels.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

SPREAD = 20.0


def imbalance(model: onnx.ModelProto, spread: float = SPREAD, seed: int = 0) -> int:
    """Scales channels in place by factors from 1/spread to spread; returns how many tensors."""
    random = np.random.default_rng(seed)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    count = 0
    for first in model.graph.node:
        tensor = first.output[0]
        through = readers.get(tensor, [])
        if len(through) == 1 and through[0].op_type == "Relu":
            tensor = through[0].output[0]
        last = readers.get(tensor, [])
        if first.op_type != "Conv" or [node.op_type for node in last] != ["Conv"]:
            continue
        channels = weights[first.input[1]].dims[0]
        factors = np.exp(random.uniform(-1, 1, channels) * np.log(spread)).astype(np.float32)
        for name in first.input[1:]:
            _multiply(weights[name], factors, axis=0)
        grouped = weights[last[0].input[1]].dims[1] == 1
        _multiply(weights[last[0].input[1]], 1 / factors, axis=0 if grouped else 1)
        count += 1
    return count


def _multiply(tensor: onnx.TensorProto, factors: np.ndarray, *, axis: int) -> None:
    array = numpy_helper.to_array(tensor)
    shape = [-1 if index == axis else 1 for index in range(array.ndim)]
    tensor.CopyFrom(numpy_helper.from_array(array * factors.reshape(shape), tensor.name))
