"""What the backends say of TensorRT is in the API of every version that the project supports.

`tests/tensorrt_api` has what the real modules have, from 10.3 to 11.4 and TensorRT-RTX.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.tensorrt.dump import labels, read
from tests.fakes.tensorrt.signatures import split
from tests.house.tensorrt_names import Finder, Use, members, returns

LEAST = 90  # Uses that are found today are more: fewer would mean that the search is broken.
COMPAT = "tensorrt/compat.py"
APIS = {label: members(read(label)) for label in labels()}
TYPES = {path: kind for label in labels() for path, kind in returns(read(label)).items()}
CLASSES = {name for label in labels() for name in read(label)["classes"]}
MEMBER = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")


def uses_in(sources: dict[str, str]) -> dict[str, list[Use]]:
    """All uses, by file."""
    trees = {name: ast.parse(text) for name, text in sources.items()}
    found = {}
    for name, tree in trees.items():
        finder = Finder(TYPES, CLASSES)
        for other in trees.values():
            finder.learn(other)
        finder.visit(tree)
        found[name] = finder.uses
    return found


def problems(sources: dict[str, str]) -> list[str]:
    """What no version, or not every version, has, and is not asked for in compat.py."""
    found = []
    for file, uses in uses_in(sources).items():
        compat = file.endswith(COMPAT)
        for use in uses:
            where = f"{file}:{use.line}: {use.path}"
            if use.guard:
                if not compat:
                    found.append(f"{where}: only compat.py asks what this TensorRT has")
                continue
            lacking = [label for label, api in APIS.items() if use.path not in api]
            if len(lacking) == len(APIS):
                found.append(f"{where}: no TensorRT has it")
            elif lacking and not compat:
                found.append(f"{where}: not in {', '.join(lacking)}; ask for it in compat.py")
            for label, api in APIS.items():
                if use.call and api.get(use.path) and not takes(api[use.path], use.call):
                    found.append(f"{where}: {label} does not take these arguments")
    return found


def takes(signatures: Any, call: tuple[int, tuple[str, ...]]) -> bool:
    """Whether an overload has room for so many arguments and for these names."""
    positional, named = call
    for text in signatures:
        if "..." in text:
            return True
        inside = re.fullmatch(r"\w+\((.*)\)(?: -> .+)?", text).group(1)
        parameters = [p for p in split(inside) if not p.startswith(("self", "this"))]
        names = [p.partition(":")[0].partition(" ")[0] for p in parameters]
        needed = [n for n, p in zip(names, parameters, strict=True) if " = " not in p]
        given = [*names[:positional], *named]
        fits = positional <= len(names) and set(named) <= set(names[positional:])
        if fits and set(needed) <= set(given):
            return True
    return False


@pytest.fixture(scope="module")
def sources(root: Path) -> dict[str, str]:
    folder = root / "edge_runtime" / "backends"
    paths = [*folder.glob("tensorrt/**/*.py"), *folder.glob("tensorrt_*.py")]
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_every_name_is_in_every_version(sources: dict[str, str]) -> None:
    assert problems(sources) == []


def test_the_search_finds_them(sources: dict[str, str]) -> None:
    found = {use.path for uses in uses_in(sources).values() for use in uses if not use.guard}
    assert len(found) >= LEAST
    assert {
        "BuilderFlag.TF32",
        "Builder.create_network",
        "IBuilderConfig.set_memory_pool_limit",
        "ICudaEngine.num_io_tensors",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_tensor_address",
        "ParserError.node_operator",
        "Runtime.deserialize_cuda_engine",
    } <= found


def test_members_that_are_asked_for_by_text_exist_somewhere(sources: dict[str, str]) -> None:
    """`enum_member(trt, "BuilderFlag", flag)`, where `flag` comes from a table in that file."""
    checked = 0
    for file, text in sources.items():
        tree = ast.parse(text)
        enums = {
            node.args[1].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "enum_member"
            and isinstance(node.args[1], ast.Constant)
        }
        texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        for name in sorted(str(t) for t in texts if enums and MEMBER.fullmatch(str(t))):
            paths = {f"{enum}.{name}" for enum in enums}
            assert any(paths & set(api) for api in APIS.values()), f"{file}: {name} of {enums}"
            checked += 1
    assert checked >= 3


def test_nothing_compares_versions(sources: dict[str, str]) -> None:
    found = [
        f"{file}:{node.lineno}"
        for file, text in sources.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Compare) and "trt.__version__" in ast.unparse(node)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def f(trt: Any): trt.BuilderFlag.SPARSE", "no TensorRT has it"),
        ("def f(trt: Any): trt.BuilderFlag.FP16", r"not in 11.0.0.114, 11.4.0.106, rtx-1.7.1.116;"),
        ("def f(trt: Any): trt.Bilder", "no TensorRT has it"),
        ("def f(engine: Any): engine.num_bindings", "no TensorRT has it"),
        ("def f(engine: Any): engine.device_memory_size", "not in 11"),
        ("class A:\n def f(self): self._trt.Builder(1).create_netwerk()", "no TensorRT has it"),
        ("def f(trt: Any):\n b = trt.Builder(1)\n b.create_network(flag=1)", "does not take"),
        ("def f(trt: Any):\n b = trt.Builder(1)\n c = b.create_builder_config()\n c.set_flag()",
         "does not take"),
        ("def f(trt: Any):\n if hasattr(trt, 'X'): pass", "only compat.py asks"),
        ("def f(trt: Any):\n e = trt.Runtime(1).deserialize_cuda_engine(b'')\n"
         " e.create_execution_context().execute_v3(1)", "no TensorRT has it"),
        ("def f(network: Any):\n a = [network.get_layer(i) for i in range(3)]\n"
         " for layer in a: layer.get_inputs(0)", "no TensorRT has it"),
        ("def f(r, trt: Any):\n t, e = trt, r.engine\n t.BuilderFlag.X", "no TensorRT has it"),
        ("class A:\n engine: Any\ndef f(a: A): a.engine.nope", "no TensorRT has it"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_found(code: str, words: str) -> None:
    found = problems({"tensorrt/new.py": code})
    assert found
    assert re.search(words, found[0])


def test_compat_may_use_what_some_versions_have() -> None:
    code = "def f(config: Any): config.num_compute_capabilities = 1"
    assert problems({"tensorrt/options.py": code})
    assert problems({COMPAT: code}) == []
