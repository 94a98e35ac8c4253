"""Makes the classes of one TensorRT from its dump, with the behaviours that the fake has.

A class (the facade) has the dump's members and no others. Behind each object is a behaviour, an
instance of a class that `@behaviour("Builder")` registers: methods of the same names on plain
values (see `signatures`). Members that the dump has and the behaviour lacks raise
NotImplementedError; a behaviour's members that the dump lacks cannot be reached.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tests.fakes.tensorrt.signatures import Signature, Types, bind

BEHAVIOURS: dict[str, type[Behaviour]] = {}
T = TypeVar("T", bound="type[Behaviour]")


class Behaviour:
    """What is behind an object of the library.

    Attributes:
        library: What belongs to the module that the object came from.
        facade_name: The class of the object that stands for it.
    """

    facade_name = ""
    hands_out_facade = False  # Whether other behaviours get the facade: the caller's callbacks.

    def __init__(self, library: Any) -> None:
        self.library = library
        self._facade: Callable[[], Any] = lambda: None

    def as_facade(self) -> Any:
        """The object for Python: the same one while it lives, as with pybind11."""
        facade = self._facade()
        if facade is None:
            cls = self.library.types.classes[self.facade_name]
            facade = cls.__new__(cls)
            attach(facade, self)
        return facade

    @property
    def alive(self) -> bool:
        """Whether Python still has the object."""
        return self._facade() is not None

    def destroyed(self) -> None:
        """Called when Python drops the object."""


class Callback(Behaviour):
    """Behind the classes that callers derive from, such as IProgressMonitor."""

    hands_out_facade = True


def behaviour(*names: str) -> Callable[[T], T]:
    """Registers a behaviour for classes of the library."""

    def register(cls: T) -> T:
        cls.facade_name = names[0]
        BEHAVIOURS.update(dict.fromkeys(names, cls))
        return cls

    return register


def attach(facade: Any, impl: Behaviour) -> None:
    """Puts a behaviour behind an object."""
    object.__setattr__(facade, "_impl", impl)
    impl._facade = weakref.ref(facade)


class pybind11_type(type):  # noqa: N801 -- its name in pybind11
    """The metaclass: an object whose base `__init__` was not called is refused."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        if getattr(made, "_impl", None) is None:
            base = next(c for c in cls.__mro__ if "__fake__" in vars(c))
            raise TypeError(
                f"{base.__qualname__}.__init__() must be called when overriding __init__"
            )
        return made


def make_class(library: Any, name: str, entry: dict[str, Any]) -> type:
    """The class `name` of the dump. Its bases must be made already."""
    types: Types = library.types
    impl = BEHAVIOURS.get(name)
    bases = tuple(types.classes[base] for base in entry.get("bases", ()))
    if impl is None:
        impl = next((BEHAVIOURS[b.__name__] for b in bases if b.__name__ in BEHAVIOURS), None)
    space: dict[str, Any] = {"__slots__": () if bases else ("_impl", "__weakref__")}
    space.update({"__module__": library.name, "__fake__": name, "__del__": _drop})
    for method, texts in entry.get("methods", {}).items():
        if method not in ("__init__", "__del__"):
            space[method] = _method(library, name, method, texts, impl)
    for method, texts in entry.get("static", {}).items():
        function = functools.partial(_method(library, name, method, texts, impl), None)
        space[method] = staticmethod(function)
    for label, (kind, access) in entry.get("properties", {}).items():
        space[label] = _property(library, name, label, kind, access)
    for special in ("__eq__", "__hash__", "__repr__", "__str__"):
        if impl is not None and special in vars(impl):
            space[special] = _special(special)
    texts = entry.get("methods", {}).get("__init__")
    space["__init__"] = _init(library, name, texts, impl) if texts else _refuse(name)
    extra = getattr(impl, "facade_base", None)
    if extra is not None:
        del space["__slots__"]
        bases = (*bases, extra)
    return pybind11_type(name, bases, space)


def _drop(facade: Any) -> None:
    impl = getattr(facade, "_impl", None)
    if impl is not None:
        impl.destroyed()


def _refuse(name: str) -> Callable[..., None]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        raise TypeError(f"{name}: No constructor defined!")

    return __init__


def _init(library: Any, name: str, texts: Sequence[str], impl: Any) -> Callable[..., None]:
    overloads = list(map(library.types.parse, texts))

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        values, _ = bind("__init__", overloads, args, kwargs)
        made = Callback(library) if impl is None else impl(library, *values)
        attach(self, made)

    return __init__


def _special(name: str) -> Callable[..., Any]:
    def special(self: Any, *args: Any) -> Any:
        return getattr(self._impl, name)(*args)

    return special


def _missing(cls: str, name: str) -> NotImplementedError:
    return NotImplementedError(f"The fake TensorRT gives {cls}.{name} no behaviour.")


def _method(
    library: Any, cls: str, name: str, texts: Sequence[str], impl: Any
) -> Callable[..., Any]:
    key, calls = f"{cls}.{name}", library.calls
    overloads: list[Signature] = list(map(library.types.parse, texts))
    function = getattr(impl, name, None)
    if name == "__enter__":
        function = _enter
    elif name == "__exit__":
        function = _exit

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls[key] += 1
        values, signature = bind(name, overloads, args, kwargs)
        if function is None:
            raise _missing(cls, name)
        return signature.give(function(self if self is None else self._impl, *values))

    # The hot path: the commonest argument types need no conversion, and results no wrapping.
    plain = {"int": int, "typing.SupportsInt": int, "str": str, "tuple": tuple}
    kinds = [parameter.kind for parameter in overloads[0].parameters]
    if function is None or not kinds or not all(kind in plain for kind in kinds):
        return method
    if not texts[0].endswith(("-> bool", "-> None", "-> int")):
        return method
    exact, slow = tuple(plain[kind] for kind in kinds), method

    def one(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != 1 or type(args[0]) is not int or args[0] < 0:
            return slow(self, *args, **kwargs)
        calls[key] += 1
        return function(self._impl, args[0])

    def several(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs or tuple(map(type, args)) != exact or (exact[-1] is int and args[-1] < 0):
            return slow(self, *args, **kwargs)
        calls[key] += 1
        return function(self._impl, *args)

    return one if exact == (int,) else several


def _enter(impl: Behaviour) -> Any:
    """[ran] Context managers are deprecated: they warn and do nothing."""
    impl.library.deprecated(
        "Context managers for TensorRT types are deprecated. "
        "Memory will be freed automatically when the reference count reaches 0."
    )
    return impl


def _exit(impl: Behaviour, exc_type: object, exc_value: object, traceback: object) -> None:
    """Nothing."""


def _property(library: Any, cls: str, name: str, kind: str | None, access: str) -> property:
    give = library.types.giver(kind)
    target = library.types.parse(f"set(self: {cls}, arg0: {kind or 'object'}) -> None")

    def check(self: Any) -> None:
        if not hasattr(type(self._impl), name) and name not in vars(self._impl):
            raise _missing(cls, name)

    def getter(self: Any) -> Any:
        check(self)
        return give(getattr(self._impl, name))

    def setter(self: Any, value: Any) -> None:
        check(self)
        plain = value
        if value is not None:  # pybind11 passes None for a pointer.
            (plain,), _ = bind("", [target], [value], {})
        setattr(self._impl, name, plain)

    return property(getter if "r" in access else None, setter if "w" in access else None)
