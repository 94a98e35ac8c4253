"""Budgets of accuracy: how they are written, and what none can be."""

from __future__ import annotations

import pytest

from edge_runtime.config import BuildConfig
from edge_runtime.errors import ConfigError
from edge_runtime.guard_config import GuardConfig


@pytest.mark.parametrize(
    ("given", "share"),
    [
        (0.005, 0.005),
        ("0.5%", 0.005),
        (" .5 % ", 0.005),
        ("0.005", 0.005),
        (0, 0.0),
        ("0", 0.0),
        ("30dB", 0.001),
        ("20 dB", 0.01),
    ],
)
def test_a_budget_is_a_share_however_it_is_written(given: object, share: float) -> None:
    assert GuardConfig(given, "sqnr").max_drop == pytest.approx(share)


@pytest.mark.parametrize("metric", ["agreement", "top1", "map", "python:mine:score"])
def test_a_level_of_noise_is_no_budget_of_other_metrics(metric: str) -> None:
    with pytest.raises(ConfigError, match=rf"max_drop is '30dB'.*sqnr.*{metric}.*0\.5%"):
        GuardConfig("30dB", metric)


@pytest.mark.parametrize(
    "given", [1, 1.0, -0.1, "100%", "-1%", "half", "", None, True, float("nan"), "1e-3", "0dB"]
)
def test_what_is_no_budget_is_refused(given: object) -> None:
    with pytest.raises(ConfigError, match=r"max_drop is .*0\.5%"):
        GuardConfig(given)


@pytest.mark.parametrize("metric", ["top5", "python:module", "python:a b:c", "python:a:b:c", ""])
def test_metrics_that_do_not_exist_are_refused(metric: str) -> None:
    with pytest.raises(ConfigError, match=r"metric is .*top1.*python:MODULE:FUNCTION"):
        GuardConfig(0.01, metric)


@pytest.mark.parametrize(
    ("metric", "needs", "takes"),
    [
        ("top1", True, True),
        ("map", True, True),
        ("agreement", False, False),
        ("sqnr", False, False),
        ("python:my.module:score", False, True),
    ],
)
def test_which_metrics_labels_are_for(metric: str, needs: bool, takes: bool) -> None:
    guard = GuardConfig(0.01, metric)
    assert (guard.needs_labels, guard.takes_labels) == (needs, takes)


def test_a_guard_is_for_int8_and_kept_with_the_settings() -> None:
    config = BuildConfig(precision="int8", guard={"max_drop": "1%", "metric": "top1"})
    assert config.guard == GuardConfig(0.01, "top1")
    assert BuildConfig.from_json(config.to_json()) == config
    with pytest.raises(ConfigError, match="guard is for int8"):
        BuildConfig(guard=GuardConfig(0.01))
    with pytest.raises(ConfigError, match="guard is"):
        BuildConfig(precision="int8", guard={"drop": 0.1})
    with pytest.raises(ConfigError, match="guard is"):
        BuildConfig(precision="int8", guard=0.1)
