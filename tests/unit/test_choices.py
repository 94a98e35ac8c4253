"""Settings from their text."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.choices import member, settings, size
from edge_runtime.errors import ConfigError


class Colour(str, Enum):
    """Something to choose from."""

    RED = "red"
    BLUE = "blue"


def test_a_member_is_found_by_its_value_or_is_itself() -> None:
    assert member(Colour, "red", "colour") is member(Colour, Colour.RED, "colour") is Colour.RED
    with pytest.raises(ConfigError, match=r"^colour is 'RED'; it must be one of red, blue\.$"):
        member(Colour, "RED", "colour")


@given(st.integers(0, 10**12), st.sampled_from(["", " "]))
def test_a_size_is_read_in_every_unit(count: int, space: str) -> None:
    factors = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
    factors |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    for unit, factor in factors.items():
        assert size(f"{count}{space}{unit}", "workspace") == count * factor
    assert size(count, "workspace") == count
    assert size(None, "workspace") is None


@given(st.text() | st.floats() | st.booleans() | st.lists(st.integers()))
def test_what_is_no_size_is_refused_and_never_guessed(value: object) -> None:
    try:
        found = size(value, "workspace")
    except ConfigError as error:
        assert str(error).startswith("workspace is ")
    else:
        assert isinstance(value, str)
        assert value[0].isdecimal()
        assert found is not None
        assert found >= 0


@pytest.mark.parametrize("text", ["", "MiB", "1.5GiB", "1mb", "1TB", "-1", "1 2", "0x10", "1MiB\n"])
def test_these_are_no_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match="512MiB"):
        size(text, "workspace")


@dataclass(frozen=True)
class Paint:
    """Settings in a group."""

    colour: str = "red"
    coats: int = 1


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, Paint()),
        ({}, Paint()),
        ({"coats": 2}, Paint(coats=2)),
        (Paint("blue"), Paint("blue")),
    ],
)
def test_a_group_of_settings_is_given_whole_in_part_or_not(given: object, meant: Paint) -> None:
    assert settings(Paint, given, "paint") == meant


@pytest.mark.parametrize("given", ["red", 2, {"colours": 1}, [("coats", 2)], Colour])
def test_what_is_no_group_of_settings_is_refused_with_their_names(given: object) -> None:
    with pytest.raises(ConfigError, match=r"paint is .*a Paint, or map some of colour, coats"):
        settings(Paint, given, "paint")
