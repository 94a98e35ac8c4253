"""Every protocol on a bundle on the CPU, and what is recorded of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edge_runtime
from edge_runtime.bench.export import export_times
from edge_runtime.bench.harness import Bench, BenchConfig
from edge_runtime.bench.protocols import NAMES, protocol
from edge_runtime.bench.result import BenchResult
from edge_runtime.config import BuildConfig
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.vision.preprocess import Preprocessing
from tests.conftest import Net

SHORT = {
    **{name: {"duration": 0.05, "warmup": 0.01} for name in ("trtexec10", "trtexec11")},
    "end-to-end": {"duration": 0.05, "warmup": 0.01},
    "single-stream": {"min_duration": 0.05, "warmup": 0.01},
    "multi-stream": {"min_duration": 0.02, "warmup": 0.01, "min_queries": 5},
    "offline": {"min_duration": 0.05, "warmup": 0.01},
    "server": {"min_duration": 0.05, "warmup": 0.01, "target_qps": 900.0, "target_latency": 99.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: Net) -> Path:
    """A bundle that says how pictures become its input, and two pictures."""
    folder = tmp_path_factory.mktemp("bench")
    edge_runtime.build(
        digits.model,
        BuildConfig(
            precision="fp16", backend="cpu", profiles={"image": "1x1x16x16,4x1x16x16,8x1x16x16"}
        ),
        output=folder / "digits.edge",
        preprocessing=Preprocessing.from_text("size=16,color=gray"),
    )
    (folder / "pictures").mkdir()
    for index in range(2):
        cv2.imwrite(str(folder / "pictures" / f"{index}.png"), digits.images[index])
    return folder


def config(name: str, folder: Path, **settings: Any) -> BenchConfig:
    given = {key: settings.pop(key) for key in ("decode", "source", "streams") if key in settings}
    if name == "end-to-end":
        settings.setdefault("data", folder / "pictures")
    settings = {"threads": 1, "device": "cpu", "interval": None, **settings}
    return BenchConfig(protocol=protocol(name, {**SHORT[name], **given}), **settings)


def measure(name: str, folder: Path, **settings: Any) -> BenchResult:
    with Bench(folder / "digits.edge", config(name, folder, **settings)) as bench:
        return bench.measure()


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_runs_on_a_cpu(name: str, folder: Path, tmp_path: Path) -> None:
    result = measure(name, folder)
    samples = result.samples
    assert result.protocol == name
    assert result.parameters == protocol(name, SHORT[name]).parameters()
    assert len(samples) >= 5
    assert (samples.latency > 0).all()
    assert (np.diff(samples.start) >= 0).all()
    assert result.walltime >= samples.start[-1]
    assert result.throughput == len(samples) / result.walltime
    assert samples.h2d is samples.d2h is samples.compute_start is None
    assert (samples.compute is None) == (not name.startswith("trtexec"))
    assert (samples.preprocess is None) == (name != "end-to-end")
    assert result.warmup >= 1
    result.save(tmp_path / "r.json")
    assert BenchResult.load(tmp_path / "r.json").to_json() == result.to_json()
    plain(result.to_json())


def plain(value: object) -> None:
    """Fails on what is no plain JSON, such as numpy's numbers: readers of JSON are strict."""
    if isinstance(value, dict):
        for key, item in value.items():
            assert type(key) is str
            plain(item)
    elif isinstance(value, list):
        for item in value:
            plain(item)
    else:
        assert type(value) in (str, int, float, bool, type(None))


def test_what_was_run_is_recorded(folder: Path) -> None:
    subject = measure("trtexec10", folder).subject
    bundle = edge_runtime.Bundle.open(folder / "digits.edge")
    assert (subject.bundle, subject.bundle_digest) == ("digits.edge", bundle.digest)
    assert subject.model_digest == bundle.manifest.model.digest
    assert (subject.precision, subject.backend, subject.cpu_mode) == ("fp16", "cpu", "exact")
    assert subject.shapes == {"image": (4, 1, 16, 16)}  # What a plan would be optimized for.
    assert (subject.batch, subject.threads, subject.streams) == (4, 1, 1)


@pytest.mark.parametrize(("name", "per_query"), [("trtexec10", 2), ("multi-stream", 8)])
def test_samples_are_counted_beside_queries(name: str, per_query: int, folder: Path) -> None:
    result = measure(name, folder, batch=2)
    assert result.samples_per_query == per_query
    assert result.samples_per_second == per_query * len(result.samples) / result.walltime


