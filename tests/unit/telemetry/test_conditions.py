"""The conditions of a benchmark: read, written as JSON, read back."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.errors import DataError
from edge_runtime.strict_json import parse
from edge_runtime.telemetry.conditions import Conditions, read_conditions
from edge_runtime.telemetry.git import read_commit
from edge_runtime.telemetry.readings import Reading
from tests.unit.telemetry.trees import LAPTOP, MACHINES, ORIN, lay, without


def read_back(plain: object) -> Conditions:
    return Conditions.from_json(parse(json.dumps(plain).encode(), where="a.json", error=DataError))


def test_an_orin_in_full(tmp_path: Path) -> None:
    found = read_conditions(lay(tmp_path, ORIN), folder=None)
    assert (found.board.jetpack, found.board.jetson) == (
        "6.2",
        "NVIDIA Jetson AGX Orin Developer Kit",
    )
    assert found.power_mode
    assert found.power_mode.name == "MAXN"
    assert [clock.part for clock in found.clocks] == ["gpu", "emc", "cpu0", "cpu4"]
    assert found.fan == 0.2
    assert found.on_battery is None
    assert found.throttle_points == {"cpu": 99.0, "gpu": 99.0, "tj": 99.0}
    assert found.now.total_watts == pytest.approx(8.4592)
    assert found.commit is None
    assert found.python == platform.python_version()
    assert found.versions["numpy"] == metadata.version("numpy")


def test_a_laptop_knows_its_battery_and_not_that_of_its_mouse(tmp_path: Path) -> None:
    root = lay(tmp_path, LAPTOP)
    assert read_conditions(root, folder=None).on_battery is True
    (root / "sys/class/power_supply/BAT0/status").write_text("Charging\n")
    assert read_conditions(root, folder=None).on_battery is False
    (root / "sys/class/power_supply/BAT0/type").write_text("UPS\n")
    assert read_conditions(root, folder=None).on_battery is None


@pytest.mark.parametrize("name", [*MACHINES, "nothing"])
def test_json_there_and_back(tmp_path: Path, name: str) -> None:
    found = read_conditions(lay(tmp_path, MACHINES.get(name, {})), folder=None)
    assert read_back(found.to_json()) == found


def test_json_there_and_back_of_this_machine() -> None:
    found = read_conditions()
    assert read_back(found.to_json()) == found


def test_a_reading_at_hand_is_taken(tmp_path: Path) -> None:
    now = Reading(5.0, power={"VIN": 3.0})
    assert read_conditions(tmp_path, folder=None, now=now).now is now


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fan": 2}, "fan is 2"),
        ({"on_battery": 1}, "on_battery is 1; it must be true or false"),
        ({"clocks": [{}]}, r"clocks\[0\] lacks the key"),
        ({"board": None}, "board"),
        ({"versions": {"numpy": 2}}, "versions.numpy"),
        ({"now": {}}, "now lacks the key"),
        ({"power_mode": {"number": 1}}, "power_mode lacks the key"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_what_is_not_a_condition_is_refused_by_field(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    plain = read_conditions(lay(tmp_path, without(ORIN, "hwmon")), folder=None).to_json()
    with pytest.raises(DataError, match=words):
        read_back({**plain, **change})


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    command = ["git", *identity, *arguments]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_commit_says_whether_files_differ_from_it(tmp_path: Path) -> None:
    assert read_commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert read_commit(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "one")
    git(tmp_path, "tag", "-a", "v1", "-m", "v1")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "folder").mkdir()
    assert read_commit(tmp_path / "folder") == commit
    (tmp_path / "b").write_text("nobody asked git to know it")
    assert read_commit(tmp_path) == commit
    (tmp_path / "a").write_text("2")
    assert read_commit(tmp_path) == f"{commit}-dirty"
    assert read_conditions(tmp_path, folder=tmp_path).commit == f"{commit}-dirty"


def test_no_program_that_a_repository_names_is_run(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "one", "--allow-empty")
    git(tmp_path, "config", "core.fsmonitor", f"touch {tmp_path}/ran; true")
    assert read_commit(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_commit(Path(__file__).parent) is None
