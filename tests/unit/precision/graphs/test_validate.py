"""What a bundle's graph must not hold, in graphs that others have quantized."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from edge_runtime.errors import ModelError
from edge_runtime.precision.graphs.validate import validate
from tests.models import NETS, PICTURE, Net


def quantized(
    zero: object = np.int8(0), scale: object = 0.1, *, bias: bool = False, bare: bool = False
) -> ModelProto:
    """Q/DQ before a Conv with these constants; an INT32 bias; or no zero point at all."""
    net = Net()
    constants = [net.constant("scale", scale)] + ([] if bare else [net.constant("zero", zero)])
    x = net.op("QuantizeLinear", net.input("x", PICTURE), *constants, name="q")
    x = net.op("DequantizeLinear", x, *constants, name="dq")
    inputs = [net.weight("w", 16, 16, 1, 1)]
    if bias:
        levels = net.constant("levels", np.zeros(16, np.int32))
        inputs.append(net.op("DequantizeLinear", levels, net.constant("s", 0.1), name="dq_bias"))
    return net.proto(net.op("Conv", x, *inputs, name="conv"))


def refusal(proto: ModelProto) -> str:
    with pytest.raises(ModelError) as caught:
        validate(proto, "net.onnx")
    message = str(caught.value)
    assert message.startswith("net.onnx: node ")
    assert "\n" not in message
    return message


def test_symmetric_int8_passes() -> None:
    validate(quantized(), "net.onnx")


def test_graphs_without_quantization_pass() -> None:
    for name in ("residual", "branches", "loop", "opset_11"):
        validate(NETS[name](), name)


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (quantized(np.uint8(0)), ["'q'", "UINT8"]),
        (quantized(np.uint8(128)), ["'q'", "UINT8"]),
        (quantized(np.int8(3)), ["'q'", "other than 0"]),
        (quantized(bare=True), ["'q'", "no zero point"]),
        (quantized(scale=0.0), ["'q'", "scale"]),
        (quantized(scale=-0.1), ["'q'", "scale"]),
        (quantized(scale=np.nan), ["'q'", "scale"]),
        (quantized(scale=np.inf), ["'q'", "scale"]),
        (quantized(bias=True), ["'dq_bias'", "INT32"]),
    ],
)
def test_what_tensorrt_refuses_or_misreads_is_refused(proto: ModelProto, words: list[str]) -> None:
    message = refusal(proto)
    for word in words:
        assert word in message


def test_a_zero_point_that_is_computed_is_refused() -> None:
    proto = quantized()
    zero = next(tensor for tensor in proto.graph.initializer if tensor.name == "zero")
    net = Net()
    net.op("Constant", name="zero", value=zero)
    proto.graph.initializer.remove(zero)
    proto.graph.node.insert(0, net.nodes[0])
    assert "not constant" in refusal(proto)


def test_a_weight_in_int8_needs_no_zero_point() -> None:
    net = Net()
    levels = net.constant("levels", np.ones((16, 16, 1, 1), np.int8))
    w = net.op("DequantizeLinear", levels, net.constant("s", 0.1), name="dq")
    validate(net.proto(net.op("Conv", net.input("x", PICTURE), w, name="conv")), "net.onnx")


def test_quantization_in_a_branch_is_seen() -> None:
    proto = NETS["branches"]()
    odd = quantized(np.uint8(0))
    branch = next(n for n in proto.graph.node if n.name == "if").attribute[0].g
    inner = next(n for n in odd.graph.node if n.op_type == "QuantizeLinear")
    inner.input[0] = branch.node[0].input[0]
    branch.node.insert(0, inner)
    proto.graph.initializer.extend(t for t in odd.graph.initializer if t.name in ("scale", "zero"))
    assert "UINT8" in refusal(proto)


def test_a_graph_that_we_broke_ourselves_is_a_bug() -> None:
    proto = NETS["residual"]()
    proto.graph.node[3].input[0] = "nowhere"
    with pytest.raises(AssertionError, match="nowhere"):
        validate(proto, "net.onnx")


def half(scale: float) -> ModelProto:
    """Q/DQ whose scale is FP16."""
    net = Net(opset=19)
    s, z = net.constant("s", np.float16(scale)), net.constant("z", np.int8(0))
    x = net.op("Cast", net.input("x", PICTURE), name="cast", to=TensorProto.FLOAT16)
    x = net.op("DequantizeLinear", net.op("QuantizeLinear", x, s, z, name="q"), s, z, name="dq")
    return net.proto(net.op("Cast", x, name="y", to=TensorProto.FLOAT))


def test_half_scales_pass_and_keep_the_rules() -> None:
    validate(half(0.1), "net.onnx")
    assert "scale" in refusal(half(1e-9))  # It is zero in FP16.
