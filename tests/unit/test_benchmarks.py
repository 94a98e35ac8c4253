"""The guard of the package's own speed: its benchmarks run, and it judges ratios rightly."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def guard(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("guard")


@pytest.mark.skipif(
    find_spec("pytest_benchmark") is None, reason="pytest-benchmark is not installed"
)
def test_every_benchmark_runs_and_has_a_baseline(root: Path) -> None:
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-disable", "-v"]
    command += ["-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    baseline = json.loads((root / "benchmarks" / "baseline.json").read_text(encoding="utf-8"))
    ran = re.findall(r"::test_(\w+)\[(ours|peer)\] (?:PASSED|SKIPPED)", done.stdout)
    assert sorted(ran) == [(name, side) for name in baseline["ratios"] for side in ("ours", "peer")]


def report(**pairs: tuple[float, float]) -> dict:
    return {
        "benchmarks": [
            {"group": name, "extra_info": {"side": side}, "stats": {"min": time, "mean": time + 9}}
            for name, times in pairs.items()
            for side, time in zip(("ours", "peer"), times, strict=True)
        ]
    }


def test_a_ratio_is_ours_by_the_peers_and_half_as_much_again_is_tolerated(
    guard: ModuleType,
) -> None:
    found = guard.ratios(report(run=(1.4, 1.0), open=(3.2, 1.0)))
    assert found == {"open": 3.2, "run": 1.4}
    assert guard.slower(found, {"run": 1.0, "open": 2.0}) == ["open"]
    assert guard.slower(found, {"run": 1.4, "open": 9.0}) == []


def test_the_guard_fails_only_on_what_is_slower_each_time(
    guard: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({"version": "1", "ratios": {"run": 1.0, "open": 2.0}}))
    monkeypatch.setattr(sys, "argv", ["guard.py", "--baseline", str(baseline)])
    for runs, code in (
        ([{"run": 1.1, "open": 2.1}], 0),
        ([{"run": 9.0, "open": 2.1}, {"run": 1.1}], 0),
        ([{"run": 9.0, "open": 2.1}, {"run": 9.0}, {"run": 9.0}], 1),
    ):
        left = iter(runs)
        monkeypatch.setattr(guard, "measure", lambda names=(), left=left: next(left))
        with pytest.raises(SystemExit) as ended:
            guard.main()
        assert ended.value.code == code
        assert list(left) == []
    monkeypatch.setattr(guard, "measure", lambda names=(): {"run": 1.0})
    with pytest.raises(SystemExit, match="open"):
        guard.main()
