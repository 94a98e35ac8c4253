"""What a comparison of two benchmarks says: ratios, how sure they are, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any

from edge_runtime.bench.bootstrap import CONFIDENCE, Estimate
from edge_runtime.strict_json import Value

FORMAT = "edge_runtime benchmark comparison"
SCHEMA = 1

THROUGHPUT = "throughput"
COLUMNS = ("figure", "old", "new", "new / old", "interval", "visible from", "verdict")
"""Headings of `Comparison.cells`."""

_UNITS = {"ms": "lower is faster", "qps": "higher is faster"}


class Verdict(str, Enum):
    """Whether what is new is faster."""

    FASTER = "faster"
    SLOWER = "slower"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure of both, and their ratio.

    Attributes:
        figure: `median`, `percentile(99%)` or the like, of the latency; or `throughput`.
        unit: `ms`, where less is faster, or `qps`, where more is.
        old: The figure of the old one.
        new: The figure of the new one.
        ratio: new / old. Of turns, the mean of the middle half of all rounds' ratios, which need
            not be the ratio of the two figures.
        low: Lower end of the ratio's interval; None where there are too few queries for one.
        high: Its upper end.
        smallest: The least difference, as a share of 1, that these measurements show in 4 of 5
            cases.
    """

    figure: str
    unit: str
    old: float
    new: float
    ratio: float
    low: float | None
    high: float | None
    smallest: float | None

    @classmethod
    def of(cls, figure: str, unit: str, values: tuple[float, float], sure: Estimate) -> Ratio:
        """From an estimate of the ratio; `values` are the old and the new figure."""
        return cls(figure, unit, *values, sure.ratio, *sure.interval, sure.smallest)

    @property
    def slowdown(self) -> tuple[float, float, float] | None:
        """How many times as long it takes: lower end, estimate, upper end; None if unknown."""
        if self.low is None or self.high is None:
            return None
        if self.unit == "ms":
            return self.low, self.ratio, self.high
        return 1 / self.high, 1 / self.ratio, 1 / self.low

    @property
    def verdict(self) -> Verdict:
        """Slower or faster where the interval leaves nothing else."""
        found = self.slowdown
        if found is None:
            return Verdict.CANNOT_TELL
        low, _, high = found
        if low > 1:
            return Verdict.SLOWER
        return Verdict.FASTER if high < 1 else Verdict.CANNOT_TELL

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {**asdict(self), "verdict": self.verdict.value}


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared.

    Attributes:
        bundle: The bundle's file name.
        bundle_digest: Its digest.
        precision: Of the bundle.
        backend: What ran it.
        device: The CPU or GPU; empty where nothing says it.
        created: When it was measured, in UTC.
        queries: How many were measured.
    """

    bundle: str
    bundle_digest: str
    precision: str
    backend: str
    device: str
    created: str
    queries: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two benchmarks, one by the other.

    Attributes:
        protocol: By which both, or the old one, were measured.
        figure: The one in `rows` that the verdict goes by.
        rounds: Rounds in which they took turns; None if they are two runs.
        old: What is compared with.
        new: What is judged.
        rows: All figures that are compared.
        differences: How they were measured differently, if that was asked to be overlooked.
        notes: What else to know.
    """

    protocol: str
    figure: str
    rounds: int | None
    old: Side
    new: Side
    rows: tuple[Ratio, ...]
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> Ratio:
        """The row that the verdict goes by."""
        return next(row for row in self.rows if row.figure == self.figure)

    @property
    def verdict(self) -> Verdict:
        """That of the protocol's own figure."""
        return self.main.verdict

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        found = self.main.slowdown
        what = "throughput" if self.figure == THROUGHPUT else f"latency's {self.figure}"
        if found is None:
            return f"Cannot tell: too few queries for the {what}. Measure longer."
        low, middle, high = found
        span = f"{_change(low)} to {_change(high)} with {100 * CONFIDENCE:g} % confidence"
        sees = f"a difference from {100 * (self.main.smallest or 0):.2g} % on would have shown"
        if self.verdict is Verdict.CANNOT_TELL:
            return f"Cannot tell: time by the {what} {_change(middle)} ({span}); {sees}."
        return (
            f"{self.new.bundle} is {self.verdict.value} than {self.old.bundle}: time by the {what} "
            f"{_change(middle)} ({span}); {sees}."
        )

    def cells(self) -> list[tuple[str, ...]]:
        """Text of each row, for `COLUMNS`."""
        return [_cells(row) for row in self.rows]

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "format": FORMAT,
            "schema": SCHEMA,
            "verdict": self.verdict.value,
            "sentence": self.sentence,
            "confidence": CONFIDENCE,
            "protocol": self.protocol,
            "figure": self.figure,
            "rounds": self.rounds,
            "old": asdict(self.old),
            "new": asdict(self.new),
            "rows": [row.to_json() for row in self.rows],
            "differences": list(self.differences),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: Value) -> Comparison:
        """The comparison that `to_json` wrote.

        Raises:
            EdgeRuntimeError: That of `value`: a key is missing, unknown or of the wrong type, or
                what it says does not follow from its own figures.
        """
        names = [field.name for field in fields(cls)]
        got = value.fields("format", "schema", "verdict", "sentence", "confidence", *names)
        _same(got["format"], FORMAT)
        _same(got["schema"], SCHEMA)
        _same(got["confidence"], CONFIDENCE)
        rounds = got["rounds"]
        found = cls(
            protocol=got["protocol"].text(),
            figure=got["figure"].text(),
            rounds=None if rounds.plain is None else rounds.integer(1),
            old=_side(got["old"]),
            new=_side(got["new"]),
            rows=tuple(_ratio(row) for row in got["rows"].items()),
            differences=tuple(item.text() for item in got["differences"].items()),
            notes=tuple(item.text() for item in got["notes"].items()),
        )
        if found.figure not in {row.figure for row in found.rows}:
            got["figure"].fail("is none of .rows")
        _same(got["verdict"], found.verdict.value)
        _same(got["sentence"], found.sentence)
        return found


