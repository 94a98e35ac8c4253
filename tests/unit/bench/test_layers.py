"""The layer profile: every node accounted for, sums and shares, JSON, trtexec's form."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.backends.base import LayerTime
from edge_runtime.backends.onnx_graph import read_graph
from edge_runtime.backends.registry import cpu_graph
from edge_runtime.bench.layers import (
    FOLDED,
    UNKNOWN,
    Layer,
    LayerProfile,
    export_profile,
    profile,
    table,
)
from edge_runtime.building import build
from edge_runtime.bundle import Bundle
from edge_runtime.config import BuildConfig, CpuMode
from edge_runtime.errors import ConfigError, DataError, FeedError
from edge_runtime.session import load
from edge_runtime.tensors import Feeds
from tests import models

FEEDS = {"x": np.ones((2, 16, 8, 8), np.float32)}
MACS = 2 * 16 * 64 * 16 * 9  # Of each of the four convolutions.


@pytest.fixture(scope="module", params=["fp32", "fp16", "int8"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp(request.param)
    (folder / "net.onnx").write_bytes(models.residual().SerializeToString())
    cpu_mode = "fast" if request.param == "int8" else "exact"
    config = BuildConfig(precision=request.param, backend="cpu", cpu_mode=cpu_mode)
    random = np.random.default_rng(0)
    samples = [{"x": random.standard_normal((2, 16, 8, 8)).astype("f4")} for _ in range(4)]
    data = None if request.param == "fp32" else samples
    return build(folder / "net.onnx", config, output=folder / "net.edge", calibration=data)


def profiled(bundle: Bundle, cpu_mode: str = "exact", device: str = "cpu") -> LayerProfile:
    with load(bundle, device=device, threads=1, cpu_mode=cpu_mode) as session:
        found = profile(session, bundle, FEEDS, runs=4, cpu_mode=cpu_mode)
        session.run(FEEDS)
    return found


def modes(bundle: Bundle) -> list[str]:
    return ["exact", "fast"] if bundle.precision == "int8" else ["exact"]


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_every_node_has_a_time_or_a_reason_why_not(bundle: Bundle, device: str) -> None:
    if device == "openvino" and find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    for mode in modes(bundle):
        found = profiled(bundle, mode, device)
        graph = read_graph(bundle.read(cpu_graph(bundle, CpuMode(mode))))
        timed = {name for layer in found.layers for name in layer.nodes}
        assert timed | found.absent.keys() == {node.label for node in graph.nodes}
        assert timed.isdisjoint(found.absent)
        assert set(found.absent.values()) <= {FOLDED, UNKNOWN}
        assert (found.backend, found.runs) == (device, 4)
        assert all(layer.median_ms >= 0 for layer in found.layers)
        assert found.milliseconds > 0


def test_the_cpu_s_layers_are_all_known_and_their_work_adds_up(bundle: Bundle) -> None:
    for mode in modes(bundle):
        found = profiled(bundle, mode)
        assert UNKNOWN not in found.absent.values()
        assert sum(layer.macs or 0 for layer in found.layers) == 4 * MACS
        convs = [layer for layer in found.layers if layer.op == "Conv"]
        (c1,) = (layer for layer in convs if "c1" in layer.nodes)
        assert c1.precision == ("int8" if mode == "fast" else "fp32")
        assert all(layer.bytes and layer.intensity for layer in convs)
        # What has no node of the graph has no work that one could know.
        assert all(layer.macs is None for layer in found.layers if not layer.nodes)


def test_int8_that_is_fused_moves_a_quarter(bundle: Bundle) -> None:
    if bundle.precision != "int8":
        return
    exact, fast = (
        next(layer for layer in profiled(bundle, mode).layers if "c1" in layer.nodes)
        for mode in modes(bundle)
    )
    assert exact.activation_bytes == 4 * 2 * (2 * 16 * 64)
    assert fast.activation_bytes == 2 * (2 * 16 * 64)
    assert fast.intensity is not None
    assert exact.intensity is not None
    assert 3 < fast.intensity / exact.intensity < 4


def test_wrong_inputs_and_no_runs_are_refused(bundle: Bundle) -> None:
    with load(bundle, device="cpu", threads=1) as session:
        with pytest.raises(FeedError):
            profile(session, bundle, {})
        with pytest.raises(ConfigError, match="runs is 0"):
            profile(session, bundle, FEEDS, runs=0)


class GpuSession:
    """A session that tells what TensorRT's profiler does: names of fused layers, and times."""

    backend = "tensorrt"

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def layer_times(self, feeds: Feeds, *, runs: int = 1) -> list[LayerTime]:
        return [LayerTime(name, (100.0,) * 3 + (1.0,) * (runs - 3)) for name in self.names]


def on_gpu(bundle: Bundle, names: list[str]) -> LayerProfile:
    session: Any = GpuSession(names)
    return profile(session, bundle, FEEDS, runs=2)


