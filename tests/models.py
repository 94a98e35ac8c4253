"""Small ONNX models, one for each shape of graph that the tests need, with seeded weights.

A node's first output has the node's own name, so that a test can say `("add", 0): "c2"` for the
first input of node `add`, which node `c2` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edge_runtime.errors import ModelError
from edge_runtime.model import Model, model_from_proto, read_model

Array = np.ndarray
FLOAT = TensorProto.FLOAT


class Net:
    """Collects the nodes and weights of a graph."""

    def __init__(self, *, opset: int = 17, ir_version: int = 8, seed: int = 0) -> None:
        self.opset, self.ir_version = opset, ir_version
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self._random = np.random.default_rng(seed)

    def input(self, name: str, shape: Iterable[int | str], kind: int = FLOAT) -> str:
        """Declares an input; a name for a size makes it dynamic."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def constant(self, name: str, value: object) -> str:
        """Adds an initialiser: float32 unless the value is an array of another type."""
        typed = isinstance(value, np.ndarray | np.generic)
        array = np.asarray(value) if typed else np.asarray(value, np.float32)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, *shape: int, scale: float = 0.0) -> str:
        """Adds random weights, scaled to keep the size of what passes through them."""
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        values = self._random.standard_normal(shape) * (scale or fan_in**-0.5)
        return self.constant(name, values.astype(np.float32))

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Adds a node and returns its output, which has the node's name."""
        output = name or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def conv(
        self, name: str, x: str, channels: tuple[int, int], kernel: int = 3, **attributes: Any
    ) -> str:
        """Adds a Conv from `channels[0]` to `channels[1]` channels that keeps height and width."""
        w = self.weight(f"{name}.w", channels[1], channels[0], kernel, kernel)
        b = self.weight(f"{name}.b", channels[1], scale=0.1)
        pads = [kernel // 2] * 4
        return self.op("Conv", x, w, b, name=name, **{"pads": pads, **attributes})

    def batch_norm(self, name: str, x: str, channels: int, **attributes: Any) -> str:
        """Adds a BatchNormalization with statistics that are not trivial."""
        gamma, beta, mean = (self.weight(f"{name}.{k}", channels, scale=0.5) for k in "gbm")
        variance = self.constant(f"{name}.v", self._random.random(channels).astype("f4") + 0.5)
        inputs = (x, gamma, beta, mean, variance)
        return self.op("BatchNormalization", *inputs, name=name, **attributes)

    def proto(self, *outputs: str, shapes: Mapping[str, list[Any]] | None = None) -> ModelProto:
        """The model with these FP32 outputs."""
        shapes = shapes or {}
        values = [helper.make_tensor_value_info(o, FLOAT, shapes.get(o)) for o in outputs]
        inputs = list(self.inputs)
        if self.ir_version < 4:
            for weight in self.initializers:
                kind, dims = weight.data_type, weight.dims
                inputs.append(helper.make_tensor_value_info(weight.name, kind, dims))
        graph = helper.make_graph(self.nodes, "net", inputs, values, self.initializers)
        opsets = [helper.make_opsetid("", self.opset)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version)
        if not shapes:  # A model must say how many dimensions its outputs have.
            inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
            for mine, known in zip(proto.graph.output, inferred.graph.output, strict=True):
                mine.CopyFrom(known)
        return proto


PICTURE = ("n", 16, 8, 8)


def conv_bn_relu() -> ModelProto:
    """Twice convolution, batch normalisation and ReLU, then a small classifier."""
    net = Net()
    x = net.input("x", PICTURE)
    for i in (1, 2):
        x = net.conv(f"c{i}", x, (16, 16))
        x = net.op("Relu", net.batch_norm(f"bn{i}", x, 16), name=f"r{i}")
    flat = net.op("Flatten", net.op("GlobalAveragePool", x, name="gap"), name="flat")
    return net.proto(net.op("Gemm", flat, net.weight("fc.w", 16, 10), name="fc"))


def residual() -> ModelProto:
    """A residual block whose shortcut is the identity."""
    net = Net()
    x = net.op("Relu", net.conv("c0", net.input("x", PICTURE), (16, 16)), name="r0")
    y = net.op("Relu", net.conv("c1", x, (16, 16)), name="r1")
    y = net.op("Add", net.conv("c2", y, (16, 16)), x, name="add")
    return net.proto(net.conv("c3", net.op("Relu", y, name="r2"), (16, 16)))


def shortcut() -> ModelProto:
    """A residual block whose shortcut is a convolution of 1x1."""
    net = Net()
    x = net.input("x", PICTURE)
    y = net.op("Relu", net.conv("c1", x, (16, 32)), name="r1")
    y = net.op("Add", net.conv("c2", y, (32, 32)), net.conv("cs", x, (16, 32), 1), name="add")
    return net.proto(net.conv("c3", net.op("Relu", y, name="r2"), (32, 16)))


def concat() -> ModelProto:
    """Two branches, concatenated and read by a convolution."""
    net = Net()
    x = net.input("x", PICTURE)
    parts = [net.op("Relu", net.conv(f"c{i}", x, (16, 16)), name=f"r{i}") for i in (1, 2)]
    return net.proto(net.conv("c3", net.op("Concat", *parts, name="cat", axis=1), (32, 16)))


def pools() -> ModelProto:
    """A pyramid of max pools, concatenated with what they were made of, as YOLO has it."""
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    steps = [x]
    for i in (1, 2):
        pads = [2] * 4
        steps.append(net.op("MaxPool", steps[-1], name=f"p{i}", kernel_shape=[5, 5], pads=pads))
    return net.proto(net.conv("c2", net.op("Concat", *steps, name="cat", axis=1), (48, 16)))


def max_pool() -> ModelProto:
    """Convolution, ReLU, max pool, convolution."""
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    x = net.op("MaxPool", x, name="pool", kernel_shape=[2, 2], strides=[2, 2])
    return net.proto(net.conv("c2", x, (16, 16)))


def mean_head() -> ModelProto:
    """A mean over height and width, as torch exports adaptive pooling, and a wide classifier."""
    net = Net(opset=18)
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    axes = net.constant("axes", np.array([2, 3]))
    x = net.op("ReduceMean", x, axes, name="mean", keepdims=0)
    return net.proto(net.op("Gemm", x, net.weight("fc.w", 32, 16), name="fc", transB=1))


def transposed() -> ModelProto:
    """A grouped ConvTranspose with batch normalisation, and one without groups."""
    net = Net()
    x = net.input("x", PICTURE)
    w = net.weight("t1.w", 16, 8, 2, 2)
    x = net.op("ConvTranspose", x, w, name="t1", group=2, strides=[2, 2])
    x = net.op("Relu", net.batch_norm("bn", x, 16), name="r1")
    w, b = net.weight("t2.w", 16, 16, 2, 2), net.weight("t2.b", 16)
    x = net.op("ConvTranspose", x, w, b, name="t2", strides=[2, 2])
    return net.proto(net.batch_norm("bn2", x, 16))


def dense() -> ModelProto:
    """Gemm of every kind, with batch normalisation, and MatMul with Add."""
    net = Net()
    x = net.input("x", ("n", 24))
    bias = net.weight("g1.b", 32)
    x = net.op("Gemm", x, net.weight("g1.w", 24, 32), bias, name="g1", alpha=0.5, beta=2.0)
    x = net.op("Relu", net.batch_norm("bn1", x, 32), name="r1")
    x = net.op("Gemm", x, net.weight("g2.w", 20, 32), name="g2", transB=1)
    x = net.op("Relu", net.batch_norm("bn2", x, 20), name="r2")
    x = net.op("MatMul", x, net.weight("m.w", 20, 16), name="m")
    return net.proto(net.op("Add", x, net.weight("m.b", 16), name="add"))


def attention() -> ModelProto:
    """One head of attention over 6 tokens: two products of activations."""
    net = Net()
    x = net.input("x", ("n", 6, 16))
    q, k, v = (net.op("MatMul", x, net.weight(f"{n}.w", 16, 16), name=n) for n in "qkv")
    k = net.op("Transpose", k, name="kt", perm=[0, 2, 1])
    scores = net.op("Softmax", net.op("MatMul", q, k, name="qk"), name="soft", axis=-1)
    mixed = net.op("MatMul", scores, v, name="pv")
    return net.proto(net.op("MatMul", mixed, net.weight("o.w", 16, 16), name="o"))


def silu() -> ModelProto:
    """Convolution, x * sigmoid(x), convolution, hard swish."""
    net = Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    x = net.op("Mul", x, net.op("Sigmoid", x, name="sig"), name="silu")
    x = net.conv("c2", x, (16, 16))
    gate = net.op("HardSigmoid", x, name="gate", alpha=1 / 6, beta=0.5)
    return net.proto(net.conv("c3", net.op("Mul", x, gate, name="swish"), (16, 16)))


def scaled() -> ModelProto:
    """A convolution, then channels scaled and shifted by constants of every shape."""
    net = Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    x = net.op("Mul", x, net.weight("scale", 1, 16, 1, 1), name="mul")
    x = net.op("Add", net.weight("shift", 16, 1, 1), x, name="shifted")
    x = net.op("Mul", x, net.constant("half", 0.5), name="halved")
    x = net.op("Relu", x, name="r1")
    y = net.conv("c2", x, (16, 16))
    return net.proto(net.op("Add", y, net.weight("row", 8), name="by_column"))


def identities() -> ModelProto:
    """Identity and Dropout in every place, one of them before an output."""
    net = Net()
    x = net.op("Identity", net.input("x", PICTURE), name="id1")
    x = net.op("Dropout", net.conv("c1", x, (16, 16)), name="drop1")
    x = net.op("Dropout", net.op("Identity", x, name="id2"), net.constant("p", 0.5), name="drop2")
    never = net.constant("never", np.array(False))
    x = net.op("Dropout", net.op("Relu", x, name="r1"), "p", never, name="drop3")
    return net.proto(net.op("Identity", net.conv("c2", x, (16, 16)), name="id3"))


def branches() -> ModelProto:
    """An If whose branches capture an activation, a folded constant and a weight from outside."""
    net = Net()
    x = net.op("Relu", net.batch_norm("bn", net.conv("c1", net.input("x", PICTURE), (16, 16)), 16))
    same = net.op("Identity", x, name="same")
    net.weight("w", 16, 16, 1, 1)
    two = net.op("Add", net.constant("one", 1.0), "one", name="two")
    condition = net.op("Greater", net.op("ReduceMax", x, name="top", keepdims=0), two, name="cond")
    values = [helper.make_tensor_value_info(n, FLOAT, None) for n in ("a", "b")]
    then = helper.make_graph([helper.make_node("Mul", [same, two], ["a"])], "then", [], values[:1])
    otherwise = helper.make_graph(
        [helper.make_node("Conv", [same, "w"], ["b"])], "else", [], values[1:]
    )
    y = net.op("If", condition, name="if", then_branch=then, else_branch=otherwise)
    z = net.conv("c2", x, (16, 16))
    return net.proto(net.op("Add", y, z, name="y"), shapes={"y": ["n", 16, 8, 8]})


def loop() -> ModelProto:
    """A Loop that adds an activation from outside three times."""
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    trips, go = net.constant("trips", np.array(3)), net.constant("go", np.array(True))
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Add", ["sum_in", x], ["sum_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_in", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", FLOAT, None),
        ],
    )
    y = net.op("Loop", trips, go, x, name="loop", body=body)
    y = net.op("Reshape", y, net.constant("shape", np.array([-1, 16, 8, 8])), name="known")
    return net.proto(net.conv("c2", y, (16, 16)))


