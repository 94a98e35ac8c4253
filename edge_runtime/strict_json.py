"""JSON from files that nobody vouches for: parsed strictly, read by field, errors name the path."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

from edge_runtime.files import Fail

MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Value:
    """A JSON value, where it stands, and the error to raise if it is not what is wanted.

    Every method raises that error with one line: file, dotted path, what was found and wanted.

    Attributes:
        plain: The value as Python has it.
        where: The file, for messages.
        path: Keys and indices that lead to it, such as `.inputs[0].name`; empty for the whole.
        error: Makes the error from its message.
    """

    plain: Any
    where: str
    error: Fail
    path: str = ""

    def fail(self, reason: str) -> NoReturn:
        """Raises the error for this value."""
        raise self.error(f"{self.where}: {self.path.lstrip('.') or 'the whole'} {reason}.")

    def members(self) -> dict[str, Value]:
        """The values of an object whose keys are free."""
        if not isinstance(self.plain, dict):
            self._wanted("an object")
        return {key: self._child(value, _step(key)) for key, value in self.plain.items()}

    def fields(self, *names: str) -> dict[str, Value]:
        """The values of an object that has exactly these keys."""
        members = self.members()
        for name in names:
            if name not in members:
                self.fail(f"lacks the key {name!r}")
        for name in members:
            if name not in names:
                self.fail(f"has the unknown key {_short(name)}")
        return members

    def items(self) -> list[Value]:
        """The values of a list."""
        if not isinstance(self.plain, list):
            self._wanted("a list")
        return [self._child(value, _step(i)) for i, value in enumerate(self.plain)]

    def mapping(self) -> dict[str, Any]:
        """An object whose meaning is not ours: as it is."""
        if not isinstance(self.plain, dict):
            self._wanted("an object")
        return dict(self.plain)

    def text(self, pattern: str = r".+", wanted: str = "non-empty text") -> str:
        """Text that matches the regular expression as a whole."""
        if not isinstance(self.plain, str) or not re.fullmatch(pattern, self.plain, re.DOTALL):
            self._wanted(wanted)
        return self.plain

    def integer(self, minimum: int, maximum: int = 2**63 - 1) -> int:
        """A whole number within bounds; 1.0 and true are none."""
        if type(self.plain) is not int or not minimum <= self.plain <= maximum:
            self._wanted(f"a whole number from {minimum} to {maximum}")
        return self.plain

    def number(self) -> float:
        """A number that a double holds."""
        if type(self.plain) not in (int, float) or not abs(self.plain) <= sys.float_info.max:
            self._wanted("a finite number")
        return float(self.plain)

    def _child(self, plain: object, step: str) -> Value:
        return Value(plain, self.where, self.error, self.path + step)

    def _wanted(self, wanted: str) -> NoReturn:
        self.fail(f"is {_short(self.plain)}; it must be {wanted}")


class _RepeatedKey(dict[str, Any]):
    """Stands for an object in which one key is written twice, until its path is known."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key


def parse(data: bytes, *, where: str, error: Fail) -> Value:
    """Parses JSON (RFC 8259) in UTF-8 and refuses what parsers disagree about.

    Refused are repeated keys, NaN and infinity (also 1e999), lone surrogates, a byte order mark
    and nesting beyond `MAX_DEPTH`.

    Raises:
        EdgeRuntimeError: From `error`.
    """
    try:
        plain = json.loads(data.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as reason:
        raise error(f"{where}: byte {reason.start} is not UTF-8, so this is no JSON.") from reason
    except RecursionError as reason:
        raise error(f"{where}: nested more than {MAX_DEPTH} deep.") from reason
    except json.JSONDecodeError as reason:
        raise error(
            f"{where}: not JSON: {reason.msg} at line {reason.lineno}, column {reason.colno}."
        ) from reason
    except ValueError as reason:  # A whole number with thousands of digits.
        raise error(f"{where}: a number is too long.") from reason
    fault = _fault(plain, MAX_DEPTH)
    if fault:
        Value(plain, where, error, fault[0]).fail(fault[1])
    return Value(plain, where, error)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) < len(pairs):
        keys = sorted(key for key, _ in pairs)
        return _RepeatedKey(next(a for a, b in pairwise(keys) if a == b))
    return plain


def _fault(plain: object, depth: int) -> tuple[str, str] | None:
    """Path and description of the first thing that is refused."""
    if isinstance(plain, str) and _has_surrogate(plain):
        return "", "holds a lone surrogate"
    if isinstance(plain, float) and not math.isfinite(plain):
        return "", f"is {plain}; it must be a finite number"
    if not isinstance(plain, (dict, list)):
        return None
    if not depth:
        return "", f"is nested more than {MAX_DEPTH} deep"
    if isinstance(plain, _RepeatedKey):
        return "", f"has the key {_short(plain.key)} twice"
    if isinstance(plain, dict) and any(map(_has_surrogate, plain)):
        return "", "has a key with a lone surrogate"
    # The path is put together on the way back: large files have no fault, and cost no paths.
    for step, child in plain.items() if isinstance(plain, dict) else enumerate(plain):
        fault = _fault(child, depth - 1)
        if fault:
            return _step(step) + fault[0], fault[1]
    return None


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def _step(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if re.fullmatch(r"[\w-]{1,64}", key) else f"[{_short(key)}]"


def _short(plain: object) -> str:
    if isinstance(plain, dict):
        return "an object"
    if isinstance(plain, list):
        return "a list"
    text = json.dumps(plain) if not isinstance(plain, str) else repr(plain)
    return text if len(text) <= 64 else text[:60] + "..."
