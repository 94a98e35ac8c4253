"""`edge-runtime doctor`: what this machine can build and run, how it is now, and what to mend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from edge_runtime.cli import options, output
from edge_runtime.text import file_size

if TYPE_CHECKING:
    from edge_runtime.board import Board
    from edge_runtime.doctor import Diagnosis
    from edge_runtime.telemetry.conditions import Conditions

_HELP = """Say what this machine is, which libraries it has, what it can build and run, what limits
a benchmark now, and what to do about the rest. Nothing is imported, built or run for it.
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
    advice, limits = ([f"* {line}" for line in lines] for lines in (found.advice, found.limits))
    output.emit(
        found.to_json(),
        output.facts(
            [*_machine(found.board, found.int8), *_state(found.conditions), *_software(found)]
        ),
        output.table(
            ("backend", "builds", "runs", "why not"),
            (
                (entry.name, _yes(entry.can_build), _yes(entry.can_run), entry.reason or "-")
                for entry in found.backends
            ),
        ),
        *advice,
        *_headed("What limits a benchmark now:", limits, apart=bool(advice)),
    )


def _headed(heading: str, lines: list[str], *, apart: bool) -> list[str]:
    """The lines under a heading; nothing without lines. Tables are set apart as it is."""
    return ["\n" * apart + heading, *lines] if lines else []


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


def _state(found: Conditions) -> Iterator[tuple[str, str]]:
    """How the machine is at this moment, as far as it is known."""
    from edge_runtime.telemetry.clocks import spans

    mode, now = found.power_mode, found.now
    if mode is not None:
        yield "power mode", f"{mode.name} ({mode.number})" if mode.name else str(mode.number)
    for span in spans(found.clocks):
        yield "clocks", span
    if now.temperatures:
        heat = [f"{zone} {celsius:.0f}" for zone, celsius in now.temperatures.items()]
        yield "temperatures", f"{', '.join(heat)} degrees C"
    if now.total_watts is not None:
        yield "power", f"{now.total_watts:.1f} W"
    if found.fan is not None:
        yield "fan", f"{found.fan:.0%}"
    if now.load_average:
        yield "load average", " ".join(f"{load:.2f}" for load in now.load_average)


def _software(found: Diagnosis) -> Iterator[tuple[str, str]]:
    yield "Python", found.conditions.python
    for library, version in found.versions.items():
        yield library, version or "not installed"


def _yes(able: bool) -> str:
    return "yes" if able else "no"
