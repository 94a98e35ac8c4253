"""The manifest: round trip, and one line with the dotted path for whatever is wrong."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.bundle import Bundle, Manifest, PlanKey
from edge_runtime.bundle.container import Entry
from edge_runtime.bundle.manifest import TRAITS
from edge_runtime.config import BuildConfig, Precision, canonical_json
from edge_runtime.errors import BundleError, ConfigError
from edge_runtime.tensors import TensorSpec

text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
plain = st.dictionaries(
    text, text | st.none() | st.integers() | st.lists(st.booleans()), max_size=3
)


@pytest.fixture
def whole(bundle: Bundle) -> dict[str, Any]:
    """A sound manifest as plain JSON."""
    return copy.deepcopy(bundle.manifest.to_json())


def refusal(value: object) -> str:
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(value, where="some.edge: manifest.json")
    message = str(caught.value)
    assert message.startswith("some.edge: manifest.json: ")
    assert "\n" not in message
    return message.removeprefix("some.edge: manifest.json: ")


def test_round_trip(bundle) -> None:
    manifest = bundle.manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@st.composite
def some_plans(draw: st.DrawFn, sound: Manifest) -> dict[str, Any]:
    """Plans with any traits, of which some have a verdict and settings, and their entries."""
    keys = draw(
        st.lists(
            st.builds(
                PlanKey,
                st.sampled_from(["tensorrt", "tensorrt-rtx"]),
                st.sampled_from(["10.3.0", "1.7.1.116"]),
                st.sampled_from([(), ("sm86",), ("sm86", "sm89")]),
                st.just("linux-x86_64"),
                st.sets(st.sampled_from(TRAITS)).map(sorted).map(tuple),
            ),
            max_size=4,
        )
    )
    plans = {key.entry: key for key in keys}
    fixed = [entry for entry in sound.entries if not entry.name.startswith("plans/")]
    return {
        "plans": plans,
        "verdicts": {name: draw(plain) for name in plans if draw(st.booleans())},
        "plan_settings": {name: draw(plain) for name in plans if draw(st.booleans())},
        "entries": (*fixed, *(Entry(name, 1, 2, "0" * 64) for name in sorted(plans))),
    }


@given(st.data())
def test_round_trip_of_anything_in_it(sound_manifest, data) -> None:
    specs = st.lists(
        st.builds(TensorSpec, text, text, st.lists(st.integers(-1, 2**40), max_size=4).map(tuple)),
        min_size=1,
        max_size=3,
        unique_by=lambda spec: spec.name,
    ).map(tuple)
    manifest = replace(
        sound_manifest,
        config=data.draw(plain),
        inputs=data.draw(specs),
        outputs=data.draw(specs),
        build_key=data.draw(text),
        tools=data.draw(st.dictionaries(text, text, max_size=3)),
        preprocessing=data.draw(st.none() | plain),
        precision=data.draw(plain),
        **data.draw(some_plans(sound_manifest)),
    )
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.fixture(scope="module")
def sound_manifest(manifest: Manifest, sound: bytes) -> Manifest:
    size = int.from_bytes(sound[18:22], "little")
    return Manifest.from_bytes(sound[4096 : 4096 + size])


def test_the_build_settings_come_back(bundle) -> None:
    assert bundle.manifest.build_config == BuildConfig(precision=Precision.INT8)


def test_build_settings_of_a_newer_edge_runtime_do_not_keep_it_from_opening(whole) -> None:
    whole["config"]["sparsity"] = "2:4"
    manifest = Manifest.from_json(whole)
    with pytest.raises(ConfigError, match="sparsity"):
        _ = manifest.build_config


def test_a_newer_schema_is_named_before_its_unknown_keys(whole) -> None:
    whole["schema"] = 4
    whole["signature"] = "?"
    assert "made by a newer edge_runtime (schema 4; this one reads 3)" in refusal(whole)


def test_an_older_schema_is_named_before_the_keys_it_lacks(whole) -> None:
    whole["schema"] = 1
    for plan in whole["plans"]:
        del plan["traits"], plan["settings"], plan["verdict"]
    said = refusal(whole)
    assert "made by an older edge_runtime (schema 1; this one reads 3)" in said
    assert "Build it again" in said


WRONG = {
    "schema": [None, 0, "1", 1.0],
    "model": [None, [], "digits"],
    "model.name": [None, "", 3],
    "model.digest": [None, "", 3],
    "config": [None, [], "int8"],
    "inputs": [None, {}],
    "inputs.0": [None, []],
    "inputs.0.name": [None, "", 1],
    "inputs.0.dtype": [None, "", 1],
    "inputs.0.shape": [None, 3, "1x3"],
    "inputs.0.shape.1": [None, -2, 1.5, True, 2**63],
    "outputs": [None, []],
    "preprocessing": [[], "nchw", 0],
    "data": [[], {}, 0],
    "data.digest": [None, ""],
    "data.samples": [None, 0, -1, 1.5, True],
    "data.description": [None, 1],
    "precision": [None, []],
    "build_key": [None, "", 1],
    "tools": [None, []],
    "tools.onnx": [None, "", 1],
    "plans": [None, {}],
    "plans.0.entry": [None, "", "plans/other.plan", "graph.onnx"],
    "plans.0.backend": [None, ""],
    "plans.0.version": [None, 10.3],
    "plans.0.compute_capabilities": [None, "sm87"],
    "plans.0.compute_capabilities.0": [None, 87, ""],
    "plans.0.platform": [None, ""],
    "plans.0.traits": [None, "dla", ["fast"], ["stripped", "dla"], ["dla", "dla"]],
    "plans.0.settings": [[], "auto", 1],
    "plans.0.verdict": [[], "good", 1],
    "entries": [None, {}, []],
    "entries.0": [None, []],
}


def test_a_model_without_inputs_is_like_any_other(whole) -> None:
    whole["inputs"] = []
    manifest = Manifest.from_json(whole)
    assert manifest.inputs == ()
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.mark.parametrize(
    ("path", "value"), [(path, value) for path, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_refused_with_its_path(whole, path, value) -> None:
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    inner = whole
    for step in steps:
        inner = inner[step]
    inner[last] = value
    dotted = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in [*steps, last])
    assert refusal(whole).startswith(f"{dotted.lstrip('.')} ")


@pytest.mark.parametrize(
    "path", ["", "model", "inputs.0", "data", "plans.0", "entries.0"], ids=lambda p: p or "whole"
)
def test_a_missing_or_unknown_key_is_refused(whole, path) -> None:
    def inner(plain: Any) -> dict[str, Any]:
        for step in filter(None, path.split(".")):
            plain = plain[int(step) if step.isdigit() else step]
        return plain

    for key in inner(whole):
        changed = copy.deepcopy(whole)
        del inner(changed)[key]
        assert f"lacks the key {key!r}" in refusal(changed)
    inner(whole)["more"] = 1
    assert "has the unknown key 'more'" in refusal(whole)


def test_entries_must_be_in_order_once_each_and_hold_the_graph(whole) -> None:
    entries = whole["entries"]
    whole["entries"] = entries[::-1]
    assert "entries has" in refusal(whole)
    whole["entries"] = [*entries, entries[-1]]
    assert "twice" in refusal(whole)
    whole["entries"] = entries[1:]
    assert "entries lacks graph.onnx" in refusal(whole)


def test_plans_and_entries_must_agree(whole) -> None:
    entries = whole["entries"]
    whole["entries"] = entries[:-1]
    assert "disagree about 'plans/tensorrt-10.3.0-sm87-linux-aarch64.plan'" in refusal(whole)
    whole["entries"] = entries
    whole["plans"] = []
    assert "disagree" in refusal(whole)


def test_tensors_must_have_different_names(whole) -> None:
    whole["outputs"][1]["name"] = whole["outputs"][0]["name"]
    assert refusal(whole).startswith("outputs has two tensors of one name")


def test_too_many_entries_are_refused(whole) -> None:
    whole["entries"] *= 300
    assert "at most 1024" in refusal(whole)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"build_key":', '"build_key":"x","build_key":', 1),
        lambda text: text.replace('"samples":64', '"samples":NaN', 1),
        lambda text: text.replace('"quantized":7', '"quantized":1e999', 1),
        lambda text: text.replace('"quantized":7', '"quantized":7e0', 1),
        lambda text: text.replace('"quantized":7', '"quantized":' + "[" * 40 + "]" * 40, 1),
        lambda text: json.dumps(json.loads(text)),
        lambda text: text + "\n",
        lambda text: text.replace("größe", "gr\\u00f6\\u00dfe", 1),
        lambda text: text[:-1],
    ],
)
def test_bytes_that_edge_runtime_would_not_write_are_refused(bundle, change) -> None:
    written = bundle.manifest.to_bytes().decode()
    changed = change(written)
    assert changed != written
    with pytest.raises(BundleError, match=r"^manifest.json: "):
        Manifest.from_bytes(changed.encode())


@given(st.data())
def test_no_change_of_one_value_crashes(sound_manifest, data) -> None:
    """Any value anywhere becomes any other: it is read or refused, in one line."""
    whole = copy.deepcopy(sound_manifest.to_json())
    inner: Any = whole
    while isinstance(inner, (dict, list)) and inner:
        keys = sorted(inner) if isinstance(inner, dict) else range(len(inner))
        outer, key = inner, data.draw(st.sampled_from(list(keys)))
        inner = inner[key]
    outer[key] = data.draw(text | st.integers() | st.none() | st.lists(st.none()) | plain)
    try:
        Manifest.from_bytes(canonical_json(whole))
    except BundleError as error:
        assert "\n" not in str(error)


def test_a_key_names_its_entry() -> None:
    key = PlanKey("tensorrt-rtx", "1.7.1.116", ("sm86", "sm89"), "linux-x86_64")
    assert key.entry == "plans/tensorrt-rtx-1.7.1.116-sm86-sm89-linux-x86_64.plan"
    assert str(key) == "tensorrt-rtx 1.7.1.116 for sm86, sm89 on linux-x86_64"
    assert replace(key, compute_capabilities=()).slug.endswith("ampere-and-newer-linux-x86_64")


def test_traits_tell_plans_for_one_machine_apart() -> None:
    keys = [
        PlanKey("tensorrt", "10.3.0", ("sm87",), "linux-aarch64", traits)
        for size in range(len(TRAITS) + 1)
        for traits in combinations(TRAITS, size)
    ]
    assert len({key.entry for key in keys}) == len({str(key) for key in keys}) == 8
    assert keys[0].entry == "plans/tensorrt-10.3.0-sm87-linux-aarch64.plan"
    assert keys[4].entry == "plans/tensorrt-10.3.0-sm87-linux-aarch64-dla-stripped.plan"
    assert str(keys[4]) == "tensorrt 10.3.0 for sm87 on linux-aarch64 (dla, stripped)"
