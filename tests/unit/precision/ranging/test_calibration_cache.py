"""The calibration cache: exact round trip, strict reading, and whose cache it is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config import digest
from edge_runtime.errors import CalibrationCacheError
from edge_runtime.precision.ranging import calibration_cache
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache, TensorRange

CACHE = CalibrationCache(
    model_digest=digest(b"model"),
    method="mse",
    samples=64,
    data_digest=digest(b"data"),
    ranges={"image": TensorRange(1.0, 1.0), "/conv/out: 0": TensorRange(0.1 + 0.2, 7, "max")},
    tool="0.1.0",
    equalization={"/conv/out: 0": (0.5, 2.0)},
    means={"image": (-0.25,)},
    findings=("Only 3 samples.",),
)

text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
bound = st.floats(min_value=0, allow_infinity=False)
ranges = st.builds(TensorRange, bound, bound, st.just("") | text)


def by_channel(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[dict[str, tuple]]:
    return st.dictionaries(text, st.lists(numbers, max_size=3).map(tuple), max_size=3)


@given(
    st.builds(
        CalibrationCache,
        model_digest=text,
        method=text,
        samples=st.integers(0, 2**40),
        data_digest=st.none() | text,
        ranges=st.dictionaries(text, ranges, max_size=5),
        tool=text,
        equalization=by_channel(st.floats(0, exclude_min=True, allow_infinity=False)),
        means=by_channel(st.floats(allow_nan=False, allow_infinity=False)),
        findings=st.lists(text, max_size=3).map(tuple),
    )
)
def test_round_trip_is_exact_and_independent_of_order(cache) -> None:
    data = cache.to_json_bytes()
    assert CalibrationCache.from_json_bytes(data) == cache
    backwards = replace(cache, ranges=dict(reversed(cache.ranges.items())))
    assert backwards.to_json_bytes() == data


def test_a_saved_cache_is_loaded_and_readable(tmp_path) -> None:
    path = tmp_path / "calibration.json"
    CACHE.save(path)
    assert CalibrationCache.load(path) == CACHE
    assert '\n    "image": {\n      "amax": 1.0,\n' in path.read_text()


def test_what_cannot_be_saved_or_loaded_is_refused(tmp_path) -> None:
    with pytest.raises(CalibrationCacheError, match="Cannot write"):
        CACHE.save(tmp_path / "none" / "calibration.json")
    with pytest.raises(CalibrationCacheError, match="Cannot read"):
        CalibrationCache.load(tmp_path / "none")


def test_a_huge_file_is_refused(tmp_path, monkeypatch) -> None:
    path = tmp_path / "calibration.json"
    CACHE.save(path)
    monkeypatch.setattr(calibration_cache, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(CalibrationCacheError, match="larger than"):
        CalibrationCache.load(path)


def bounds(**changes: object) -> dict[str, object]:
    return {"amax": 1, "observed": 1, "method": "", **changes}


def changed(**changes: object) -> bytes:
    return json.dumps({**json.loads(CACHE.to_json_bytes()), **changes}).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "the whole is a list"),
        (b"TRT-8401-EntropyCalibration2\n", "TensorRT's own"),
        (changed(schema=3, new=1), r"newer edge_runtime \(schema 3; this one reads 2\)"),
        (changed(schema=1, new=1), r"older edge_runtime \(schema 1; .*2\)\. Calibrate again"),
        (changed(new=1), "unknown key 'new'"),
        (changed(method=""), "method is ''"),
        (changed(samples=-1), "samples is -1"),
        (changed(samples=1.0), "samples is 1.0"),
        (changed(model_digest=None), "model_digest is null"),
        (changed(data_digest=1), "data_digest is 1"),
        (changed(ranges=[]), "ranges is a list"),
        (changed(ranges={"a": 1}), "ranges.a is 1"),
        (changed(ranges={"a/b": {"amax": 1}}), r"ranges\['a/b'\] lacks the key 'observed'"),
        (changed(ranges={"a": bounds(amax=-1)}), "ranges.a.amax is -1"),
        (changed(ranges={"a": bounds(observed=-1e-9)}), "ranges.a.observed is -1e-09"),
        (changed(ranges={"a": bounds(amax=True)}), "ranges.a.amax is true"),
        (changed(ranges={"a": bounds(amax=10**400)}), "ranges.a.amax is 1000"),
        (changed(ranges={"a": bounds(amax=float("nan"))}), "ranges.a.amax is nan"),
        (changed(ranges={"a": bounds(observed=float("inf"))}), "ranges.a.observed is inf"),
        (changed(ranges={"a": bounds(method=None)}), "ranges.a.method is null"),
        (changed(equalization=None), "equalization is null"),
        (changed(equalization={"a": 2.0}), "equalization.a is 2.0"),
        (changed(equalization={"a": [1.0, 0.0]}), "equalization.a has numbers that are not above"),
        (changed(equalization={"a": [-1.0]}), "equalization.a has numbers that are not above 0"),
        (changed(equalization={"a": [float("inf")]}), r"equalization.a\[0\] is inf"),
        (changed(means={"a": ["1"]}), r"means.a\[0\] is '1'"),
        (changed(means={"a": [float("nan")]}), r"means.a\[0\] is nan"),
        (changed(findings="one"), "findings is 'one'"),
        (changed(findings=[1]), r"findings\[0\] is 1"),
        (changed().replace(b'"image"', b'"/conv/out: 0"'), "ranges has the key '/conv/out: 0' tw"),
        (changed().replace(b'"schema": 2', b'"tool": "x"'), "the key 'tool' twice"),
        (changed().replace(b'"schema": 2, ', b""), "lacks the key 'schema'"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(data, reason) -> None:
    with pytest.raises(CalibrationCacheError, match=f"^some.json.*{reason}") as caught:
        CalibrationCache.from_json_bytes(data, where="some.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_range_must_be_finite_and_not_negative(value) -> None:
    for bounds in ((value, 1.0), (1.0, value)):
        with pytest.raises(CalibrationCacheError, match="finite"):
            TensorRange(*bounds)


def test_zero_has_no_sign_so_that_equal_caches_give_equal_bytes() -> None:
    negative, positive = ({"x": TensorRange(zero, zero)} for zero in (-0.0, 0.0))
    written = [replace(CACHE, ranges=ranges).to_json_bytes() for ranges in (negative, positive)]
    assert written[0] == written[1]


def test_a_cache_is_of_its_model_and_tensors_only() -> None:
    CACHE.check(CACHE.model_digest, ["/conv/out: 0", "image"])
    with pytest.raises(CalibrationCacheError, match="another model") as caught:
        CACHE.check(digest(b"other"), CACHE.ranges)
    assert CACHE.model_digest in str(caught.value)
    assert digest(b"other") in str(caught.value)


def test_missing_and_stale_tensors_are_named_a_few_at_a_time() -> None:
    tensors = {"image", "a", "b", "c", "d", "e"}
    with pytest.raises(CalibrationCacheError) as caught:
        CACHE.check(CACHE.model_digest, tensors)
    message = str(caught.value)
    assert "has no range for 'a', 'b', 'c' and 2 more and has ranges" in message
    assert "the graph lacks: '/conv/out: 0'." in message