def unnamed() -> ModelProto:
    """Nodes without a name, with the same name, and with the name another would be given."""
    net = Net()
    x = net.conv("same", net.input("x", PICTURE), (16, 16))
    for i in (2, 3, 4):
        x = net.conv(f"c{i}", net.op("Relu", x), (16, 16))
    for node, name in zip(net.nodes, ("same", "", "same", "", "", "", "Relu_1"), strict=True):
        node.name = name
    return net.proto(x)


def shared_weights() -> ModelProto:
    """Two convolutions with one weight and one bias, one of them scaled by what follows it."""
    net = Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    x = net.op("Relu", net.batch_norm("bn", x, 16), name="r1")
    x = net.op("Conv", x, "c1.w", "c1.b", name="c2", pads=[1] * 4)
    x = net.op("Relu", x, name="r2")
    return net.proto(net.op("Conv", x, "c1.w", "c1.b", name="c3", pads=[1] * 4))


def constant_nodes() -> ModelProto:
    """Weights that come from Constant nodes, through arithmetic, and a shape that is computed."""
    net = Net()
    x = net.input("x", PICTURE)
    value = numpy_helper.from_array(np.random.default_rng(1).random((16, 16, 1, 1), np.float32))
    w = net.op("Constant", name="w", value=value)
    w = net.op("Mul", w, net.op("Constant", name="third", value_float=1 / 3), name="w3")
    y = net.op("Conv", x, w, name="c1")
    batch = net.op(
        "Slice",
        net.op("Shape", y),
        net.constant("from", np.array([0])),
        net.constant("to", np.array([1])),
        name="batch",
    )
    rest = net.op("Constant", name="rest", value_ints=[-1])
    y = net.op("Reshape", y, net.op("Concat", batch, rest, axis=0), name="flat")
    w = net.weight("fc.w", 1024, 16)
    return net.proto(net.op("Gemm", y, w, name="fc"), shapes={"fc": ["n", 16]})


