"""Writes what a TensorRT Python module has, as JSON, one class a line.

    python -S api.py MODULE OUT.json

The form:

    {"version": "10.3.0",
     "enums": {NAME: {MEMBER: number}},
     "classes": {NAME: {"bases": [...], "methods": {name: [signature, ...]}, "static": {the same},
                        "properties": {name: [type or null, "r", "w" or "rw"]},
                        "constants": {name: text}, "enums": {the same as above}}},
     "functions": {name: [signature, ...]}, "constants": {name: text}}

A class whose methods lack `__init__` cannot be made by Python. Signatures are those that pybind11
writes at the head of a docstring, one for each overload. Only names and types are kept, none of
NVIDIA's descriptions.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

SPECIAL = {"__init__", "__getitem__", "__setitem__", "__len__", "__del__", "__enter__", "__exit__"}


def main(name: str, target: str) -> None:
    """Dumps the module `name` to the file `target`."""
    module = importlib.import_module(name)
    parts: dict[str, dict[str, Any]] = {
        "enums": {},
        "classes": {},
        "functions": {},
        "constants": {},
    }
    for label, value in sorted(vars(module).items()):
        if label.startswith("_") or isinstance(value, types.ModuleType):
            continue
        if inspect.isclass(value):
            kind = "enums" if is_enum(value) else "classes"
            parts[kind][label] = members(value) if is_enum(value) else describe(value, name)
        elif callable(value):
            parts["functions"][label] = signatures(value, label, name)
        elif isinstance(getattr(type(value), "__members__", None), dict):  # Leaves out loop
            parts["constants"][label] = repr(value)  # variables that the module forgot to delete.
    body = [f'"version": {json.dumps(module.__version__)}']
    for kind, entries in parts.items():
        lines = [f"  {json.dumps(k)}: {json.dumps(v, sort_keys=True)}" for k, v in entries.items()]
        body.append(f'"{kind}": {{\n' + ",\n".join(lines) + "\n }")
    Path(target).write_text("{" + ",\n ".join(body) + "}\n", encoding="utf-8")


def is_enum(cls: type) -> bool:
    """Whether this is an enum of pybind11's."""
    return isinstance(getattr(cls, "__members__", None), dict)


def members(enum: Any) -> dict[str, int]:
    """The numbers of an enum's members."""
    return {name: int(member) for name, member in enum.__members__.items()}


def describe(cls: type, module: str) -> dict[str, Any]:
    """What a class itself has, without what it inherits."""
    found: dict[str, Any] = {
        kind: {} for kind in ("methods", "static", "properties", "constants", "enums")
    }
    found["bases"] = [b.__name__ for b in cls.__bases__ if b.__module__ != "pybind11_builtins"]
    for name, value in sorted(vars(cls).items()):
        if name.startswith("_") and name not in SPECIAL:
            continue
        if isinstance(value, property):
            found["properties"][name] = [property_type(value, module), access(value)]
        elif inspect.isclass(value):
            found["enums"][name] = members(value)
        elif isinstance(value, staticmethod):
            found["static"][name] = signatures(value.__func__, name, module)
        elif callable(value):
            texts = signatures(value, name, module)
            if texts or name != "__init__":  # Where there is none, pybind11 has one that refuses.
                found["methods"][name] = texts
        else:
            found["constants"][name] = repr(value)
    return {kind: value for kind, value in found.items() if value}


def access(value: property) -> str:
    """`r`, `w` or `rw`."""
    return ("r" if value.fget else "") + ("w" if value.fset else "")


def property_type(value: property, module: str) -> str | None:
    """The type that a property's getter gives; None where it does not say."""
    first = plain(value.fget.__doc__ or "", module).split("\n")[0] if value.fget else ""
    found = re.search(r"->\s*(.+)$", first)
    return found.group(1) if found else None


def signatures(function: Any, name: str, module: str) -> list[str]:
    """The signatures of a function: pybind11's, or Python's own."""
    if isinstance(function, types.FunctionType):
        return [f"{name}{inspect.signature(function)}"]
    text = plain(function.__doc__ or "", module)
    found = re.findall(rf"^(?:\d+\. )?({re.escape(name)}\(.*?\) -> .+)$", text, re.MULTILINE)
    # With overloads, the first line stands for all of them.
    return found[1:] if len(found) > 1 and "(*args, **kwargs)" in found[0] else found


def plain(text: str, module: str) -> str:
    """A docstring without the addresses and module names that stand in it."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", text)
    return re.sub(rf"\b{module}\.\w+\.(?=[A-Za-z_])", "", text)


if __name__ == "__main__":
    main(*sys.argv[1:])
