"""`check_model` with NVIDIA's own parser and builder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_runtime.backends.tensorrt.memory_guard import MemoryGuard
from edge_runtime.config import ShapeRange
from edge_runtime.preflight import CheckReport, Outcome, check_model
from edge_runtime.preflight.operators import UNSUPPORTED

RTX_PREFIX = "tensorrt-rtx 1."
NMS = """(float[1,6,4] b, float[1,1,6] s) => (int64[n,3] y) <int64 m = {3}>
    { [nms] y = NonMaxSuppression(b, s, m) }"""
IF = """(bool c, float[4] x) => (float[4] y) { [i] y = If(c) <
    then_branch = t () => (float[4] p) { p = Neg(x) },
    else_branch = e () => (float[4] q) { q = Abs(x) }> }"""


def check(folder: Path, text: str, *targets: str, build: bool = True, **shapes: str) -> CheckReport:
    path = folder / "net.onnx"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> g {text}')
    onnx.save(model, path)
    profile = {name: ShapeRange.parse(range_) for name, range_ in shapes.items()}
    return check_model(path, targets=targets, profiles=profile, build=build)


def brief(report: CheckReport) -> list[tuple[str, str, str, str]]:
    return [(f.severity.value, f.rule, f.node, f.scope.value) for f in report.findings]


def test_a_sound_model_is_built(tmp_path: Path, rtx: Any) -> None:
    report = check(tmp_path, "(float[4] x) => (float[4] y) { y = Neg(x) }", "sm86")
    assert (report.ok, report.findings) == (True, ())
    assert report.run.outcome is Outcome.BUILT
    assert report.run.builder == f"tensorrt-rtx {rtx.VERSION}"
    assert "sm86" in report.run.detail


def test_without_building_it_is_only_read(tmp_path: Path) -> None:
    text = "(float[5000] x) => (float[m] y, int64[m] i) <int64[1] k = {4000}> { y, i = TopK(x, k) }"
    report = check(tmp_path, text, build=False)
    assert report.run.outcome is Outcome.PARSED


def test_a_dynamic_batch_is_taken_as_1_and_the_report_says_so(tmp_path: Path) -> None:
    report = check(tmp_path, "(float[n,4] x) => (float[n,4] y) { y = Neg(x) }")
    assert brief(report) == [("warning", "dynamic-dimension", "x", "tensorrt")]
    assert report.run.outcome is Outcome.BUILT
    assert "x=1x4,1x4,1x4 for want of --shape" in report.run.detail


def test_nothing_is_guessed_for_other_dynamic_axes(tmp_path: Path) -> None:
    text = "(float[n,m] x) => (float[n,m] y) { y = Neg(x) }"
    report = check(tmp_path, text)
    assert report.ok
    assert report.run.outcome is Outcome.PARSED
    assert "--shape x=" in report.run.detail
    assert check(tmp_path, text, x="1x1,2x2,3x3").run.outcome is Outcome.BUILT


def test_a_refusal_of_the_parser_joins_the_lint_that_explains_it(tmp_path: Path) -> None:
    report = check(tmp_path, "(float[2,2] x) => (float y) { y = Det(x) }")
    assert brief(report) == [("error", "unsupported-operator", "y", "tensorrt")]
    assert "operator Det is not supported" in report.findings[0].message
    assert RTX_PREFIX in report.findings[0].message
    assert report.run.outcome is Outcome.REFUSED


@pytest.mark.parametrize(("name", "node"), [("[p]", "p"), ("", "y")])
def test_a_refusal_of_the_parser_that_no_lint_knows_stands_alone(
    tmp_path: Path, name: str, node: str
) -> None:
    text = f"""(float[1,1,8,8] x) => (float[1,1,4,4] y)
        {{ {name} y = MaxPool<kernel_shape=[3,3], dilations=[2,2]>(x) }}"""
    report = check(tmp_path, text)
    assert brief(report) == [("error", "parser", node, "tensorrt")]
    assert "dilations" in report.findings[0].message


def test_a_refusal_of_the_builder_is_in_nvidias_words(tmp_path: Path) -> None:
    text = """(float[5000] x) => (float[m] y, int64[m] i)
        <int64[1] k = {4000}> { [t] y, i = TopK(x, k) }"""
    report = check(tmp_path, text)
    assert brief(report)[:2] == [
        ("error", "large-top-k", "t", "tensorrt"),
        ("error", "builder", "", "tensorrt"),
    ]
    assert "K exceeds the maximum value allowed (3840)" in report.findings[1].message


@pytest.mark.parametrize("text", [NMS, "(float[4] x) => (int64[1,n] y) { [nms] y = NonZero(x) }"])
def test_what_only_rtx_lacks_is_no_error_for_a_jetson(tmp_path: Path, text: str) -> None:
    report = check(tmp_path, text, "sm87")
    assert report.ok
    assert ("note", "rtx-gap", "nms", "tensorrt-rtx") in brief(report)
    assert report.run.outcome is Outcome.REFUSED
    assert RTX_PREFIX in "".join(finding.message for finding in report.findings)


@pytest.mark.parametrize("text", [NMS, "(float[4] x) => (int64[1,n] y) { [nms] y = NonZero(x) }"])
def test_what_rtx_lacks_is_an_error_for_a_plan_of_its_own(tmp_path: Path, text: str) -> None:
    report = check(tmp_path, text, "sm86", "sm87")
    assert not report.ok
    assert {f.scope.value for f in report.findings if f.severity.value == "error"} == {
        "tensorrt-rtx"
    }


def test_what_was_feared_of_rtx_is_dropped_once_it_has_built_the_model(tmp_path: Path) -> None:
    assert brief(check(tmp_path, IF, build=False)) == [("warning", "rtx-if", "i", "tensorrt-rtx")]
    assert brief(check(tmp_path, IF)) == []


def test_what_builds_and_computes_something_else_stays_an_error(tmp_path: Path) -> None:
    text = """(float[4] x) => (float[4] y) <float s = {1}, uint8 z = {0}>
        { [q] q = QuantizeLinear(x, s, z) [d] y = DequantizeLinear(q, s, z) }"""
    report = check(tmp_path, text)
    assert report.run.outcome is Outcome.BUILT
    assert brief(report) == [
        ("error", "uint8-zero-point", "q", "tensorrt"),
        ("error", "uint8-zero-point", "d", "tensorrt"),
    ]


def test_one_name_for_two_axes_fails_only_if_they_differ(tmp_path: Path) -> None:
    text = "(float[1,s,s] x) => (float[1,s,s] y) { y = Neg(x) }"
    square = check(tmp_path, text, x="1x8x8,1x16x16,1x32x32")
    assert (square.ok, square.run.outcome) == (True, Outcome.BUILT)
    oblong = check(tmp_path, text, x="1x8x8,1x16x32,1x32x32")
    assert brief(oblong) == [
        ("error", "repeated-dimension", "x", "tensorrt"),
        ("error", "builder", "", "tensorrt"),
    ]


def test_the_lint_for_operators_knows_what_this_parser_knows(rtx: Any) -> None:
    trt = rtx.trt
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert [op for op in sorted(UNSUPPORTED) if parser.supports_operator(op)] == []


def test_too_little_memory_is_said(
    tmp_path: Path, digits: Any, rtx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemAvailable: 9000 kB\nSwapFree: 0 kB\n")
    monkeypatch.setattr(rtx, "MemoryGuard", partial(MemoryGuard, root=tmp_path))
    report = check_model(digits.model, profiles={"image": "1x1x16x16"})
    assert report.run.outcome is Outcome.REFUSED
    assert not report.ok
    (finding,) = report.findings
    assert "memory" in finding.message


def test_several_profiles_are_all_built(digits: Any) -> None:
    one, other = {"image": "1x1x16x16"}, {"image": "2x1x16x16,4x1x16x16,8x1x16x16"}
    report = check_model(digits.model, profiles=[one, other])
    assert report.findings == ()
    assert report.run.outcome is Outcome.BUILT


def test_the_committed_net_is_sound(digits: Any) -> None:
    report = check_model(digits.model, profiles={"image": ShapeRange.parse("1x1x16x16")})
    assert (report.ok, report.findings) == (True, ())
    assert report.run.outcome is Outcome.BUILT