def test_tensorrt_s_layers_are_read_by_the_nodes_that_they_name(bundle: Bundle) -> None:
    if bundle.precision != "int8":
        return
    names = ["c0 + r0", "c1 + r1", "c2 + add + r2", "c3", "Reformatting CopyNode for x"]
    found = on_gpu(bundle, names)
    layers = {layer.name: layer for layer in found.layers}
    c1 = layers["c1 + r1"]
    # Its Q/DQ nodes are in no layer's name, and yet what it moves is INT8.
    assert {"c1", "r1", "c1.w.DequantizeLinear", "r1.QuantizeLinear"} <= set(c1.nodes)
    assert (c1.precision, c1.macs, c1.activation_bytes) == ("int8", MACS, 2 * (2 * 16 * 64))
    assert layers["Reformatting CopyNode for x"].nodes == ()
    assert found.layers[0].mean_ms == 1.0  # The first inferences do not count.
    # Nobody says whether the input is quantized by itself or where it is read.
    assert found.absent == {"x.QuantizeLinear": UNKNOWN}
    assert layers["c0 + r0"].bytes is None


def test_a_region_that_names_no_node_is_unknown_and_so_is_what_it_reads(bundle: Bundle) -> None:
    if bundle.precision != "fp32":
        return
    found = on_gpu(bundle, ["c0 + r0", "{ForeignNode[c1...r2]}", "c3"])
    assert found.absent == dict.fromkeys(("c1", "r1", "c2", "add", "r2"), UNKNOWN)
    first, region, last = found.layers
    assert (region.nodes, region.macs, region.bytes) == ((), None, None)
    assert (first.macs, first.activation_bytes) == (MACS, None)
    assert (last.macs, last.activation_bytes) == (MACS, None)


def layer(name: str, *times: float) -> Layer:
    mean = sum(times) / len(times)
    median = float(np.median(times))
    return Layer(name, "Conv", (name,), sum(times), mean, median, 100, 20, 30, "int8")


LAYERS = (layer("a", 1.0, 1.0, 1.0), layer("b", 7.0, 14.0, 6.0), layer("c", 2.0, 2.0, 2.0))
PROFILE = LayerProfile("cpu", 3, LAYERS, {"d": UNKNOWN})


def test_the_longest_layers_come_first_and_add_up() -> None:
    rows = table(PROFILE)
    assert [row["name"] for row in rows] == ["b", "c", "a"]
    assert [row["share"] for row in rows] == [0.7, 0.2, 0.1]
    assert [row["cumulative"] for row in rows] == pytest.approx([0.7, 0.9, 1.0])
    assert rows[0] | {"name": "b", "macs": 100, "bytes": 50, "intensity": 4.0} == rows[0]


def test_trtexec_s_form() -> None:
    plain = export_profile(PROFILE)
    assert plain[0] == {"count": 3}
    assert plain[2] == {
        "name": "b",
        "timeMs": 27.0,
        "averageMs": 9.0,
        "medianMs": 7.0,
        "percentage": 75.0,
    }
    assert sum(row["percentage"] for row in plain[1:]) == pytest.approx(100)
    assert [row["name"] for row in plain[1:]] == ["a", "b", "c"]


def test_a_profile_without_time_divides_by_nothing() -> None:
    empty = LayerProfile("cpu", 1, (layer("a", 0.0),), {})
    assert table(empty)[0]["share"] == 0
    assert export_profile(empty)[1]["percentage"] == 0
    assert export_profile(replace(empty, layers=())) == [{"count": 1}]


TEXT = st.text(max_size=8)
COUNT = st.none() | st.integers(0, 2**40)
TIME = st.floats(0, 1e6)
ANY_LAYER = st.builds(
    Layer,
    name=TEXT,
    op=TEXT,
    nodes=st.lists(TEXT, max_size=3).map(tuple),
    total_ms=TIME,
    mean_ms=TIME,
    median_ms=TIME,
    macs=COUNT,
    weight_bytes=COUNT,
    activation_bytes=COUNT,
    precision=st.none() | st.sampled_from(["int8", "fp32"]),
)
PROFILES = st.builds(
    LayerProfile,
    backend=st.sampled_from(["cpu", "tensorrt"]),
    runs=st.integers(1, 1000),
    layers=st.lists(ANY_LAYER, max_size=3).map(tuple),
    absent=st.dictionaries(TEXT, st.sampled_from([FOLDED, UNKNOWN]), max_size=3),
)


@given(PROFILES)
def test_a_profile_survives_json(found: LayerProfile) -> None:
    assert LayerProfile.from_json(json.loads(json.dumps(found.to_json()))) == found
    for one in found.layers:
        assert Layer.from_json(json.loads(json.dumps(one.to_json()))) == one


@given(PROFILES)
def test_rows_of_any_profile_hold_together(found: LayerProfile) -> None:
    rows = table(found)
    assert sorted(row["name"] for row in rows) == sorted(one.name for one in found.layers)
    shares = [row["share"] for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert all(0 <= row["cumulative"] <= 1 for row in rows)
    assert not rows or rows[-1]["cumulative"] == pytest.approx(1) or not found.milliseconds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": 0}, "runs"),
        ({"layers": [{}]}, r"layers\[0\] lacks the key"),
        ({"more": 1}, "unknown key"),
        ({"absent": {"a": 1}}, "absent.a"),
    ],
)
def test_json_of_another_kind_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        LayerProfile.from_json({**PROFILE.to_json(), **change})


@pytest.mark.parametrize(
    "change",
    [{"mean_ms": -1.0}, {"macs": -1}, {"macs": 1.5}, {"nodes": "a"}, {"precision": 8}],
)
def test_a_layer_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=next(iter(change))):
        Layer.from_json({**PROFILE.layers[0].to_json(), **change})
