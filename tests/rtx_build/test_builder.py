"""Plans built, and refused, by NVIDIA's own builder."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_runtime.backends.base import Plan
from edge_runtime.backends.tensorrt.builder import TensorRTBuilder
from edge_runtime.backends.tensorrt.compat import network_flags
from edge_runtime.backends.tensorrt.logger import recording
from edge_runtime.backends.tensorrt.memory_guard import MemoryGuard
from edge_runtime.backends.tensorrt.plan_header import read_plan_header
from edge_runtime.backends.tensorrt.verdict import asked_precisions
from edge_runtime.config import ShapeRange
from edge_runtime.errors import BuildError, ConfigError
from edge_runtime.gpu_config import TensorRTConfig

CONV = "(float[n,3,8,8] x) => (y) <float[2,3,1,1] w = {1,2,3,4,5,6}> { [c1] y = Conv(x, w) }"
STATIC = CONV.replace("[n,", "[1,")
QDQ = """({kind}[1,3,8,8] x) => (y)
    <{kind} s = {{{one}}}, {zero} z = {{{value}}},
     {kind}[2] ws = {{{one}, {one}}}, int8[2] wz = {{0, 0}},
     int8[2,3,1,1] w = {{1,2,3,4,5,6}}>
    {{ [q1] q = QuantizeLinear(x, s, z) [d1] d = DequantizeLinear(q, s, z)
       [dw] v = DequantizeLinear<axis=0>(w, ws, wz) [c1] y = Conv(d, v) }}"""
FP8 = """(float[4] x) => (y) <float s = {1}>
    { [q1] q = QuantizeLinear<output_dtype=17>(x, s) [d1] y = DequantizeLinear(q, s) }"""


HALF_ONE = 0x3C00  # ONNX's text form has FP16 values as their bits.


def graph(text: str, opset: int = 20) -> bytes:
    header = f'<ir_version: 10, opset_import: ["" : {opset}, "my.domain" : 1]>'
    model = onnx.parser.parse_model(f"{header} g {text}")
    return onnx.shape_inference.infer_shapes(model).SerializeToString()  # Types of the outputs.


def build(rtx: Any, text: str, *targets: str, opset: int = 20, **shapes: str) -> Plan:
    profile = {name: ShapeRange.parse(range_) for name, range_ in shapes.items()}
    return rtx.create_builder(targets or ["sm86"]).build(graph(text, opset), [profile])


@pytest.mark.parametrize(
    "text",
    [
        STATIC,
        STATIC.replace("float", "float16"),
        STATIC.replace("float", "bfloat16"),
        QDQ.format(kind="float", one=1, zero="int8", value=0),
        QDQ.format(kind="float16", one=HALF_ONE, zero="int8", value=0),
    ],
    ids=["fp32", "fp16", "bf16", "int8", "int8+fp16"],
)
def test_every_precision_builds(rtx: Any, text: str) -> None:
    plan = build(rtx, text)
    header = read_plan_header(plan.data)
    assert header.kind == plan.key.backend == "tensorrt-rtx"
    assert header.version == plan.key.version == rtx.VERSION
    assert header.size == len(plan.data)
    assert header.compute_capabilities == plan.key.compute_capabilities == ("sm86",)


@pytest.mark.parametrize(
    ("asked", "key", "header"),
    [
        (["sm120", "sm86", "sm86"], ("sm86", "sm120"), ("sm86", "sm120")),
        ([], (), ("sm80", "sm86", "sm89", "sm120", "sm121")),
    ],
)
def test_one_plan_for_several_targets(
    rtx: Any, asked: list[str], key: tuple[str, ...], header: tuple[str, ...]
) -> None:
    builder = rtx.create_builder(asked)
    plan = builder.build(graph(STATIC), [])
    assert plan.key == builder.key
    assert plan.key.compute_capabilities == key
    assert plan.key.platform == "linux-x86_64"
    assert read_plan_header(plan.data).compute_capabilities == header


def test_the_same_graph_gives_the_same_plan(rtx: Any) -> None:
    assert build(rtx, STATIC).data == build(rtx, STATIC).data


def test_a_dynamic_input_builds_with_its_profile(rtx: Any) -> None:
    assert build(rtx, CONV, x="1x3x8x8,2x3x8x8,4x3x8x8").data != build(rtx, STATIC).data


def test_every_profile_is_in_the_plan(rtx: Any) -> None:
    profiles = [{"x": ShapeRange.parse(f"1x3x8x8,{n}x3x8x8,{n}x3x8x8")} for n in (2, 16, 64)]
    sizes = [
        len(rtx.create_builder(["sm86"]).build(graph(CONV), profiles[:count]).data)
        for count in (1, 2, 3)
    ]
    assert sizes == sorted(set(sizes))
    with pytest.raises(ConfigError, match="does not fit input 'x'"):
        rtx.create_builder(["sm86"]).build(
            graph(CONV), [profiles[0], {"x": ShapeRange.parse("1x2x8x8")}]
        )


def test_an_input_that_decides_a_shape_builds_with_the_range_of_its_values(rtx: Any) -> None:
    text = "(float[4,6] x, int64[2] to) => (y) { [t] y = Tile(x, to) }"
    assert build(rtx, text, to="1x1,2x1,2x3").data
    with pytest.raises(ConfigError, match=r"'to' decides a shape.* 2 value.*--shape to=1x1,8x8"):
        build(rtx, text)
    with pytest.raises(ConfigError, match=r"--shape to=4,4,4: Input 'to'"):
        build(rtx, text, to="4")


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({}, r"'x' has dynamic .*\?x3x8x8.*--shape x=1x3x8x8,1x3x8x8,4x3x8x8"),
        ({"x": "1x3x8"}, r"1x3x8 does not fit input 'x', which is \?x3x8x8"),
        ({"x": "1x3x8x8,1x3x8x8,1x4x8x8"}, r"1x4x8x8 does not fit"),
        ({"x": "1x3x8x8", "z": "1"}, r"no input 'z'; its inputs are x"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused(
    rtx: Any, shapes: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        build(rtx, CONV, **shapes)


def test_the_example_for_a_picture_is_one(rtx: Any) -> None:
    text = "(float[n,3,h,w] img) => (y) { y = Neg(img) }"
    example = "--shape img=1x3x32x32,1x3x640x640,4x3x960x960"
    with pytest.raises(ConfigError, match=example):
        build(rtx, text)
    assert build(rtx, text, img=example.partition("img=")[2]).data


@pytest.mark.parametrize("target", ["sm87", "sm110", "sm90", "86", "SM86", "current"])
def test_a_target_that_rtx_lacks_is_refused_and_jetsons_are_explained(
    rtx: Any, target: str
) -> None:
    with pytest.raises(ConfigError, match=r"sm75, sm80, sm86.* on the Jetson, with TensorRT") as it:
        rtx.create_builder(["sm86", target])
    assert repr(target) in str(it.value)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "(float[2] x) => (y) <float s = {1}, int32[2] b = {1, 2}>"
            " { [bias] d = DequantizeLinear(b, s) y = Add(x, d) }",
            ["node 'bias' (DequantizeLinear): ", "input has type Int32 but must have type FP8"],
        ),
        (
            QDQ.format(kind="float", one=1, zero="uint8", value=128),
            ["node 'q1' (QuantizeLinear): ", "Non-zero zero point is not supported"],
        ),
        (
            "(float[4] x) => (y) { [foo1] y = my.domain.Foo(x) }",
            ["node 'foo1' (Foo): Plugin not found"],
        ),
        (
            "(float[2,2] x) => (y) { y = Det(x) }",
            ["node 'y' (Det): operator Det is not supported"],
        ),
        (
            "(int16[2] x) => (y) { y = Identity(x) }",
            ["input 'x': Failed to convert ONNX date type", "(it is int16)"],
        ),
        (
            "(float[2] x) => (y) <int16[2] c = {1,2}> { d = Cast<to=1>(c) y = Add(x, d) }",
            ["Found unsupported datatype (5) when importing initializer: c"],
        ),
        (
            "(float[5000] x) => (y, i) <int64[1] k = {4000}> { [t] y, i = TopK(x, k) }",
            ["K exceeds the maximum value allowed (3840)"],
        ),
        (
            """(bool c, float[2,2] x) => (y) { [if1] y = If(c) <
                then_branch = t () => (float p) { [deep] p = Det(x) },
                else_branch = e () => (float q) { q = ReduceSum(x) }> }""",
            ["node 'deep' (Det) in ", "in if1 (If): operator Det is not supported"],
        ),
    ],
)
def test_a_refusal_names_the_node_and_has_nvidias_words(
    rtx: Any, text: str, lines: list[str]
) -> None:
    with pytest.raises(BuildError) as refusal:
        build(rtx, text)
    log = "\n".join(refusal.value.log)
    assert [line for line in lines if line not in log] == []
    assert "catchCudaError" not in log
    assert [line for line in log.splitlines() if log.count(line) > 1] == []
    assert str(refusal.value).startswith(f"tensorrt-rtx {rtx.VERSION} for sm86 on linux-x86_64 ")


def test_all_that_the_parser_refuses_is_listed_once(rtx: Any) -> None:
    text = "(float[2,2] x) => (y, z) { [a] y = Det(x) [b] z = Bernoulli(x) }"
    with pytest.raises(BuildError) as refusal:
        build(rtx, text)
    assert refusal.value.log == (
        "node 'a' (Det): operator Det is not supported",
        "node 'b' (Bernoulli): operator Bernoulli is not supported",
    )


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        (FP8, "sm86", "because the model contains HW-specific datatypes: fp8_e4m3"),
        ("(bfloat16[4] x) => (y) { y = Neg(x) }", "sm75", "HW-specific datatypes: b16"),
        (
            "(float[4,4] x) => (y) { [m] y = MatMul(x, x) }",
            "sm75",
            "Cannot compile operation 'm' for Turing (SM75): FP32 GEMM is not supported",
        ),
    ],
    ids=["fp8", "bf16", "gemm"],
)
def test_what_an_architecture_lacks_is_refused_in_nvidias_words(
    rtx: Any, text: str, target: str, words: str
) -> None:
    with pytest.raises(BuildError) as refusal:
        build(rtx, text, target, opset=21)
    assert words in "\n".join(refusal.value.log)
    assert build(rtx, text, "sm89", opset=21).data


@pytest.mark.parametrize("data", [b"", b"hello world"])
def test_what_is_no_model_is_refused_though_the_parser_takes_it(rtx: Any, data: bytes) -> None:
    builder = rtx.create_builder(["sm86"])
    with pytest.raises(BuildError):
        builder.build(data, [])
    with pytest.raises(BuildError):
        builder.parser_failures(data)


def test_a_model_that_is_cut_off_is_refused(rtx: Any) -> None:
    with pytest.raises(BuildError, match="Failed to parse the ONNX model"):
        rtx.create_builder(["sm86"]).build(graph(STATIC)[:100], [])


def test_a_refusal_that_is_kept_does_not_take_the_next_ones_reasons(rtx: Any) -> None:
    text = "(float[5000] x) => (y, i) <int64[1] k = {4000}> { [NAME] y, i = TopK(x, k) }"
    kept = []
    for name in ("first", "second"):
        with pytest.raises(BuildError) as refusal:
            build(rtx, text.replace("NAME", name))
        kept.append(refusal)
    assert ["first" in kept[0].value.log[0], "second" in kept[1].value.log[0]] == [True, True]


def deep(layers: int = 40) -> str:
    """Convolutions of different sizes, which TensorRT compiles one by one."""
    nodes, shapes, before, width = [], [], "x", 3
    for i in range(layers):
        after = 3 + i % 5
        shapes.append(f"float[{after},{width},3,3] w{i}")
        nodes.append(f"[c{i}] t{i} = Conv<pads=[1,1,1,1]>({before}, w{i}) [r{i}] a{i} = Relu(t{i})")
        before, width = f"a{i}", after
    inputs = ", ".join(["float[1,3,16,16] x", *shapes])
    return f"({inputs}) => ({before}) {{ {' '.join(nodes)} }}"


def test_progress_goes_from_0_to_100(rtx: Any) -> None:
    calls: list[tuple[str, int, int]] = []
    rtx.create_builder(["sm86"]).build(graph(deep(4)), [], lambda *call: calls.append(call))
    shares = [done for _, done, _ in calls]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 100)
    assert len(set(shares)) > 5
    assert {(what, total) for what, _, total in calls} == {("Building the tensorrt-rtx plan", 100)}


def test_an_error_of_the_callback_cancels_the_build(rtx: Any) -> None:
    builder, shares = rtx.create_builder(["sm86"]), []

    def progress(what: str, done: int, total: int) -> None:
        shares.append(done)
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        builder.build(graph(STATIC), [], progress)
    assert len(shares) == 1
    assert builder.build(graph(STATIC), []).data


def test_ctrl_c_cancels_the_build(rtx: Any) -> None:
    builder, shares = rtx.create_builder(["sm86"]), []

    def progress(what: str, done: int, total: int) -> None:
        shares.append(done)
        if len(shares) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        builder.build(graph(deep(4)), [], progress)
    assert len(shares) <= 4
    assert builder.build(graph(STATIC), []).data


def test_a_workspace_that_is_too_small_is_refused_in_nvidias_words(rtx: Any) -> None:
    config = TensorRTConfig(workspace=2**20)
    with pytest.raises(BuildError, match=r"no tactics to implement .* within workspace limit"):
        rtx.create_builder(["sm86"], config).build(graph(STATIC), [])


@pytest.mark.parametrize(
    "config",
    [
        TensorRTConfig(optimization_level=0, max_aux_streams=1),
        TensorRTConfig(optimization_level=5, tf32=True, sparse_weights=True),
        TensorRTConfig(workspace=2**30),
    ],
)
def test_what_rtx_has_it_takes(rtx: Any, config: TensorRTConfig) -> None:
    assert rtx.create_builder(["sm86"], config).build(graph(STATIC), []).verdict is None


def test_weights_that_are_streamed_make_another_plan(rtx: Any) -> None:
    plan = rtx.create_builder(["sm86"], TensorRTConfig(weight_streaming=True)).build(
        graph(STATIC), []
    )
    assert plan.data != build(rtx, STATIC).data


@pytest.mark.parametrize(
    ("config", "kind", "words"),
    [
        (TensorRTConfig(dla_core=0), ConfigError, r"dla_core is 0, but .* finds no DLA here"),
        (
            TensorRTConfig(hardware_compatibility="ampere+"),
            ConfigError,
            "TensorRT-RTX does not have: name the GPU architectures as targets",
        ),
        (TensorRTConfig(strict=True), BuildError, "Strict precision cannot be kept here"),
        (TensorRTConfig(version_compatible=True), BuildError, "libnvinfer_lean"),
    ],
)
def test_what_rtx_lacks_is_refused(
    rtx: Any, config: TensorRTConfig, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        rtx.create_builder(["sm86"], config).build(graph(STATIC), [])


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        (STATIC, {"c1": "FP32"}),
        (STATIC.replace("float", "float16"), {"c1": "FP16"}),
        (STATIC.replace("float", "bfloat16"), {"c1": "BF16"}),
        (QDQ.format(kind="float", one=1, zero="int8", value=0), {"c1": "INT8"}),
        (QDQ.format(kind="float16", one=HALF_ONE, zero="int8", value=0), {"c1": "INT8"}),
    ],
)
def test_nvidias_parser_tells_what_each_node_was_asked(
    rtx: Any, text: str, asked: dict[str, str]
) -> None:
    with recording(rtx.trt) as (logger, _):
        builder = rtx.trt.Builder(logger)
        network = builder.create_network(network_flags(rtx.trt))
        parser = rtx.trt.OnnxParser(network, logger)
        assert parser.parse(graph(text))
        assert asked_precisions(rtx.trt, network) == asked


def test_a_machine_without_the_memory_is_told_before_anything_is_built(
    rtx: Any, tmp_path: Path
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemAvailable: 100000 kB\nSwapFree: 0 kB\n")
    key = rtx.create_builder(["sm86"]).key
    builder = TensorRTBuilder(rtx.trt, key, memory=MemoryGuard(root=tmp_path))
    with pytest.raises(BuildError, match="98 MiB are available"):
        builder.build(graph(STATIC), [])


def test_builders_come_and_go(rtx: Any) -> None:
    for _ in range(20):
        builder = rtx.create_builder(["sm86"])
        assert builder.parser_failures(graph(STATIC)) == ()
        assert builder.parser_failures(graph("(float[2,2] x) => (y) { y = Det(x) }"))
        del builder
        gc.collect()
