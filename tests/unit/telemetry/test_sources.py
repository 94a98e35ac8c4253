"""Which sources a machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.errors import DataError
from edge_runtime.telemetry.sources import KernelFiles, close_all, open_sources
from edge_runtime.telemetry.tegrastats_process import TegrastatsProcess
from tests.unit.telemetry.trees import LAPTOP, ORIN, THOR, Files, lay, without


def program(root: Path, text: str) -> str:
    path = root / "tegrastats"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_tegrastats_stands_in_for_a_boards_power_monitors(tmp_path: Path) -> None:
    root = lay(tmp_path, without(ORIN, "ina3221", "hwmon3", "hwmon4"))
    stats = program(root, 'echo "RAM 1/2MB VDD_IN $2mW/1mW" && sleep 60')
    sources = open_sources(root, interval=0.3, tegrastats=stats)
    assert [type(source) for source in sources] == [KernelFiles, TegrastatsProcess]
    try:
        assert sources[1].read(0.0).total_watts == 0.3  # The interval, in ms, was passed on.
    finally:
        close_all(sources)


@pytest.mark.parametrize("files", [ORIN, THOR, LAPTOP, {}])
def test_where_files_tell_power_or_there_is_no_jetson_it_is_not_run(
    tmp_path: Path, files: Files
) -> None:
    sources = open_sources(lay(tmp_path, files), tegrastats="/nowhere/tegrastats")
    assert [type(source) for source in sources] == [KernelFiles]


def test_a_tegrastats_that_does_not_work_is_an_error(tmp_path: Path) -> None:
    root = lay(tmp_path, without(THOR, "hwmon"))
    with pytest.raises(DataError, match="no such board"):
        open_sources(root, tegrastats=program(root, 'echo "no such board" >&2; exit 1'))


def test_all_are_closed_also_if_one_fails() -> None:
    closed = []

    class Fragile(KernelFiles):
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)
            if self.name == "b":
                raise DataError("b")

    with pytest.raises(DataError, match="b"):
        close_all([Fragile("a"), Fragile("b"), Fragile("c")])
    assert sorted(closed) == ["a", "b", "c"]
