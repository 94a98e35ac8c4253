"""scripts/mlperf.py: LoadGen on a real bundle, its table and its exit code."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import edge_runtime as er


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits: Any) -> Path:
    return er.build(digits.model, output=tmp_path_factory.mktemp("mlperf") / "digits.edge").path


@pytest.fixture(scope="module")
def data(bundle: Path, digits: Any) -> Path:
    path = bundle.with_name("test.npz")
    images = digits.as_input(digits.images[:37])
    np.savez(path, image=images, labels=digits.labels[:37])
    return path


@pytest.fixture
def mlperf(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen is not installed")
    monkeypatch.syspath_prepend(str(root / "scripts"))
    return importlib.import_module("mlperf")


SHORT = ("--duration", "0.1", "--warmup", "0.1", "--threads", "1")


def run(
    mlperf: ModuleType, capsys: pytest.CaptureFixture[str], *given: object
) -> tuple[int, str, str]:
    code = mlperf.main([*map(str, given), *SHORT])
    out, err = capsys.readouterr()
    return code, out, err


def test_all_scenarios_beside_our_own(
    mlperf: ModuleType, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bound = ("--target-qps", 500, "--target-latency", 5000)  # Any machine keeps to that.
    given = (bundle, "--compare", "--turns", 2, "--output", tmp_path, "--json", *bound)
    code, out, _ = run(mlperf, capsys, *given)
    result = json.loads(out)
    assert code == 0, result
    assert result == json.loads((tmp_path / "results.json").read_text())
    assert [one["scenario"] for one in result["runs"]] == list(mlperf.SCENARIOS)
    for one in result["runs"]:
        assert one["loadgen"]["valid"]
        found = one["compared"]
        pairs = zip(found["loadgen"], found["own"], strict=True)
        assert found["ratios"] == [a / b for a, b in pairs]
        assert found["ratio"] == pytest.approx(sum(found["ratios"]) / 2)
        assert one["figure"] in found["loadgen"]
        logs = tmp_path / f"{one['scenario']}-performance"
        assert sorted(path.name for path in logs.iterdir()) == ["0", "1"]
    assert result["conditions"]["board"]["cores"] > 0
    lines = mlperf.table(result)
    assert lines[0].split()[:3] == ["scenario", "result", "queries"]
    for line, one in zip(lines[1:5], result["runs"], strict=True):
        assert line.split()[:2] == [one["scenario"], "VALID"]
        assert f"{one['compared']['ratio']:.3f}" in line
        apart = abs(one["compared"]["ratio"] - 1) > 0.05
        assert ("apart" in line) is apart


def test_an_invalid_run_is_an_exit_code_with_loadgens_reason(
    mlperf: ModuleType, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bound = ("--target-qps", 2000, "--target-latency", 0.001)
    server = ("--scenario", "server", "--output", tmp_path)
    code, out, _ = run(mlperf, capsys, bundle, *server, *bound)
    assert code == 1
    assert out.splitlines()[1].split()[:2] == ["server", "INVALID"]
    assert "INVALID server: the latency is above its bound" in out
    assert "Reduce target QPS" in out


class Trial:
    """Stands for LoadGen: it is VALID if `borne` says so of the test."""

    def __init__(self, borne: Any) -> None:
        self.borne, self.asked = borne, []

    def __call__(self, session: Any, feeds: Any, test: Any, folder: Path) -> Any:
        self.asked.append(test)
        return SimpleNamespace(valid=self.borne(test), reasons=["planted"])


@pytest.fixture
def settle(mlperf: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def run(name: str, borne: Any, *, fixed: bool = False) -> tuple[Any, list[Any]]:
        trial = Trial(borne)
        monkeypatch.setattr(mlperf, "run_loadgen", trial)
        rehearsal = mlperf.Rehearsal(1.0, 2.0, 4000.0, 4000.0)
        args = mlperf.parser().parse_args(["x.edge"])
        how = mlperf.settings(name, rehearsal, args)
        test = mlperf.LoadGenTest(protocol=how, rehearsal=rehearsal)
        return mlperf.settle(None, [], test, tmp_path, fixed=fixed), trial.asked

    return run


def test_an_invalid_run_is_made_again_with_less_to_keep(settle: Any, capsys: Any) -> None:
    found, asked = settle("server", lambda test: test.protocol.target_qps < 300)
    assert [test.protocol.target_qps for test in asked] == [1000, 500, 250]
    assert (found.report.valid, found.attempts) == (True, 3)
    assert found.test.protocol.target_qps == 250
    assert capsys.readouterr().err.count("INVALID (planted): once more") == 2
    found, asked = settle("offline", lambda test: test.rehearsal.best_rate > 5000)
    assert [test.rehearsal.best_rate for test in asked] == [4000, 8000]
    found, asked = settle("single-stream", lambda test: test.rehearsal.fastest < 0.6)
    assert [test.rehearsal.fastest for test in asked] == [1.0, 0.5]


def test_what_stays_invalid_is_said_to_be(settle: Any) -> None:
    found, asked = settle("multi-stream", lambda test: False)
    assert (found.report.valid, found.attempts, len(asked)) == (False, 3, 3)
    # A load that was asked for is kept.
    found, asked = settle("server", lambda test: False, fixed=True)
    assert (found.attempts, len(asked)) == (1, 1)


def test_accuracy_scores_loadgens_answers(
    mlperf: ModuleType, bundle: Path, data: Path, tmp_path: Path, digits: Any, capsys: Any
) -> None:
    given = ("--mode", "accuracy", "--data", data, "--output", tmp_path, "--json")
    code, out, _ = run(mlperf, capsys, bundle, *given)
    result = json.loads(out)
    assert code == 0, result
    with er.load(bundle, device="cpu") as session:
        feeds = [{"image": one[None]} for one in digits.as_input(digits.images[:37])]
        logits = np.concatenate([session.run(feed)["logits"] for feed in feeds])
    right = float((logits.argmax(1) == digits.labels[:37]).mean())
    for one in result["runs"]:
        answers = one["answers"]
        assert (answers["samples"], answers["complete"], answers["different"]) == (37, True, [])
        assert answers["top1"] == pytest.approx(right)
    assert f"{right:.2%}" in mlperf.table(result)[1]


def test_a_wrong_answer_and_a_missing_one_are_found(
    mlperf: ModuleType, bundle: Path, tmp_path: Path
) -> None:
    feeds = [{"image": np.full((1, 1, 16, 16), value, np.float32)} for value in (0, 0.5, 1)]
    with er.load(bundle, device="cpu") as session:
        given = [session.run(feed)["logits"].tobytes() for feed in feeds]
        given[1] = given[0]

        def scored(count: int) -> dict[str, Any]:
            log = [{"qsl_idx": i, "data": data.hex()} for i, data in enumerate(given[:count])]
            (tmp_path / "mlperf_log_accuracy.json").write_text(json.dumps(log))
            found: dict[str, Any] = mlperf.score(session, mlperf.Samples(feeds, None), tmp_path)
            return found

        assert (scored(3)["complete"], scored(3)["different"]) == (True, [1])
        assert (scored(2)["complete"], scored(2)["different"]) == (False, [1, 2])
        given[1] = session.run(feeds[1])["logits"].tobytes()
        assert (scored(3)["complete"], scored(3)["different"]) == (True, [])


def test_made_up_samples_differ(mlperf: ModuleType, bundle: Path) -> None:
    args = mlperf.parser().parse_args([str(bundle)])
    feeds = mlperf.read_samples(er.Bundle.open(bundle), args).feeds
    assert len({feed["image"].tobytes() for feed in feeds}) == len(feeds) == mlperf.MADE_UP


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("none.edge",), "none.edge"),
        (("{bundle}", "--labels", "x.npy"), "--labels are those of --data"),
        (("{bundle}", "--data", "none.npz"), "none.npz"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    mlperf: ModuleType, bundle: Path, given: tuple[str, ...], said: str, tmp_path: Path, capsys: Any
) -> None:
    texts = [text.format(bundle=bundle) for text in given]
    code, out, err = run(mlperf, capsys, *texts, "--output", tmp_path)
    assert (code, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1
    assert err.startswith("scripts/mlperf.py: ")


@pytest.mark.parametrize("name", ["mlperf", "sweep", "bench_preprocess", "bench_pipeline"])
def test_help_shows_the_examples_of_the_script(mlperf: ModuleType, name: str, capsys: Any) -> None:
    script = importlib.import_module(name)
    with pytest.raises(SystemExit) as ended:
        script.main(["--help"])
    assert ended.value.code == 0
    assert f"python scripts/{name}.py" in capsys.readouterr().out


@pytest.mark.parametrize(
    "given", [("--turns", "0"), ("--turns", "2"), ("--compare", "--mode", "accuracy")]
)
def test_options_that_contradict_each_other_are_refused(
    mlperf: ModuleType, given: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as ended:
        mlperf.main(["x.edge", *given])
    assert ended.value.code == 2


def test_without_loadgen_it_says_what_to_install(root: Path, tmp_path: Path) -> None:
    # A folder that hides an installed one: to Python it is not there.
    (tmp_path / "mlperf_loadgen.py").write_text(
        "raise ModuleNotFoundError('hidden', name='mlperf_loadgen')\n"
    )
    code = f"import sys, runpy; sys.path[:0] = [{str(tmp_path)!r}, {str(root)!r}]; " + (
        f"runpy.run_path({str(root / 'scripts' / 'mlperf.py')!r}, run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "pip install 'edge-runtime[loadgen]'" in result.stderr
    assert result.stderr.count("\n") == 1
