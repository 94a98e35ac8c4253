"""The bundle: written and read back, extended, replaced under the reader, killed while written."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.bundle import Bundle, PlanKey, add_plans, write_bundle
from edge_runtime.config import BuildConfig, Precision, digest
from edge_runtime.errors import BundleError

RTX_KEY = PlanKey("tensorrt-rtx", "1.7.1.116", (), "linux-x86_64")


@dataclass
class Built:
    """A plan as a builder hands it out."""

    key: PlanKey
    data: bytes
    verdict: dict[str, object] | None = None


def open_files() -> int:
    return len(names(Path("/proc/self/fd")))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def overwrite(path: Path, old: bytes, new: bytes) -> None:
    """Changes bytes in place, as no edge_runtime does."""
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


def test_what_was_written_is_there(bundle, manifest, contents) -> None:
    again = Bundle.open(str(bundle.path))
    again.verify()
    assert again == bundle
    assert {entry.name for entry in again.manifest.entries} == contents.keys()
    assert {name: again.read(name) for name in contents} == contents
    assert again.inputs == manifest.inputs
    assert again.outputs == manifest.outputs
    assert again.plans == manifest.plans
    assert again.precision is Precision.INT8
    assert again.digest == digest(again.manifest.to_bytes())
    assert replace(again.manifest, entries=()) == manifest


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from(["cpu.onnx", "cpu_fast.onnx", "calibration.json", "calibration.cache"]),
        st.binary(min_size=1, max_size=9000),
    ),
    st.dictionaries(
        st.builds(
            PlanKey,
            st.sampled_from(["tensorrt", "tensorrt-rtx"]),
            st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,3}){2}", fullmatch=True),
            st.lists(st.sampled_from(["sm86", "sm87"]), max_size=2).map(tuple),
            st.just("linux-x86_64"),
        ),
        st.binary(min_size=1, max_size=9000),
        max_size=3,
    ),
)
def test_any_contents_come_back_whatever_the_order(manifest, others, plans) -> None:
    contents = {"graph.onnx": b"graph", **others}
    empty = replace(manifest, plans={}, verdicts={}, plan_settings={})
    settings = manifest.build_config.plan_settings
    with tempfile.TemporaryDirectory() as folder:
        stepwise = write_bundle(Path(folder, "a.edge"), empty, contents)
        for key, plan in plans.items():
            stepwise = add_plans(stepwise, [Built(key, plan, {"size": len(plan)})])
        contents |= {key.entry: plan for key, plan in plans.items()}
        backwards = dict(reversed(contents.items()))
        full = replace(
            manifest,
            plans={key.entry: key for key in plans},
            verdicts={key.entry: {"size": len(plan)} for key, plan in plans.items()},
            plan_settings={key.entry: settings for key in plans},
        )
        at_once = write_bundle(Path(folder, "b.edge"), full, backwards)
        for bundle in (stepwise, at_once):
            bundle.verify()
            assert {name: bundle.read(name) for name in contents} == contents
        assert stepwise.path.read_bytes() == at_once.path.read_bytes()


def test_mapped_content_is_read_only_and_gone_after_the_block(bundle, contents) -> None:
    for name, content in contents.items():
        with bundle.map(name) as view:
            assert view == content
            assert view.readonly
        with pytest.raises(ValueError, match="released"):
            bytes(view)


def test_what_still_looks_at_mapped_memory_keeps_it(bundle, contents) -> None:
    with bundle.map("graph.onnx") as view:
        kept = view[10:]
    bundle.path.unlink()
    gc.collect()
    assert kept == contents["graph.onnx"][10:]


def test_reading_leaves_no_open_file(bundle, contents) -> None:
    before = open_files()
    for name in contents:
        bundle.read(name)
        with bundle.map(name):
            pass
    bundle.verify()
    assert open_files() == before


def use(bundle: Bundle, how: str) -> None:
    """Gets at the content of graph.onnx in one of the ways that there are."""
    if how == "add":
        add_plans(bundle, [Built(RTX_KEY, b"rtx")])
    elif how == "verify":
        bundle.verify()
    elif how == "read":
        bundle.read("graph.onnx")
    else:
        with bundle.map("graph.onnx"):
            pytest.fail("the block was entered")


@pytest.mark.parametrize("how", ["read", "map", "verify", "add"])
def test_a_damaged_content_is_refused_by_every_way_to_it(bundle, how) -> None:
    overwrite(bundle.path, b"graphgraphgraph", b"graphgraqhgraph")
    before = bundle.path.read_bytes()
    again = Bundle.open(bundle.path)
    assert again.read("cpu.onnx")
    for opened in (bundle, again):
        with pytest.raises(BundleError, match=r"damaged: the content of graph\.onnx"):
            use(opened, how)
    assert bundle.path.read_bytes() == before
    assert names(bundle.path.parent) == ["digits.edge"]


@pytest.mark.parametrize("how", ["read", "map", "verify", "add"])
def test_a_file_replaced_after_opening_is_noticed(bundle, manifest, contents, how) -> None:
    write_bundle(bundle.path, manifest, {**contents, "graph.onnx": b"h" * 5000})
    with pytest.raises(BundleError, match="was replaced since it was opened"):
        use(bundle, how)
    assert names(bundle.path.parent) == ["digits.edge"]


def test_a_file_cut_or_removed_after_opening_is_noticed(bundle) -> None:
    os.truncate(bundle.path, 5000)
    for how in ("read", "map", "verify", "add"):
        with pytest.raises(BundleError, match="truncated"):
            use(bundle, how)
    bundle.path.unlink()
    with pytest.raises(BundleError, match="no such file"):
        bundle.read("graph.onnx")


def test_an_entry_that_is_not_there_is_named_with_those_that_are(bundle) -> None:
    with pytest.raises(BundleError, match=r"no entry 'x'; it has graph\.onnx, cpu\.onnx"):
        bundle.read("x")
    with pytest.raises(BundleError, match="no entry"):
        bundle.read("manifest.json")


def test_plans_are_added_and_replaced_and_the_rest_stays(bundle, contents, key) -> None:
    added = add_plans(bundle, [Built(RTX_KEY, b"rtx"), Built(key, b"new" * 5000, {"layers": 1})])
    assert added == Bundle.open(bundle.path)
    added.verify()
    assert added.plans == {key.entry: key, RTX_KEY.entry: RTX_KEY}
    expected = {**contents, key.entry: b"new" * 5000, RTX_KEY.entry: b"rtx"}
    assert {name: added.read(name) for name in expected} == expected
    assert added.manifest.verdicts == {key.entry: {"layers": 1}}
    assert names(bundle.path.parent) == ["digits.edge"]


def test_a_plan_brings_its_settings_and_takes_its_verdict_away(bundle, key) -> None:
    old = BuildConfig(precision="int8")
    new = BuildConfig(precision="int8", profiles={"image": "1x1x16x16"})
    added = add_plans(bundle, [Built(RTX_KEY, b"rtx")], config=new).manifest
    assert added.plan_settings[key.entry] == old.plan_settings != new.plan_settings
    assert added.plan_settings[RTX_KEY.entry] == new.plan_settings
    assert added.build_config == new
    assert added.verdicts.keys() == {key.entry}
    replaced = add_plans(Bundle.open(bundle.path), [Built(key, b"new")]).manifest
    assert replaced.plan_settings[key.entry] == new.plan_settings
    assert replaced.verdicts == {}


def test_a_bundle_is_that_of_its_build_until_a_plan_is_replaced(bundle, key) -> None:
    added = add_plans(bundle, [Built(RTX_KEY, b"rtx")])
    assert added.manifest.build_key == bundle.manifest.build_key
    replaced = add_plans(added, [Built(key, b"new")])
    assert replaced.manifest.build_key != bundle.manifest.build_key


def test_adding_a_plan_does_not_load_what_is_there(bundle, manifest, contents) -> None:
    large = write_bundle(bundle.path, manifest, {**contents, "graph.onnx": bytes(16 << 20)})
    tracemalloc.start()
    try:
        add_plans(large, [Built(RTX_KEY, b"rtx")])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20


def test_a_plan_added_meanwhile_is_not_lost(bundle, key) -> None:
    other = add_plans(bundle, [Built(RTX_KEY, b"rtx")])
    with pytest.raises(BundleError, match="replaced since"):
        add_plans(bundle, [Built(key, b"new")])
    other.verify()
    assert RTX_KEY.entry in Bundle.open(bundle.path).plans


def test_contradictions_are_not_written(tmp_path, manifest, contents, key) -> None:
    path = tmp_path / "new.edge"
    for wrong, reason in (
        ({**contents, "notes.txt": b"x"}, "cannot be the name"),
        ({**contents, "graph.onnx": b""}, "no content"),
        ({n: c for n, c in contents.items() if n != "graph.onnx"}, r"lacks graph\.onnx"),
        ({n: c for n, c in contents.items() if n != key.entry}, "disagree"),
        ({**contents, "plans/stray.plan": b"x"}, "disagree"),
    ):
        with pytest.raises(BundleError, match=reason):
            write_bundle(path, manifest, wrong)
    with pytest.raises(BundleError, match="a-z 0-9"):
        add_plans(
            write_bundle(tmp_path / "sound.edge", manifest, contents),
            [Built(replace(key, version="10/3"), b"x")],
        )
    assert names(tmp_path) == ["sound.edge"]


@pytest.mark.parametrize("name", ["none.edge", "folder"])
def test_what_is_no_file_is_refused(tmp_path, name) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BundleError, match=f"Cannot read .*{name}: "):
        Bundle.open(tmp_path / name)


def test_the_committed_model_is_taken_for_what_it_is(digits) -> None:
    with pytest.raises(BundleError, match=r"ONNX model; .*`edge-runtime build`"):
        Bundle.open(digits.model)


KILLED = """
import os, sys
from types import SimpleNamespace
from edge_runtime.bundle import Bundle, PlanKey, add_plans
bundle = Bundle.open(sys.argv[1])
key = PlanKey("tensorrt-rtx", "1.7.1.116", (), "linux-x86_64")
plan = SimpleNamespace(key=key, data=b"rtx", verdict=None)
calls = 0
def killing(original):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == at:
            os._exit(9)
        return original(*arguments, **options)
    return call
for name in ("write", "fsync", "replace"):
    setattr(os, name, killing(getattr(os, name)))
for at in range(1, 100):
    child = os.fork()
    if not child:
        add_plans(bundle, [plan])
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    bundle = Bundle.open(sys.argv[1])
    bundle.verify()
    print(at, status, len(bundle.plans))
    if not status:
        break
"""


def test_whenever_the_process_is_killed_there_is_one_whole_bundle(bundle) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, bundle.path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    *killed, last = [tuple(map(int, line.split())) for line in result.stdout.splitlines()]
    assert last[1:] == (0, 2)
    assert len(killed) > 10
    # Killed before the rename, the old plan is there; at the sync of the folder, both.
    assert [plans for _, _, plans in killed] == [1] * (len(killed) - 1) + [2]
    assert {status for _, status, _ in killed} == {9}
