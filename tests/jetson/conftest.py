"""This Jetson, and what jetson/matrix.toml says of its like; skips say what is missing.

Not among the default tests: `pytest tests/jetson`, on a Jetson.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.board import Board, read_board

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MATRIX = Path(__file__).resolve().parents[2] / "jetson" / "matrix.toml"


@pytest.fixture(scope="session", autouse=True)
def board() -> Board:
    """The machine's facts."""
    board = read_board()
    if board.l4t is None:
        pytest.skip("this machine is no Jetson: there is no /etc/nv_tegra_release")
    return board


@pytest.fixture(scope="session")
def matrix() -> dict[str, Any]:
    """The support matrix."""
    return tomllib.loads(MATRIX.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def stack(board: Board, matrix: dict[str, Any]) -> dict[str, Any]:
    """The row of this Jetson Linux."""
    rows = [row for row in matrix["stack"] if board.l4t in row["l4t"]]
    assert rows, f"jetson/matrix.toml has no row for Jetson Linux {board.l4t}"
    return dict(rows[0])


@pytest.fixture(scope="session")
def kind(board: Board, matrix: dict[str, Any]) -> dict[str, Any]:
    """The row of this board."""
    rows = [row for row in matrix["board"] if row["name"] in (board.jetson or "")]
    assert rows, f"jetson/matrix.toml has no row for the board {board.jetson!r}"
    return dict(rows[0])


@pytest.fixture(scope="session")
def trt(stack: dict[str, Any]) -> Any:
    """JetPack's TensorRT."""
    if stack["runs"] != "tensorrt":
        pytest.skip(f"{stack['name']} has TensorRT {stack['tensorrt']}, older than 10.3")
    return pytest.importorskip("tensorrt", reason="there is no module tensorrt: jetson/setup.sh")
