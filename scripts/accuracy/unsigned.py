"""What TensorRT reads in a file with unsigned values: it has no uint8 on a GPU.

Where a zero point is uint8 and 0 it says so in a warning and goes on with int8, whose largest value
is 127: all above half of the range that the tool meant is clipped.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper


def as_read(model: onnx.ModelProto) -> int:
    """Makes uint8 zero points int8, as TensorRT reads them; returns how many tensors that changes.

    Raises:
        ValueError: A uint8 zero point is not 0, which TensorRT refuses.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    zero_points: set[str] = set()
    count = 0
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        name = node.input[2] if len(node.input) > 2 else ""
        if name not in constants:
            raise ValueError(f"{node.name} has no constant zero point: it is uint8 by default")
        if constants[name].data_type == TensorProto.UINT8:
            zero_points.add(name)
            count += 1
    for name in zero_points:
        array = numpy_helper.to_array(constants[name])
        if array.any():
            raise ValueError(f"zero point {name} is uint8 and not 0")
        constants[name].CopyFrom(numpy_helper.from_array(array.astype(np.int8), name))
    del model.graph.value_info[:]  # Some of it says uint8.
    return count