def test_end_to_end_is_the_sum_of_its_parts(folder: Path) -> None:
    for source in ("disk", "memory"):
        samples = measure("end-to-end", folder, source=source).samples
        assert samples.preprocess is not None
        assert samples.inference is not None
        assert samples.postprocess is not None
        parts = samples.preprocess + samples.inference + samples.postprocess
        np.testing.assert_allclose(parts, samples.latency, atol=1e-6)
        assert min(samples.preprocess.min(), samples.postprocess.min()) > 0
    one = folder / "pictures" / "0.png"
    assert len(measure("end-to-end", folder, data=one).samples) >= 10


def test_end_to_end_decodes_with_the_users_function(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "seen = []\ndef call(outputs):\n    seen.append(outputs['logits'].shape)\n"
    (tmp_path / "decoding.py").write_text(text + "def wrong(outputs):\n    return outputs['x']\n")
    monkeypatch.chdir(tmp_path)
    result = measure("end-to-end", folder, decode="python:decoding:call")
    import decoding  # type: ignore[import-not-found]

    assert len(decoding.seen) == len(result.samples) + result.warmup
    assert set(decoding.seen) == {(1, 10)}
    with pytest.raises(DataError, match="decoding:wrong failed with KeyError"):
        measure("end-to-end", folder, decode="python:decoding:wrong")
    with pytest.raises(ConfigError, match="nothing"):
        measure("end-to-end", folder, decode="python:decoding:nothing")


def test_sensors_are_read_while_it_runs(folder: Path) -> None:
    result = measure("trtexec10", folder, interval=0.01)
    plain(result.to_json())
    seconds = [reading["seconds"] for reading in result.telemetry["readings"]]
    assert len(seconds) >= 3
    assert seconds[0] < 0
    assert seconds[-1] > result.walltime
    assert result.conditions["board"]["cores"] >= 1
    assert measure("trtexec10", folder).telemetry == {}


def test_a_bench_measures_again_and_again(folder: Path) -> None:
    with Bench(folder / "digits.edge", config("single-stream", folder)) as bench:
        first, second = bench.measure(), bench.measure()
    assert first.subject == second.subject
    assert not np.array_equal(first.samples.latency[:5], second.samples.latency[:5])


def test_layers_are_timed_beside_it(folder: Path) -> None:
    with Bench(folder / "digits.edge", config("trtexec10", folder)) as bench:
        layers = bench.profile().layers
    assert len(layers) > 5
    assert all(layer.mean_ms >= 0 for layer in layers)


def test_an_invalid_run_says_why(folder: Path) -> None:
    how = {**SHORT["multi-stream"], "min_queries": 1, "min_duration": 0.001}
    made = BenchConfig(
        protocol=protocol("multi-stream", how), device="cpu", threads=1, interval=None
    )
    with Bench(folder / "digits.edge", made) as bench:
        invalid = [w for w in bench.measure().warnings if w.startswith("INVALID")]
    assert len(invalid) == 1
    assert "662" in invalid[0]


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("end-to-end", {"data": None}, "picture"),
        ("end-to-end", {"batch": 2}, "one picture"),
        ("end-to-end", {"streams": 2}, "streams"),
        ("trtexec10", {"data": Path("x.npz"), "shapes": {"image": (1, 1, 16, 16)}}, "shapes"),
        ("server", {"batch": 2}, "one sample"),
        ("trtexec10", {"device": "gpu"}, "device"),
    ],
)
def test_what_does_not_go_together_is_refused(
    name: str, settings: dict[str, Any], words: str, folder: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        measure(name, folder, **settings)


def test_times_are_exported_in_trtexecs_names(folder: Path, tmp_path: Path) -> None:
    result = measure("trtexec10", folder)
    export_times(result, tmp_path / "t.json")
    rows = json.loads((tmp_path / "t.json").read_text())
    assert len(rows) == len(result.samples)
    names = [
        f"{edge}{phase}Ms"
        for phase in ("Enq", "H2d", "Compute", "D2h")
        for edge in ("start", "end")
    ]
    assert list(rows[0]) == [*names, "h2dMs", "computeMs", "d2hMs", "latencyMs"]
    for row, start, latency in zip(rows, result.samples.start, result.samples.latency, strict=True):
        assert row["startComputeMs"] == row["startEnqMs"] == 1000 * start
        assert row["endComputeMs"] == 1000 * start + latency
        assert row["latencyMs"] == row["computeMs"] == latency
        assert row["h2dMs"] is row["startD2hMs"] is row["endH2dMs"] is None
    with pytest.raises(ConfigError, match="single-stream"):
        export_times(measure("single-stream", folder), tmp_path / "no.json")
    assert not (tmp_path / "no.json").exists()