def slower_than(comparison: Comparison, percent: float) -> bool:
    """Whether the new one surely takes more than `percent` more time than the old one.

    By the protocol's own figure: the whole interval is above that. A throughput of 1 / 1.05 is
    5 % more time.
    """
    found = comparison.main.slowdown
    return found is not None and found[0] > 1 + percent / 100


def _change(times: float) -> str:
    return f"{100 * (times - 1):+.1f} %"


def _cells(row: Ratio) -> tuple[str, ...]:
    unsure = row.low is None or row.high is None or row.smallest is None
    return (
        row.figure,
        f"{row.old:.4g} {row.unit}",
        f"{row.new:.4g} {row.unit}",
        f"{row.ratio:.3f}",
        "-" if unsure else f"{row.low:.3f} to {row.high:.3f}",
        "-" if unsure else f"{100 * (row.smallest or 0):.2g} %",
        "too few queries" if unsure else row.verdict.value,
    )


def _same(value: Value, wanted: object) -> None:
    if value.plain != wanted:
        value.fail(f"is {value.plain!r}; it must be {wanted!r}")


def _side(value: Value) -> Side:
    got = value.fields(*(field.name for field in fields(Side)))
    digest = (r"sha256:[0-9a-f]{64}", "a digest, sha256:<64 hexadecimal digits>")
    return Side(
        bundle=got["bundle"].text(),
        bundle_digest=got["bundle_digest"].text(*digest),
        precision=got["precision"].text(),
        backend=got["backend"].text(),
        device=got["device"].text(r".*", "text"),
        created=got["created"].text(),
        queries=got["queries"].integer(1),
    )


def _ratio(value: Value) -> Ratio:
    got = value.fields(*(field.name for field in fields(Ratio)), "verdict")
    if got["unit"].plain not in _UNITS:
        got["unit"].fail(f"must be one of {', '.join(_UNITS)}")
    row = Ratio(
        figure=got["figure"].text(),
        unit=got["unit"].text(),
        old=_positive(got["old"]),
        new=_positive(got["new"]),
        ratio=_positive(got["ratio"]),
        **_bounds(got),
    )
    _same(got["verdict"], row.verdict.value)
    return row


def _bounds(got: Mapping[str, Value]) -> dict[str, float | None]:
    names: Sequence[str] = ("low", "high", "smallest")
    known = [got[name].plain is not None for name in names]
    if not any(known):
        return dict.fromkeys(names)
    low, high = _positive(got["low"]), _positive(got["high"])
    smallest = got["smallest"].number()
    if not low <= got["ratio"].number() <= high:
        got["ratio"].fail("is not between .low and .high")
    if smallest < 0:
        got["smallest"].fail("is below 0")
    return {"low": low, "high": high, "smallest": smallest}


def _positive(value: Value) -> float:
    found = value.number()
    if found <= 0:
        value.fail(f"is {found:g}; it must be above 0")
    return found
