"""Numbers, names and digests as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import text
from edge_runtime.precision.ranging.trt_cache import version_number


@given(st.text())
def test_what_is_printed_holds_no_control_characters(name: str) -> None:
    shown = text.printable(name)
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_what_is_printable_stays_as_it_is(name: str) -> None:
    assert text.printable(name) == name


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (9949, "9.9 kB"),
        (9950, "10 kB"),
        (57456, "57 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1_600_000, "1.6 MB"),
        (25_000_000_000, "25 GB"),
        (2_000_000_000_000, "2000 GB"),
    ],
)
def test_sizes_have_units(count: int, shown: str) -> None:
    assert text.file_size(count) == shown


def test_all_is_100_percent_and_less_is_not() -> None:
    assert text.percent(1.0) == "100 %"
    assert text.percent(0.99999) == "> 99.9 %"
    assert text.percent(0.9876) == "98.8 %"
    assert text.percent(None) == "-"


def test_sqnr_tells_equal_from_no_signal() -> None:
    assert text.sqnr(None, equal=True) == "equal"
    assert text.sqnr(None, equal=False) == "no signal"
    assert text.sqnr(32.24, equal=False) == "32.2 dB"


def test_few_says_how_many_more() -> None:
    assert text.few("abc") == "a, b, c"
    assert text.few("abcde") == "a, b, c and 2 more"


@pytest.mark.parametrize("version", ["7.1.3", "8.4.1", "8.6.2", "10.3.0", "10.13.2", "11.0.0"])
def test_tensorrt_s_numbers_are_read_back(version: str) -> None:
    assert text.tensorrt_version(version_number(version)) == version
