"""Writes an ONNX model of ResNet-50's shape with random weights: for time and memory, not accuracy.

python scripts/benchmarks/resnet50.py resnet50.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))


class _Net:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def add(self, op: str, inputs: list[str], **attributes: object) -> str:
        output = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def weight(self, name: str, shape: tuple[int, ...], scale: float) -> str:
        array = (self._random.standard_normal(shape) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, x: str, cin: int, cout: int, kernel: int, stride: int, *, relu: bool) -> str:
        name = f"conv_{len(self.nodes)}"
        inputs = [
            x,
            self.weight(f"{name}.weight", (cout, cin, kernel, kernel), (2 / cin) ** 0.5 / kernel),
            self.weight(f"{name}.bias", (cout,), 0.0),
        ]
        y = self.add("Conv", inputs, strides=[stride] * 2, pads=[kernel // 2] * 4)
        return self.add("Relu", [y]) if relu else y

    def block(self, x: str, cin: int, width: int, stride: int) -> str:
        y = self.conv(x, cin, width, 1, 1, relu=True)
        y = self.conv(y, width, width, 3, stride, relu=True)
        y = self.conv(y, width, 4 * width, 1, 1, relu=False)
        if cin != 4 * width:
            x = self.conv(x, cin, 4 * width, 1, stride, relu=False)
        return self.add("Relu", [self.add("Add", [y, x])])


def resnet50() -> onnx.ModelProto:
    """Input `x` float32 [1, 3, 224, 224], output float32 [1, 1000]; 25.6 million weights."""
    net = _Net()
    y = net.conv("x", 3, 64, 7, 2, relu=True)
    y = net.add("MaxPool", [y], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    cin = 64
    for index, (blocks, width) in enumerate(STAGES):
        for block in range(blocks):
            y = net.block(y, cin, width, 2 if index and not block else 1)
            cin = 4 * width
    y = net.add("Flatten", [net.add("GlobalAveragePool", [y])])
    y = net.add("Gemm", [y, net.weight("fc.weight", (1000, cin), 0.02)], transB=1)
    graph = helper.make_graph(
        net.nodes,
        "resnet50",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, [1, 1000])],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    onnx.save(resnet50(), Path(sys.argv[1]))
