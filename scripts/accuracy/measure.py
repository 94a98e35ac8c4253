"""Measures a row: each variant is quantized, shown to TensorRT-RTX, run, and compared with FP32."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accuracy.children import SCRIPTS, digest_of, digest_of_package, run_child
from accuracy.comparison import compare
from accuracy.environments import InstallError, python_of
from accuracy.environments import digest_of as digest_of_environment
from accuracy.intervals import Figures, interval, mean, ratio, sqnr
from accuracy.rows import Row
from accuracy.variants import Variant, variants_for

HERE = SCRIPTS / "accuracy"


@dataclass(frozen=True)
class Run:
    """One run of the benchmark.

    Attributes:
        cache: Where environments, models, data and results are.
        every: Of the test files, only every so many-th is used.
        tools: The tools to run; empty means all.
        report: Told what is being done.
    """

    cache: Path
    every: int
    tools: tuple[str, ...]
    report: Callable[[str], None]

    @property
    def jobs(self) -> Path:
        return self.cache / "jobs"

    def folder(self, row: Row) -> Path:
        return self.cache / "rows" / row.name


def prepare(row: Row, run: Run) -> dict[str, Any]:
    """Makes the row's model and data where they are not there, and returns its `row.json`.

    Raises:
        InstallError: The environment could not be made.
        RuntimeError: The row could not be made; the message says where the reason is.
    """
    folder = run.folder(row)
    if not (folder / "row.json").is_file():
        run.report(f"{row.name}: making model and data")
        python = python_of("prepare", run.cache / "venvs")
        (run.cache / "downloads").mkdir(parents=True, exist_ok=True)
        command = [str(python), "-m", "accuracy.prepare", row.name, str(folder)]
        log = run.jobs / f"prepare_{row.name}"
        result = run_child([*command, str(run.cache / "downloads")], {}, run.jobs, log.name)
        if not (folder / "row.json").is_file():
            raise RuntimeError(f"{row.name}: {result['error']}; see {log}.log")
    facts: dict[str, Any] = json.loads((folder / "row.json").read_text())
    return facts


def measure(row: Row, run: Run) -> dict[str, Any]:
    """All figures of a row, as they stand in engines/accuracy.json."""
    facts = prepare(row, run)
    result: dict[str, Any] = {
        "title": row.title,
        "recipe": row.recipe,
        "about": facts["about"],
        "measure": row.measure,
        "decisive": row.decisive,
        "timed_only": row.timed_only,
        "tools": [],
    }
    reference: Figures = {}
    if not row.timed_only:
        run.report(f"{row.name}: FP32")
        done = _evaluated(row, facts, run.folder(row) / "model.onnx", run)
        if done["error"] is not None:
            raise RuntimeError(f"{row.name}: FP32 does not run: {done['error']}")
        reference = done["figures"]
        result["fp32"] = _summary(reference, reference)
    seen: list[tuple[dict[str, Any], Figures]] = []
    for variant in variants_for(row):
        if run.tools and variant.tool not in run.tools:
            continue
        run.report(f"{row.name}: {variant.name}")
        line, figures = _measured(row, facts, variant, reference, run)
        result["tools"].append(line)
        if figures:
            seen.append((line, figures))
    result["comparison"] = compare(row.decisive, seen)
    return result


def _measured(
    row: Row, facts: dict[str, Any], variant: Variant, reference: Figures, run: Run
) -> tuple[dict[str, Any], Figures]:
    """A variant's line, and its figures as TensorRT reads it; none where it has no result."""
    line: dict[str, Any] = {
        "tool": variant.tool,
        "name": variant.name,
        "default": variant.default,
        "error": None,
    }
    quantized, done = _quantized(row, facts, variant, run)
    line["error"] = done["error"]
    if done["error"] is not None:
        return line, {}
    for cost in ("seconds", "cpu_seconds", "peak_mib"):
        line[cost] = done[cost]
    graph_digest = digest_of(quantized)
    line["graph"] = graph_digest
    key = digest_of("tensorrt", graph_digest, row.profile, HERE / "tensorrt_view.py")
    as_read = run.jobs / f"{key}.onnx"
    job = {
        "graph": str(quantized),
        "profile": row.profile,
        "as_read": str(as_read),
        "output": str(run.jobs / f"{key}.json"),
    }
    view = run_child([sys.executable, "-m", "accuracy.tensorrt_view"], job, run.jobs, key)
    line["refusal"] = view.get("refusal", view.get("error"))
    line["unsigned"] = view.get("unsigned", 0)
    if row.timed_only:
        return line, {}
    plain = _evaluated(row, facts, quantized, run)
    line["error"] = plain["error"]
    if plain["error"] is not None:
        return line, {}
    figures = plain["figures"]
    line["result"] = _summary(figures, reference)
    if line["unsigned"]:
        read = _evaluated(row, facts, as_read, run)
        line["error"] = read["error"]
        if read["error"] is not None:
            return line, {}
        figures = read["figures"]
        line["as_onnx_runtime_reads_it"] = line["result"]
        line["result"] = _summary(figures, reference)
    return line, figures


def _quantized(
    row: Row, facts: dict[str, Any], variant: Variant, run: Run
) -> tuple[Path, dict[str, Any]]:
    """The quantized file, and how long that took and how much memory, or why it failed."""
    script = HERE / "quantizers" / variant.script
    ours = variant.tool == "ours"
    options = dict(variant.options)
    try:
        python = sys.executable
        if not ours:
            python = str(python_of(variant.tool, run.cache / "venvs"))
    except InstallError as error:
        return Path(), {"error": f"does not install: {error}"}
    version = digest_of_package() if ours else digest_of_environment(variant.tool)
    key = digest_of("quantize", facts["digest"], options, version, script)
    output = run.jobs / f"{key}.onnx"
    job = {
        "model": str(run.folder(row) / "model.onnx"),
        "calibration": str(run.folder(row) / "calibration"),
        "options": options,
        "output": str(output),
    }
    return output, run_child([python, str(script)], job, run.jobs, key)


def _evaluated(row: Row, facts: dict[str, Any], graph: Path, run: Run) -> dict[str, Any]:
    parts = (HERE / "evaluate.py", HERE / "scores.py")
    key = digest_of("evaluate", facts["digest"], run.every, graph, *parts)
    job = {
        "row": str(run.folder(row)),
        "graph": str(graph),
        "every": run.every,
        "output": str(run.jobs / f"{key}.json"),
    }
    return run_child([sys.executable, "-m", "accuracy.evaluate"], job, run.jobs, key)


def _summary(figures: Figures, reference: Figures) -> dict[str, Any]:
    """What stands in the table, each figure with its 95 % interval."""
    score, drawn = mean(figures, "score")
    base, base_drawn = mean(reference, "score")
    summary: dict[str, Any] = {
        "samples": len(figures["score"]),
        "groups": len(set(figures["group"])),
        "score": score,
        "score_interval": interval(drawn),
        "change": score - base,
        "change_interval": interval(drawn - base_drawn),
        "low_score": sorted(figures["score"])[len(figures["score"]) // 20],
    }
    if "same" in figures:
        summary["same"], same_drawn = mean(figures, "same")
        summary["same_interval"] = interval(same_drawn)
    if "errors" in figures:
        summary["character_errors"], errors_drawn = ratio(figures, "errors", "length")
        summary["character_errors_interval"] = interval(errors_drawn)
    if any(figures["noise"]):
        summary["sqnr"], noise_drawn = sqnr(figures)
        summary["sqnr_interval"] = interval(noise_drawn)
    return summary
