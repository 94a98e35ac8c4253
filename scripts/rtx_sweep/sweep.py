"""Builds plans of very many models with NVIDIA's TensorRT-RTX, and counts what became of each.

Every model goes the way of a user's: `read_model`, then `build` in FP32 for TensorRT-RTX. A model
that it refuses must be refused with the node, its operator and the reason, or with the input that
it is about. What is refused without them, ends in a traceback or crashes is a fault of ours; with
any of these the exit code is 1.

    python scripts/rtx_sweep/sweep.py --nodes                    # ONNX's operator tests, 1,900
    python scripts/rtx_sweep/sweep.py --models tests/data        # every ONNX file in a folder
    python scripts/rtx_sweep/sweep.py --nodes --only gru --json gru.json

Needs the extras `build` and `rtx`; no GPU. A model that takes longer than --limit seconds is ended
and counted as such: compile times differ between machines.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import onnx
from onnx.backend.test.case.node import collect_testcases

from edge_runtime.building import tools

sys.path.insert(0, str(Path(__file__).parent))
from batches import sweep
from verdicts import DEFECTS, Kind, Verdict

_OPERATOR_SET = 26
"""The newest that ONNX Runtime 1.31 takes. The onnx package tests operators in sets to come."""


def main() -> int:
    """Sweeps over what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", action="store_true", help="ONNX's own operator tests")
    parser.add_argument("--models", type=Path, nargs="+", default=[], help="folders and files")
    parser.add_argument("--only", default="", help="only names that hold this text")
    parser.add_argument("--limit", type=float, default=300, help="seconds for a model (300)")
    parser.add_argument("--json", type=Path, help="where the verdicts go")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [path for given in arguments.models for path in _files(given)]
        if arguments.nodes:
            paths += _node_tests(Path(folder))
        paths = [path for path in paths if arguments.only in path.stem]
        if not paths:
            parser.error("nothing to build: give --nodes, or --models with ONNX files")
        start = time.monotonic()
        verdicts: list[Verdict] = []
        try:
            for verdict in _shown(sweep(paths, limit=arguments.limit), len(paths)):
                verdicts.append(verdict)
        except KeyboardInterrupt:
            print("Interrupted: this is of the models before.", file=sys.stderr)
    seconds = time.monotonic() - start
    if arguments.json:
        arguments.json.write_text(_json(verdicts, seconds), encoding="utf-8")
    _report(verdicts, seconds)
    return int(any(verdict.kind in DEFECTS for verdict in verdicts))


def _files(given: Path) -> Sequence[Path]:
    return sorted(given.rglob("*.onnx")) if given.is_dir() else [given]


def _node_tests(folder: Path) -> list[Path]:
    """Writes ONNX's operator tests to files; the onnx package makes them when asked."""
    print("Collecting ONNX's operator tests ...", file=sys.stderr)
    warnings.simplefilter("ignore")  # numpy's, on the infinities that some tests are about
    paths = []
    for case in collect_testcases(None):
        path = folder / f"{case.name}.onnx"
        path.write_bytes(_released(case.model).SerializeToString())
        paths.append(path)
    return paths


def _released(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in a released operator set, if it is valid there; else as it is."""
    older = onnx.ModelProto()
    older.CopyFrom(model)
    for entry in older.opset_import:
        if entry.domain == "":
            entry.version = min(entry.version, _OPERATOR_SET)
    try:
        onnx.checker.check_model(older, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return model
    return older


def _shown(verdicts: Iterator[Verdict], total: int) -> Iterator[Verdict]:
    for number, verdict in enumerate(verdicts, 1):
        if verdict.kind in DEFECTS or number % 100 == 0 or number == total:
            print(f"{number}/{total} {verdict.model}: {verdict.kind.value}", file=sys.stderr)
        yield verdict


def _json(verdicts: Sequence[Verdict], seconds: float) -> str:
    plain = {
        "tools": tools(),
        "seconds": round(seconds, 1),
        "verdicts": [asdict(verdict) for verdict in verdicts],
    }
    return json.dumps(plain, indent=1)


def _report(verdicts: Sequence[Verdict], seconds: float) -> None:
    counts = Counter(verdict.kind for verdict in verdicts)
    print(f"{len(verdicts)} models in {seconds:.0f} s")
    for kind in Kind:
        print(f"{counts[kind]:6}  {kind.value}")
    slowest = sorted(verdicts, key=lambda verdict: -verdict.seconds)[:3]
    print("slowest:", ", ".join(f"{verdict.model} {verdict.seconds:.0f} s" for verdict in slowest))
    for verdict in verdicts:
        if verdict.kind in (*DEFECTS, Kind.SLOW):
            print(f"{verdict.model}: {verdict.kind.value}: {verdict.text}")


if __name__ == "__main__":
    sys.exit(main())
