"""What a command says: a report or one JSON document on stdout, progress on stderr."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import click
from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from edge_runtime.cli.options import is_quiet, wants_json
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.progress import Progress, silent
from edge_runtime.text import printable

_WIDTH = 100  # Of what is not a terminal.


def emit(plain: Mapping[str, Any], *report: RenderableType) -> None:
    """Prints the result of a command: `plain` with --json, else the report.

    Args:
        plain: The result as plain JSON values.
        report: The same for people: lines and what the functions below make.
    """
    if wants_json():
        _echo(json.dumps(plain, indent=2, allow_nan=False), color=False)
    else:
        page = _Page()
        console = _console(sys.stdout, file=page)
        apart = False
        for index, part in enumerate(report):
            before, apart = apart, isinstance(part, Table) and part.box is not None
            if index and (before or apart):
                console.print()
            console.print(printable(part) if isinstance(part, str) else part)
        lines = (line.rstrip() for line in page.getvalue().splitlines())
        _echo("\n".join(lines), color=console.is_terminal)


def emit_lines(plain: Mapping[str, Any], lines: Iterable[str]) -> None:
    """As `emit`, but with lines that other programs read: they are never folded.

    Args:
        plain: The result as plain JSON values.
        lines: The same for people.
    """
    if wants_json():
        emit(plain)
    else:
        _echo("\n".join(printable(line) for line in lines), color=False)


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and what is to say about each; a name that comes again is left out."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    before = ""
    for name, value in rows:
        grid.add_row("" if name == before else name, printable(value))
        before = name
    return grid


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with a heading; a column whose name starts with > is aligned to the right."""
    result = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        result.add_column(
            column.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    for row in rows:
        result.add_row(*map(printable, row))
    return result


@contextmanager
def progress() -> Iterator[Progress]:
    """Shows how far long work is: bars on a terminal, elsewhere a line when a phase begins."""
    if wants_json() or is_quiet():
        yield silent
    elif _is_terminal(sys.stderr):
        with _bars() as bars:
            yield _Phases(bars).update
    else:
        yield _Lines().update


class _Phases:
    """A bar for each phase, in the order in which they began."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def update(self, what: str, done: int, total: int) -> None:
        steps = f"{done}/{total}" if total > 1 else ""
        # One step has no half of it: its bar pulses until it is done.
        shown = total if total > 1 or done else None
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=shown, steps=steps)
        self._bars.update(self._tasks[what], completed=done, total=shown, steps=steps)


class _Lines:
    """A line for each phase."""

    def __init__(self) -> None:
        self._begun: set[str] = set()

    def update(self, what: str, *_: int) -> None:
        if what not in self._begun:
            self._begun.add(what)
            click.echo(f"{what} ...", err=True)


def _bars() -> Bars:
    return Bars(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[steps]}", markup=False),
        TimeElapsedColumn(),
        console=_console(sys.stderr, file=None),
        transient=True,
    )


class _Page(io.StringIO):
    """What is printed, before it is: rich pads lines with spaces, which only a terminal hides."""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # io.StringIO says None.
        return getattr(sys.stdout, "encoding", None) or "utf-8"


def _console(stream: TextIO | None, *, file: TextIO | None) -> Console:
    """A console like that of `stream`; it writes to `file`, or to stderr.

    Names of tensors may look like rich's markup, so that is off.
    """
    terminal = _is_terminal(stream)
    return Console(
        file=file,
        stderr=file is None,
        force_terminal=terminal or None,
        width=None if terminal or "COLUMNS" in os.environ else _WIDTH,
        markup=False,
        highlight=False,
        emoji=False,
    )


def _is_terminal(stream: TextIO | None) -> bool:
    """Python has None for a stream that was closed before it started."""
    return stream is not None and stream.isatty()


def _echo(text: str, *, color: bool) -> None:
    try:
        click.echo(text, color=color)
    except BrokenPipeError:
        raise  # Whoever read it has seen enough; click ends quietly.
    except OSError as error:
        _drop_stdout()
        raise EdgeRuntimeError(f"Cannot write to stdout: {error.strerror}.") from error


def _drop_stdout() -> None:
    """Leads stdout nowhere: at its exit Python would fail once more on what is still buffered."""
    with suppress(OSError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
