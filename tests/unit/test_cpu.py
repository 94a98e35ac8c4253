"""The CPU backend: exact INT8 where ONNX Runtime's defaults saturate, and its errors made ours."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from edge_runtime.backends.cpu import CpuRuntime, open_session, run_session
from edge_runtime.errors import InferenceError, ModelError
from edge_runtime.tensors import TensorSpec
from tests.models import NETS, PICTURE, Net

DEPTH = 64


def quantized(kind: str, weight: np.ndarray) -> ModelProto:
    """Q/DQ, a MatMul or 1x1 Conv with this INT8 weight [DEPTH, 8], Q/DQ; steps of 1 and 8192."""
    net = Net()
    shape = ("n", DEPTH, 1, 1) if kind == "Conv" else ("n", DEPTH)
    one, zero = net.constant("one", 1.0), net.constant("zero", np.int8(0))
    step = net.constant("step", 8192.0)
    levels = weight.T[..., None, None] if kind == "Conv" else weight
    x = net.op("QuantizeLinear", net.input("x", shape), one, zero)
    x = net.op("DequantizeLinear", x, one, zero)
    w = net.op("DequantizeLinear", net.constant("w", levels), one, zero)
    y = net.op("QuantizeLinear", net.op(kind, x, w, name="product"), step, zero)
    return net.proto(net.op("DequantizeLinear", y, step, zero, name="y"))


def reference(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What integers give, whose sums are exact."""
    product = x.astype(np.int64) @ weight.astype(np.int64)
    return np.clip(np.rint(product / 8192), -128, 127) * 8192


def product(graph: ModelProto, x: np.ndarray, *, exact: bool) -> np.ndarray:
    session = open_session(graph.SerializeToString(), exact=exact)
    rank = len(session.get_inputs()[0].shape)
    feeds = {"x": x.astype(np.float32).reshape(*x.shape, *[1] * (rank - 2))}
    return run_session(session, ["y"], feeds)[0].reshape(len(x), -1)


def flags() -> set[str]:
    """What the CPU says that it can do; nothing where it is not x86."""
    if platform.machine() != "x86_64":
        return set()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return set(next(line for line in lines if line.startswith("flags")).split())


@pytest.mark.parametrize("kind", ["MatMul", "Conv"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_int8_product_does_not_saturate(kind: str, sign: int) -> None:
    weight = np.full((DEPTH, 8), 127 * sign, np.int8)
    x = np.full((3, DEPTH), 127, np.int8)
    graph = quantized(kind, weight)
    np.testing.assert_array_equal(product(graph, x, exact=True), reference(x, weight))
    if "avx2" in flags() and not {"avx512_vnni", "avx_vnni"} & flags():
        # Why this is not left to ONNX Runtime: its own way of computing the same file saturates.
        # If this fails, it has learnt to compute it, and `exact` is no longer needed there.
        assert not np.array_equal(product(graph, x, exact=False), reference(x, weight))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["MatMul", "Conv"]))
