"""scripts/sweep.py, bench_preprocess.py and bench_pipeline.py: what they run, and what they say."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

import edge_runtime as er
from edge_runtime.bench.result import BenchResult
from edge_runtime.errors import InferenceError

Script = Callable[[str], ModuleType]


@pytest.fixture
def script(root: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.syspath_prepend(str(root / "scripts"))
    monkeypatch.setenv("PYTHONPATH", str(root))
    return importlib.import_module


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits: Any) -> Path:
    how = er.Preprocessing(size=16, color="gray")
    path = tmp_path_factory.mktemp("bundles") / "digits.edge"
    return er.build(digits.model, output=path, preprocessing=how).path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, digits: Any) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(5):
        cv2.imwrite(str(folder / f"{index}.png"), digits.images[index])
    return folder


class Cells(HTMLParser):
    """The rows of a table as text, and the links in it."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


class TestSweep:
    def test_every_case_is_measured_and_in_the_index(
        self, script: Script, bundle: Path, tmp_path: Path
    ) -> None:
        sweep = script("sweep")
        given = ["--batch", "1,3", "--streams", "1,2", "--duration", "0.05"]
        rest = ["--", "--device", "cpu", "--threads", "1", "--no-telemetry"]
        assert sweep.main([str(bundle), *given, "--output", str(tmp_path), *rest]) == 0
        page = Cells()
        page.feed((tmp_path / "index.html").read_text())
        assert page.rows[0] == list(sweep.COLUMNS)
        names = [f"digits-b{batch}-s{streams}" for batch in (1, 3) for streams in (1, 2)]
        assert [row[0] for row in page.rows[1:]] == names
        assert page.links == [f"{name}.html" for name in names]
        assert all("<html" in (tmp_path / link).read_text() for link in page.links)
        for name, row in zip(names, page.rows[1:], strict=True):
            result = BenchResult.load(tmp_path / f"{name}.json")
            cells = dict(zip(sweep.COLUMNS, row, strict=True))
            assert f"digits-b{cells['batch']}-s{cells['streams']}" == name
            assert (cells["precision"], cells["backend"]) == ("fp32", "cpu")
            assert cells["samples/s"] == f"{result.samples_per_second:.5g}"
            assert float(cells["samples/s"]) >= float(cells["queries/s"])
            assert cells["median ms"] == f"{result.summary().median:.4g}"
            assert cells["notes"] == " ".join(result.warnings)
        lines = (tmp_path / "index.md").read_text().splitlines()
        assert len(lines) == 2 + len(names)
        # A cell may hold an escaped bar.
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(sweep.COLUMNS) + 1}

    def test_what_cannot_be_measured_is_in_the_index_with_its_reason(
        self, script: Script, bundle: Path, tmp_path: Path
    ) -> None:
        sweep = script("sweep")
        (tmp_path / "digits-busual-s1.json").write_text("{}")  # Of an earlier run: it must go.
        rest = ["--", "--device", "cpu", "--shape", "<x>=1x2"]
        given = [str(bundle), "--duration", "0.05", "--output", str(tmp_path)]
        assert sweep.main([*given, *rest]) == 1
        page = Cells()
        page.feed((tmp_path / "index.html").read_text())
        assert "A shape is given for input '<x>'" in page.rows[1][-1]
        assert page.links == ["digits-busual-s1.error"]
        assert sweep.main([*given, "--", "--device", "cpu"]) == 0
        assert not (tmp_path / "digits-busual-s1.error").exists()

    def test_an_index_of_several_folders(
        self, script: Script, bundle: Path, tmp_path: Path
    ) -> None:
        sweep = script("sweep")
        for name in ("mode-0", "mode-1"):
            given = ["--duration", "0.05", "--output", str(tmp_path / name)]
            assert sweep.main([str(bundle), *given, "--", "--device", "cpu"]) == 0
        assert sweep.main(["--index", "--output", str(tmp_path)]) == 0
        page = Cells()
        page.feed((tmp_path / "index.html").read_text())
        assert page.links == [f"{name}/digits-busual-s1.html" for name in ("mode-0", "mode-1")]
        assert all((tmp_path / link).exists() for link in page.links)

    def test_dry_run_prints_commands_that_bench_takes(
        self, script: Script, bundle: Path, tmp_path: Path, capsys: Any
    ) -> None:
        out = tmp_path / "out"
        given = [str(bundle), "--batch", "1,2", "--output", str(out), "--dry-run"]
        assert script("sweep").main([*given, "--", "--no-telemetry", "--device", "cpu"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2
        assert not out.exists()
        out.mkdir()
        name, *arguments = shlex.split(lines[1])
        assert name == "edge-runtime"
        command = [sys.executable, "-m", "edge_runtime", *arguments, "--duration", "0.05"]
        subprocess.run(command, check=True, capture_output=True)
        assert BenchResult.load(out / "digits-b2-s1.json").subject.batch == 2

    def test_bundles_of_one_name_do_not_overwrite_each_other(
        self, script: Script, bundle: Path, tmp_path: Path, capsys: Any
    ) -> None:
        other = tmp_path / "other" / "digits.edge"
        other.parent.mkdir()
        other.write_bytes(bundle.read_bytes())
        assert script("sweep").main([str(bundle), str(other), "--dry-run"]) == 0
        targets = re.findall(r"--(?:output|html) (\S+)", capsys.readouterr().out)
        assert len(set(targets)) == 4

    def test_a_stopped_sweep_leaves_nothing_running(
        self, root: Path, bundle: Path, tmp_path: Path
    ) -> None:
        given = [str(bundle), "--duration", "60", "--output", str(tmp_path)]
        process = subprocess.Popen(
            [sys.executable, str(root / "scripts" / "sweep.py"), *given, "--", "--device", "cpu"],
            env={**os.environ, "PYTHONPATH": str(root)},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not children.read_text():
            assert process.poll() is None
            time.sleep(0.02)
        child = int(children.read_text().split()[0])
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        assert not Path(f"/proc/{child}").exists()

    @pytest.mark.parametrize("given", [[], ["x.edge", "--index"], ["x.edge", "--batch", "0"]])
    def test_what_makes_no_sense_is_refused(self, script: Script, given: list[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            script("sweep").main(given)
        assert ended.value.code == 2

    def test_a_broken_bundle_is_one_line(self, script: Script, tmp_path: Path, capsys: Any) -> None:
        path = tmp_path / "broken.edge"
        path.write_bytes(b"no")
        assert script("sweep").main([str(path), "--output", str(tmp_path)]) == 1
        said = capsys.readouterr().err
        assert said.startswith("scripts/sweep.py: ")
        assert said.count("\n") == 1


class TestPreprocess:
    def test_each_path_does_what_the_plain_way_does(self, script: Script, capsys: Any) -> None:
        threads = cv2.getNumThreads()
        given = ["--sizes", "64x48,90x120", "--input", "32", "--turns", "1", "--seconds", "0"]
        assert script("bench_preprocess").main([*given, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert cv2.getNumThreads() == threads
        assert Counter(one["picture"] for one in found) == {"64x48": 6, "90x120": 6}
        for one in found:
            assert one["apart"] < 1e-5, one
            assert one["ratio"] == pytest.approx(one["ours"] / one["plain"])
            assert one["per_second"] == pytest.approx(1000 / one["ours"])

    def test_the_table_has_a_line_for_each(self, script: Script, capsys: Any) -> None:
        given = ["--sizes", "64x48", "--input", "32", "--turns", "1", "--seconds", "0"]
        assert script("bench_preprocess").main(given) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 7
        assert lines[0].split()[0] == "picture"

    def test_the_ratio_is_the_median_of_the_turns(
        self, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = script("bench_preprocess")
        # A turn of each: one of them is disturbed, which a ratio of medians would not undo.
        times = {"ours": iter([2.0, 20.0, 2.0]), "plain": iter([1.0, 10.0, 4.0])}
        monkeypatch.setattr(bench, "milliseconds", lambda run, seconds: next(times[run()[0]]))

        class Named(tuple[str, ...]):
            def astype(self, _: object) -> np.ndarray:
                return np.zeros(1)

        pair = bench.Pair("x", lambda: Named(("ours",)), lambda: Named(("plain",)))
        assert bench.measure("1x1", pair, 3, 0.0).ratio == 2.0

    @pytest.mark.parametrize("sizes", ["640", "0x4", "axb", "1x2x3"])
    def test_a_size_that_is_none_is_refused(self, script: Script, sizes: str) -> None:
        with pytest.raises(SystemExit) as ended:
            script("bench_preprocess").main(["--sizes", sizes])
        assert ended.value.code == 2


class TestPipeline:
    def test_all_numbers_of_threads_are_measured(
        self, script: Script, bundle: Path, pictures: Path, capsys: Any
    ) -> None:
        given = [str(bundle), str(pictures), "--threads", "1,3", "--turns", "2", "--seconds", ".05"]
        assert script("bench_pipeline").main([*given, "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [row["threads"] for row in rows] == [1, 3]
        assert rows[0]["speed_up"] == 1
        for row in rows:
            assert len(row["turns"]) == 2
            assert list(row["stages_ms"]) == ["read", "preprocess", "infer", "decode"]
            assert min(row["stages_ms"].values()) > 0
        # With one thread, the stages are all there is.
        for turn in rows[0]["turns"]:
            assert turn["per_second"] <= 1000 / sum(turn["stages"])

    def test_without_pictures_some_are_made_up(
        self, script: Script, bundle: Path, capsys: Any
    ) -> None:
        given = [str(bundle), "--threads", "1", "--turns", "1", "--seconds", "0"]
        assert script("bench_pipeline").main(given) == 0
        heads, line = capsys.readouterr().out.splitlines()
        assert heads.split()[:2] == ["threads", "pictures/s"]
        assert line.split()[0] == "1"

    def test_every_picture_has_its_turn_and_threads_run_at_once(
        self, script: Script, pictures: Path
    ) -> None:
        bench = script("bench_pipeline")
        gate = threading.Barrier(2, timeout=30)
        seen: Counter[str] = Counter()

        class Two(bench.Pipeline):  # type: ignore[misc,name-defined]
            def run(self, file: Path) -> tuple[int, ...]:
                gate.wait()  # Passed only if two are here.
                seen[file.name] += 1
                return (1_000_000, 2_000_000, 3_000_000, 4_000_000)

        files = sorted(pictures.iterdir())[:2]
        turn = bench.measure(Two(None, files, None, None), 2, 0.0)
        assert seen == {"0.png": 1, "1.png": 1}
        assert turn.stages == (1.0, 2.0, 3.0, 4.0)

    @pytest.mark.parametrize("error", [InferenceError("planted"), ValueError("a bug")])
    def test_what_fails_in_a_thread_is_raised(
        self, script: Script, pictures: Path, error: Exception
    ) -> None:
        bench = script("bench_pipeline")

        class Failing(bench.Pipeline):  # type: ignore[misc,name-defined]
            def run(self, file: Path) -> tuple[int, ...]:
                if file.name == "3.png":
                    raise error
                return (1, 1, 1, 1)

        files = sorted(pictures.iterdir())
        with pytest.raises(type(error), match=str(error)):
            bench.measure(Failing(None, files, None, None), 2, 60.0)

    def test_what_cannot_be_run_is_one_line(
        self, script: Script, bundle: Path, tmp_path: Path, digits: Any, capsys: Any
    ) -> None:
        bench = script("bench_pipeline")
        plain = er.build(digits.model, output=tmp_path / "plain.edge").path
        for given, wanted in (
            ([str(plain)], "give --preprocess"),
            ([str(bundle), str(tmp_path / "none")], "none"),
            ([str(bundle), "--decode", "magic"], "decode is 'magic'"),
        ):
            assert bench.main([*given, "--seconds", "0"]) == 1
            said = capsys.readouterr().err
            assert wanted in said
            assert said.count("\n") == 1