def opset_11() -> ModelProto:
    """What operator set 13 changed: axes and splits as attributes, Dropout's ratio."""
    net = Net(opset=11, ir_version=6)
    x = net.batch_norm("bn", net.conv("c1", net.input("x", PICTURE), (16, 16)), 16)
    x = net.op("Dropout", net.op("Clip", x, "", net.constant("six", 6.0), name="relu6"), ratio=0.4)
    x = net.op("Unsqueeze", net.op("ReduceMean", x, axes=[2, 3], keepdims=0), axes=[2, 3])
    x = net.conv("c2", net.op("Squeeze", net.op("Unsqueeze", x, axes=[0]), axes=[0]), (16, 16), 1)
    return net.proto(net.op("Softmax", net.op("Flatten", x), axis=1))


def ir_3() -> ModelProto:
    """A model of the days when each initialiser was an input too."""
    net = Net(opset=9, ir_version=3)
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    return net.proto(net.conv("c2", x, (16, 32)))


def functions() -> ModelProto:
    """A local function that is called twice."""
    net = Net()
    x = net.input("x", PICTURE)
    body = [
        helper.make_node("Conv", ["a", "w"], ["b"], name="conv"),
        helper.make_node("Relu", ["b"], ["c"], name="relu"),
    ]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("local", "ConvRelu", ["a", "w"], ["c"], body, opsets)
    for i in (1, 2):
        w = net.weight(f"w{i}", 16, 16, 1, 1)
        x = net.op("ConvRelu", x, w, name=f"call{i}", domain="local")
    proto = net.proto(net.conv("c3", x, (16, 16)), shapes={"c3": ["n", 16, 8, 8]})
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    return proto


