"""`edge-runtime calibrate`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from tests.models import Net

ORIGINAL = ("calibrate", "model.onnx", "--data", "calibration.npz", "--no-equalize")
CALIBRATE = ("calibrate", "model.onnx", "--data", "calibration.npz")


def test_ranges_are_kept_under_the_model_s_name(run, folder: Path) -> None:
    result = run(*CALIBRATE, "--method", "max")
    assert result.exit_code == 0, result.stderr
    assert "Wrote model.calibration.json" in result.stdout
    cache = CalibrationCache.load("model.calibration.json")
    assert (cache.method, cache.samples) == ("max", 16)
    assert all(bounds.amax == bounds.observed for bounds in cache.ranges.values())


def test_options_reach_the_calibrator(run, folder: Path) -> None:
    pictures = ("calibrate", "model.onnx", "--data", "pictures", "--limit", 3)
    run(
        *(*pictures, "--preprocess", "size=16,color=gray", "-o", "a.json"),
        *("--method", "percentile", "--percentile", 90),
    )
    cache = CalibrationCache.load("a.json")
    assert (cache.method, cache.samples) == ("percentile", 3)
    assert any(bounds.amax < bounds.observed / 2 for bounds in cache.ranges.values())
    run(*CALIBRATE, "-o", "b.json", "--exclude", "node_Conv_180")
    assert cache.ranges.keys() - CalibrationCache.load("b.json").ranges.keys() == {"image"}


def test_every_method_and_switch_reaches_the_calibrator(run, folder: Path) -> None:
    result = run(*CALIBRATE, "--method", "auto", "--percentile", 90, "-o", "a.json")
    assert result.exit_code == 0, result.stderr
    cache = CalibrationCache.load("a.json")
    assert cache.method == "auto"
    assert {bounds.method for bounds in cache.ranges.values()} - {""}
    assert "taken" in result.stdout
    assert cache.means
    run(*CALIBRATE, "-o", "b.json", "--no-equalize", "--no-bias-correction")
    cache = CalibrationCache.load("b.json")
    assert (dict(cache.equalization), dict(cache.means)) == ({}, {})


def test_how_many_tensors_were_equalized_is_said(run, unequal: Path) -> None:
    result = run("calibrate", unequal, "--data", "unequal.npz", "-o", "a.json")
    assert result.exit_code == 0, result.stderr
    count = len(CalibrationCache.load("a.json").equalization)
    assert count
    assert f"the channels of {count} tensor" in result.stdout


def test_findings_are_printed(run, folder: Path) -> None:
    result = run(*CALIBRATE, "--limit", 1, "-o", "a.json")
    assert "Only 1 sample: ranges are what that one showed" in " ".join(result.stdout.split())
    result = run(*CALIBRATE, "--limit", 1, "-o", "a.json", "--json")
    assert json.loads(result.stdout)["findings"] == list(CalibrationCache.load("a.json").findings)


def test_tensorrt_s_cache_of_equalized_channels_is_refused(run, unequal: Path) -> None:
    arguments = ("calibrate", unequal, "--data", "unequal.npz", "-o", "a.json")
    result = run(*arguments, "--trt-cache", "a.cache")
    assert result.exit_code == 1
    assert "--no-equalize" in result.stderr
    assert not Path("a.json").exists()
    assert not Path("a.cache").exists()
    result = run(*arguments, "--trt-cache", "a.cache", "--no-equalize")
    assert result.exit_code == 0, result.stderr
    assert Path("a.cache").exists()


@pytest.fixture
def unequal(folder: Path) -> Path:
    """A net with channels of very unequal ranges, and samples for it in unequal.npz."""
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("x", (1, 16, 8, 8)), (16, 16)), name="r1")
    y = net.conv("c2", x, (16, 16))
    factors = np.geomspace(0.02, 20, 16).astype(np.float32)
    for tensor in net.initializers:
        shaped = {"c1.w": factors.reshape(-1, 1, 1, 1), "c1.b": factors}.get(tensor.name)
        if tensor.name == "c2.w":  # What the net computes stays as it is.
            shaped = 1 / factors.reshape(1, -1, 1, 1)
        if shaped is not None:
            value = numpy_helper.to_array(tensor) * shaped
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(net.proto(y), "unequal.onnx")
    random = np.random.default_rng(0)
    np.savez("unequal.npz", x=random.standard_normal((32, 16, 8, 8)).astype(np.float32))
    return Path("unequal.onnx")


def test_tensorrt_s_cache_goes_there_and_back(run, folder: Path) -> None:
    result = run(*ORIGINAL, "-o", "a.json", "--trt-cache", "a.cache", "--trt-version", "8.6.2")
    assert "Wrote a.json and a.cache" in result.stdout
    assert Path("a.cache").read_text().startswith("TRT-8602-EntropyCalibration2\n")
    with open("a.cache", "a") as file:
        file.write("of another graph: 3c010204\n")
    result = run("calibrate", "model.onnx", "--from-trt-cache", "a.cache", "-o", "b.json")
    assert result.exit_code == 0, result.stderr
    assert "1 that the model does not need: of another graph" in result.stdout
    first, second = CalibrationCache.load("a.json"), CalibrationCache.load("b.json")
    assert (second.method, second.samples, second.data_digest) == ("EntropyCalibration2", 0, None)
    assert first.ranges.keys() == second.ranges.keys()
    for name, bounds in first.ranges.items():
        assert second.ranges[name].amax == pytest.approx(bounds.amax, rel=1e-6)
    result = run("build", "model.onnx", "--precision", "int8", "--calibration", "b.json")
    assert result.exit_code == 0, result.stderr


def test_a_tensorrt_cache_that_lacks_tensors_is_refused(run, folder: Path) -> None:
    run(*ORIGINAL, "-o", "a.json", "--trt-cache", "a.cache")
    lines = Path("a.cache").read_text().splitlines(keepends=True)
    Path("a.cache").write_text("".join(lines[:-1]))
    missing = lines[-1].rpartition(": ")[0]
    result = run("calibrate", "model.onnx", "--from-trt-cache", "a.cache", "-o", "b.json")
    assert result.exit_code == 1
    assert f"no range for 1 of the {len(lines) - 1} tensors" in result.stderr
    assert repr(missing) in result.stderr
    assert not Path("b.json").exists()


def test_json_says_what_was_written(run, folder: Path) -> None:
    result = run(*ORIGINAL, "-o", "a.json", "--trt-cache", "a.cache", "--json")
    plain = json.loads(result.stdout)
    assert plain["written"] == ["a.json", "a.cache"]
    assert plain["tensors"] == len(CalibrationCache.load("a.json").ranges)
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["calibrate", "model.onnx"], "--data or --from-trt-cache"),
        ([*CALIBRATE, "--from-trt-cache", "a.cache"], "--data or --from-trt-cache"),
        ([*CALIBRATE, "--trt-version", "8.6.2"], "--trt-version needs --trt-cache"),
        ([*CALIBRATE, "--percentile", "99"], "--percentile is for --method percentile"),
        ([*CALIBRATE, "-o", "calibration.npz"], "calibration.npz is read"),
        (
            ["calibrate", "model.onnx", "--from-trt-cache", "a.cache", "--method", "max"],
            "--method does nothing beside --from-trt-cache",
        ),
        (
            ["calibrate", "model.onnx", "--from-trt-cache", "a.cache", "--limit", "3"],
            "--limit does nothing beside --from-trt-cache",
        ),
        (
            ["calibrate", "model.onnx", "--from-trt-cache", "a.cache", "--no-equalize"],
            "--equalize does nothing beside --from-trt-cache",
        ),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(
    run, folder: Path, arguments: list[str], words: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*CALIBRATE, "-o", "nosuch/a.json"], "nosuch/a.json: no such file or directory"),
        ([*CALIBRATE, "--trt-cache", "nosuch/a.cache"], "nosuch/a.cache: no such file"),
        ([*CALIBRATE, "--trt-cache", "a.cache", "--trt-version", "ten"], "'ten'"),
        (["calibrate", "model.onnx", "--from-trt-cache", "test.npz"], "test.npz is not text"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(
    run, folder: Path, arguments: list[str], words: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Calibrating" not in result.stderr
    assert list(folder.glob("*.json")) == []
