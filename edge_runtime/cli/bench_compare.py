"""What `edge-runtime bench` says of two benchmarks: a table, a verdict, and an exit code."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from edge_runtime.bench.verdict import COLUMNS, Comparison, slower_than
from edge_runtime.text import columns


def read_percent(text: str | None) -> float | None:
    """The number of `--fail-if-slower 5%`; the sign may be left out.

    Raises:
        BadParameter: It is none.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*%?", text.strip())
    if found is None:
        raise click.BadParameter(
            f"{text!r} is no percentage, such as 5%.", param_hint="--fail-if-slower"
        )
    return float(found[1])


def comparison_lines(comparison: Comparison, limit: float | None) -> list[str]:
    """The lines to print of a comparison."""
    lines = ["", f"=== {comparison.new.bundle} against {comparison.old.bundle} ==="]
    lines += columns([COLUMNS, *comparison.cells()])
    lines += ["", comparison.sentence]
    lines += [f"* Measured differently: {difference}" for difference in comparison.differences]
    lines += [f"* {note}" for note in comparison.notes]
    if limit is not None and slower_than(comparison, limit):
        lines.append(f"It is surely more than {limit:g} % slower, which is not allowed.")
    return lines


def is_too_slow(comparisons: Sequence[Comparison], limit: float | None) -> bool:
    """Whether one of the new ones is surely slower than is allowed."""
    return limit is not None and any(slower_than(found, limit) for found in comparisons)
