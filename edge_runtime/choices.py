"""Settings from what was given for them: members of an enum, sizes of memory, groups of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, TypeVar

from edge_runtime.errors import ConfigError

_Settings = TypeVar("_Settings", bound=Any)
_Member = TypeVar("_Member", bound=Enum)

_UNITS: dict[str, int] = {"": 1, **{f"{p}B": 1000**i for i, p in enumerate(("", "k", "M", "G"))}}
_UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMG", 1)}


def member(kind: type[_Member], value: object, name: str) -> _Member:
    """The member of `kind` that has this value.

    Raises:
        ConfigError: There is none; `name` is the setting that it is for.
    """
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(str(member.value) for member in kind)
        raise ConfigError(f"{name} is {value!r}; it must be one of {choices}.") from None


def size(value: object, name: str) -> int | None:
    """Bytes, from a number or its text, such as `512MiB` or `2GB`; None stays None.

    Raises:
        ConfigError: It is no size; `name` is the setting that it is for.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    found = re.fullmatch(r"(\d{1,15})\s*([A-Za-z]*)", value) if isinstance(value, str) else None
    if found is None or found[2] not in _UNITS:
        raise ConfigError(
            f"{name} is {value!r}; it must be bytes, such as 536870912, 512MiB or 2GB."
        )
    return int(found[1]) * _UNITS[found[2]]


def settings(kind: type[_Settings], given: object, name: str) -> _Settings:
    """The settings that are meant: of that kind, some of its fields by name, or None for its own.

    Raises:
        ConfigError: There is no such field, or it cannot have that value; `name` is the setting
            that holds them.
    """
    if isinstance(given, kind):
        return given
    names = [field.name for field in fields(kind)]
    plain = {} if given is None else given
    if not isinstance(plain, Mapping) or not plain.keys() <= set(names):
        raise ConfigError(
            f"{name} is {given!r}; it must be a {kind.__name__}, or map some of "
            f"{', '.join(names)} to their values."
        )
    made: _Settings = kind(**plain)
    return made
