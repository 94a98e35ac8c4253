"""Fake modules for the tests beside this: one of each version, made once, since that takes long."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

from tests.fakes.tensorrt import Options, labels, make

VERSIONS = labels()
STANDARD = tuple(label for label in VERSIONS if not label.startswith("rtx"))


def module(version: str, **faults: Any) -> Any:
    """The fake of this version with these options and no violations; not to be changed itself."""
    made = _made(version)
    wanted = Options(**faults)
    for field in fields(Options):
        setattr(made.options, field.name, getattr(wanted, field.name))
    made.violations.clear()
    return made


@cache
def _made(version: str) -> Any:
    return make(version)
