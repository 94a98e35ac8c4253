"""Checks arguments as pybind11 does: against the signatures of the dump, conversions and all.

A parameter's type says what a caller may pass: `int` takes what has `__index__` or `__int__` but is
no float, `bool` what has `__bool__`, `Dims` a list or tuple of ints as well, a class an object of
that class. What fits no overload is pybind11's TypeError. Behaviours get plain values: an enum
member as its name, Dims as a tuple, one of the library's own objects as what is behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

REQUIRED = object()
# What the dump calls int is std::size_t or unsigned in C++: pybind11 refuses a negative number.
UNSIGNED = {"pool_size", "memory", "size", "stream_handle", "event", "flags", "tactic_sources"}
# Pointers in C++ may be None, references may not [ran: set_timing_cache(None) is a TypeError].
POINTERS = {"output_allocator", "listener"}
SEQUENCES = ("List", "list", "collections.abc.Sequence")
BUFFERS = ("buffer", "typing_extensions.Buffer")


class Mismatch(Exception):  # noqa: N818 -- not an error: the next overload is tried
    """An argument that a parameter does not take."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; `convert` gives what behaviours get, or raises `Mismatch`."""

    name: str
    convert: Callable[[Any], Any]
    kind: str
    default: Any = REQUIRED


@dataclass(frozen=True, slots=True)
class Signature:
    """One overload, without its `self`."""

    text: str
    parameters: tuple[Parameter, ...]
    give: Callable[[Any], Any]

    def bind(self, arguments: Sequence[Any], named: dict[str, Any]) -> list[Any]:
        """The converted arguments in order."""
        if len(arguments) > len(self.parameters):
            raise Mismatch
        rest, values = dict(named), []
        for index, parameter in enumerate(self.parameters):
            if index < len(arguments):
                if parameter.name in rest:
                    raise Mismatch
                values.append(parameter.convert(arguments[index]))
            elif parameter.name in rest:
                values.append(parameter.convert(rest.pop(parameter.name)))
            elif parameter.default is REQUIRED:
                raise Mismatch
            else:
                values.append(parameter.default)
        if rest:
            raise Mismatch
        return values


