"""What LoadGen wrote about a run: its detail log and its accuracy log, read.

Formats: mlcommons/inference, loadgen/logging.cc (`:::MLLOG {json}` lines) and results.cc (which
keys a scenario has); seen in the files that LoadGen 6.0.17 writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import DataError
from edge_runtime.files import read_file
from edge_runtime.strict_json import Value, parse

DETAIL = "mlperf_log_detail.txt"
ACCURACY = "mlperf_log_accuracy.json"

PERCENTILES = (50.0, 90.0, 95.0, 97.0, 99.0, 99.9)
"""Those that LoadGen reports."""

_LINE = ":::MLLOG "
_LIMIT = 64 << 20
_ANSWERS_LIMIT = 2 << 30

_SCENARIOS = {
    "SingleStream": "single-stream",
    "MultiStream": "multi-stream",
    "Offline": "offline",
    "Server": "server",
}
_MODES = {"PerformanceOnly": "performance", "AccuracyOnly": "accuracy"}

_RATES = {"offline": "result_samples_per_second", "server": "result_completed_samples_per_sec"}
_RULES = {
    "result_perf_constraints_met": "the latency is above its bound",
    "result_min_duration_met": "it was too short",
    "result_min_queries_met": "it had too few queries",
    "early_stopping_met": "its queries are too few to claim the percentile",
}


@dataclass(frozen=True, slots=True)
class LoadGenReport:
    """LoadGen's verdict on a run, and its figures.

    Attributes:
        scenario: `single-stream`, `multi-stream`, `offline` or `server`.
        mode: `performance` or `accuracy`.
        version: LoadGen's own, such as `6.0.17 @ d6147c7eb7`.
        valid: Whether LoadGen says VALID. It judges no accuracy run: that is valid if LoadGen met
            no error.
        reasons: Why it is not, in LoadGen's words and ours; empty where it is.
        queries: How many it issued; 0 in accuracy mode, where it does not say.
        percentiles: Latency by percentile, in ms; in multi-stream that of a whole query. Empty in
            accuracy mode.
        rate: Samples per second: offline's, and those that the server completed. None elsewhere.
        overdue: The server's queries above the latency bound; None elsewhere.
    """

    scenario: str
    mode: str
    version: str
    valid: bool
    reasons: tuple[str, ...]
    queries: int
    percentiles: Mapping[float, float]
    rate: float | None
    overdue: int | None

    def figure(self, percentile: float) -> float:
        """What the scenario is judged by: a rate per second, else the percentile's latency in ms.

        Args:
            percentile: One of `PERCENTILES`.
        """
        return self.percentiles[percentile] if self.rate is None else self.rate

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "scenario": self.scenario,
            "mode": self.mode,
            "loadgen": self.version,
            "valid": self.valid,
            "reasons": list(self.reasons),
            "queries": self.queries,
            "percentiles": {f"{key:g}": value for key, value in self.percentiles.items()},
            "samples_per_second": self.rate,
            "overdue": self.overdue,
        }


def read_report(folder: Path) -> LoadGenReport:
    """Reads the detail log of a run that has ended.

    Raises:
        DataError: It is missing, damaged, or that of a run that did not come to its end.
    """
    path = folder / DETAIL
    found, errors = _entries(path)

    def value(key: str) -> Value:
        if key not in found:
            raise DataError(f"{path} lacks {key}: the run did not come to its end; run it again.")
        return found[key]

    scenario = _named(value("effective_scenario"), _SCENARIOS)
    mode = _named(value("effective_test_mode"), _MODES)
    version = value("loadgen_version").text()
    if mode == "accuracy":
        value("power_end")  # The last that such a run writes of itself.
        return LoadGenReport(scenario, mode, version, not errors, errors, 0, {}, None, None)
    valid = value("result_validity").text(r"VALID|INVALID", "VALID or INVALID") == "VALID"
    middle = "percentile_per_query_latency" if scenario == "multi-stream" else "percentile_latency"
    rate = _RATES.get(scenario)
    return LoadGenReport(
        scenario=scenario,
        mode=mode,
        version=version,
        valid=valid,
        reasons=() if valid else (*_reasons(found), *errors),
        queries=value("result_query_count").integer(0),
        percentiles={p: value(f"result_{p:.2f}_{middle}_ns").number() / 1e6 for p in PERCENTILES},
        rate=None if rate is None else value(rate).number(),
        overdue=value("result_overlatency_query_count").integer(0)
        if scenario == "server"
        else None,
    )


def read_answers(folder: Path) -> list[tuple[int, bytes]]:
    """The index and the bytes of each answer of a run in accuracy mode, in LoadGen's order.

    Raises:
        DataError: The log is missing or damaged.
    """
    path = folder / ACCURACY
    data = read_file(path, limit=_ANSWERS_LIMIT, error=DataError)
    answers = []
    for item in parse(data, where=str(path), error=DataError).items():
        members = item.members()
        missing = [name for name in ("qsl_idx", "data") if name not in members]
        if missing:
            item.fail(f"lacks {missing[0]}")
        text = members["data"].text(r"(?:[0-9A-Fa-f]{2})*", "bytes in hexadecimal digits")
        answers.append((members["qsl_idx"].integer(0), bytes.fromhex(text)))
    return answers


def _entries(path: Path) -> tuple[dict[str, Value], tuple[str, ...]]:
    """The last value of each key, and what LoadGen calls errors."""
    found: dict[str, Value] = {}
    errors = []
    text = read_file(path, limit=_LIMIT, error=DataError).decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith(_LINE):
            raise DataError(f"{path}, line {number}, is no line of LoadGen's log: {line[:60]!r}.")
        where = f"{path}, line {number}"
        members = parse(line[len(_LINE) :].encode(), where=where, error=DataError).members()
        missing = [name for name in ("key", "value", "metadata") if name not in members]
        if missing:
            raise DataError(f"{where}, lacks {missing[0]}; the log is damaged.")
        found[members["key"].text()] = members["value"]
        if members["metadata"].mapping().get("is_error") is True:
            errors.append(_one_line(str(members["value"].plain)))
    return found, tuple(errors)


def _named(value: Value, names: Mapping[str, str]) -> str:
    return names[value.text("|".join(names), f"one of {', '.join(names)}")]


def _reasons(found: Mapping[str, Value]) -> list[str]:
    """The rules that were not kept, and what LoadGen says about them."""
    reasons = [said for key, said in _RULES.items() if key in found and found[key].plain is False]
    advice = str(found["result_invalid_reason"].plain) if "result_invalid_reason" in found else ""
    stopping = found.get("early_stopping_met")
    if stopping is not None and stopping.plain is False and "early_stopping_result" in found:
        advice += f" {found['early_stopping_result'].plain}"
    return reasons + ([_one_line(advice)] if advice.strip() else [])


def _one_line(text: str) -> str:
    """LoadGen's lists begin a line with a star."""
    return re.sub(r"\s+", " ", text.replace(" * ", " ")).strip()