def test_int8_is_exact_for_any_values(seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    weight = random.choice(np.array([-127, -126, 0, 1, 127], np.int8), (DEPTH, 8))
    x = random.choice(np.array([-128, -127, 0, 1, 126, 127], np.int8), (3, DEPTH))
    np.testing.assert_array_equal(
        product(quantized(kind, weight), x, exact=True), reference(x, weight)
    )


def test_the_engine_is_exact_too() -> None:
    weight = np.full((DEPTH, 8), 127, np.int8)
    engine = CpuRuntime(threads=1).load(quantized("MatMul", weight).SerializeToString())
    context = engine.create_context()
    context.enqueue({"x": np.full((1, DEPTH), 127, np.float32)})
    np.testing.assert_array_equal(context.wait()["y"], reference(np.full((1, DEPTH), 127), weight))


# Types and errors.


def identity(kind: int) -> bytes:
    value = [helper.make_tensor_value_info(name, kind, ["n", 3]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", *[[v] for v in value]
    )
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT, "float32"),
        (TensorProto.DOUBLE, "float64"),
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.INT8, "int8"),
        (TensorProto.UINT8, "uint8"),
        (TensorProto.INT16, "int16"),
        (TensorProto.UINT16, "uint16"),
        (TensorProto.INT32, "int32"),
        (TensorProto.UINT32, "uint32"),
        (TensorProto.INT64, "int64"),
        (TensorProto.UINT64, "uint64"),
        (TensorProto.BOOL, "bool"),
    ],
)
def test_every_type_that_numpy_has_goes_in_and_comes_out(kind: int, dtype: str) -> None:
    engine = CpuRuntime().load(identity(kind))
    assert engine.inputs == (TensorSpec("x", dtype, (-1, 3)),)
    assert engine.outputs == (TensorSpec("y", dtype, (-1, 3)),)
    array = np.array([[0, 1, 1]]).astype(dtype)
    context = engine.create_context()
    context.enqueue({"x": array})
    output = context.wait()["y"]
    assert output.dtype == array.dtype
    np.testing.assert_array_equal(output, array)


def test_text_goes_in_and_comes_out() -> None:
    engine = CpuRuntime().load(identity(TensorProto.STRING))
    assert engine.inputs[0].dtype == "object"
    context = engine.create_context()
    context.enqueue({"x": np.array([["a", "ü", ""]], object)})
    assert context.wait()["y"].tolist() == [["a", "ü", ""]]


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN])
def test_a_type_that_numpy_lacks_is_refused_at_once(kind: int) -> None:
    with pytest.raises(ModelError, match=r"'x'.*numpy"):
        CpuRuntime().load(identity(kind))


@pytest.mark.parametrize(
    "content", [b"", b"not a model", NETS["concat"]().SerializeToString()[:99]]
)
def test_what_is_no_graph_is_refused(content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError) as caught:
        CpuRuntime().load(content)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_nobody_can_run_is_refused_with_the_reason(
    capfd: pytest.CaptureFixture[str],
) -> None:
    proto = NETS["concat"]()
    proto.graph.node[0].op_type = "Convolve"
    with pytest.raises(ModelError, match="Convolve"):
        CpuRuntime().load(proto.SerializeToString())
    assert capfd.readouterr() == ("", "")


def test_an_error_that_quotes_what_is_no_text_is_an_error_like_others(
    capfd: pytest.CaptureFixture[str],
) -> None:
    net = Net(opset=18)
    y = net.op("Resize", net.input("x", PICTURE), "", net.constant("s", [1, 1, 2, 2]), name="y")
    net.nodes[-1].attribute.append(helper.make_attribute("mode", b"\x8b\xff"))
    # ONNX Runtime 1.23 says nothing at all.
    with pytest.raises(ModelError, match=r"mode attribute is \\x8b\\xff|does not say why"):
        CpuRuntime().load(net.proto(y, shapes={"y": list(PICTURE)}).SerializeToString())
    assert capfd.readouterr() == ("", "")


def refusal(proto: ModelProto) -> str:
    with pytest.raises(ModelError) as caught:
        CpuRuntime().load(proto.SerializeToString())
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix("ONNX Runtime cannot load the graph: ")


def chain(*kinds: str, opset: int = 17) -> ModelProto:
    """One node after another; of the domain `mine` unless ONNX's own; not a valid model."""
    net = Net(opset=opset)
    x = net.input("x", (1,))
    for i, kind in enumerate(kinds):
        x = net.op(kind, x, name=f"n{i}", domain="" if kind == "Neg" else "mine")
    proto = net.proto(x, shapes={x: [1]})
    proto.opset_import.add(domain="mine", version=1)
    return proto


@pytest.mark.parametrize("at", [0, 3, 6])
def test_a_refusal_names_the_first_node_that_cannot_run(at: int) -> None:
    kinds = ["Neg"] * 7
    kinds[at] = "Nowhere"
    assert refusal(chain(*kinds, "Nothing")).startswith(f"node 'n{at}' (Nowhere): ")


