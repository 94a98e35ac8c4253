"""Builds one model after another in a process of its own, as a user of edge_runtime would."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

import edge_runtime as er
from edge_runtime.config import ShapeRange
from edge_runtime.model import Model, name_nodes, read_model

sys.path.insert(0, str(Path(__file__).parent))
from verdicts import Kind, Verdict, judge_refusal

_BATCHES = (1, 1, 4)
_SIDES = (32, 64, 128)
"""The least, usual and largest size of a dynamic dimension: of the first one, and of the others.
Sides are multiples of 32, which the networks with a dynamic height and width need."""


def work(paths: Sequence[Path], results: Connection, errors: Path) -> None:
    """Sends a verdict for each model, until one ends this process.

    Args:
        paths: ONNX files.
        results: Where verdicts go, one for each file and in their order.
        errors: The file that gets what is printed to stderr, and a traceback that ends this.
    """
    with errors.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            results.send(_attempt(path, Path(folder)))


def _attempt(path: Path, folder: Path) -> Verdict:
    start = time.monotonic()
    try:
        model = read_model(path)
        config = er.BuildConfig(backend="tensorrt-rtx", profiles=_profile(model))
        er.build(model, config, output=folder / "model.edge")
    except er.EdgeRuntimeError as error:
        seconds = time.monotonic() - start
        return Verdict(path.stem, judge_refusal(str(error), _proto(path)), seconds, str(error))
    return Verdict(path.stem, Kind.BUILT, time.monotonic() - start)


def _proto(path: Path) -> onnx.ModelProto | None:
    """What is in the file, its nodes named; None if that is no model."""
    try:
        proto = onnx.load(path, load_external_data=False)
    except DecodeError:
        return None
    name_nodes(proto)
    return proto


def _profile(model: Model) -> dict[str, ShapeRange]:
    """A range for each input that has a dynamic dimension."""
    profile = {}
    for spec in model.inputs:
        if not spec.is_static:
            ranges = [
                (size,) * 3 if size >= 0 else _SIDES if axis else _BATCHES
                for axis, size in enumerate(spec.shape)
            ]
            least, usual, largest = zip(*ranges, strict=True)
            profile[spec.name] = ShapeRange(least, usual, largest)
    return profile
