"""`edge-runtime bench`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.bench.interleave import Turns
from edge_runtime.bench.result import BenchResult

SHORT = ("--duration", 0.1, "--warmup", 10, "--threads", 1, "--device", "cpu", "--no-telemetry")


def test_it_prints_what_trtexec_prints(run, folder: Path, int8_bundle: Path) -> None:
    result = run("bench", int8_bundle, *SHORT, "--output", "r.json", "--export-times", "t.json")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    begin = lines.index("=== Performance summary ===")
    names = [line.partition(":")[0] for line in lines[begin + 1 : begin + 9]]
    assert names == [
        *("Throughput", "Latency", "Enqueue Time", "H2D Latency", "Compute Time", "D2H Latency"),
        *("Total Host Walltime", "Total Compute Time"),
    ]
    found = BenchResult.load("r.json")
    assert f"Throughput: {found.throughput:g} qps" in lines
    ordered = np.sort(found.samples.latency)
    figures = {
        "min": ordered[0],
        "max": ordered[-1],
        "median": np.median(ordered),
        **{
            f"percentile({p}%)": ordered[len(ordered) - 1 - int((1 - p / 100) * len(ordered))]
            for p in (90, 95, 99)
        },
    }
    latency = next(line for line in lines if line.startswith("Latency: "))
    for name, value in figures.items():
        assert f"{name} = {value:g} ms" in latency
    assert "H2D Latency: not applicable" in lines
    assert re.search(
        r"Early stopping: percentile 99 is at most .* 662 needed|662 are needed", result.stdout
    )
    assert len(json.loads(Path("t.json").read_text())) == len(found.samples)


def test_json_is_the_result_and_nothing_else(run, folder: Path, int8_bundle: Path) -> None:
    result = run("bench", int8_bundle, *SHORT, "--protocol", "single-stream", "--json")
    plain = json.loads(result.stdout)
    assert result.stderr == ""
    assert plain["protocol"] == "single-stream"
    assert plain["parameters"]["min_duration"] == 0.1
    assert plain["parameters"]["warmup"] == 0.01
    assert plain["summary"]["queries"] == len(plain["samples"]["latency"])


def test_pictures_end_to_end(run, folder: Path, int8_bundle: Path) -> None:
    result = run("bench", int8_bundle, *SHORT, "--protocol", "end-to-end", "--data", "pictures")
    assert result.exit_code == 0, result.stderr
    for name in ("Latency", "Preprocessing", "Inference", "Decoding"):
        assert f"\n{name}: min = " in result.stdout


@pytest.mark.parametrize("name", ["multi-stream", "offline"])
def test_scenarios_say_whether_they_count(run, folder: Path, int8_bundle: Path, name: str) -> None:
    result = run("bench", int8_bundle, *SHORT, "--protocol", name, "--iterations", 2)
    valid = name == "offline"
    assert f"Result is: {'VALID' if valid else 'INVALID'}" in result.stdout
    assert ("* INVALID: " in result.stdout) != valid


def test_layers_are_exported_in_trtexecs_form(run, folder: Path, int8_bundle: Path) -> None:
    options = ("--export-profile", "p.json", "--output", "r.json")
    result = run("bench", int8_bundle, *SHORT, *options)
    assert result.exit_code == 0, result.stderr
    count, *layers = json.loads(Path("p.json").read_text())
    assert list(count) == ["count"]
    assert {"name", "timeMs", "averageMs", "medianMs", "percentage"} == set(layers[0])
    kept = BenchResult.load("r.json").layers
    assert kept is not None
    assert [layer["name"] for layer in kept] == [layer["name"] for layer in layers]


def test_samples_and_shapes_are_taken(run, folder: Path, int8_bundle: Path) -> None:
    for options, batch in (
        (("--data", "calibration.npz", "--batch", 3), 3),
        (("--shape", "image=2x1x16x16"), 2),
    ):
        plain = json.loads(run("bench", int8_bundle, *SHORT, *options, "--json").stdout)
        assert plain["subject"]["shapes"] == {"image": [batch, 1, 16, 16]}
        assert plain["samples_per_query"] == batch


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--target-qps", 3), 2, "--target-qps does nothing with --protocol trtexec10"),
        (("--protocol", "offline", "--transfers"), 2, "--transfers does nothing"),
        (("--shape", "image"), 2, "NAME=SIZES"),
        (("--shape", "y=1x1"), 1, "input 'y'"),
        (("--duration", 0), 1, "duration"),
        (("--protocol", "server"), 1, "target_latency"),
        (("--protocol", "end-to-end"), 1, "picture"),
        (("--protocol", "offline", "--export-times", "t.json"), 1, "trtexec10"),
        (("--output", "nofolder/r.json"), 1, "nofolder"),
        (("--data", "nosuch.npz"), 1, "nosuch.npz"),
        (("--device", "tensorrt"), 1, "tensorrt"),
        (("--fail-if-slower", "x", "--compare", "old.json"), 2, "'x' is no percentage"),
        (("--fail-if-slower", "5%"), 2, "needs --compare"),
        (("--compare", "nosuch.json"), 1, "nosuch.json"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run, folder: Path, int8_bundle: Path, options: tuple[object, ...], code: int, words: str
) -> None:
    result = run("bench", int8_bundle, *options)
    assert result.exit_code == code
    assert words in result.stderr
    if code == 1:
        assert result.stderr.count("\n") == 1
    assert not list(folder.glob("*.json"))


def test_an_older_result_is_compared(run, folder: Path, int8_bundle: Path) -> None:
    assert run("bench", int8_bundle, *SHORT, "--output", "old.json").exit_code == 0
    plain = json.loads(Path("old.json").read_text())
    for name in ("latency", "compute", "enqueue"):
        plain["samples"][name] = [1e-4] * len(plain["samples"][name])  # Whatever the noise.
    Path("fast.json").write_text(json.dumps(plain))
    for old, allowed, code in (("old.json", "900%", 0), ("fast.json", "5%", 1)):
        options = ("--compare", old, "--fail-if-slower", allowed, "--html", "page.html")
        result = run("bench", int8_bundle, *SHORT, *options)
        assert result.exit_code == code, result.stderr
        assert f"=== {int8_bundle.name} against {int8_bundle.name} ===" in result.stdout
        assert ("which is not allowed" in result.stdout) == bool(code)
        assert "Compared" in Path("page.html").read_text()
    options = ("--protocol", "single-stream", "--compare", "old.json")
    refused = run("bench", int8_bundle, *SHORT, *options)
    assert refused.exit_code == 1
    assert "not measured alike" in refused.stderr
    forced = run("bench", int8_bundle, *SHORT, *options, "--force", "--json")
    assert json.loads(forced.stdout)["comparison"]["differences"]


def test_bundles_take_turns(
    run, folder: Path, int8_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_runtime.bench import interleave

    monkeypatch.setattr(
        interleave, "Turns", lambda: Turns(turn=0.002, rounds=10, resolution=0.5, seconds=0.1)
    )
    options = ("--threads", 1, "--device", "cpu", "--html", "page.html", "--json")
    result = run("bench", int8_bundle, int8_bundle, *options)
    assert result.exit_code == 0, result.stderr
    plain = json.loads(result.stdout)
    assert len(plain["results"]) == 2
    assert plain["comparisons"][0]["rounds"] >= 10
    assert "Compared" in Path("page.html").read_text()


def test_the_bundle_is_not_written_over(run, folder: Path, int8_bundle: Path) -> None:
    before = int8_bundle.read_bytes()
    assert run("bench", int8_bundle, *SHORT, "--output", int8_bundle).exit_code == 2
    assert int8_bundle.read_bytes() == before


def test_what_is_no_bundle_is_refused(run, folder: Path) -> None:
    result = run("bench", "model.onnx", *SHORT)
    assert result.exit_code == 1
    assert "edge-runtime build" in result.stderr
