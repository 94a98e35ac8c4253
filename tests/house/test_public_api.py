"""The public surface is small, sorted and documented."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import edge_runtime

MAX_NAMES = 12


def test_it_is_small_and_sorted() -> None:
    assert len(edge_runtime.__all__) <= MAX_NAMES
    assert list(edge_runtime.__all__) == sorted(edge_runtime.__all__)
    assert set(edge_runtime.__all__) <= set(dir(edge_runtime))


@pytest.mark.parametrize("name", edge_runtime.__all__)
def test_every_name_leads_to_something_documented(name: str) -> None:
    thing = getattr(edge_runtime, name)
    assert callable(thing)
    assert inspect.getdoc(thing)
    # What a dataclass writes where its author wrote nothing.
    assert not thing.__doc__.startswith(f"{name}(")


def test_no_module_hides_a_public_name() -> None:
    code = """
import importlib, pkgutil
import edge_runtime
VENDORS = ("tensorrt", "tensorrt_rtx_bindings", "cuda", "pycuda")
for module in pkgutil.walk_packages(edge_runtime.__path__, "edge_runtime."):
    # pycuda cannot be imported where there is no driver.
    if module.name not in ("edge_runtime.__main__", "edge_runtime.cuda.pycuda_driver"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:  # A vendor's library that is not here.
            assert (error.name or "").partition(".")[0] in VENDORS, error
print(*(name for name in edge_runtime.__all__ if not callable(getattr(edge_runtime, name))))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.stdout.split(), result.returncode) == ([], 0), result.stderr


@pytest.mark.parametrize("name", edge_runtime.__all__)
def test_every_public_method_is_documented(name: str) -> None:
    thing = getattr(edge_runtime, name)
    methods = {
        key: value
        for key, value in vars(thing).items()
        if not key.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
    }
    assert [key for key, value in methods.items() if not value.__doc__] == []


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        edge_runtime.no_such_name  # noqa: B018
