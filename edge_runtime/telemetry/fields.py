"""JSON fields of telemetry, most of which may be null: read strictly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from edge_runtime.strict_json import Value

T = TypeVar("T")


def optional(value: Value, read: Callable[[Value], T]) -> T | None:
    """What `read` makes of the value; None of null."""
    return None if value.plain is None else read(value)


def by_name(value: Value, read: Callable[[Value], T]) -> dict[str, T]:
    """An object whose keys are free, each value read by `read`."""
    return {name: read(member) for name, member in value.members().items()}


def listed(value: Value, read: Callable[[Value], T]) -> tuple[T, ...]:
    """A list, each item read by `read`."""
    return tuple(read(item) for item in value.items())


def maybe(read: Callable[[Value], T]) -> Callable[[Value], T | None]:
    """A reader that also takes null."""
    return lambda value: optional(value, read)


def number(value: Value) -> float:
    """A finite number."""
    return value.number()


def positive(value: Value) -> float:
    """A finite number that is not negative."""
    found = value.number()
    if found < 0:
        value.fail(f"is {found}; it must not be negative")
    return found


def share(value: Value) -> float:
    """A number from 0 to 1."""
    found = value.number()
    if not 0 <= found <= 1:
        value.fail(f"is {found}; it must be from 0 to 1")
    return found


def count(value: Value) -> int:
    """A whole number that is not negative."""
    return value.integer(0)


def text(value: Value) -> str:
    """Text that is not empty."""
    return value.text()


def truth(value: Value) -> bool:
    """True or false."""
    if not isinstance(value.plain, bool):
        value.fail(f"is {value.plain!r}; it must be true or false")
    return value.plain
