"""What nodes compute and move: counted by hand, and against sums written out as loops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto

from edge_runtime.backends.onnx_graph import read_graph
from edge_runtime.bench.work import GraphWork, GroupWork, Tensor, graph_work, multiply_accumulates
from edge_runtime.building import build
from edge_runtime.bundle import Bundle
from edge_runtime.config import BuildConfig, CpuMode
from tests.models import Net

SIZE = st.integers(1, 6)


def net() -> ModelProto:
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", ("n", 16, 8, 8)), (16, 32)), name="r1")
    x = net.op("Relu", net.conv("c2", x, (32, 16)), name="r2")
    flat = net.op("Flatten", net.op("GlobalAveragePool", x, name="gap"), name="flat")
    return net.proto(net.op("Gemm", flat, net.weight("fc.w", 16, 10), name="fc"))


def built(folder: Path, proto: ModelProto, **settings: object) -> Bundle:
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    config = BuildConfig(backend="cpu", **settings)
    shape = [size.dim_value or 2 for size in proto.graph.input[0].type.tensor_type.shape.dim]
    random = np.random.default_rng(0)
    samples = [{"x": random.standard_normal(shape).astype("f4")} for _ in range(4)]
    data = samples if config.precision != "fp32" else None
    return build(folder / "net.onnx", config, output=folder / "net.edge", calibration=data)


def work(bundle: Bundle, *, plan: bool = False, cpu_mode: str = "exact") -> GraphWork:
    feeds = {"x": np.zeros((2, 16, 8, 8), np.float32)}
    return graph_work(bundle, feeds, plan=plan, cpu_mode=CpuMode(cpu_mode))


@given(st.tuples(SIZE, SIZE, SIZE), st.integers(1, 3), SIZE, SIZE)
def test_a_convolution_counts_each_product(
    size: tuple[int, int, int], groups: int, channels: int, filters: int
) -> None:
    batch, kernel, side = size
    x = (batch, channels * groups, side + kernel - 1, side + kernel - 1)
    w, y = (filters * groups, channels, kernel, kernel), (batch, filters * groups, side, side)
    count = 0
    for _ in np.ndindex(*y):  # Each value of the output is a sum over its group and the kernel.
        count += channels * kernel * kernel
    assert multiply_accumulates("Conv", (x, w, w[:1]), y) == count
    # The transpose is the same sums, read the other way.
    assert multiply_accumulates("ConvTranspose", (y, w), x) == count


@given(SIZE, SIZE, SIZE, st.booleans(), st.booleans())
def test_a_product_of_matrices_counts_rows_times_columns_times_depth(
    rows: int, columns: int, depth: int, a_across: bool, b_across: bool
) -> None:
    a = (depth, rows) if a_across else (rows, depth)
    b = (columns, depth) if b_across else (depth, columns)
    assert multiply_accumulates("Gemm", (a, b), (rows, columns)) == rows * columns * depth
    stacked = (3, rows, depth), (depth, columns)
    assert multiply_accumulates("MatMul", stacked, (3, rows, columns)) == 3 * rows * columns * depth
    assert multiply_accumulates("MatMul", ((depth,), (depth,)), ()) == depth


def test_what_is_not_counted_is_not_called_nothing() -> None:
    assert multiply_accumulates("Relu", ((2, 3),), (2, 3)) == 0
    assert multiply_accumulates("LSTM", ((2, 3), (4, 5)), (2, 3)) is None


def test_work_is_that_of_the_sizes_of_the_inputs(tmp_path: Path) -> None:
    found = work(built(tmp_path, net(), precision="fp32"))
    x, y = 2 * 16 * 64, 2 * 32 * 64
    weights = 32 * 16 * 9 + 32
    expected = GroupWork(y * 16 * 9, 4 * weights, 4 * (x + y), "fp32")
    assert found.of(["c1"]) == expected
    # What passes from one to the other stays inside, and the Relu changes no size.
    assert found.of(["c1", "r1"]) == expected
    assert found.of(["r1"]) == GroupWork(0, 0, 4 * 2 * y, None)
    both = found.of(["c1", "r1", "c2", "r2"])
    assert both.macs == y * 16 * 9 + x * 32 * 9
    assert both.activation_bytes == 4 * (x + x)
    assert found.of(["fc"]) == GroupWork(2 * 16 * 10, 4 * 160, 4 * 2 * (16 + 10), "fp32")
    assert found.operator(["r1", "c1"]) == "Conv"


def test_int8_moves_int8_where_it_runs_with_its_quantization(tmp_path: Path) -> None:
    bundle = built(tmp_path, net(), precision="int8", cpu_mode="fast")
    found = work(bundle, plan=True)
    group = ["r1.DequantizeLinear", "c2.w.DequantizeLinear", "c2", "r2", "r2.QuantizeLinear"]
    # INT8 with a scale and a zero point for each channel, a bias; and what the activations need.
    weights = 16 * 32 * 9 + 16 * (4 + 1) + 16 * 4
    steps = 4 + 4 + 1
    values = 2 * 32 * 64 + 2 * 16 * 64
    assert found.of(group) == GroupWork(2 * 16 * 64 * 32 * 9, weights + steps, values, "int8")
    # By itself it reads and writes what its neighbours have made FP32.
    alone = found.of(["c2"])
    assert alone.precision == "fp32"
    assert alone.activation_bytes == 4 * values


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_plan_moves_half_precision_where_the_cpu_runs_a_twin(
    tmp_path: Path, precision: str
) -> None:
    bundle = built(tmp_path, net(), precision=precision)
    x, y = 2 * 16 * 64, 2 * 32 * 64
    plan = work(bundle, plan=True)
    assert plan.of(["c2", "r2"]).precision == precision
    assert plan.of(["c2", "r2"]).weight_bytes == 2 * (16 * 32 * 9 + 16)
    assert plan.of(["c2", "r2"]).activation_bytes == 2 * (x + y)
    assert plan.of(["c1", "r1"]).activation_bytes == 2 * (x + y)  # It reads the cast input.
    assert work(bundle).of(["c2", "r2"]).precision == "fp32"


def found_shape(proto: ModelProto, name: str) -> list[int]:
    (value,) = (value for value in proto.graph.value_info if value.name == name)
    return [size.dim_value or 2 for size in value.type.tensor_type.shape.dim]


def test_sizes_of_a_plan_are_those_that_onnx_infers(tmp_path: Path) -> None:
    bundle = built(tmp_path, net(), precision="int8", high_precision="fp16")
    found = work(bundle, plan=True)
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(bundle.read("graph.onnx")))
    sizes = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.INT8: 1}
    for node in proto.graph.node:
        kinds = {v.name: v.type.tensor_type.elem_type for v in proto.graph.value_info}
        group = found.of([node.name])
        assert None not in (group.macs, group.weight_bytes, group.activation_bytes), node.name
        if node.op_type == "DequantizeLinear" and not group.macs and node.input[0] in kinds:
            values = math.prod(found_shape(proto, node.output[0]))
            assert group.activation_bytes == values * (1 + sizes[kinds[node.output[0]]])
        if node.op_type == "Relu":
            moved = 2 * sizes[kinds[node.output[0]]] * 2 * 64 * (32 if node.name == "r1" else 16)
            assert group.activation_bytes == moved


def test_what_nobody_can_place_makes_sizes_unknown(tmp_path: Path) -> None:
    found = work(built(tmp_path, net(), precision="fp32"))
    group = found.of(["c2"], {"r1"})
    assert (group.macs, group.activation_bytes, group.precision) == (
        64 * 2 * 16 * 32 * 9,
        None,
        None,
    )
    assert found.of(["c1"], {"r1"}).activation_bytes is None
    assert found.of(["fc"], {"r1"}) == found.of(["fc"])


def test_sizes_that_are_not_known_are_none() -> None:
    assert Tensor("float32", (2, 3)).bytes == 24
    assert Tensor("object", (2, 3)).bytes is None
    assert Tensor("bfloat16", ()).bytes == 2
    empty = GraphWork(read_graph(net().SerializeToString()), {})
    assert empty.of(["c1"]) == GroupWork(None, None, None, None)
    assert empty.of(["r1"]).macs == 0


def test_a_shape_reads_no_values() -> None:
    net = Net()
    shape = net.op("Shape", net.input("x", ("n", 16, 8, 8)), name="shape")
    proto = net.proto(net.op("Cast", shape, name="y", to=TensorProto.FLOAT))
    tensors = {"x": Tensor("float32", (2, 16, 8, 8)), "shape": Tensor("int64", (4,))}
    found = GraphWork(read_graph(proto.SerializeToString()), tensors)
    assert found.of(["shape"]) == GroupWork(0, 0, 4 * 8, None)


def test_weights_through_constant_nodes_count_as_weights(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", ("n", 16, 8, 8))
    w = net.op("Neg", net.weight("w", 8, 16, 1, 1), name="minus")
    bundle = built(tmp_path, net.proto(net.op("Conv", x, w, name="c")), precision="fp32")
    group = work(bundle).of(["c"])
    assert group == GroupWork(2 * 8 * 64 * 16, 4 * 128, 4 * 2 * 64 * (16 + 8), "fp32")
