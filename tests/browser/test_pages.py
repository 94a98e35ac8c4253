"""Our HTML pages in Chromium: no errors, no page wider than a phone, both colour schemes.

Not among the default tests: `pytest tests/browser`, where Chromium is (`apt-get install chromium`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runtime.accuracy.sensitivity import LayerSensitivity, Sensitivity, TensorSensitivity
from edge_runtime.bench.compare import compare
from edge_runtime.bench.report_page import page
from edge_runtime.cli import sensitivity_page
from tests.bench_results import latencies, layers, on_cpu, on_jetson
from tests.pages import HOSTILE, Page, check_figures

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("chromium is not installed: apt-get install chromium", allow_module_level=True)

PHONE, DESK = 360, 1100
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')

# Runs in a copy of the page. Text counts with what is behind it; a drawing's is filled.
PROBE = """<script>
function ground(node) {
  for (; node; node = node.parentElement) {
    const color = getComputedStyle(node).backgroundColor;
    if (color !== "rgba(0, 0, 0, 0)") return color;
  }
  return "none";
}
function scrolls(node) {
  for (; node !== document.body; node = node.parentElement)
    if (["auto", "scroll"].includes(getComputedStyle(node).overflowX)) return true;
  return false;
}
addEventListener("load", () => {
  const wide = [], colors = new Set();
  for (const node of document.body.querySelectorAll("*")) {
    const style = getComputedStyle(node), box = node.getBoundingClientRect();
    if (["SCRIPT", "STYLE", "title", "desc"].includes(node.tagName)) continue;
    if (!box.width) continue;
    if ((box.right > innerWidth + 1 || box.left < -1) && !scrolls(node))
      wide.push(node.tagName + "." + node.getAttribute("class") + " to " + box.right);
    if ([...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim()))
      colors.add((node.ownerSVGElement ? style.fill : style.color) + " on " + ground(node));
  }
  const shown = {};
  const log = document.getElementById("scale-log");
  for (const on of log ? [false, true] : []) {
    log.checked = on;
    document.getElementById("scale-linear").checked = !on;
    shown[on] = ["linear", "log"].filter((name) =>
      getComputedStyle(document.querySelector("div." + name)).display !== "none");
  }
  parent.postMessage({name: NAME, width: innerWidth, wide, colors: [...colors], shown,
    scroll: document.documentElement.scrollWidth}, "*");
});
</script>"""

HOST = """<!DOCTYPE html><meta charset="utf-8"><body><script>
const found = [];
addEventListener("message", (event) => {
  found.push(event.data);
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script><pre id="found">[]</pre>"""


def chromium(file: Path, *options: str) -> tuple[str, list[str]]:
    """What it prints, and the lines of the console."""
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", *root, "--disable-gpu", "--hide-scrollbars"),
            *("--enable-logging=stderr", "--virtual-time-budget=3000", "--no-first-run"),
            *(f"--user-data-dir={file.parent / 'profile'}", *options, file.as_uri()),
        ],
        capture_output=True,
        check=True,
        text=True,
        timeout=100,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def sensitivity(names: list[str]) -> str:
    noises = 10 ** -np.random.default_rng(0).uniform(2, 6, (len(names), 6))
    rows = [
        LayerSensitivity(n, "Conv", i, *r[:4])
        for i, (n, r) in enumerate(zip(names, noises.tolist(), strict=True))
    ]
    tensors = [
        TensorSensitivity(n, i, 1.5, *r[4:])
        for i, (n, r) in enumerate(zip(names, noises.tolist(), strict=True))
    ]
    total = sum(row.output_noise for row in rows)
    result = Sensitivity(8, total, tuple(rows), tuple(tensors))
    calibration = {"method": "mse", "samples": 100}
    plain = {"model": names[0], "calibration": calibration, **result.to_json()}
    return sensitivity_page.page(plain, result)


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Each of our pages, with much and with little to show, and with a stranger's names."""
    full = on_jetson()
    slow = replace(full.samples, latency=latencies(700, 5) * 1.08)
    long = on_jetson(100_000, 600)
    rude = [{**row, "name": name, "op": name} for row, name in zip(layers(6), HOSTILE, strict=True)]
    readings = [
        {**reading, "temperatures": dict.fromkeys(HOSTILE, 40.0)}
        for reading in full.telemetry["readings"]
    ]
    subject = replace(full.subject, bundle=HOSTILE[5], model=HOSTILE[0], device=HOSTILE[1])
    return {
        "bench": page(full, comparison=compare(replace(full, samples=slow), full)),
        "bench-cpu": page(on_cpu()),
        "bench-long": page(long),
        "bench-rude": page(
            replace(
                full,
                subject=subject,
                layers=rude,
                telemetry={"readings": readings},
                warnings=HOSTILE,
            )
        ),
        "sensitivity": sensitivity([f"/model.{i}/cv{i % 3}/conv/Conv" for i in range(120)]),
        "sensitivity-rude": sensitivity(list(HOSTILE)),
    }


@pytest.fixture(scope="module", params=["light", "dark"])
def found(
    request: pytest.FixtureRequest, pages: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[tuple[str, int], Any]]:
    """What the probe saw of each page on a phone and on a desk, in one colour scheme."""
    folder = tmp_path_factory.mktemp("pages")
    host = HOST
    for name, text in pages.items():
        probe = PROBE.replace("NAME", json.dumps(name))
        copy = POLICY.sub("", text).replace("</body>", f"{probe}</body>")
        (folder / f"{name}.html").write_text(copy, encoding="utf-8")
        for width in (PHONE, DESK):
            host += f'<iframe src="{name}.html" width="{width}" height="900"></iframe>'
    (folder / "host.html").write_text(host, encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if request.param == 'dark' else 1}"
    printed, console = chromium(folder / "host.html", "--dump-dom", scheme)
    assert console == []
    report = re.search(r'<pre id="found">(.*?)</pre>', printed, re.DOTALL)
    assert report
    seen = {(item["name"], item["width"]): item for item in json.loads(unescape(report[1]))}
    assert set(seen) == {(name, width) for name in pages for width in (PHONE, DESK)}
    return request.param, seen


def test_nothing_is_wider_than_the_window(found: tuple[str, dict[tuple[str, int], Any]]) -> None:
    for (name, width), item in found[1].items():
        assert item["wide"] == [], name
        assert item["scroll"] <= width, name


def test_all_text_stands_out(found: tuple[str, dict[tuple[str, int], Any]]) -> None:
    scheme, seen = found
    for (name, _), item in seen.items():
        pairs = [pair.split(" on ") for pair in item["colors"]]
        assert len(pairs) >= 2
        for text, ground in pairs:
            assert contrast(text, ground) >= 4.5, (name, text, ground)
            dark = luminance(ground) < 0.2
            assert dark == (scheme == "dark"), (name, ground)


def test_the_histogram_changes_its_scale(found: tuple[str, dict[tuple[str, int], Any]]) -> None:
    for (name, _), item in found[1].items():
        if name.startswith("bench"):
            assert item["shown"] == {"false": ["linear"], "true": ["log"]}


def luminance(color: str) -> float:
    """Relative luminance, as WCAG 2.2 defines it."""
    if color.startswith("color(srgb"):
        parts = [float(part) for part in re.findall(r"[\d.]+", color)[:3]]
    else:
        assert color.startswith("rgb("), color
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["bench", "bench-rude", "sensitivity-rude"])
def test_a_page_as_it_is_has_no_errors_and_our_figures(
    pages: dict[str, str], name: str, tmp_path: Path
) -> None:
    (tmp_path / "page.html").write_text(pages[name], encoding="utf-8")
    printed, console = chromium(tmp_path / "page.html", "--dump-dom")
    assert console == []
    ours, theirs = Page(pages[name]), Page(printed)
    assert theirs.figures == ours.figures
    assert theirs.attributes == ours.attributes
    assert theirs.text.split() == ours.text.split()
    if name == "bench":
        full = on_jetson()
        slow = replace(full.samples, latency=latencies(700, 5) * 1.08)
        compared = compare(replace(full, samples=slow), full)
        check_figures(theirs, full.to_json(), compared.to_json())


@pytest.mark.parametrize("name", ["bench", "sensitivity"])
def test_both_schemes_are_drawn(pages: dict[str, str], name: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(pages[name], encoding="utf-8")
    brightness = []
    for scheme in ("0", "1"):
        options = (f"--blink-settings=preferredColorScheme={scheme}", "--window-size=900,1200")
        chromium(tmp_path / "page.html", f"--screenshot={tmp_path / 'a.png'}", *options)
        picture = cv2.imread(str(tmp_path / "a.png"))
        assert picture is not None
        assert picture.shape[:2] == (1200, 900)
        assert picture.std() > 5
        brightness.append(float(np.median(picture)))
    assert brightness[0] < 60
    assert brightness[1] > 230
