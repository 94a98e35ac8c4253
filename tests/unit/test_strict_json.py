"""Strict JSON: what is refused, and that the message leads to it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import DataError
from edge_runtime.strict_json import MAX_DEPTH, Value, parse

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Text without lone surrogates is what UTF-8 can hold.
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


def read(text: str | bytes) -> Value:
    data = text if isinstance(text, bytes) else text.encode()
    return parse(data, where="file", error=DataError)


@given(values)
def test_every_proper_value_is_read_as_json_reads_it(value) -> None:
    assert read(json.dumps(value)).plain == value


@given(st.binary(max_size=60) | st.text("[]{},:\"'0123456789.eE+-\\ud \nNaInfty", max_size=60))
def test_garbage_is_read_or_refused_but_never_crashes(garbage) -> None:
    try:
        read(garbage)
    except DataError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "a has the key 'b' twice"),
        ('{"a": [1, NaN]}', r"a\[1\] is nan"),
        ('{"a": [-Infinity]}', r"a\[0\] is -inf"),
        ('{"x": 1e999}', "x is inf"),
        ('{"x": "\\ud800"}', "x holds a lone surrogate"),
        ('{"x": {"\\udc00": 1}}', "x has a key with a lone surrogate"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "is nested more than"),
        ("[" * 100_000, "nested more than"),
        ("9" * 5000, "a number is too long"),
        ("\ufeff{}", "not JSON"),
        ('{"a": 1} x', "line 1, column 10"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "not JSON"),
        ("", "not JSON"),
    ],
)
def test_what_parsers_disagree_about_is_refused(text, where) -> None:
    with pytest.raises(DataError, match=f"^file: .*{where}"):
        read(text)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda v: v.members()["n"].text(), "n is 1; it must be non-empty text"),
        (lambda v: v.members()["s"].integer(0), "s is 'text'; it must be a whole number"),
        (lambda v: v.members()["t"].integer(0), "t is true; it must be a whole number"),
        (lambda v: v.members()["f"].integer(0), "f is 1.0; it must be a whole number"),
        (lambda v: v.members()["n"].integer(2, 3), "n is 1; .* from 2 to 3"),
        (lambda v: v.members()["t"].number(), "t is true; it must be a finite number"),
        (lambda v: v.members()["big"].number(), "big is 1000.*; it must be a finite number"),
        (lambda v: v.members()["n"].items(), "n is 1; it must be a list"),
        (lambda v: v.members()["l"].mapping(), "l is a list; it must be an object"),
        (lambda v: v.members()["l"].items()[1].fields("a"), r"l\[1\] has the unknown key 'b'"),
        (lambda v: v.members()["l"].items()[1].fields("a", "b", "c"), r"l\[1\] lacks the key 'c'"),
        (lambda v: v.members()["a/\n"].text(), r"\['a/\\n'\] is null"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_found_and_wanted(use, message) -> None:
    plain = {"n": 1, "s": "text", "t": True, "f": 1.0, "l": [1, {"a": 1, "b": 2}], "a/\n": None}
    with pytest.raises(DataError, match=f"^file: {message}") as caught:
        use(read(json.dumps({**plain, "big": 10**400})))
    assert len(str(caught.value)) < 200
