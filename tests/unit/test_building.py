"""Bundles from models: built once, rebuilt when anything that counts has changed, and accurate."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import ModelProto

from edge_runtime import building
from edge_runtime.building import build, calibrate
from edge_runtime.bundle import Bundle
from edge_runtime.config import BuildConfig, CalibrationConfig
from edge_runtime.data import ImageFolder
from edge_runtime.data.evaluation import Evaluation
from edge_runtime.errors import (
    BuildError,
    BundleError,
    CalibrationCacheError,
    ConfigError,
    DataError,
    ModelError,
)
from edge_runtime.gpu_config import TensorRTConfig
from edge_runtime.model import read_model
from edge_runtime.session import load
from edge_runtime.vision.preprocess import Preprocessing
from tests import models
from tests.models import NETS, Net

INT8 = BuildConfig(precision="int8", backend="cpu")
INT8_FP16 = BuildConfig(precision="int8", high_precision="fp16", backend="cpu")
FP32 = BuildConfig(backend="cpu")


@dataclass
class Bench:
    """A model, samples for it and where its bundle goes."""

    model: Path
    samples: list[dict[str, np.ndarray]]
    output: Path

    def build(self, config: BuildConfig = INT8, **settings: object) -> Bundle:
        given = {"calibration": self.samples if config.precision.value == "int8" else None}
        return build(self.model, config, output=self.output, **{**given, **settings})

    def state(self) -> tuple[int, int, bytes]:
        info = self.output.stat()
        return info.st_mtime_ns, info.st_ino, self.output.read_bytes()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    proto = NETS["residual"]()
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    samples = [models.feeds(proto, seed, batch=1) for seed in range(3)]
    return Bench(tmp_path / "net.onnx", samples, tmp_path / "net.edge")


def test_a_bundle_says_what_it_was_built_from(bench: Bench) -> None:
    bundle = bench.build()
    model = read_model(bench.model)
    manifest = bundle.manifest
    assert (manifest.model.name, manifest.model.digest) == ("net.onnx", model.digest)
    assert (bundle.inputs, bundle.outputs) == (model.inputs, model.outputs)
    assert manifest.build_config == INT8
    assert manifest.data is not None
    assert manifest.data.samples == 3
    assert manifest.tools == building.tools()
    assert {"edge-runtime", "numpy", "onnx", "onnxruntime"} <= manifest.tools.keys()
    assert [entry.name for entry in manifest.entries] == [
        *("graph.onnx", "calibration.json", "calibration.cache")
    ]
    agreement = manifest.precision["agreement"]
    (output,) = (spec.name for spec in model.outputs)
    assert agreement[output]["sqnr_db"] > 25
    bundle.verify()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_brings_a_twin_for_the_cpu(bench: Bench, precision: str) -> None:
    bundle = bench.build(BuildConfig(precision=precision, backend="cpu"))
    assert [entry.name for entry in bundle.manifest.entries] == ["graph.onnx", "cpu.onnx"]
    graph = ModelProto.FromString(bundle.read("graph.onnx"))
    kinds = {tensor.data_type for tensor in graph.graph.initializer}
    assert kinds == {10 if precision == "fp16" else 16}
    with load(bundle) as session:
        found = session.run(bench.samples[0])
    (expected,) = models.run(bench.model.read_bytes(), bench.samples[0]).values()
    np.testing.assert_allclose(*found.values(), expected, atol=0.1)


# Nothing is built twice.


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_building_again_does_nothing(bench: Bench, precision: str) -> None:
    config = BuildConfig(precision=precision, backend="cpu")
    first = bench.build(config)
    before = bench.state()
    told: list[object] = []
    again = bench.build(config, progress=lambda *step: told.append(step))
    assert bench.state() == before
    assert again == first
    assert told == []


def test_what_does_not_count_does_not_rebuild(bench: Bench, tmp_path: Path) -> None:
    bench.build()
    before = bench.state()
    proto = ModelProto.FromString(bench.model.read_bytes())
    proto.producer_name = "somebody else"
    bench.model.write_bytes(proto.SerializeToString())
    bench.samples = [{"x": each["x"].copy()} for each in bench.samples]
    bench.build()
    bench.build(BuildConfig(precision="int8", backend="cpu", exclude=[], targets=()))
    build(read_model(bench.model), INT8, output=str(bench.output), calibration=bench.samples)
    assert bench.state() == before


def other_weight(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    proto = ModelProto.FromString(bench.model.read_bytes())
    tensor = proto.graph.initializer[0]
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
    bench.model.write_bytes(proto.SerializeToString())
    return INT8


def other_name(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    bench.model = bench.model.rename(bench.model.with_name("other.onnx"))
    return INT8


def other_value(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    bench.samples[1]["x"] = bench.samples[1]["x"] + np.float32(1e-6)
    return INT8


def one_sample_less(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    bench.samples.pop()
    return INT8


def other_order(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    bench.samples.reverse()
    return INT8


def other_method(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    return BuildConfig(precision="int8", backend="cpu", calibration=CalibrationConfig("max"))


def other_exclusion(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    return BuildConfig(precision="int8", backend="cpu", exclude=("c1",))


def other_precision(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    return FP32


def other_profile(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    return BuildConfig(precision="int8", backend="cpu", profiles={"x": "1x16x8x8"})


def other_tensorrt_option(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    return BuildConfig(precision="int8", backend="cpu", tensorrt=TensorRTConfig(refit=True))


def other_tool(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    versions = {**building.tools(), "onnx": "99.0"}
    patch.setattr(building, "tools", lambda: versions)
    return INT8


def flipped_bit(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    content = bytearray(bench.output.read_bytes())
    content[len(content) // 2] ^= 1
    bench.output.write_bytes(content)
    return INT8


def cut_off(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    os.truncate(bench.output, bench.output.stat().st_size - 1)
    return INT8


def no_bundle(bench: Bench, patch: pytest.MonkeyPatch) -> BuildConfig:
    bench.output.write_text("not a bundle", encoding="utf-8")
    return INT8


@pytest.mark.parametrize(
    "change",
    [
        *(other_weight, other_name, other_value, one_sample_less, other_order, other_method),
        *(other_exclusion, other_precision, other_profile, other_tool),
        other_tensorrt_option,
        *(flipped_bit, cut_off, no_bundle),
    ],
)
def test_what_counts_or_is_damaged_is_rebuilt(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Bench, pytest.MonkeyPatch], BuildConfig],
) -> None:
    bench.build()
    before = bench.state()
    config = change(bench, monkeypatch)
    bundle = bench.build(config)
    assert bench.state()[1] != before[1]  # Another file in its place.
    bundle.verify()
    after = bench.state()
    bench.build(config)
    assert bench.state() == after


def test_another_picture_or_preprocessing_is_rebuilt(tmp_path: Path, digits: object) -> None:
    (tmp_path / "pictures").mkdir()
    for i, picture in enumerate(digits.calibration[:3]):
        cv2.imwrite(str(tmp_path / f"pictures/{i}.png"), picture)
    declared = Preprocessing(size=16, color="gray")

    def built(preprocessing: Preprocessing) -> tuple[Bundle, int]:
        pictures = ImageFolder(tmp_path / "pictures", preprocessing)
        bundle = build(digits.model, INT8, output=tmp_path / "n.edge", calibration=pictures)
        return bundle, bundle.path.stat().st_ino

    bundle, first = built(declared)
    assert bundle.manifest.preprocessing == declared.to_json()
    assert bundle.manifest.data.samples == 3
    assert built(declared)[1] == first
    # The pictures have this size already, so that no value that is fed differs.
    other, second = built(Preprocessing(size=16, color="gray", interpolation="cubic"))
    assert second != first
    assert other.manifest.preprocessing["interpolation"] == "cubic"
    cv2.imwrite(str(tmp_path / "pictures/1.png"), 255 - digits.calibration[1])
    assert built(Preprocessing(size=16, color="gray", interpolation="cubic"))[1] != second


# Calibration apart from building.


def test_a_cache_gives_the_very_graph_that_its_samples_give(bench: Bench) -> None:
    graph = bench.build().read("graph.onnx")
    cache = calibrate(bench.model, bench.samples)
    bundle = bench.build(calibration=cache)
    assert bundle.read("graph.onnx") == graph
    assert bundle.manifest.data.samples == 3
    before = bench.state()
    bench.build(calibration=calibrate(bench.model, bench.samples))
    assert bench.state() == before


def test_another_preprocessing_beside_a_cache_is_rebuilt(bench: Bench) -> None:
    cache = calibrate(bench.model, bench.samples)
    declared = Preprocessing(size=8)
    bench.build(calibration=cache, preprocessing=declared)
    before = bench.state()
    bench.build(calibration=cache, preprocessing=declared)
    assert bench.state() == before
    other = Preprocessing(size=8, color="bgr")
    bundle = bench.build(calibration=cache, preprocessing=other)
    assert bundle.manifest.preprocessing == other.to_json()


def test_a_cache_of_another_model_is_refused(bench: Bench) -> None:
    (bench.model.parent / "other.onnx").write_bytes(NETS["shortcut"]().SerializeToString())
    cache = calibrate(bench.model.parent / "other.onnx", bench.samples)
    with pytest.raises(CalibrationCacheError, match="another model"):
        bench.build(calibration=cache)
    assert not bench.output.exists()


def test_calibration_takes_its_method_from_the_settings(bench: Bench) -> None:
    config = BuildConfig(calibration=CalibrationConfig("max"))
    assert calibrate(bench.model, bench.samples, config).method == "max"
    assert calibrate(read_model(bench.model), bench.samples).method == "mse"


# A guard.


def guarded(budget: object = "20dB", metric: str = "sqnr", **settings: object) -> BuildConfig:
    guard = {"max_drop": budget, "metric": metric}
    return BuildConfig(precision="int8", backend="cpu", guard=guard, **settings)


def test_a_guarded_bundle_says_how_it_was_judged(bench: Bench) -> None:
    held = [models.feeds(NETS["residual"](), seed, batch=1) for seed in range(5, 9)]
    bundle = bench.build(guarded(), evaluation=held)
    guard = bundle.manifest.precision["guard"]
    assert (guard["samples"], guard["kept"]) == (4, [])
    assert guard["held_out"] == "4 samples in memory, given for this"
    assert 0 < guard["drop"] < 0.01
    assert bundle.manifest.build_config == guarded()
    assert bundle.manifest.data.samples == 3
    # Not a byte differs from what is built without a guard that has nothing to do.
    graph = bundle.read("graph.onnx")
    assert bench.build(INT8_FP16).read("graph.onnx") == graph


def test_calibration_does_not_see_what_it_is_judged_on(bench: Bench) -> None:
    proto = NETS["residual"]()
    bench.samples = [models.feeds(proto, seed, batch=1) for seed in range(8)]
    bundle = bench.build(guarded())
    assert "every fourth calibration sample" in bundle.manifest.precision["guard"]["held_out"]
    assert bundle.manifest.data.samples == 6
    assert bundle.manifest.precision["guard"]["samples"] == 2
    rest = [feeds for index, feeds in enumerate(bench.samples) if index % 4 != 3]
    bench.samples, chosen = rest, bundle.read("calibration.json")
    assert bench.build(INT8_FP16).read("calibration.json") == chosen


def test_what_is_judged_on_counts_for_the_result(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    metric = tmp_path / "bench_metric.py"
    metric.write_text("def f(outputs, labels):\n    return [1.0] * len(outputs)\n")
    config = guarded(0.1, "python:bench_metric:f")
    held = [models.feeds(NETS["residual"](), seed, batch=1) for seed in range(5, 9)]
    seen = set()
    evaluations = [
        Evaluation(held, [1, 2, 3, 4]),
        Evaluation(held, [1, 2, 3, 5]),
        Evaluation(held),
        Evaluation(held, limit=2),
        held[:3],
    ]
    for evaluation in evaluations:
        bench.build(config, evaluation=evaluation)
        before = bench.state()
        seen.add(before)
        bench.build(config, evaluation=evaluation)
        assert bench.state() == before
    assert len(seen) == len(evaluations)
    metric.write_text(metric.read_text() + "# Says something else.\n")
    bench.build(config, evaluation=evaluations[-1])
    assert bench.state() != before


def test_a_budget_that_cannot_be_kept_writes_nothing(bench: Bench) -> None:
    bench.build(FP32)
    before = bench.state()
    held = [models.feeds(NETS["residual"](), seed, batch=1) for seed in range(5, 9)]
    with pytest.raises(BuildError, match="No INT8 form keeps sqnr at infinite dB"):
        bench.build(guarded(0), evaluation=held)
    assert bench.state() == before


def test_an_evaluation_without_a_guard_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="no guard"):
        bench.build(INT8, evaluation=bench.samples)


def test_a_guard_without_data_is_refused(bench: Bench) -> None:
    with pytest.raises(DataError, match="3 are too few"):
        bench.build(guarded())
    with pytest.raises(DataError, match="--eval-data"):
        bench.build(guarded(), calibration=calibrate(bench.model, bench.samples))
    with pytest.raises(ConfigError, match="INT8 needs calibration data"):
        bench.build(guarded(), calibration=None, evaluation=bench.samples)
    with pytest.raises(ConfigError, match="top1 needs labels"):
        bench.build(guarded(0.1, "top1"), evaluation=bench.samples)
    assert not bench.output.exists()


# What is refused, with what was there left alone.


def test_int8_without_data_is_refused(bench: Bench) -> None:
    bench.build(FP32)
    before = bench.state()
    with pytest.raises(ConfigError, match="calibration data"):
        bench.build(calibration=None)
    assert bench.state() == before


def test_samples_that_do_not_fit_are_refused(bench: Bench) -> None:
    for odd in ([], [{"y": np.ones(3)}], [{"x": np.ones((1, 16, 8, 8))}], iter(bench.samples)):
        with pytest.raises(DataError):
            bench.build(calibration=odd)
    assert not bench.output.exists()


def test_where_nothing_can_be_written_nothing_is_computed(bench: Bench) -> None:
    told: list[object] = []
    progress = lambda *step: told.append(step)  # noqa: E731
    bench.output = bench.model.parent / "nowhere" / "net.edge"
    with pytest.raises(BundleError, match="nowhere"):
        bench.build(progress=progress)
    bench.output = bench.model.parent
    with pytest.raises(BundleError, match="folder"):
        bench.build(progress=progress)
    assert told == []


def test_the_model_itself_is_never_overwritten(bench: Bench) -> None:
    before = bench.model.read_bytes()
    bench.output = bench.model
    with pytest.raises(ConfigError, match=r"net\.onnx"):
        bench.build(FP32)
    (bench.model.parent / "link.edge").symlink_to("net.onnx")
    bench.output = bench.model.parent / "link.edge"
    with pytest.raises(ConfigError, match=r"link\.edge"):
        bench.build(FP32)
    assert bench.model.read_bytes() == before


def test_a_model_that_makes_no_numbers_is_refused(bench: Bench) -> None:
    net = Net()
    x = net.conv("c1", net.input("x", models.PICTURE), (16, 16))
    y = net.op("Log", net.op("Mul", x, x, name="square"), name="log")
    zero = net.op("Mul", y, net.constant("zero", 0.0), name="y")
    proto = net.proto(net.op("Div", zero, "zero", name="nothing"))
    bench.model.write_bytes(proto.SerializeToString())
    with pytest.raises(DataError, match=r"'nothing' has NaN or infinite values on sample 1"):
        bench.build()
    assert not bench.output.exists()


def test_a_model_that_is_infinite_itself_is_not_blamed_on_its_precision(bench: Bench) -> None:
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", models.PICTURE), (16, 16)), name="r1")
    proto = net.proto(net.op("Log", net.op("Mul", x, net.constant("zero", 0.0)), name="nothing"))
    bench.model.write_bytes(proto.SerializeToString())
    with pytest.raises(DataError, match=r"Output 'nothing' of \S+ itself is NaN or infinite"):
        bench.build(BuildConfig("fp16", backend="cpu"), calibration=bench.samples)
    assert not bench.output.exists()


def test_a_graph_that_onnx_runtime_cannot_load_is_refused(bench: Bench) -> None:
    proto = NETS["residual"]()
    for node in proto.graph.node:
        if node.name == "r1":
            node.domain, node.op_type = "org.example", "Mystery"
    proto.opset_import.append(models.helper.make_opsetid("org.example", 1))
    bench.model.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="Mystery"):
        bench.build(FP32)


# Accuracy.


@pytest.mark.parametrize(
    ("precision", "floor"), [("fp32", 100.0), ("fp16", 55.0), ("bf16", 35.0), ("int8", 30.0)]
)
@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_accuracy_of_the_committed_nets(
    name: str, precision: str, floor: float, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    net = request.getfixturevalue(name)
    images = net.as_input(net.images)
    expected = models.run(net.model.read_bytes(), {"image": images})["logits"]
    np.savez(tmp_path / "calibration.npz", image=net.as_input(net.calibration))
    samples = None if precision == "fp32" else tmp_path / "calibration.npz"
    config = BuildConfig(precision=precision, backend="cpu")
    bundle = build(net.model, config, output=tmp_path / "net.edge", calibration=samples)
    with load(bundle) as session:
        logits = session.run({"image": images})["logits"]
    exact = expected.astype(np.float64)
    sqnr = 10 * np.log10((exact**2).sum() / ((exact - logits) ** 2).sum())
    assert sqnr >= floor
    right, were_right = ((each.argmax(1) == net.labels).mean() for each in (logits, expected))
    assert right >= were_right - 1.5 / len(net.labels)  # One picture may tip either way.


def test_int8_is_integer_arithmetic_whatever_the_cpu(bench: Bench) -> None:
    weight = np.full((64, 16), 127, np.float32)
    weight[:, 1::2] = np.random.default_rng(0).integers(-127, 128, (64, 8))
    weight[0] = 127
    net = Net()
    x = net.input("x", ("n", 64))
    proto = net.proto(net.op("MatMul", x, net.constant("w", weight), name="y"))
    bench.model.write_bytes(proto.SerializeToString())
    levels = np.random.default_rng(1).integers(-127, 128, (8, 64)).astype(np.float32)
    levels[0] = 127  # The largest there is, so that a step is 1.
    bench.samples = [{"x": levels}]
    config = BuildConfig(precision="int8", backend="cpu", calibration=CalibrationConfig("max"))
    with load(bench.build(config)) as session:
        found = session.run({"x": levels})["y"]
    np.testing.assert_array_equal(found, levels.astype(np.int64) @ weight.astype(np.int64))
