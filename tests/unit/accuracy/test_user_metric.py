"""Metrics that are functions of the user's, in the working folder."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.accuracy.user_metric import UserMetric, source_digest
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.user_function import load_function

OUTPUTS = [{"y": np.array([value], "f4")} for value in (1.0, 2.0, 3.0)]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Writes a module of the working folder and gives the metric of its function `f`."""
    monkeypatch.chdir(tmp_path)
    name = f"judge_{abs(hash(str(tmp_path)))}"
    monkeypatch.delitem(sys.modules, name, raising=False)

    def module(body: str) -> str:
        (tmp_path / f"{name}.py").write_text(
            f"import numpy as np\ndef f(outputs, labels):\n {body}"
        )
        return f"python:{name}:f"

    yield module
    sys.modules.pop(name, None)


def test_scores_of_samples_have_an_interval(write) -> None:
    metric = UserMetric(write("return [o['y'][0] * l for o, l in zip(outputs, labels)]"), [1, 1, 4])
    metric.set_reference(iter(OUTPUTS))
    drop = metric.compare(iter([OUTPUTS[0], OUTPUTS[1], {"y": np.zeros(1)}])).drop()
    assert (drop.reference, drop.reached, drop.drop) == (5, 1, 4)
    low, high = drop.interval
    assert (low, high) == (0, pytest.approx(12))


def test_one_number_has_none(write) -> None:
    metric = UserMetric(
        write("assert labels is None; return max(o['y'][0] for o in outputs)"), None
    )
    metric.set_reference(iter(OUTPUTS))
    drop = metric.compare(iter(OUTPUTS[:2] + OUTPUTS[:1])).drop()
    assert (drop.reference, drop.reached, drop.interval) == (3, 2, None)


@pytest.mark.parametrize(
    "body", ["return [1, 2]", "return None", "return np.ones((3, 1))", "return float('nan')"]
)
def test_what_is_no_score_is_refused(write, body: str) -> None:
    with pytest.raises(DataError, match=r"returned .*each of the 3 samples"):
        UserMetric(write(body), None).set_reference(iter(OUTPUTS))


def test_an_error_of_the_function_is_named_and_kept(write) -> None:
    metric = UserMetric(write("return {}['cat']"), None)
    with pytest.raises(DataError, match="failed with KeyError: 'cat'") as caught:
        metric.set_reference(iter(OUTPUTS))
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_function_that_exits_does_not_end_the_build_as_if_it_were_done(write) -> None:
    metric = UserMetric(write("raise SystemExit(0)"), None)
    with pytest.raises(DataError, match="failed with SystemExit: 0"):
        metric.set_reference(iter(OUTPUTS))
    script = write("return 1\nraise SystemExit(0)")
    sys.modules.pop(script.split(":")[1])
    with pytest.raises(ConfigError, match=r"cannot be imported.*SystemExit: 0"):
        load_function(script)


def test_what_cannot_be_imported_is_named(write) -> None:
    path = list(sys.path)
    with pytest.raises(ConfigError, match=r"there_is_no_such.*ModuleNotFoundError"):
        load_function("python:there_is_no_such:f")
    broken = write("return 1").replace(":f", ":g")
    with pytest.raises(ConfigError, match="no function 'g'"):
        load_function(broken)
    assert sys.path == path


def test_another_source_has_another_digest(write) -> None:
    first = source_digest(write("return 1"))
    assert source_digest(write("return 1")) == first
    assert source_digest(write("return 2")) != first
