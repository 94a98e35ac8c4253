"""Runs FP32 and a quantized graph on a row's test samples: `python -m accuracy.evaluate JOB.json`.

Both run in ONNX Runtime without graph optimisation, which computes Q/DQ as it is written: quantized
values in floating point, no fused kernels that could saturate. All tools are judged alike here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from accuracy.scores import judge_for


def open_session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # Two sessions run.
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Reference:
    """What FP32 makes of a row's samples, kept in the row's folder: every graph is held against it.

    Args:
        row: The row's folder.
    """

    def __init__(self, row: Path) -> None:
        self._model = row / "model.onnx"
        self._folder = row / f"fp32_by_onnxruntime_{ort.__version__}"
        self._session: ort.InferenceSession | None = None

    def run(self, sample: str, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """The first output for these samples, whose file has this name."""
        kept = self._folder / f"{sample}.npy"
        if kept.is_file():
            return np.load(kept)
        if self._session is None:
            self._session = open_session(self._model)
        output: np.ndarray = self._session.run(None, feeds)[0]
        self._folder.mkdir(exist_ok=True)
        unfinished = kept.with_suffix(".unfinished.npy")
        np.save(unfinished, output)
        unfinished.replace(kept)
        return output


def evaluate(row: Path, graph: Path, every: int) -> dict[str, Any]:
    """Figures of each test sample: `score` and others of its task, `signal` and `noise`.

    Args:
        row: The row's folder.
        graph: The quantized model.
        every: Of the test files, only every so many-th is used.
    """
    truth = json.loads((row / "row.json").read_text())["truth"]
    judge = judge_for(truth)
    reference, candidate = Reference(row), open_session(graph)
    figures: dict[str, list[float]] = {}
    index = 0
    samples: list[int] = []
    for number, path in enumerate(sorted((row / "test").glob("*.npz"))):
        with np.load(path) as arrays:
            feeds = {name: arrays[name] for name in arrays.files}
        count = len(next(iter(feeds.values())))
        if number % every == 0:
            wanted, found = reference.run(path.stem, feeds), candidate.run(None, feeds)[0]
            for a, b in zip(wanted, found, strict=True):
                difference = a.astype(np.float64) - b
                one = judge(index, a, b)
                one["signal"] = float((a.astype(np.float64) ** 2).sum())
                one["noise"] = float((difference**2).sum())
                for name, value in one.items():
                    figures.setdefault(name, []).append(value)
                samples.append(index)
                index += 1
        else:
            index += count
    groups = truth.get("groups")
    figures["group"] = [groups[i] for i in samples] if groups else samples
    return figures


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    result: dict[str, Any] = {"error": None}
    try:
        result["figures"] = evaluate(Path(job["row"]), Path(job["graph"]), job["every"])
    except Exception as error:  # noqa: BLE001 - a file that cannot be run is a row of the table
        result["error"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"[:300]
    Path(job["output"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
