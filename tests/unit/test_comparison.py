"""Two models on the same samples: the figures, and what cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from edge_runtime.building import build
from edge_runtime.comparison import compare, declared_preprocessing, open_any
from edge_runtime.config import BuildConfig
from edge_runtime.data import ImageFolder
from edge_runtime.errors import BundleError, ConfigError, DataError, ModelError
from edge_runtime.vision.preprocess import Preprocessing
from tests import models
from tests.models import NETS, Net


def scaler(factor: float, *, size: int | str = 4) -> ModelProto:
    """y = factor * x, and z = x + 1."""
    net = Net()
    x = net.input("x", ("n", size))
    y = net.op("Mul", x, net.constant("factor", factor), name="y")
    return net.proto(y, net.op("Add", x, net.constant("one", 1.0), name="z"))


Save = Callable[[str, ModelProto], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(name: str, proto: ModelProto) -> Path:
        (tmp_path / name).write_bytes(proto.SerializeToString())
        return tmp_path / name

    return write


def samples(count: int = 3, size: int = 4) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [{"x": random.standard_normal((2, size)).astype(np.float32)} for _ in range(count)]


def test_the_figures_are_those_of_all_samples(save: Save) -> None:
    data = samples()
    result = compare(save("a.onnx", scaler(2.0)), save("b.onnx", scaler(2.5)), data)
    x = np.concatenate([each["x"] for each in data]).astype(np.float64)
    assert result.samples == 3
    assert list(result.outputs) == ["y", "z"]
    figures = result.outputs["y"]
    assert figures.max_error == pytest.approx(0.5 * np.abs(x).max())
    assert figures.mean_error == pytest.approx(0.5 * np.abs(x).mean())
    assert figures.sqnr_db == pytest.approx(10 * np.log10(2**2 / 0.5**2))  # 2x beside 0.5x.
    assert figures.cosine == pytest.approx(1.0)
    assert figures.top1 == 1.0
    assert result.outputs["z"].equal
    assert result.outputs["z"].sqnr_db is None
    plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert plain["samples"] == 3
    assert plain["outputs"]["y"]["sqnr_db"] == pytest.approx(figures.sqnr_db)


def test_the_reference_is_the_first_one(save: Save) -> None:
    two, three = save("a.onnx", scaler(2.0)), save("b.onnx", scaler(3.0))
    forth, back = compare(two, three, samples()), compare(three, two, samples())
    assert forth.outputs["y"].sqnr_db == pytest.approx(10 * np.log10(4))
    assert back.outputs["y"].sqnr_db == pytest.approx(10 * np.log10(9))


def test_a_bundle_is_compared_with_its_model(save: Save, tmp_path: Path) -> None:
    model = save("net.onnx", NETS["residual"]())
    data = [models.feeds(NETS["residual"](), seed) for seed in range(4)]
    config = BuildConfig(precision="int8", backend="cpu")
    build(model, config, output=tmp_path / "net.edge", calibration=data)
    (figures,) = compare(model, tmp_path / "net.edge", data).outputs.values()
    assert 20 < figures.sqnr_db < 60
    (figures,) = compare(tmp_path / "net.edge", tmp_path / "net.edge", data).outputs.values()
    assert figures.equal


def test_a_limit_takes_evenly_spaced_samples(save: Save) -> None:
    told: list[tuple[str, int, int]] = []
    model = save("a.onnx", scaler(2.0))
    result = compare(model, model, samples(10), limit=4, progress=lambda *step: told.append(step))
    assert result.samples == 4
    assert [step[1:] for step in told] == [(i, 4) for i in (1, 2, 3, 4)]


# Pictures.


def test_a_bundle_brings_its_preprocessing(tmp_path: Path, digits: object) -> None:
    (tmp_path / "pictures").mkdir()
    for i, picture in enumerate(digits.calibration[:3]):
        cv2.imwrite(str(tmp_path / f"pictures/{i}.png"), picture)
    with pytest.raises(ConfigError, match="preprocess"):
        compare(digits.model, digits.model, tmp_path / "pictures")
    declared = Preprocessing(size=16, color="gray")
    config = BuildConfig(precision="int8", backend="cpu")
    pictures = ImageFolder(tmp_path / "pictures", declared)
    build(digits.model, config, output=tmp_path / "n.edge", calibration=pictures)
    assert declared_preprocessing(tmp_path / "n.edge") == declared
    assert declared_preprocessing(digits.model) is None
    for pair in ((digits.model, tmp_path / "n.edge"), (tmp_path / "n.edge", digits.model)):
        assert compare(*pair, tmp_path / "pictures").samples == 3
    given = compare(digits.model, digits.model, tmp_path / "pictures", preprocessing=declared)
    assert given.outputs["logits"].equal


# What cannot be compared.


def renamed(kind: str) -> ModelProto:
    proto = scaler(2.0)
    value = getattr(proto.graph, kind)[0]
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = ["new" if name == value.name else name for name in names]
    value.name = "new"
    return proto


def lacking_output() -> ModelProto:
    proto = scaler(2.0)
    del proto.graph.output[1], proto.graph.node[1]
    return proto


def integers() -> ModelProto:
    net = Net()
    x = net.op("Cast", net.input("x", ("n", 4), TensorProto.INT64), name="c", to=TensorProto.FLOAT)
    return net.proto(net.op("Neg", x, name="y"), net.op("Abs", x, name="z"))


@pytest.mark.parametrize(
    "proto", [renamed("input"), renamed("output"), lacking_output(), integers()]
)
def test_models_with_other_inputs_or_outputs_are_refused(save: Save, proto: ModelProto) -> None:
    first, second = save("a.onnx", scaler(2.0)), save("b.onnx", proto)
    with pytest.raises(ConfigError) as caught:
        compare(first, second, samples())
    for word in (str(first), str(second), "float32[?, 4]"):
        assert word in str(caught.value)


def test_a_sample_that_one_of_them_cannot_take_is_named(save: Save) -> None:
    first, second = save("a.onnx", scaler(2.0, size="k")), save("b.onnx", scaler(2.0, size=4))
    data = [*samples(2), *samples(1, size=5)]
    with pytest.raises(DataError) as caught:
        compare(first, second, data)
    assert "Sample 3" in str(caught.value)
    assert str(second) in str(caught.value)
    assert "float32[?, 4]" in str(caught.value)


def reversed_rows() -> ModelProto:
    net = Net()
    x = net.input("x", ("n", 4))
    y = net.op("Transpose", x, name="y", perm=[1, 0])
    return net.proto(y, net.op("Add", x, net.constant("one", 1.0), name="z"))


def test_outputs_of_other_shapes_are_named(save: Save) -> None:
    with pytest.raises(DataError) as caught:
        compare(save("a.onnx", scaler(2.0)), save("b.onnx", reversed_rows()), samples())
    for word in ("Sample 1", "'y'", "[2, 4]", "[4, 2]"):
        assert word in str(caught.value)


def test_outputs_that_are_not_numbers_are_named(save: Save) -> None:
    data = samples()
    data[1]["x"][0, 0] = 3e38
    with pytest.raises(DataError, match=r"Sample 2, output 'y'.*infinite"):
        compare(save("a.onnx", scaler(2.0)), save("b.onnx", scaler(0.5)), data)


def test_files_that_are_neither_are_refused(save: Save, tmp_path: Path) -> None:
    model = save("a.onnx", scaler(2.0))
    (tmp_path / "text.onnx").write_text("neither", encoding="utf-8")
    with pytest.raises(ModelError, match=r"text\.onnx"):
        compare(model, tmp_path / "text.onnx", samples())
    (tmp_path / "zip.edge").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(BundleError, match=r"zip\.edge"):
        compare(tmp_path / "zip.edge", model, samples())
    with pytest.raises((DataError, BundleError), match="missing"):
        compare(tmp_path / "missing.edge", model, samples())


def test_a_model_is_compared_as_it_is(save: Save) -> None:
    with open_any(save("a.onnx", scaler(2.0))) as session:
        assert session.backend == "cpu"
        assert [spec.name for spec in session.outputs] == ["y", "z"]


def test_the_other_one_runs_in_the_mode_asked_for_and_the_reference_in_exact(
    save: Save, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    data = [{"x": random.standard_normal((1, 16, 8, 8), dtype=np.float32)} for _ in range(3)]
    config = BuildConfig(precision="int8", cpu_mode="fast", backend="cpu")
    bundle = build(
        save("net.onnx", NETS["residual"]()),
        config,
        output=tmp_path / "net.edge",
        calibration=data,
    ).path
    [same] = compare(bundle, bundle, data).outputs.values()
    assert same.equal
    [near] = compare(bundle, bundle, data, cpu_mode="fast").outputs.values()
    assert not near.equal
    assert near.sqnr_db is not None
    assert near.sqnr_db > 20
    with pytest.raises(
        ConfigError, match=r"net\.onnx is none\. Build one with: .*--cpu-mode fast$"
    ):
        compare(bundle, tmp_path / "net.onnx", data, cpu_mode="fast")
    with pytest.raises(ConfigError, match="it must be cpu or openvino"):
        compare(bundle, bundle, data, device="tensorrt")


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_the_other_one_may_run_on_openvino(save: Save) -> None:
    path = save("scaler.onnx", scaler(3.0))
    figures = compare(path, path, samples(), device="openvino").outputs["y"]
    assert figures.max_error < 1e-5
