"""The page of `edge-runtime sensitivity --html`, and its chart."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from edge_runtime.accuracy.sensitivity import LayerSensitivity, Sensitivity, TensorSensitivity
from edge_runtime.cli.sensitivity_chart import level
from edge_runtime.cli.sensitivity_page import page
from tests.pages import HOSTILE, Page


def sensitivity(names: list[str], seed: int = 0) -> Sensitivity:
    noises = 10 ** -np.random.default_rng(seed).uniform(2, 6, (len(names), 6))
    layers = tuple(
        LayerSensitivity(name, "Conv", 3 * index, *map(float, row[:4]))
        for index, (name, row) in enumerate(zip(names, noises, strict=True))
    )
    tensors = tuple(
        TensorSensitivity(name, 3 * index - 1, 1.5, *map(float, row[4:]))
        for index, (name, row) in enumerate(zip(names, noises, strict=True))
    )
    return Sensitivity(8, sum(layer.output_noise for layer in layers), layers, tensors)


def written(result: Sensitivity, model: str = "net.onnx") -> tuple[str, Page]:
    calibration = {"method": "mse", "samples": 100}
    plain = {"model": model, "calibration": calibration, **result.to_json()}
    text = page(plain, result)
    found = Page(text)
    assert found.plain == plain
    return text, found


def field(text: str) -> ElementTree.Element:
    """The chart's columns; it must be XML as well."""
    axis, chart = re.findall(r"<svg class=\"(?:axis|field)\".*?</svg>", text, re.DOTALL)
    ElementTree.fromstring(axis)
    return ElementTree.fromstring(chart)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_strangers_names_are_text_and_nothing_else(hostile: str) -> None:
    text, found = written(sensitivity([hostile, "harmless"]), model=hostile)
    assert found.attributes.count(("script", "type", "application/json")) == 1
    assert found.stack == []
    assert "\x1b" not in text
    assert found.plain["layers"][0]["name"] == hostile
    shown = hostile.replace("\n", "\\n").replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert shown in found.text or hostile.startswith("a\n")
    field(text)


def test_nothing_is_loaded_from_anywhere() -> None:
    text, found = written(sensitivity(["a", "b"]))
    assert "://" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert not [name for _, name, _ in found.attributes if name in ("src", "srcset", "data")]
    policy = [value for _, name, value in found.attributes if name == "content"]
    assert "default-src 'none'; style-src 'unsafe-inline'" in policy
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width, initial-scale=1" in policy


def test_every_figure_of_the_page_is_in_its_json() -> None:
    _, found = written(sensitivity([f"layer{index}" for index in range(40)]))
    noises = [found.plain["total_noise"]]
    for row in (*found.plain["layers"], *found.plain["tensors"]):
        noises.extend(value for key, value in row.items() if key.endswith("_noise"))
    known = {level(noise) for noise in noises} | {"20 dB", "40 dB", "30 dB", "10 dB"}
    scale = {f"{ten} dB" for ten in range(0, 100, 10)}
    figures = set(re.findall(r"-?[\d.]+ dB", found.text + found.drawn))
    assert len(figures) > 100
    assert figures <= known | scale


def test_columns_stand_in_the_graphs_order_and_the_worst_is_the_tallest() -> None:
    names = [f"layer{index}" for index in range(30)]
    result = sensitivity(names)
    text, found = written(result)
    columns = [node for node in field(text) if node.tag == "a"]
    titles = [node.findtext("title") or "" for node in columns]
    assert [title.partition(": ")[2].partition(" (")[0] for title in titles] == names
    bars = [next(r for r in node if "bar" in r.get("class", "")) for node in columns]
    places = [float(bar.get("x", "")) for bar in bars]
    assert places == sorted(places)
    heights = [float(bar.get("height", "")) for bar in bars]
    noises = [layer.output_noise for layer in result.layers]
    assert np.argsort(heights).tolist() == np.argsort(noises).tolist()
    worst = {index for index, bar in enumerate(bars) if "worst" in bar.get("class", "")}
    assert worst == set(np.argsort(noises)[-5:].tolist())
    ranks = [node.findtext("text[@class='rank']") for node in columns]
    assert ranks[int(np.argmax(noises))] == "1"
    # Each column and each row of the list leads to a row of the table of all layers.
    targets = {value[1:] for tag, name, value in found.attributes if (tag, name) == ("a", "href")}
    assert targets == {f"layer-{number}" for number in range(1, 31)}
    assert targets <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))


@pytest.mark.parametrize("count", [1, 2, 54, 300])
def test_the_chart_fits_any_number_of_layers(count: int) -> None:
    result = sensitivity([f"/model/stage.{index}/{'block/' * 20}conv" for index in range(count)])
    text, _ = written(result)
    chart = field(text)
    width, height = float(chart.get("width", "")), float(chart.get("height", ""))
    bars = [r for r in chart.iter("rect") if "bar" in r.get("class", "")]
    edges = [(float(r.get("x", "")), float(r.get("width", ""))) for r in bars]
    assert all(b - a >= size for (a, size), (b, _) in pairwise(edges))
    assert all(size >= 4 for _, size in edges)
    assert edges[0][0] >= 0
    assert edges[-1][0] + edges[-1][1] <= width <= 40 + max(920, 9 * count)
    for node in chart.iter():
        for name in ("y", "cy", "y1", "y2"):
            assert 0 <= float(node.get(name, "0")) <= height
    assert len(text) < 30_000 + 2_000 * count


def test_what_is_exact_or_lost_is_said_and_drawn() -> None:
    layers = (
        LayerSensitivity("exact", "Conv", 0, 0.0, 0.0, 0.0, 0.0),
        LayerSensitivity("lost", "Conv", 1, 1e-3, 1e-4, 1e-4, math.inf),
        LayerSensitivity("loud", "Conv", 2, 1e-3, 1e-4, 1e-4, 3.0),
    )
    text, found = written(Sensitivity(1, math.inf, layers, ()))
    bars = [r for r in field(text).iter("rect") if "bar" in r.get("class", "")]
    exact, lost, loud = (float(bar.get("height", "")) for bar in bars)
    assert exact == 0 < loud < lost
    assert found.plain["layers"][1]["output_noise"] is None
    assert "no signal" in found.text + found.drawn
    assert "exact" in found.text + found.drawn
    assert "-4.8 dB" in found.text + found.drawn


def test_a_page_of_nothing_but_exact_layers() -> None:
    layers = (LayerSensitivity("exact", "Conv", 0, 0.0, 0.0, 0.0, 0.0),)
    text, found = written(Sensitivity(1, 0.0, layers, ()))
    field(text)
    assert "nan" not in found.text.lower()
