"""Runs the attempts in batches, each in a process of its own: none that dies ends the sweep."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from attempt import work
from verdicts import Kind, Verdict

_BATCH = 50
"""Models that a process builds before a fresh one takes over, so that memory stays bounded."""


def sweep(paths: Sequence[Path], *, limit: float) -> Iterator[Verdict]:
    """What becomes of each model, in order.

    Args:
        paths: ONNX files.
        limit: Seconds after which an attempt is ended.
    """
    done = 0
    while done < len(paths):
        for verdict in _batch(paths[done : done + _BATCH], limit):
            yield verdict
            done += 1


def _batch(paths: Sequence[Path], limit: float) -> Iterator[Verdict]:
    """Verdicts on the first of these models, up to one that ends the process, or on all."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "stderr"
        process = context.Process(target=work, args=(paths, sender, errors))
        process.start()
        sender.close()  # Now the worker's end is the only one, and is closed when it dies.
        try:
            for path in paths:
                if not receiver.poll(limit):
                    yield Verdict(path.stem, Kind.SLOW, limit, f"ended after {limit:g} s")
                    return
                try:
                    verdict = receiver.recv()
                except EOFError:
                    process.join()
                    yield _death(path, process.exitcode or 0, errors.read_text(errors="replace"))
                    return
                yield verdict
        finally:
            process.kill()
            process.join()


def _death(path: Path, code: int, errors: str) -> Verdict:
    if code < 0:
        return Verdict(path.stem, Kind.CRASHED, 0.0, signal.Signals(-code).name)
    lines = errors.strip().splitlines() or ["it printed nothing"]
    return Verdict(path.stem, Kind.TRACEBACK, 0.0, f"exit code {code}: {lines[-1]}")
