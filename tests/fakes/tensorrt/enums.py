"""Enums as pybind11 makes them: no arithmetic, equal to nothing but themselves.

[ran on TensorRT-RTX 1.7] `1 << member` is a TypeError, `member == 7` is False, `int(member)`,
`.name`, `.value`, `hash` and `__members__` work, the class is neither iterable nor subscriptable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def make_enum(module: str, name: str, members: Mapping[str, int]) -> Any:
    """The enum class `name` with these members; aliases share a number."""
    cls = type(name, (_Member,), {"__slots__": (), "__module__": module, "__members__": {}})
    for label, value in members.items():
        made = cls(value)
        object.__setattr__(made, "_name", label)
        cls.__members__[label] = made
        setattr(cls, label, made)
    return cls


class _Member:
    __slots__ = ("_name", "_value")
    __members__: dict[str, _Member]

    def __init__(self, value: int) -> None:
        object.__setattr__(self, "_value", int(value))
        same = [n for n, m in type(self).__members__.items() if m._value == value]
        object.__setattr__(self, "_name", same[0] if same else "???")

    @property
    def name(self) -> str:
        return self._name

    @property
    def value(self) -> int:
        return self._value

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"property of {type(self).__name__!r} object has no setter")

    def __int__(self) -> int:
        return self._value

    __index__ = __int__
    __hash__ = __int__

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._value == self._value

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: object) -> bool:
        return self._value < self._same(other)

    def __gt__(self, other: object) -> bool:
        return self._value > self._same(other)

    def __le__(self, other: object) -> bool:
        return self._value <= self._same(other)

    def __ge__(self, other: object) -> bool:
        return self._value >= self._same(other)

    def _same(self, other: object) -> int:
        if type(other) is not type(self):
            raise TypeError("Expected an enumeration of matching type!")
        return other._value

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self._name}: {self._value}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self._name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._value,)
