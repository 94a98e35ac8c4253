"""The roofline: bounds worked out by hand, the published figures, and a measurement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.bench.layers import Layer, LayerProfile
from edge_runtime.bench.roofline import (
    COMPUTE,
    MEMORY,
    Bound,
    Peaks,
    bound,
    measured_peaks,
    published_peaks,
    roofline,
    roofline_table,
)

GIB = 2**30
# In a millisecond: a million bytes, ten million INT8 or five million FP16 operations.
PEAKS = Peaks("a machine", "a test", 1e9, {"int8": 1e10, "fp16": 5e9})


def layer(
    name: str = "a",
    *,
    ms: float = 4.0,
    macs: int | None = 0,
    moved: int | None = 0,
    precision: str | None = "int8",
) -> Layer:
    return Layer(name, "Conv", (name,), 2 * ms, ms, ms, macs, 0, moved, precision)


def test_a_layer_is_bound_by_what_takes_longer() -> None:
    moving = layer(macs=5_000_000, moved=2_000_000)
    assert bound(moving, PEAKS) == Bound(MEMORY, 2.0, 0.5)
    computing = layer(macs=15_000_000, moved=2_000_000)
    assert bound(computing, PEAKS) == Bound(COMPUTE, 3.0, 0.75)
    half = layer(macs=5_000_000, moved=1_000_000, precision="fp16")
    assert bound(half, PEAKS) == Bound(COMPUTE, 2.0, 0.5)


def test_a_layer_that_multiplies_nothing_is_bound_by_the_memory() -> None:
    assert bound(layer(moved=1_000_000, precision=None), PEAKS) == Bound(MEMORY, 1.0, 0.25)


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert bound(layer(macs=None, moved=1), PEAKS) is None
    assert bound(layer(macs=1, moved=None), PEAKS) is None
    assert bound(layer(macs=1, moved=1, precision="fp32"), PEAKS) is None
    assert bound(layer(macs=1, moved=1, precision=None), PEAKS) is None
    untimed = bound(layer(moved=1_000_000, ms=0.0), PEAKS)
    assert untimed == Bound(MEMORY, 1.0, None)


def test_all_layers_together() -> None:
    layers = (
        layer("wide", ms=4.0, macs=15_000_000, moved=0),
        layer("copy", ms=1.0, moved=500_000),
        layer("odd", ms=7.0, macs=None),
    )
    found = roofline(LayerProfile("cpu", 2, layers, {}), PEAKS)
    assert found.milliseconds == {MEMORY: 1.0, COMPUTE: 4.0, "unknown": 7.0}
    assert found.total == Bound(COMPUTE, 3.5, 0.7)
    rows = roofline_table(LayerProfile("cpu", 2, layers, {}), found)
    assert [(row["name"], row["bound"], row["roof_share"]) for row in rows] == [
        ("odd", None, None),
        ("wide", COMPUTE, 0.75),
        ("copy", MEMORY, 0.5),
    ]
    plain = found.to_json()
    assert plain["bounds"][2] is None
    assert plain["total"] == {"kind": COMPUTE, "roof_ms": 3.5, "share": 0.7}
    assert plain["peaks"]["source"] == "a test"


def test_two_layers_of_one_name_keep_their_own_bounds() -> None:
    layers = (layer("a", ms=4.0, moved=1_000_000), layer("a", ms=2.0, moved=1_000_000))
    profile = LayerProfile("tensorrt", 2, layers, {})
    rows = roofline_table(profile, roofline(profile, PEAKS))
    assert [row["roof_share"] for row in rows] == [0.25, 0.5]


def test_a_profile_of_which_nothing_is_known_has_no_total() -> None:
    found = roofline(LayerProfile("cpu", 1, (layer(macs=None),), {}), PEAKS)
    assert found.total is None
    assert roofline(LayerProfile("cpu", 1, (), {}), PEAKS).total is None


@given(
    st.integers(0, 10**12),
    st.integers(1, 10**12),
    st.sampled_from(["int8", "fp16"]),
    st.floats(1e-3, 1e3),
)
def test_the_intensity_decides(macs: int, moved: int, precision: str, ms: float) -> None:
    one = layer(macs=macs, moved=moved, precision=precision, ms=ms)
    found = bound(one, PEAKS)
    assert found is not None
    assert one.intensity is not None
    ridge = PEAKS.operations_per_second[precision] / PEAKS.bytes_per_second
    if abs(one.intensity / ridge - 1) > 1e-9:
        assert found.kind == (COMPUTE if one.intensity > ridge else MEMORY)
    assert found.share == pytest.approx(found.roof_ms / ms)


BOARDS = [
    ("NVIDIA Jetson AGX Orin Developer Kit", 61.3, "AGX Orin 64GB", 204.8, 85),
    ("NVIDIA Jetson AGX Orin Developer Kit", 29.8, "AGX Orin 32GB", 204.8, 54),
    ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", 15.3, "Orin NX 16GB", 102, 30),
    ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", 7.4, "Orin NX 8GB", 102, 25),
    ("NVIDIA Jetson Orin Nano Developer Kit", 7.3, "Orin Nano 8GB", 68, 20),
    ("NVIDIA Jetson Orin Nano Developer Kit", 3.4, "Orin Nano 4GB", 34, 10),
    (
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        *(7.4, "Orin Nano 8GB Super", 102, 33.5),
    ),
    ("NVIDIA Jetson AGX Xavier Developer Kit", 30.9, "AGX Xavier 32GB", 136.5, 22),
    ("NVIDIA Jetson Xavier NX Developer Kit", 7.6, "Xavier NX 8GB", 59.7, None),
    ("NVIDIA Jetson AGX Thor Developer Kit", 122.8, "T5000", 273, None),
]


@pytest.mark.parametrize(("board", "memory", "name", "gigabytes", "tops"), BOARDS)
def test_a_board_s_figures(
    board: str, memory: float, name: str, gigabytes: float, tops: float | None
) -> None:
    peaks = published_peaks(board, int(memory * GIB))
    assert peaks is not None
    assert peaks.name == f"Jetson {name}"
    assert peaks.bytes_per_second == gigabytes * 1e9
    operations = peaks.operations_per_second
    assert operations.get("int8") == (None if tops is None else tops * 1e12)
    assert operations.get("fp16") == (None if tops is None else tops / 2 * 1e12)
    assert "NVIDIA" in peaks.source
    assert not peaks.measured


# Tensor cores and their highest clock in GHz, as the data sheets list them.
CLOCKS = [("AGX Orin", 64, 64, 1.3), ("AGX Orin", 32, 56, 0.939), ("Orin NX", 16, 32, 0.918)]
CLOCKS += [("Orin NX", 8, 32, 0.765), ("Orin Nano", 8, 32, 0.625), ("Orin Nano", 4, 16, 0.625)]


@pytest.mark.parametrize(("board", "size", "cores", "clock"), CLOCKS)
def test_figures_agree_with_tensor_cores_and_clocks(
    board: str, size: int, cores: int, clock: float
) -> None:
    peaks = published_peaks(f"NVIDIA Jetson {board}", int(0.93 * size * GIB))
    assert peaks is not None
    # A tensor core of Orin does 512 INT8 multiply-accumulates a cycle.
    expected = cores * 1024 * clock * 1e9
    assert peaks.operations_per_second["int8"] == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("board", "memory"),
    [
        ("NVIDIA Jetson Nano Developer Kit", 4),
        ("NVIDIA Jetson AGX Orin Industrial", 62),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super", 15),
        ("NVIDIA Jetson AGX Orin Developer Kit", 8),
        ("", 62),
    ],
)
def test_a_board_without_figures_has_none(board: str, memory: int) -> None:
    assert published_peaks(board, memory * GIB) is None


def test_a_measurement_says_so() -> None:
    peaks = measured_peaks("the CPU", threads=1)
    assert peaks.measured
    assert "measured" in peaks.source
    assert peaks.source.endswith("on one core, times 1")
    # Whatever the machine, and however busy: more than a tape, and less than a data centre.
    assert 1e8 < peaks.bytes_per_second < 1e13
    assert 1e8 < peaks.operations_per_second["fp32"] < 1e14
    assert peaks.to_json()["measured"] is True
