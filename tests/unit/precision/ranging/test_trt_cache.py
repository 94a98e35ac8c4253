"""TensorRT's calibration cache: byte by byte, and what no calibrator can have written."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import CalibrationCacheError
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache, TensorRange
from edge_runtime.precision.ranging.trt_cache import TrtCache, version_number

# Lines as TensorRT writes them, with every oddity of names and values that was seen.
REAL = """\
TRT-8401-EntropyCalibration2
input: 3c010204
(Unnamed Layer* 64) [Shuffle]_output: 4000889d
StatefulPartitionedCall/model/x:0: 3caa54fc
a: b: 40b7daf4
 leading and trailing : 3f800000
always_zero: 0
"""
HEADER = "TRT-100300-MinMaxCalibration\n"

names = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), min_size=1, max_size=20)
# TRT writes the scale of a tensor of zeros as 0, so -0.0 is none of its values.
scales = st.floats(min_value=0, allow_infinity=False, width=32).map(abs)


def refusal(text: str | bytes) -> str:
    with pytest.raises(CalibrationCacheError) as caught:
        TrtCache.parse(text, where="calib.cache")
    message = str(caught.value)
    assert message.startswith("calib.cache")
    assert "\n" not in message
    return message


def test_real_lines_come_back_byte_by_byte() -> None:
    cache = TrtCache.parse(REAL)
    assert cache.format() == REAL
    assert TrtCache.parse(REAL.encode()) == cache
    assert (cache.version, cache.algorithm) == (8401, "EntropyCalibration2")
    assert list(cache.scales) == [
        "input",
        "(Unnamed Layer* 64) [Shuffle]_output",
        "StatefulPartitionedCall/model/x:0",
        "a: b",
        " leading and trailing ",
        "always_zero",
    ]


def test_real_values_are_what_they_stand_for() -> None:
    ranges = TrtCache.parse(REAL).to_ranges()
    assert ranges["input"].amax == pytest.approx(1.0, rel=1e-7)
    assert ranges["a: b"].amax == pytest.approx(729.68, abs=0.01)
    assert ranges["always_zero"] == TensorRange(0.0, 0.0)


def test_both_forms_of_zero_are_read_and_the_bare_one_is_written() -> None:
    for zero in ("0", "00000000"):
        cache = TrtCache.parse(f"{HEADER}x: {zero}\n")
        assert cache.scales == {"x": 0.0}
        assert cache.format() == f"{HEADER}x: 0\n"


def test_a_file_without_tensors_or_last_line_end_is_read() -> None:
    assert TrtCache.parse(HEADER).scales == {}
    assert TrtCache.parse(REAL.removesuffix("\n")).format() == REAL


@given(st.dictionaries(names, scales, max_size=7), st.sampled_from([7103, 8602, 101401]))
def test_round_trip(values, version) -> None:
    cache = TrtCache(version, "MinMaxCalibration", values)
    again = TrtCache.parse(cache.format())
    assert again == cache
    assert list(again.scales.items()) == list(values.items())


def test_negative_zero_is_written_as_zero() -> None:
    assert TrtCache(100300, "MinMaxCalibration", {"x": -0.0}).format() == f"{HEADER}x: 0\n"


@given(st.text(max_size=80) | st.binary(max_size=80))
def test_garbage_is_refused(garbage) -> None:
    refusal(garbage)


@given(st.text("ab: 0123456789abcdefABCDEFx-+.\n\r\0 ", max_size=60))
def test_garbage_behind_a_header_is_refused_or_comes_back(garbage) -> None:
    try:
        cache = TrtCache.parse(HEADER + garbage)
    except CalibrationCacheError as error:
        assert "\n" not in str(error)
    else:
        assert TrtCache.parse(cache.format()) == cache


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1"),
        ("input: 3c010204\n", "line 1 is 'input: 3c010204'"),
        ("trt-8401-EntropyCalibration2\n", "line 1"),
        ("TRT-8.4.1-EntropyCalibration2\n", "line 1"),
        ("TRT-8401-\n", "line 1"),
        (b"TRT-8401-EntropyCalibration2\nx: \xff\n", "not text"),
        (b"TRT-8401-EntropyCalibration2\nx\0y: 0\n", "not text"),
        (b"ptrt" + bytes(range(256)), "not text"),
        (REAL.replace("\n", "\r\n"), "line ends of Windows"),
        (f"{HEADER}x: 0\n\ny: 0\n", "line 3 is ''"),
        (f"{HEADER}x 3c010204\n", "line 2 is 'x 3c010204', not NAME: HEX"),
        (f"{HEADER}x:3c010204\n", "not NAME: HEX"),
        (f"{HEADER}: 3c010204\n", "not NAME: HEX"),
        (f"{HEADER}x: \n", "is ''; it must be 8"),  # "0x0".lstrip("0x")
        (f"{HEADER}x: 3c0102\n", "is '3c0102'; it must be 8"),  # cut off
        (f"{HEADER}x: 3c0102040\n", "must be 8"),
        (f"{HEADER}x: 0x3c0102\n", "must be 8"),
        (f"{HEADER}x: 3c01020g\n", "must be 8"),
        (f"{HEADER}x: +3c01020\n", "must be 8"),
        (f"{HEADER}x: 3c_10204\n", "must be 8"),
        (f"{HEADER}x: \uff13c010204\n", "must be 8"),
        (f"{HEADER}x: 3c010204 \n", "must be 8"),
        (f"{HEADER}x: bc010204\n", "finite, at least 0"),
        (f"{HEADER}x: 80000000\n", "finite, at least 0"),
        (f"{HEADER}x: 7f800000\n", "inf"),
        (f"{HEADER}x: 7fc00000\n", "nan"),
        (f"{HEADER}x: 0\ny: 0\nx: 0\n", "line 4: 'x' is there twice"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line(text, reason) -> None:
    assert reason in refusal(text)


AMAXES = (1.0, 2.64, 0.9, 4.0, 6.0, 12.5, 3.1, 30.0, 729.68, 255.0)


def test_inverted_scales_are_noticed() -> None:
    right = TrtCache(100300, "MinMaxCalibration", {f"t{i}": a / 127 for i, a in enumerate(AMAXES)})
    assert TrtCache.parse(right.format()) == right
    wrong = TrtCache(100300, "MinMaxCalibration", {f"t{i}": 127 / a for i, a in enumerate(AMAXES)})
    assert "127 / amax" in refusal(wrong.format())


def test_a_few_large_ranges_are_no_inverted_scales() -> None:
    large = {f"t{i}": 50.0 for i in range(7)}
    assert TrtCache.parse(TrtCache(100300, "MinMaxCalibration", large).format()).scales == large


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", "a\0b"])
def test_a_name_that_cannot_be_written_is_refused(name) -> None:
    with pytest.raises(CalibrationCacheError, match="cannot hold a tensor named"):
        TrtCache(8401, "EntropyCalibration2", {name: 1.0})


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf, 1e39])
def test_a_scale_that_cannot_be_written_is_refused(scale) -> None:
    with pytest.raises(CalibrationCacheError, match="'x' is"):
        TrtCache(8401, "EntropyCalibration2", {"x": scale})


@pytest.mark.parametrize(
    ("version", "algorithm"), [(5, "A"), (8401, ""), (8401, "A B"), (-8401, "A")]
)
def test_a_header_that_cannot_be_written_is_refused(version, algorithm) -> None:
    with pytest.raises(CalibrationCacheError, match="not a header"):
        TrtCache(version, algorithm, {})


@given(st.dictionaries(names, st.floats(0, 2.0**100, width=32), max_size=7))
def test_a_cache_of_ours_is_written_as_float32_divided_by_127(amaxes) -> None:
    ranges = {name: TensorRange(amax, amax) for name, amax in amaxes.items()}
    ours = CalibrationCache("sha256:0", "mse", 1, None, ranges, "0.1.0")
    theirs = TrtCache.from_cache(ours, version=version_number("10.3.0"))
    lines = theirs.format().split("\n")
    assert lines[0] == "TRT-100300-EntropyCalibration2"
    assert list(theirs.scales) == sorted(amaxes)
    for name, amax in amaxes.items():
        assert theirs.scales[name] == struct.unpack(">f", struct.pack(">f", amax / 127))[0]
        assert theirs.to_ranges()[name].amax == pytest.approx(amax, rel=1e-6, abs=1e-40)


def test_a_cache_with_equalized_channels_is_not_written() -> None:
    """Its ranges are those of another graph than the ONNX file."""
    ranges = {"x": TensorRange(1.0, 1.0)}
    ours = CalibrationCache("d", "mse", 1, None, ranges, "0.1.0", equalization={"x": (1.0, 2.0)})
    with pytest.raises(CalibrationCacheError, match="--no-equalize"):
        TrtCache.from_cache(ours, version=100300)


@pytest.mark.parametrize(
    ("version", "number"),
    [("7.1.3", 7103), ("8.4.1", 8401), ("8.6.2.3", 8602), ("10.3.0", 100300), ("10.14.1", 101401),
     ("11.4.1.post1", 110401)],
)  # fmt: skip
def test_version_numbers(version, number) -> None:
    assert version_number(version) == number


@pytest.mark.parametrize("version", ["", "10", "10.3", "v10.3.0", "10.3.x"])
def test_what_is_no_version_is_refused(version) -> None:
    with pytest.raises(CalibrationCacheError, match="not a version"):
        version_number(version)
