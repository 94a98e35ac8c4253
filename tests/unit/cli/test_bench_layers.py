"""The table of layers shows the slowest ones, and what is left out of it."""

from __future__ import annotations

from typing import Any

from edge_runtime.cli.bench_layers import layer_lines


def layer(name: str, share: float, **known: Any) -> dict[str, Any]:
    unknown = dict.fromkeys(("op", "precision", "macs", "bytes", "bound", "roof_share", "peaks"))
    return {**unknown, "name": name, "median_ms": share * 10, "share": share, **known}


def test_the_slowest_come_first_and_the_rest_is_counted() -> None:
    layers = [layer(f"n{index}", share) for index, share in enumerate([0.01] * 14 + [0.5, 0.36])]
    lines = layer_lines(layers)
    assert lines[3].split()[:6] == ["n14", "-", "-", "5", "ms", "50.0%"]
    assert lines[4].split()[0] == "n15"
    assert lines[-1] == "and 4 more with 4.0% of the time"


def test_what_is_known_has_units_and_what_is_not_a_dash() -> None:
    known = {"op": "Conv", "precision": "int8", "macs": 2_500_000, "bytes": 4_000}
    roof = {"bound": "memory", "roof_share": 0.25, "peaks": "a board"}
    lines = layer_lines([layer("c1", 1.0, **known, **roof)])
    heads = [head.strip() for head in lines[2].split("   ") if head.strip()]
    cells = [cell.strip() for cell in lines[3].split("   ") if cell.strip()]
    assert dict(zip(heads, cells, strict=True)) == {
        "layer": "c1",
        "operator": "Conv",
        "precision": "int8",
        "median": "10 ms",
        "share": "100.0%",
        "MMACs": "2.5",
        "kB": "4",
        "bound by": "memory",
        "of roof": "25%",
    }
    assert lines[-1] == "The roof is that of a board."


def test_long_names_do_not_break_the_table() -> None:
    lines = layer_lines([layer("x" * 200, 0.5), layer("y", 0.5)])
    assert max(map(len, lines)) < 130
