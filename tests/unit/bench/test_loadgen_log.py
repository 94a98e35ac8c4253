"""LoadGen's logs: its verdict and figures are read as they stand, and a cut-off log is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.bench.loadgen_log import ACCURACY, DETAIL, read_answers, read_report
from edge_runtime.errors import DataError

NS = (100_000, 200_000, 300_000, 400_000, 5_000_000, 60_000_000)
PERCENTILES = ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")


def entries(scenario: str, **changes: Any) -> dict[str, Any]:
    """What LoadGen writes of a performance run, as far as it is read."""
    middle = "percentile_latency"
    if scenario == "MultiStream":
        middle = "percentile_per_query_latency"
    found = {
        "loadgen_version": "6.0.17 @ d6147c7eb7",
        "effective_scenario": scenario,
        "effective_test_mode": "PerformanceOnly",
        "result_validity": "VALID",
        "result_min_duration_met": True,
        "result_min_queries_met": True,
        "early_stopping_met": True,
        "result_query_count": 662,
        **{f"result_{p}_{middle}_ns": ns for p, ns in zip(PERCENTILES, NS, strict=True)},
    }
    if scenario == "MultiStream":  # Its samples' own latencies are there too, and not to be taken.
        found |= {f"result_{p}_percentile_latency_ns": 7 for p in PERCENTILES}
    if scenario == "Offline":
        found["result_samples_per_second"] = 4452.6
    if scenario == "Server":
        found |= {
            "result_scheduled_samples_per_sec": 300.5,
            "result_completed_samples_per_sec": 299.1,
            "result_overlatency_query_count": 3,
            "result_perf_constraints_met": True,
        }
    return found | changes


def write(folder: Path, found: dict[str, Any], errors: tuple[str, ...] = ()) -> Path:
    lines = [{"key": k, "value": v, "metadata": {"is_error": False}} for k, v in found.items()]
    lines += [{"key": "error", "value": e, "metadata": {"is_error": True}} for e in errors]
    text = "".join(f":::MLLOG {json.dumps(line)}\n" for line in lines)
    (folder / DETAIL).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("scenario", "name", "percentile", "figure"),
    [
        ("SingleStream", "single-stream", 90, 0.2),
        ("MultiStream", "multi-stream", 99, 5.0),
        ("Offline", "offline", 99, 4452.6),
        ("Server", "server", 99, 299.1),
    ],
)
def test_the_figure_is_the_one_that_the_scenario_is_judged_by(
    scenario: str, name: str, percentile: float, figure: float, tmp_path: Path
) -> None:
    report = read_report(write(tmp_path, entries(scenario)))
    assert (report.scenario, report.mode, report.valid, report.reasons) == (
        *(name, "performance", True),
        (),
    )
    assert report.figure(percentile) == figure
    assert (report.queries, report.percentiles[99.9]) == (662, 60.0)
    assert report.overdue == (3 if scenario == "Server" else None)
    assert json.loads(json.dumps(report.to_json()))["loadgen"] == "6.0.17 @ d6147c7eb7"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {
                "result_min_duration_met": False,
                "result_invalid_reason": "Decrease the expected latency so the loadgen "
                "pre-generates more queries.",
            },
            ["it was too short", "Decrease the expected latency so the loadgen pre-generates"],
        ),
        (
            {
                "early_stopping_met": False,
                "result_invalid_reason": "",
                "early_stopping_result": " * Only processed 155 queries.  * Need to process at "
                "least 662 queries for early stopping.",
            },
            ["too few to claim", "Only processed 155 queries. Need to process at least 662"],
        ),
        ({"result_min_queries_met": False}, ["it had too few queries"]),
    ],
)
def test_why_a_run_is_invalid_is_said_in_loadgens_words(
    changes: dict[str, Any], said: list[str], tmp_path: Path
) -> None:
    found = entries("SingleStream", result_validity="INVALID", **changes)
    report = read_report(write(tmp_path, found))
    assert not report.valid
    assert len(report.reasons) == len(said)
    for text, reason in zip(said, report.reasons, strict=True):
        assert text in reason
        assert "\n" not in reason
        assert "*" not in reason


def test_loadgens_errors_are_reasons(tmp_path: Path) -> None:
    found = entries("Server", result_validity="INVALID")
    report = read_report(write(tmp_path, found, ("Ending early:\n ran out of queries.",)))
    assert report.reasons == ("Ending early: ran out of queries.",)


def test_an_accuracy_run_is_valid_unless_loadgen_met_an_error(tmp_path: Path) -> None:
    found = {
        "loadgen_version": "6.0.17",
        "effective_scenario": "Offline",
        "effective_test_mode": "AccuracyOnly",
        "power_end": "now",
    }
    report = read_report(write(tmp_path, found))
    assert (report.mode, report.valid, dict(report.percentiles)) == ("accuracy", True, {})
    assert not read_report(write(tmp_path, found, ("no",))).valid
    del found["power_end"]
    with pytest.raises(DataError, match="did not come to its end"):
        read_report(write(tmp_path, found))


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Offline", "Server"])
def test_a_log_that_was_cut_off_is_refused_wherever_it_ends(scenario: str, tmp_path: Path) -> None:
    whole = (write(tmp_path, entries(scenario)) / DETAIL).read_bytes()
    needed = [key for key in entries(scenario) if not key.endswith("_met")]
    needed = [key for key in needed if key != "result_scheduled_samples_per_sec"]
    if scenario == "MultiStream":
        needed = [key for key in needed if not key.endswith("percentile_latency_ns")]
    for key in needed:
        start = whole.index(f'"{key}"'.encode())
        (tmp_path / DETAIL).write_bytes(whole[: start + 5])
        with pytest.raises(DataError, match="mlperf_log_detail"):
            read_report(tmp_path)


@given(st.binary(max_size=200))
def test_no_bytes_but_loadgens_are_taken(tmp_path_factory: Any, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("log")
    (folder / DETAIL).write_bytes(data)
    (folder / ACCURACY).write_bytes(data)
    with pytest.raises(DataError):
        read_report(folder)
    with pytest.raises(DataError):
        read_answers(folder)


@given(st.lists(st.tuples(st.integers(0, 99), st.binary(max_size=8)), max_size=8))
def test_answers_are_read_as_they_were_given(
    tmp_path_factory: Any, answers: list[tuple[int, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    plain = [
        {"seq_id": number, "qsl_idx": index, "data": data.hex().upper()}
        for number, (index, data) in enumerate(answers)
    ]
    (folder / ACCURACY).write_text(json.dumps(plain))
    assert read_answers(folder) == answers
