"""Finds what a source file uses of TensorRT: names of its module, members of its objects, calls.

The module is handed in, so it is what a parameter or attribute called `trt` is. Of its objects it
is known what the dumps say: a constructor gives an object of its class, a method what its signature
returns. Where an object comes in as `Any`, its name tells: see `NAMES`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMES = {
    "trt": "",  # The module itself.
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "layer": "ILayer",
    "tensor": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "vendor": "IExecutionContext",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "refitter": "Refitter",
    "cache": "ITimingCache",
}
PASSED_ON = {"_made"}  # Functions of ours that return their argument.


@dataclass(frozen=True)
class Use:
    """One use: `path` is `BuilderFlag.TF32` or, of an object, `ICudaEngine.num_io_tensors`."""

    path: str
    line: int
    call: tuple[int, tuple[str, ...]] | None = None  # Positional arguments, names of the others.
    guard: bool = False  # hasattr, or getattr with a default.


class Finder(ast.NodeVisitor):
    """Collects the uses of one file in `uses`."""

    def __init__(self, returns: Mapping[str, str], known: set[str]) -> None:
        self.uses: list[Use] = []
        self._returns, self._classes = returns, known
        self._attributes: dict[str, str] = {}
        self._scopes: list[dict[str, str]] = [{}]

    def learn(self, tree: ast.AST) -> None:
        """Takes what classes declare as `Any`: `engine: Any` makes `x.engine` an engine."""
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and _is_any(node.annotation):
                name = node.target.id if isinstance(node.target, ast.Name) else ""
                if isinstance(node.target, ast.Attribute):
                    name = node.target.attr
                if name.lstrip("_") in NAMES:
                    self._attributes[name] = NAMES[name.lstrip("_")]

    # Scopes.

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        scope = {}
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for argument in arguments:
            if argument.arg in NAMES and _is_any(argument.annotation):
                scope[argument.arg] = NAMES[argument.arg]
        self._scopes.append(scope)
        self.generic_visit(node)
        self._scopes.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for part, value in zip(target.elts, node.value.elts, strict=True):
                    self._bind(part, self.type_of(value))
            else:
                self._bind(target, self.type_of(node.value))
                item = self._item(node.value)
                if isinstance(target, ast.Name) and item is not None:
                    self._scopes[-1][f"{target.id}[]"] = item
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._bind(node.target, self.type_of(node.value))
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._bind(node.target, self._item(node.iter))
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._bind(node.target, self._item(node.iter))
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> None:
        for generator in node.generators:
            self.visit(generator)
        self.visit(node.elt)

    visit_GeneratorExp = visit_SetComp = visit_ListComp  # noqa: N815

    def _bind(self, target: ast.expr, kind: str | None) -> None:
        if isinstance(target, ast.Name):
            if kind is None:
                self._scopes[-1].pop(target.id, None)
            else:
                self._scopes[-1][target.id] = kind
        elif isinstance(target, ast.Attribute) and kind is not None:
            self._attributes[target.attr] = kind

    def _item(self, node: ast.expr) -> str | None:
        """What a loop over a list of objects gives."""
        if isinstance(node, ast.Name):
            return self._lookup(f"{node.id}[]")
        if isinstance(node, ast.ListComp | ast.GeneratorExp):
            for generator in node.generators:
                self._bind(generator.target, self._item(generator.iter))
            return self.type_of(node.elt)
        return None

    def _lookup(self, name: str) -> str | None:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        return None

    # Types: "" is the module, "=X" the class or enum X itself, "X" an object of it.

    def type_of(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            return self._lookup(node.id)
        if isinstance(node, ast.Attribute):
            if node.attr in ("trt", "_trt"):
                return ""
            owner = self.type_of(node.value)
            if owner is None:
                return self._attributes.get(node.attr)
            path = _join(owner, node.attr)
            return f"={path}" if owner == "" or owner.startswith("=") else self._returns.get(path)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in PASSED_ON and node.args:
                return self.type_of(node.args[0])
            called = self.type_of_callee(node.func)
            if called is not None and called.startswith("=") and called[1:] in self._classes:
                return called[1:]
            return self._returns.get(called) if called else None
        return None

    def type_of_callee(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Attribute):
            owner = self.type_of(node.value)
            if owner is not None:
                path = _join(owner, node.attr)
                return f"={path}" if owner == "" else path
        return None

    # Uses.

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr"):
            owner = self.type_of(node.args[0])
            guard = node.func.id == "hasattr" or len(node.args) > 2
            name = node.args[1]
            if owner is not None and guard:
                label = name.value if isinstance(name, ast.Constant) else "?"
                self.uses.append(Use(_join(owner, str(label)), node.lineno, guard=True))
        elif isinstance(node.func, ast.Attribute):
            owner = self.type_of(node.func.value)
            starred = any(isinstance(a, ast.Starred) for a in node.args) or any(
                keyword.arg is None for keyword in node.keywords
            )
            if owner is not None:
                on_class = owner.startswith("=")  # X.__init__(self, ...) passes the object too.
                count = len(node.args) - (on_class and node.func.attr == "__init__")
                shape = (count, tuple(str(k.arg) for k in node.keywords))
                path = _join(owner, node.func.attr)
                self.uses.append(Use(path, node.lineno, None if starred else shape))
                self.visit(node.func.value)
                for part in (*node.args, *node.keywords):
                    self.visit(part)
                return
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = self.type_of(node.value)
        if owner is not None and node.attr not in ("__members__", "__init__"):
            self.uses.append(Use(_join(owner, node.attr), node.lineno))
        self.generic_visit(node)


def _join(owner: str, name: str) -> str:
    return f"{owner.lstrip('=')}.{name}".lstrip(".")


def _is_any(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Name) and node.id == "Any"


def members(api: Mapping[str, Any]) -> dict[str, Sequence[str] | None]:
    """All names of a dump: those that can be called with their signatures, the rest with None."""
    found: dict[str, Sequence[str] | None] = {"__version__": None}
    found.update(dict.fromkeys(api["constants"]))
    found.update(api["functions"])
    for enum, names in _enums(api):
        found[enum] = ["x(arg0: int)"]
        found.update({f"{enum}.{name}": None for name in names})
        found.update({f"{enum}.{name}.name": None for name in names})
    for name in api["classes"]:
        found[name] = ["x(...)"]
        for part in _inherited(api, name):
            constructor = part.get("methods", {}).get("__init__")
            if constructor:
                found[name] = constructor
            for kind in ("methods", "static"):
                for method, texts in part.get(kind, {}).items():
                    found[f"{name}.{method}"] = texts
            for kind in ("properties", "constants"):
                found.update({f"{name}.{label}": None for label in part.get(kind, {})})
    return found


def _enums(api: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from api["enums"].items()
    for name, entry in api["classes"].items():
        for inner, names in entry.get("enums", {}).items():
            yield f"{name}.{inner}", names


def _inherited(api: Mapping[str, Any], name: str) -> list[Any]:
    entry = api["classes"][name]
    bases = [part for base in entry.get("bases", ()) for part in _inherited(api, base)]
    return [*bases, entry]


def returns(api: Mapping[str, Any]) -> dict[str, str]:
    """The class that a method or property gives, by its path; of those that give one."""
    found = {}
    for name in api["classes"]:
        for part in _inherited(api, name):
            given = {
                method: texts[0].rpartition("-> ")[2]
                for method, texts in part.get("methods", {}).items()
                if texts
            }
            given.update({p: kind or "" for p, (kind, _) in part.get("properties", {}).items()})
            for label, kind in given.items():
                last = re.split("::", kind)[-1]
                if last in api["classes"]:
                    found[f"{name}.{label}"] = last
    return found