class Types:
    """Converters for the types of one module; `classes` and `enums` fill as they are made."""

    def __init__(self) -> None:
        self.classes: dict[str, type] = {}
        self.enums: dict[str, Any] = {}

    def parse(self, text: str) -> Signature:
        """Reads a signature such as `parse(self: OnnxParser, model: buffer) -> bool`."""
        found = re.fullmatch(r"\w+\((.*)\)(?: -> (.+))?", text)
        assert found, text
        parts = [part for part in split(found.group(1)) if not part.startswith(("self", "this"))]
        return Signature(text, tuple(map(self._parameter, parts)), self.giver(found.group(2)))

    def _parameter(self, text: str) -> Parameter:
        found = re.fullmatch(r"(\w+)(?:: (.+?))?(?: = (.+))?", text)
        assert found, text
        name, kind, default = found.groups()
        kind = kind or "object"
        convert = self.converter(kind, name)
        if default == "None" or name in POINTERS:
            missing = None if default else REQUIRED
            return Parameter(name, lambda v: None if v is None else convert(v), kind, missing)
        if default is None:
            return Parameter(name, convert, kind)
        member = re.fullmatch(r"<[\w.]+\.(\w+): -?\d+>", default)
        value = member.group(1) if member else {"True": True, "False": False, "''": ""}.get(default)
        return Parameter(name, convert, kind, int(default) if value is None else value)

    def converter(self, kind: str, name: str = "") -> Callable[[Any], Any]:
        """What turns an argument for a parameter of this type into a plain value."""
        kind = kind.strip()
        simple: dict[str, Callable[[Any], Any]] = {
            "int": lambda v: to_int(v, signed=name not in UNSIGNED),
            "float": to_float,
            "bool": to_bool,
            "str": to_str,
            "tuple": instance_of(tuple),
            "list": instance_of(list),
            "bytes": instance_of(bytes),
            "numpy.ndarray": instance_of(np.ndarray),
            "Dims": self._dims,
            "Weights": self._weights,
        }
        simple["typing.SupportsInt"], simple["typing.SupportsFloat"] = simple["int"], to_float
        if kind in simple:
            return simple[kind]
        if kind in BUFFERS:
            return to_buffer
        outer, _, inner = kind.partition("[")
        if outer in SEQUENCES and inner:
            return sequence_of(self.converter(inner[:-1]))
        last = kind.rpartition("::")[2]
        return lambda value: self._own(last, value)

    def _own(self, kind: str, value: Any) -> Any:
        """A value of one of the module's own classes or enums; of what is neither, anything."""
        enum = self.enums.get(kind)
        if enum is not None:
            if type(value) is not enum:
                raise Mismatch
            return value.name
        cls = self.classes.get(kind)
        if cls is None:
            return value
        if not isinstance(value, cls):
            raise Mismatch
        impl = value._impl
        return value if impl is None or impl.hands_out_facade else impl

    def _dims(self, value: Any) -> tuple[int, ...]:
        if isinstance(value, self.classes["Dims"]):
            return tuple(value)
        if isinstance(value, str | bytes) or not hasattr(value, "__getitem__"):
            raise Mismatch
        return tuple(to_int(size) for size in value)

    def _weights(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            value = self.classes["Weights"](value)
        return self._own("Weights", value)

    def giver(self, kind: str | None) -> Callable[[Any], Any]:
        """What turns a behaviour's result into what the module returns."""
        last = (kind or "None").rpartition("::")[2]
        outer, _, inner = last.partition("[")
        if outer in ("List", "list"):
            give = self.giver(inner[:-1])
            return lambda values: [give(value) for value in values]
        if last == "Dims":
            return lambda value: self.classes["Dims"](list(value))
        return lambda value: self._give(last, value)

    def _give(self, kind: str, value: Any) -> Any:
        if isinstance(value, str) and kind in self.enums:
            return self.enums[kind].__members__[value]
        return value.as_facade() if hasattr(value, "as_facade") else value


def split(text: str) -> list[str]:
    """The parts of a parameter list, whose types may have commas of their own."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(f"{text},"):
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and not depth:
            parts.append(text[start:index].strip())
            start = index + 1
    return [part for part in parts if part]


def to_int(value: Any, *, signed: bool = True) -> int:
    """[ran] numpy's integers and what has `__int__` pass, floats do not."""
    if isinstance(value, float | str | bytes) or not (
        hasattr(value, "__index__") or hasattr(value, "__int__")
    ):
        raise Mismatch
    number = int(value)
    if number < 0 and not signed:
        raise Mismatch
    return number


def to_float(value: Any) -> float:
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise Mismatch
    return float(value)


def to_bool(value: Any) -> bool:
    if value is not None and not hasattr(type(value), "__bool__"):
        raise Mismatch
    return bool(value)


def to_str(value: Any) -> str:
    """Stricter than pybind11, which takes bytes too."""
    if not isinstance(value, str):
        raise Mismatch
    return value


def to_buffer(value: Any) -> bytes:
    try:
        return bytes(memoryview(value))
    except TypeError:
        raise Mismatch from None


def instance_of(kind: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not isinstance(value, kind):
            raise Mismatch
        return value

    return convert


def sequence_of(item: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def convert(value: Any) -> list[Any]:
        if isinstance(value, str | bytes) or not hasattr(value, "__getitem__"):
            raise Mismatch
        return [item(part) for part in value]

    return convert


def bind(
    name: str, overloads: Sequence[Signature], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[list[Any], Signature]:
    """The arguments and the overload that takes them.

    Raises:
        TypeError: None does, in pybind11's words.
    """
    for signature in overloads:
        try:
            return signature.bind(args, kwargs), signature
        except Mismatch:
            continue
    kind = "constructor" if name == "__init__" else "function"
    lines = [f"    {index}. {s.text}" for index, s in enumerate(overloads, 1)]
    given = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
    raise TypeError(
        f"{name}(): incompatible {kind} arguments. The following argument types are supported:\n"
        + "\n".join(lines)
        + f"\n\nInvoked with: {given}"
    )
