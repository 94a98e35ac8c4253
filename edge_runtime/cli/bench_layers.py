"""The layers that `edge-runtime bench --layers` timed, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_runtime.text import columns

_MOST = 12
_HEADS = ("layer", "operator", "precision", "median", "share", "MMACs", "kB", "bound by", "of roof")


def layer_lines(layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines to print of a result's layers, the slowest ones first."""
    ranked = sorted(layers, key=lambda layer: -layer["share"])
    rows = [_cells(layer) for layer in ranked[:_MOST]]
    lines = ["", "=== Layers by time, each timed by itself ===", *columns([_HEADS, *rows], left=3)]
    rest = ranked[_MOST:]
    if rest:
        share = sum(layer["share"] for layer in rest)
        lines.append(f"and {len(rest)} more with {share:.1%} of the time")
    peaks = next((layer["peaks"] for layer in ranked if layer["peaks"]), None)
    if peaks is not None:
        lines.append(f"The roof is that of {peaks}.")
    return lines


def _cells(layer: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        layer["name"] if len(layer["name"]) <= 40 else f"{layer['name'][:37]}...",
        layer["op"] or "-",
        layer["precision"] or "-",
        f"{layer['median_ms']:.4g} ms",
        f"{layer['share']:.1%}",
        _scaled(layer["macs"], 1e6),
        _scaled(layer["bytes"], 1e3),
        layer["bound"] or "-",
        "-" if layer["roof_share"] is None else f"{layer['roof_share']:.0%}",
    )


def _scaled(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:.4g}"
