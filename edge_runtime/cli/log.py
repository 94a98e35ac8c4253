"""Shows what the library warns of, TensorRT above all, on stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click

from edge_runtime.cli.options import is_quiet
from edge_runtime.text import printable

_LOGGER = logging.getLogger("edge_runtime")


@contextmanager
def warnings_shown(ctx: click.Context) -> Iterator[None]:
    """Prints warnings as they come, a line each; none with --quiet."""
    handler = _Handler(ctx)
    _LOGGER.addHandler(handler)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)


class _Handler(logging.Handler):
    """Asks the context it was given: TensorRT warns from threads where click knows of none."""

    def __init__(self, ctx: click.Context) -> None:
        super().__init__(logging.WARNING)
        self._ctx = ctx

    def emit(self, record: logging.LogRecord) -> None:
        if not is_quiet(self._ctx):
            click.echo(f"Warning: {printable(record.getMessage())}", err=True)
