"""The layers as a result keeps them."""

from __future__ import annotations

import json

import pytest

from edge_runtime.bench import bounds
from edge_runtime.bench.layers import Layer, LayerProfile
from edge_runtime.bench.roofline import AGX_ORIN_64

HEAVY = Layer("heavy", "Conv", ("c",), 40.0, 2.0, 2.0, 10**9, 1000, 1000, "int8")
LIGHT = Layer("light", "Relu", ("r",), 20.0, 1.0, 1.0, 0, 0, 10**6, None)
UNKNOWN = Layer("copy", "", (), 20.0, 1.0, 1.0, None, None, None, None)
PROFILE = LayerProfile("tensorrt", 20, (LIGHT, HEAVY, UNKNOWN), {})


def test_rows_say_what_bounds_each_layer_on_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "machine_peaks", lambda backend, threads: AGX_ORIN_64)
    light, heavy, unknown = bounds.layer_rows(PROFILE)
    assert [row["bound"] for row in (light, heavy, unknown)] == ["memory", "compute", None]
    assert heavy["share"] == 0.5
    assert heavy["nodes"] == ["c"]
    assert "DS-10662" in heavy["peaks"]
    json.dumps([light, heavy, unknown], allow_nan=False)


def test_nothing_is_guessed_of_a_gpu_without_published_peaks() -> None:
    for row in bounds.layer_rows(PROFILE):
        assert (row["bound"], row["roof_share"], row["peaks"]) == (None, None, None)
        assert row["share"] > 0


def test_a_cpu_is_measured() -> None:
    profile = LayerProfile("cpu", 20, (LIGHT, HEAVY), {})
    light, heavy = bounds.layer_rows(profile, threads=1)
    assert light["bound"] == "memory"
    assert heavy["bound"] is None  # INT8: NumPy does not tell.
    assert "measured" in light["peaks"]
