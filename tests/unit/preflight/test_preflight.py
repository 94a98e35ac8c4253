"""`check_model` as it is where TensorRT-RTX is not installed."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from edge_runtime.backends import registry
from edge_runtime.config import ShapeRange
from edge_runtime.errors import ConfigError, ModelError
from edge_runtime.preflight import Outcome, check_model


@pytest.fixture(autouse=True)
def without_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)


def save(folder: Path, text: str) -> Path:
    path = folder / "net.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> g {text}'), path)
    return path


def test_it_says_that_only_the_lints_ran_and_why(tmp_path: Path) -> None:
    report = check_model(save(tmp_path, "(float[4] x) => (float[4] y) { y = Neg(x) }"))
    assert report.run.outcome is Outcome.NOT_RUN
    assert report.run.builder == ""
    assert "Only the lints ran" in report.run.detail
    assert "TensorRT-RTX is" in report.run.detail
    assert (report.ok, report.findings, report.model) == (True, (), "net.onnx")
    assert report.digest.startswith("sha256:")


def test_errors_come_first_and_make_it_fail(tmp_path: Path) -> None:
    text = "(int64[n,2] x) => (int64[n,2] y, float z) { f = Cast<to=1>(x) z = Det(f) y = Neg(x) }"
    report = check_model(save(tmp_path, text))
    assert not report.ok
    assert [(f.severity.value, f.rule) for f in report.findings] == [
        ("error", "unsupported-operator"),
        ("warning", "dynamic-dimension"),
        ("note", "int64"),
        ("note", "int64"),
    ]


def test_the_report_is_plain_json_and_says_it_all(tmp_path: Path) -> None:
    path = save(tmp_path, "(float[2,2] x) => (float y) { [d] y = Det(x) }")
    report = check_model(path)
    plain = json.loads(json.dumps(report.to_json()))
    assert plain["ok"] is False
    assert plain["builder"]["outcome"] == "not-run"
    (finding,) = plain["findings"]
    assert finding["rule"] == "unsupported-operator"
    assert (finding["severity"], finding["scope"]) == ("error", "tensorrt")
    assert (finding["node"], finding["op"]) == ("d", "Det")
    assert report == check_model(path)


def test_a_finding_reads_as_one_line(tmp_path: Path) -> None:
    report = check_model(save(tmp_path, "(float[2,2] x) => (float y) { [d] y = Det(x) }"))
    (line,) = map(str, report.findings)
    assert line.startswith("error: d (Det): TensorRT has no operator Det.")
    assert line.endswith("[unsupported-operator]")


def test_what_the_profile_and_the_targets_answer_is_not_asked(tmp_path: Path) -> None:
    path = save(tmp_path, "(float[n,4] x) => (float[n,4] y) { y = Neg(x) }")
    assert [finding.rule for finding in check_model(path).findings] == ["dynamic-dimension"]
    profile = {"x": ShapeRange.parse("1x4,2x4,8x4")}
    assert check_model(path, targets=["sm87"], profiles=profile).findings == ()


def test_every_profile_must_answer(tmp_path: Path) -> None:
    path = save(tmp_path, "(float[n,4] x, float[n,4] y) => (float[n,4] z) { z = Add(x, y) }")
    both = {"x": "1x4,2x4,8x4", "y": "1x4,2x4,8x4"}
    kwargs = {"targets": ["sm87"], "build": False}
    assert check_model(path, profiles=[both, both], **kwargs).findings == ()
    (finding,) = check_model(path, profiles=[both, {"x": "4x4"}], **kwargs).findings
    assert (finding.rule, finding.node) == ("dynamic-dimension", "y")


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"z": "1x4"}, "no input 'z'"),
        ({"x": "1x4x4"}, "does not fit input 'x', which is [?]x4"),
        ({"x": "1x4,1x5,1x6"}, "1x5 does not fit input 'x'"),
    ],
)
def test_a_profile_of_another_model_is_refused(
    tmp_path: Path, shapes: dict[str, str], words: str
) -> None:
    path = save(tmp_path, "(float[n,4] x) => (float[n,4] y) { y = Neg(x) }")
    profile = {name: ShapeRange.parse(text) for name, text in shapes.items()}
    with pytest.raises(ConfigError, match=words):
        check_model(path, profiles=profile)


@pytest.mark.parametrize("target", ["orin", "86", "sm8", "SM86", "sm86 "])
def test_a_target_that_is_none_is_refused(tmp_path: Path, target: str) -> None:
    path = save(tmp_path, "(float[4] x) => (float[4] y) { y = Neg(x) }")
    with pytest.raises(ConfigError, match="sm86 or sm87"):
        check_model(path, targets=[target])


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_text("hello")
    with pytest.raises(ModelError):
        check_model(path)
