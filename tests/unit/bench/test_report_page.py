"""The page of a benchmark: what it shows, and what it does not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from edge_runtime.bench.compare import compare
from edge_runtime.bench.report_page import page, write_page
from edge_runtime.bench.result import BenchResult, Samples
from edge_runtime.bench.verdict import Comparison
from edge_runtime.errors import DataError
from tests.bench_results import SUBJECT, latencies, layers, on_cpu, on_jetson
from tests.pages import HOSTILE, Page, check_figures


@pytest.fixture(scope="module")
def jetson() -> BenchResult:
    return on_jetson()


@pytest.fixture(scope="module")
def compared(jetson: BenchResult) -> Comparison:
    slow = replace(jetson.samples, latency=latencies(700, 5) * 1.08)
    return compare(replace(jetson, samples=slow), jetson)


def test_every_figure_is_in_the_json(jetson: BenchResult, compared: Comparison) -> None:
    for result in (on_cpu(), jetson, on_jetson(5000, 900)):
        check_figures(Page(page(result)), result.to_json())
    found = Page(page(jetson, comparison=compared))
    check_figures(found, jetson.to_json(), compared.to_json())
    shown = dict(found.figures)
    summary = jetson.summary()
    assert summary is not None
    for value in (summary.median, summary.percentiles[99], summary.min, jetson.throughput):
        assert repr(value) in shown
    assert shown[repr(jetson.telemetry["joules_per_query"])].endswith(" J")


def test_sections_come_in_order_and_only_where_there_is_something(
    jetson: BenchResult, compared: Comparison
) -> None:
    full = Page(page(jetson, comparison=compared)).heads
    assert full == [
        "Benchmark of detector.edge",
        *("Compared", "Warnings", "Latency", "Percentiles", "Layers", "Telemetry", "Conditions"),
        "What was run",
    ]
    bare = Page(page(on_cpu())).heads
    assert bare == ["Benchmark of detector.edge", "Latency", "Percentiles", "What was run"]
    one = on_cpu(1)
    assert "Latency" not in Page(page(one)).heads
    some = {
        "readings": [
            {**r, "power": None, "total_watts": None, "temperatures": {}}
            for r in jetson.telemetry["readings"]
        ]
    }
    text = page(replace(jetson, telemetry=some))
    assert "Clock, MHz" in text
    assert "Power, W" not in text
    assert "Temperature" not in text


def test_what_does_not_apply_is_said_and_not_zero() -> None:
    found = Page(page(on_cpu()))
    assert "Not applicable: H2D Latency, D2H Latency." in found.text
    assert "GPU" not in found.text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_strangers_names_are_text_and_nothing_else(hostile: str, jetson: BenchResult) -> None:
    conditions, telemetry = dict(jetson.conditions), dict(jetson.telemetry)
    conditions["board"] = {**conditions["board"], "cpu": hostile, "jetson": hostile}
    conditions["versions"] = {hostile: hostile}
    conditions["throttle_points"] = {hostile: 99.0}
    conditions["power_mode"] = {"number": 0, "name": hostile, "names": {"0": hostile}}
    telemetry["readings"] = [
        {**reading, "temperatures": {hostile: 40.0}, "throttled": [hostile]}
        for reading in telemetry["readings"]
    ]
    result = replace(
        jetson,
        subject=replace(
            SUBJECT,
            **dict.fromkeys(("bundle", "model", "precision", "backend", "device"), hostile),
            shapes={hostile: (1, 2)},
        ),
        protocol=hostile,
        parameters={hostile: hostile, "list": [hostile]},
        created=hostile,
        warnings=(hostile,),
        conditions=conditions,
        telemetry=telemetry,
        layers=[
            {**row, "name": hostile, "op": hostile, "precision": hostile, "bound": hostile}
            for row in layers(3)
        ],
    )
    text = page(result, comparison=compare(result, result))
    found = Page(text)
    assert found.data == ""
    assert "script" not in {tag for tag, _, _ in found.attributes}
    assert "\x1b" not in text
    assert "\u202e" not in text
    classes = {value for _, name, value in found.attributes if name == "class"}
    assert not any("onload" in value or "<" in value for value in classes)
    drawings(text)


def drawings(text: str) -> list[ElementTree.Element]:
    """Each outer drawing, which must be XML as well."""
    found, depth, start = [], 0, 0
    for tag in re.finditer(r"<svg\b|</svg>", text):
        if tag[0] == "<svg":
            start = start if depth else tag.start()
            depth += 1
        else:
            depth -= 1
            if not depth:
                found.append(ElementTree.fromstring(text[start : tag.end()]))
    return found


def test_nothing_is_loaded_or_run(jetson: BenchResult) -> None:
    text = page(jetson)
    found = Page(text)
    assert not {"src", "href", "action"} & {name for _, name, _ in found.attributes}
    assert "url(" not in text
    assert "@import" not in text
    policy = [value for _, name, value in found.attributes if name == "content"]
    assert "default-src 'none'; style-src 'unsafe-inline'" in policy
    assert "width=device-width, initial-scale=1" in policy
    assert "prefers-color-scheme: dark" in text


def test_it_stays_small_whatever_was_measured(jetson: BenchResult) -> None:
    long = on_jetson(100_000, 3000)
    busy = [
        {**reading, "temperatures": {f"zone-{i}": 40.0 + i + 0.01 * n for i in range(30)}}
        for n, reading in enumerate(long.telemetry["readings"])
    ]
    conditions = {**long.conditions, "versions": {f"library-{i}": "1" * 500 for i in range(900)}}
    text = page(
        replace(
            long,
            conditions=conditions,
            telemetry={**long.telemetry, "readings": busy},
            layers=[{**row, "name": "x" * 20_000} for row in layers(2000)],
        )
    )
    Page(text)
    assert len(text.encode()) < 300_000
    assert "100,000 queries are too many to draw one by one" in text
    assert "18 more in the JSON" in text
    assert "1970 more layers in the JSON" in text.replace(",", "")


def plain(figure: str) -> float:
    return float(figure.replace(",", ""))


def bars(text: str, scale: str) -> list[tuple[float, float, int]]:
    """Of each bin of the histogram: from, to and how many."""
    part = text.split(f'<div class="{scale}">')[1].split("</figure>")[0]
    found = re.findall(r"<title>([\d.,e-]+) to ([\d.,e-]+) ms: ([\d,]+) quer", part)
    return [(plain(low), plain(high), int(plain(n))) for low, high, n in found]


def test_the_histogram_counts_every_query_once() -> None:
    result = on_cpu(3000)
    text = page(result)
    latency = result.samples.latency
    whole = bars(text, "log")
    assert sum(n for *_, n in whole) == 3000
    linear = bars(text, "linear")
    beyond = int(re.findall(r"<title>above [\d.]+ ms: ([\d,]+) quer", text)[0])
    assert sum(n for *_, n in linear) + beyond == 3000
    assert 0 < beyond < 150
    for low, high, count in linear:
        slack = 1e-3 * high
        assert ((latency > low + slack) & (latency < high - slack)).sum() <= count
        assert count <= ((latency > low - slack) & (latency < high + slack)).sum()


def test_a_single_slow_query_is_seen() -> None:
    result = on_cpu(20_000)
    latency = np.full(20_000, 2.0)
    latency[7000] = 77.0
    text = page(replace(result, samples=Samples(start=result.samples.start, latency=latency)))
    assert "77 ms" in Page(text).drawn
    assert "above 2.02 ms: 1 query" in text
    dots = re.search(r'<path class="dots" d="([^"]*)"', text)
    assert dots
    heights = [float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)h0", dots[1])]
    assert sum(y < min(heights) + 1 for y in heights) == 1


@pytest.mark.parametrize("value", [0.0, 1e-6, 0.37, 5e5])
def test_equal_latencies_are_drawn_too(value: float) -> None:
    samples = Samples(start=np.arange(50.0), latency=np.full(50, value))
    text = page(replace(on_cpu(50), samples=samples, walltime=50.0))
    assert "nan" not in text
    assert sum(n for *_, n in bars(text, "linear")) == 50
    drawings(text)


def test_drawings_have_titles_units_and_stay_inside(jetson: BenchResult) -> None:
    text = page(jetson)
    for drawing in drawings(text):
        hidden = drawing.get("aria-hidden") == "true"
        assert hidden or drawing.findtext("title")
        assert hidden or drawing.findtext("desc")
        for node in drawing.iter():
            for name in ("x", "x1", "x2", "cx"):
                place = node.get(name, "0%")
                if place.endswith("%"):
                    assert 0 <= float(place[:-1]) <= 100, (node.tag, place)
    units = ("Power, W", "Temperature, °C", "Clock, MHz", "Load, %", "Memory, GB")
    assert all(f'<figcaption class="soft">{unit}<' in text for unit in units)


def test_throttling_and_what_limits_are_said(jetson: BenchResult) -> None:
    found = Page(page(jetson))
    assert "Throttled: sw-thermal, seen from" in found.text
    assert "Over-current events of oc1" in found.text
    assert "nvpmodel -m 0" in found.text
    assert "NVIDIA Jetson AGX Orin Developer Kit" in found.text
    assert "GPU 306-1300 MHz" in found.text


def test_a_scenario_says_whether_it_is_valid() -> None:
    valid = replace(on_cpu(900), protocol="single-stream")
    assert "The result is VALID." in Page(page(valid)).text
    invalid = replace(valid, warnings=("INVALID: too short.",))
    assert "The result is INVALID." in Page(page(invalid)).text
    assert "The result is" not in Page(page(on_cpu())).text


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"telemetry": {"readings": [{"seconds": 1.0}]}}, "telemetry: readings[0]"),
        ({"telemetry": {"readings": 3}}, "telemetry: readings"),
        ({"conditions": {"board": 3}}, "conditions"),
        ({"layers": [{"name": "a"}]}, "layers: [0]"),
        ({"layers": [{"name": "a", "median_ms": "<b>"}]}, "layers: [0].median_ms"),
    ],
)
def test_parts_of_another_form_are_refused(change: dict[str, object], where: str) -> None:
    with pytest.raises(DataError, match=re.escape(where)):
        page(replace(on_cpu(), **change))


def test_it_is_written_all_or_nothing(tmp_path: Path, jetson: BenchResult) -> None:
    write_page(tmp_path / "a.html", jetson)
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == page(jetson)
    with pytest.raises(DataError, match="nosuch"):
        write_page(tmp_path / "nosuch" / "a.html", jetson)
    broken = replace(jetson, conditions={"board": 3})
    with pytest.raises(DataError):
        write_page(tmp_path / "a.html", broken)
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == page(jetson)
