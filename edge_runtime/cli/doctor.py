"""`edge-runtime doctor`: what this machine can build and run, and what would mend the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from edge_runtime.cli import options, output
from edge_runtime.cli.text import file_size

if TYPE_CHECKING:
    from edge_runtime.board import Board
    from edge_runtime.doctor import Diagnosis

_HELP = """Say what this machine is, which libraries it has, what it can build and run, and what
to do about the rest. Nothing is imported, built or run for it.
"""

_EXAMPLES = """\b
Examples:
  edge-runtime doctor
  edge-runtime doctor --json
"""


@click.command("doctor", help=_HELP, epilog=_EXAMPLES)
@options.json_option
def command() -> None:
    """Diagnoses this machine."""
    from edge_runtime.doctor import diagnose

    found = diagnose()
    advice = [f"* {line}" for line in found.advice]
    output.emit(
        found.to_json(),
        output.facts([*_machine(found.board, found.int8), *_software(found)]),
        output.table(
            ("backend", "builds", "runs", "why not"),
            (
                (entry.name, _yes(entry.can_build), _yes(entry.can_run), entry.reason or "-")
                for entry in found.backends
            ),
        ),
        *advice,
    )


def _machine(board: Board, int8: str) -> Iterator[tuple[str, str]]:
    cpu = f"{board.cpu or 'unknown'}, {board.architecture}, {board.cores} cores"
    yield "CPU", f"{cpu}, {' '.join(board.features)}" if board.features else cpu
    yield "INT8 on it", int8
    if board.memory is not None:
        yield "memory", file_size(board.memory)
    if board.jetson is not None:
        yield "Jetson", board.jetson
    if board.l4t is not None:
        jetpack = f", JetPack {board.jetpack}" if board.jetpack else ""
        yield "Jetson Linux", f"{board.l4t}{jetpack}"
    driver = f", driver {board.gpu_driver}" if board.gpu_driver else ""
    yield "GPU", f"{', '.join(board.gpu_nodes)}{driver}" if board.gpu_nodes else "none"
    yield "CUDA driver", board.libcuda or "none"


def _software(found: Diagnosis) -> Iterator[tuple[str, str]]:
    yield "Python", found.python
    for library, version in found.versions.items():
        yield library, version or "not installed"


def _yes(able: bool) -> str:
    return "yes" if able else "no"
