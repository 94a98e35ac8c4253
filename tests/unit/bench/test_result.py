"""A result on disk: read as it was written, and refused in one line if it is anything else."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.bench.result import MEASURED, BenchResult, Samples, Subject
from edge_runtime.bench.statistics import early_stopping, summarize
from edge_runtime.errors import DataError

SUBJECT = Subject(
    bundle="digits.edge",
    bundle_digest="sha256:" + "0" * 64,
    model="digits.onnx",
    model_digest="sha256:" + "1" * 64,
    precision="int8",
    backend="cpu",
    device="",
    cpu_mode="exact",
    threads=0,
    shapes={"image": (1, 1, 16, 16), "scalar": ()},
    batch=1,
    streams=1,
)


def result(count: int = 20, **changes: Any) -> BenchResult:
    start = np.arange(count) / 1000
    latency = np.linspace(0.5, 0.9, count)
    made = BenchResult(
        protocol="trtexec10",
        parameters={"duration": 3.0, "percentile": 95.0},
        subject=SUBJECT,
        samples=Samples(start=start, latency=latency, compute=latency),
        walltime=0.02,
        samples_per_query=4,
        warmup=3,
        created="2026-11-22T21:30:00Z",
        version="0.1",
        warnings=("a sentence",),
        load_before=(0.1, 0.2, 0.3),
        conditions={"board": {"jetson": None}},
        telemetry={"readings": [{"seconds": -0.1}]},
    )
    return replace(made, **changes)


numbers = st.lists(st.floats(0, 1e9), min_size=3, max_size=3).map(np.array)


OTHERS = dict.fromkeys(MEASURED[1:], numbers)


@given(series=st.fixed_dictionaries({"latency": numbers}, optional=OTHERS))
def test_what_is_saved_is_loaded_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, series: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("result") / "r.json"
    made = result(samples=Samples(start=np.arange(3.0), **series))
    made.save(path)
    found = BenchResult.load(path)
    assert found.to_json() == made.to_json()
    for field in fields(Samples):
        ours, theirs = getattr(made.samples, field.name), getattr(found.samples, field.name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert theirs.dtype == np.float64
            np.testing.assert_array_equal(ours, theirs)


def test_figures_follow_from_the_samples() -> None:
    made = result()
    plain = made.to_json()["summary"]
    assert made.throughput == plain["throughput"] == 20 / 0.02
    assert made.samples_per_second == plain["samples_per_second"] == 80 / 0.02
    assert plain["latency"] == summarize(made.samples.latency).to_json()
    assert plain["early_stopping"] == early_stopping(made.samples.latency, 95).to_json()
    assert plain["h2d"] is None
    assert made.summary("h2d") is None


def test_the_figures_in_a_file_are_not_trusted(tmp_path: Path) -> None:
    plain = result().to_json()
    plain["summary"]["throughput"] = 1e9
    assert load(tmp_path, plain).throughput == 1000


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("format",), "a cake", "is no result"),
        (("schema",), 99, "has schema 99"),
        (("walltime",), 0, "walltime"),
        (("walltime",), "0.1", "walltime"),
        (("samples", "latency"), [1.0], "1 values for 20 queries"),
        (("samples", "latency"), ["1"] * 20, "list of numbers"),
        (("samples", "latency"), [True] * 20, "list of numbers"),
        (("samples", "compute"), [-1.0] * 20, "below 0"),
        (("samples", "start"), [], "no query"),
        (("subject", "bundle_digest"), "sha256:1", "bundle_digest"),
        (("subject", "shapes", "image"), [1, -1], "shapes.image"),
        (("created",), "yesterday", "created"),
        (("parameters", "percentile"), 100, "percentile"),
        (("odd",), 1, "odd"),
    ],
)
def test_another_file_is_refused_in_one_line(
    tmp_path: Path, path: tuple[str, ...], value: object, words: str
) -> None:
    plain = result().to_json()
    place = plain
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(DataError) as refused:
        load(tmp_path, plain)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@given(cut=st.integers(0, 400))
def test_a_damaged_file_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("result") / "r.json"
    result().save(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError):
        BenchResult.load(path)


def load(folder: Path, plain: object) -> BenchResult:
    path = folder / "r.json"
    path.write_text(json.dumps(plain))
    return BenchResult.load(path)
