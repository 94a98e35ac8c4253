"""A comparison as JSON: read as it was written, and refused in one line if it is anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.bench.compare import compare
from edge_runtime.bench.verdict import Comparison, Ratio, Verdict
from edge_runtime.errors import DataError
from edge_runtime.strict_json import parse
from tests.unit.bench.noise import latencies, result


def comparison(scale: float = 1.1, count: int = 300) -> Comparison:
    random = np.random.default_rng(0)
    old, new = (result(latencies(random, count, scale=s)) for s in (1.0, scale))
    return compare(old, new)


def read(plain: object) -> Comparison:
    data = json.dumps(plain, allow_nan=False).encode()
    return Comparison.from_json(parse(data, where="old.json", error=DataError))


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.3])
def test_it_is_read_as_it_was_written(scale: float) -> None:
    found = comparison(scale)
    assert read(found.to_json()) == found
    assert read(found.to_json()).to_json() == found.to_json()


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "format": lambda plain: plain.update(format="other"),
    "schema": lambda plain: plain.update(schema=2),
    "figure": lambda plain: plain.update(figure="mean"),
    "verdict": lambda plain: plain.update(verdict="faster"),
    "sentence": lambda plain: plain.update(sentence="All is well."),
    "rounds": lambda plain: plain.update(rounds=0),
    "old.bundle_digest": lambda plain: plain["old"].update(bundle_digest="sha256:0"),
    "new.queries": lambda plain: plain["new"].update(queries=1.5),
    "rows[0].verdict": lambda plain: plain["rows"][0].update(verdict="cannot tell"),
    "rows[0].unit": lambda plain: plain["rows"][0].update(unit="s"),
    "rows[0].old": lambda plain: plain["rows"][0].update(old=0),
    "rows[0].ratio": lambda plain: plain["rows"][0].update(ratio=9.0),
    "rows[0].low": lambda plain: plain["rows"][0].update(low=None),
    "rows[0].smallest": lambda plain: plain["rows"][0].update(smallest=-0.1),
    "lacks the key 'notes'": lambda plain: plain.pop("notes"),
    "unknown key 'more'": lambda plain: plain.update(more=1),
}


@pytest.mark.parametrize("where", CHANGES)
def test_what_does_not_follow_from_its_figures_is_refused(where: str) -> None:
    plain = comparison().to_json()
    CHANGES[where](plain)
    with pytest.raises(DataError) as caught:
        read(plain)
    assert where in str(caught.value)
    assert str(caught.value).startswith("old.json: ")


positive = st.floats(1e-3, 1e3)


@given(positive, positive, positive, st.sampled_from(["ms", "qps"]))
def test_a_verdict_needs_the_whole_interval_on_one_side(
    first: float, second: float, third: float, unit: str
) -> None:
    low, middle, high = sorted((first, second, third))
    row = Ratio("median", unit, 1.0, 1.0, middle, low, high, 0.1)
    more, less = Verdict.SLOWER, Verdict.FASTER
    if unit == "qps":
        more, less = less, more
    if low <= 1 <= high:
        assert row.verdict is Verdict.CANNOT_TELL
    elif low > 1:
        assert row.verdict is more
    else:
        assert row.verdict is less


def test_the_sentence_says_what_could_have_been_seen() -> None:
    found = comparison(1.0)
    assert found.main.smallest is not None
    assert found.sentence.startswith("Cannot tell")
    assert f"from {100 * found.main.smallest:.2g} % on" in found.sentence
    slower = comparison(1.5)
    assert "net.edge is slower than net.edge" in slower.sentence
