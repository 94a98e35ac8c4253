"""The declared protocols: what trtexec and LoadGen have by default, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from edge_runtime.bench.protocols import NAMES, Trtexec, protocol
from edge_runtime.errors import ConfigError

SERVER = {"target_qps": 10.0, "target_latency": 5.0}


def test_trtexec_10_and_11_differ_as_nvidia_says() -> None:
    ten, eleven = protocol("trtexec10").parameters(), protocol("trtexec11").parameters()
    shared = {"warmup": 0.2, "duration": 3.0, "iterations": 10, "streams": 1, "percentile": 99.0}
    changed = ("transfers", "cuda_graph", "spin", "unstable")
    assert {k: v for k, v in ten.items() if k not in changed} == shared
    assert {k: v for k, v in eleven.items() if k not in changed} == shared
    assert [ten[name] for name in changed] == [True, False, False, 0.01]
    assert [eleven[name] for name in changed] == [False, True, True, 0.025]


def test_scenarios_claim_what_mlperf_claims() -> None:
    assert protocol("single-stream").percentile == 90
    assert protocol("multi-stream").percentile == 99
    assert protocol("multi-stream").parameters()["samples_per_query"] == 8
    assert protocol("server", SERVER).percentile == 99


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_a_parameter(name: str) -> None:
    needed = SERVER if name == "server" else {}
    made = protocol(name, {**needed, "streams": 2, "percentile": 99.9})
    parameters = made.parameters()
    assert (parameters["streams"], parameters["percentile"]) == (2, 99.9)
    assert "name" not in parameters
    assert made.percentiles == (90, 95, 99, 99.9)
    assert protocol(name, parameters) == made


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("trtexec12", {}, "trtexec10, trtexec11"),
        ("trtexec10", {"target_qps": 3}, "no setting target_qps"),
        ("server", {"target_qps": 3}, "needs target_latency"),
        ("server", {**SERVER, "target_qps": 0}, "target_qps"),
        ("server", {**SERVER, "seed": -1}, "seed"),
        ("trtexec10", {"duration": 0}, "duration"),
        ("trtexec10", {"duration": float("nan")}, "duration"),
        ("trtexec10", {"duration": "3"}, "duration"),
        ("trtexec10", {"warmup": -1}, "warmup"),
        ("trtexec10", {"streams": 0}, "streams"),
        ("trtexec10", {"streams": True}, "streams"),
        ("trtexec10", {"percentile": 100}, "percentile"),
        ("trtexec10", {"cuda_graph": 1}, "cuda_graph"),
        ("multi-stream", {"samples_per_query": 0}, "samples_per_query"),
        ("end-to-end", {"source": "net"}, "source"),
        ("end-to-end", {"decode": "yolo"}, "decode"),
    ],
)
def test_what_is_no_setting_is_refused(name: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        protocol(name, given)


def test_protocols_do_not_change() -> None:
    made = protocol("trtexec10")
    assert isinstance(made, Trtexec)
    with pytest.raises(AttributeError):
        made.duration = 1.0  # type: ignore[misc]
