"""The power mode of a Jetson from the files of nvpmodel."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.errors import DataError
from edge_runtime.strict_json import Value
from edge_runtime.telemetry.power_mode import PowerMode, read_power_mode
from tests.unit.telemetry.trees import LAPTOP, ORIN, lay, without

STATUS, CONF = "var/lib/nvpmodel/status", "etc/nvpmodel.conf"


def test_the_mode_in_use_has_its_name(tmp_path: Path) -> None:
    mode = read_power_mode(lay(tmp_path, {**ORIN, STATUS: "pmode:0002 fmode:quiet\n"}))
    assert mode == PowerMode(2, {0: "MAXN", 1: "MODE_15W", 2: "MODE_30W"})
    assert (mode.name, mode.largest) == ("MODE_30W", 0)


def test_without_the_list_of_modes_it_has_a_number_only(tmp_path: Path) -> None:
    mode = read_power_mode(lay(tmp_path, without(ORIN, CONF)))
    assert mode == PowerMode(0, {})
    assert (mode.name, mode.largest) == (None, None)


@pytest.mark.parametrize("status", ["", "nothing\n", "pmode:\n"])
def test_other_machines_have_none(tmp_path: Path, status: str) -> None:
    assert read_power_mode(lay(tmp_path / "a", LAPTOP)) is None
    assert read_power_mode(lay(tmp_path / "b", {**ORIN, STATUS: status})) is None


@pytest.mark.parametrize(
    ("names", "number", "largest"),
    [
        ({0: "15W", 1: "25W", 2: "MAXN_SUPER"}, 1, 2),
        ({0: "MAXN", 1: "10W", 2: "15W"}, 1, 0),
        ({0: "MAXN", 1: "40W", 2: "MAXN_SUPER"}, 0, 2),
        ({0: "MODE_15W_2CORE", 1: "MODE_15W_4CORE", 2: "MODE_10W_DESKTOP"}, 1, 1),
        ({0: "MODE_15W_2CORE", 1: "MODE_15W_4CORE", 2: "MODE_10W_DESKTOP"}, 2, 0),
        ({0: "15W", 1: "MINE"}, 1, None),
        ({0: "7W", 1: "10W"}, 9, 1),
    ],
)
def test_the_largest_mode_is_the_one_without_a_cap_or_with_most_watts(
    names: dict[int, str], number: int, largest: int | None
) -> None:
    assert PowerMode(number, names).largest == largest


def test_json_there_and_back() -> None:
    mode = PowerMode(1, {0: "MAXN", 1: "15W"})
    assert mode.to_json()["name"] == "15W"
    assert PowerMode.from_json(Value(mode.to_json(), "a.json", DataError)) == mode


@pytest.mark.parametrize(
    "change", [{"number": -1}, {"name": "MAXN"}, {"names": {"a": "b"}}, {"names": {"01": "15W"}}]
)
def test_json_of_something_else_is_refused(change: dict[str, object]) -> None:
    plain = {**PowerMode(1, {0: "MAXN", 1: "15W"}).to_json(), **change}
    with pytest.raises(DataError, match=r"a\.json"):
        PowerMode.from_json(Value(plain, "a.json", DataError))