def test_a_refusal_inside_of_a_function_names_the_node_that_stands_for_it() -> None:
    proto = chain("Neg", "Call", "Neg")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    body = [helper.make_node("Nowhere", ["a"], ["b"], domain="mine")]
    function = helper.make_function("mine", "Call", ["a"], ["b"], body, opsets)
    proto.functions.append(function)
    assert refusal(proto).startswith("node 'n1' (Call): ")


def test_a_kernel_that_does_not_start_is_named_without_the_source_that_says_so() -> None:
    net = Net()
    x = net.op("Identity", net.input("x", (2,), TensorProto.STRING), name="before")
    y = net.op("StringNormalizer", x, name="norm", locale="nowhere", case_change_action="LOWER")
    proto = net.proto(net.op("Identity", y, name="y"), shapes={"y": [2]})
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    text = refusal(proto)
    assert text.startswith("node 'norm' (StringNormalizer): ")
    assert "nowhere" in text
    assert ".cc:" not in text


def test_a_graph_that_is_newer_than_onnx_runtime_says_what_to_export() -> None:
    text = refusal(chain("Neg", "Neg", opset=999))
    assert text.startswith("the graph has operator set 999, and ONNX Runtime ")
    assert "export the model with that" in text
    both = chain("Neg", "Nowhere", opset=999)
    both.ir_version = 99
    text = refusal(both)
    assert text.startswith("node 'n1' (Nowhere): ")
    assert "operator set 999" in text
    old = chain("Neg")
    old.ir_version = 99
    assert refusal(old).startswith("the graph has IR version 99, and ONNX Runtime ")


def test_sizes_that_a_layer_cannot_combine_are_an_inference_error() -> None:
    net = Net()
    sum_ = net.op("Add", net.input("a", ("n", "m")), net.input("b", ("n", "k")), name="sum")
    engine = CpuRuntime().load(net.proto(sum_).SerializeToString())
    context = engine.create_context()
    with pytest.raises(InferenceError) as caught:
        context.enqueue({"a": np.ones((2, 3), np.float32), "b": np.ones((2, 4), np.float32)})
    assert "\n" not in str(caught.value)
    ones = np.ones((2, 3), np.float32)
    context.enqueue({"a": ones, "b": ones})  # The context is as good as before.
    np.testing.assert_array_equal(context.wait()["sum"], ones + 1 * ones)


def test_outputs_that_are_inputs_or_constants_are_copies() -> None:
    net = Net()
    x = net.input("x", ("n", 3))
    ones = net.constant("ones", np.ones(3, np.float32))
    proto = net.proto(net.op("Identity", x, name="y"), net.op("Identity", ones, name="z"))
    for name, shape in ((x, ["n", 3]), (ones, [3])):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        proto.graph.output.append(value)
    context = CpuRuntime().load(proto.SerializeToString()).create_context()
    array = np.full((1, 3), 2, np.float32)
    for _ in range(2):
        context.enqueue({"x": array})
        outputs = context.wait()
        assert {name: value.ravel().tolist() for name, value in outputs.items()} == {
            **dict.fromkeys(("y", "x"), [2.0] * 3),
            **dict.fromkeys(("z", "ones"), [1.0] * 3),
        }
        for value in outputs.values():
            value[...] = 7
        assert (array == 2).all()


def test_there_is_nothing_to_wait_for_before_enqueue_and_twice() -> None:
    context = CpuRuntime().load(identity(TensorProto.FLOAT)).create_context()
    with pytest.raises(InferenceError):
        context.wait()
    context.enqueue({"x": np.ones((1, 3), np.float32)})
    context.wait()
    with pytest.raises(InferenceError):
        context.wait()


def test_a_closed_engine_makes_no_context() -> None:
    engine = CpuRuntime().load(identity(TensorProto.FLOAT))
    engine.close()
    engine.close()
    with pytest.raises(InferenceError, match="closed"):
        engine.create_context()