def optional_inputs() -> ModelProto:
    """Inputs that are left out in the middle."""
    net = Net()
    x = net.op("Clip", net.conv("c1", net.input("x", PICTURE), (16, 16)), "", "", name="clip")
    x = net.op("Conv", x, net.weight("c2.w", 16, 16, 1, 1), "", name="c2")
    x = net.batch_norm("bn", x, 16)
    scales = net.constant("scales", np.array([1, 1, 2, 2], np.float32))
    x = net.op("Resize", x, "", scales, name="resize", mode="nearest")
    return net.proto(net.conv("c3", x, (16, 16)), shapes={"c3": ["n", 16, 16, 16]})


def one_dimension() -> ModelProto:
    """Convolutions over one axis, the second one by channel."""
    net = Net()
    x = net.input("x", ("n", 16, 12))
    x = net.op("Conv", x, net.weight("c1.w", 32, 16, 3), net.weight("c1.b", 32), name="c1")
    x = net.op("Relu", net.batch_norm("bn", x, 32), name="r1")
    return net.proto(net.op("Conv", x, net.weight("c2.w", 32, 1, 3), name="c2", group=32))


def several_outputs() -> ModelProto:
    """Two inputs; outputs in the middle of the graph, one of them before its normalisation."""
    net = Net()
    x, y = net.input("x", PICTURE), net.input("y", PICTURE)
    a = net.conv("c1", x, (16, 16))
    b = net.op("Relu", net.batch_norm("bn", a, 16), name="r1")
    c = net.conv("c2", net.op("Add", b, y, name="sum"), (16, 16))
    return net.proto(a, b, c)


NETS: dict[str, Callable[[], ModelProto]] = {
    make.__name__: make
    for make in (
        *(conv_bn_relu, residual, shortcut, concat, pools, max_pool, mean_head, transposed, dense),
        *(attention, silu, scaled, identities, branches, loop, unnamed, shared_weights),
        *(constant_nodes, opset_11, ir_3, functions, optional_inputs, one_dimension),
        *(several_outputs,),
    )
}
"""Every one has a layer that can be INT8, and inputs whose only dynamic dimension is the batch."""


def model(proto: ModelProto, name: str = "net.onnx") -> Model:
    """A checked model of a copy of `proto`."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    return model_from_proto(copy, name=name)


def feeds(proto: ModelProto, seed: int = 0, batch: int = 2) -> dict[str, Array]:
    """Normally distributed values for each input."""
    random = np.random.default_rng(seed)
    weights = {tensor.name for tensor in proto.graph.initializer}
    result = {}
    for value in proto.graph.input:
        if value.name not in weights:
            shape = [d.dim_value or batch for d in value.type.tensor_type.shape.dim]
            result[value.name] = random.standard_normal(shape).astype(np.float32)
    return result


def run(proto: ModelProto | bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by name, from ONNX Runtime with all of its optimisations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def node(proto: ModelProto, name: str) -> onnx.NodeProto:
    """The node of that name."""
    return next(n for n in proto.graph.node if n.name == name)


def save_external(
    proto: ModelProto, folder: Path, *, location: str = "net.data", name: str = "net.onnx"
) -> Path:
    """Writes a model whose weights lie in a second file."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    path = folder / name
    onnx.save_model(copy, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def write(folder: Path, content: ModelProto | bytes) -> Path:
    """Writes a model, or any bytes, as net.onnx."""
    path = folder / "net.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def refusal(path: Path) -> str:
    """The message with which a file is refused, which is one line and names the file."""
    with pytest.raises(ModelError) as caught:
        read_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message
