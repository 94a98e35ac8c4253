"""How far two readings of a page agree, and how long a network takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import cv2

from demo_ocr.detector import Array

SAME_BOX = 0.5
"""Intersection over union from which two boxes are taken for the same text."""


def edit_distance(a: str, b: str) -> int:
    """Fewest characters to insert, delete or replace to turn `a` into `b` (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above_left, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            above_left, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above_left + (x != y))
    return row[-1]


def character_error_rate(reference: Sequence[str], read: Sequence[str]) -> float:
    """Edit distance between two texts, given as lines, by the length of the reference.

    0 is a perfect reading; above 1 means that more was made up than there is to read.

    Raises:
        ValueError: The reference is empty.
    """
    wanted = "\n".join(reference)
    if not wanted:
        raise ValueError("The reference is empty: there is nothing to compare with.")
    return edit_distance(wanted, "\n".join(read)) / len(wanted)


def overlap(a: Array, b: Array) -> float:
    """Intersection over union of two convex polygons, float32[n, 2] each."""
    common, _ = cv2.intersectConvexConvex(a, b)
    union = cv2.contourArea(a) + cv2.contourArea(b) - common
    return float(common / union) if union else 0.0


def matches(a: Sequence[Array], b: Sequence[Array]) -> list[tuple[int, int, float]]:
    """Pairs of boxes of `a` and `b` that show the same text, each box at most once, best first.

    Returns:
        Index into `a`, index into `b`, and their intersection over union, at least `SAME_BOX`.
    """
    pairs = [(overlap(p, q), i, j) for i, p in enumerate(a) for j, q in enumerate(b)]
    found: list[tuple[int, int, float]] = []
    for value, i, j in sorted(pairs, reverse=True):
        if value >= SAME_BOX and all(i != m and j != n for m, n, _ in found):
            found.append((i, j, value))
    return found


def median_times(runs: Sequence[Callable[[], object]], *, rounds: int) -> list[float]:
    """Median milliseconds of each of `runs`, taken in turn so that all see the same machine."""
    for run in runs:
        run()
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, spent in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            spent.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(spent) for spent in times]
