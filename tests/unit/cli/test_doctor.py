"""`edge-runtime doctor`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_runtime import doctor
from edge_runtime.doctor import Diagnosis, diagnose
from tests.unit.telemetry.trees import LAPTOP, ORIN, Files, cores, lay


def test_it_says_what_this_machine_has(run) -> None:
    found = diagnose()
    text = run("doctor").stdout
    assert found.board.architecture in text
    assert ["numpy", found.versions["numpy"]] in [line.split() for line in text.splitlines()]
    for backend in found.backends:
        assert backend.name in text
    for advice in found.advice:
        assert " ".join(advice.split()) in " ".join(text.split())


def test_json_is_the_diagnosis(run) -> None:
    printed = json.loads(run("doctor", "--json").stdout)
    found = json.loads(json.dumps(diagnose().to_json()))
    for plain in (printed, found):  # Load, memory and heat are never twice the same.
        del plain["conditions"]["now"], plain["limits"]
    assert printed == found


def on(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Diagnosis:
    """Lets the command diagnose a machine of these files."""
    found = diagnose(lay(tmp_path, files))
    monkeypatch.setattr(doctor, "diagnose", lambda: found)
    return found


def words(text: str) -> str:
    return " ".join(text.split())


def test_it_says_how_a_board_is_now_and_what_limits_it(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = on({**ORIN, "var/lib/nvpmodel/status": "pmode:0002\n"}, tmp_path, monkeypatch)
    text = words(run("doctor").stdout)
    for line in (
        "power mode MODE_30W (2)",
        "clocks GPU 306-1300 MHz EMC 204-3199 MHz CPU 730-2202 MHz",
        "temperatures cpu 48, gpu 45, tj 48 degrees C",
        "power 8.5 W",
        "fan 20%",
        "load average 0.12 0.34 0.56",
        "What limits a benchmark now:",
        *found.limits,
    ):
        assert line in text
    assert len(found.limits) == 2


def test_it_says_nothing_of_what_it_does_not_know(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on({}, tmp_path, monkeypatch)
    text = words(run("doctor").stdout)
    for word in ("power", "clocks", "temperatures", "fan", "load average", "limits"):
        assert word not in text


def test_locked_clocks_are_said_to_be(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on({**LAPTOP, **cores(8, low=2201600)}, tmp_path, monkeypatch)
    text = words(run("doctor").stdout)
    assert "clocks CPU 2202 MHz (locked)" in text
    assert "battery" in text
