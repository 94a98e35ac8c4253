"""Functions of the user's that are named as `python:MODULE:FUNCTION`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime.errors import ConfigError


def load_function(name: str, *, what: str = "metric") -> Callable[..., Any]:
    """The function that `python:MODULE:FUNCTION` names.

    Args:
        name: The module is looked for in the working folder first.
        what: What the function is, for messages.

    Raises:
        ConfigError: There is none, or its module cannot be imported.
    """
    _, module_name, function_name = name.split(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # An import runs the user's code: whatever it raises.
        raise ConfigError(
            f"The {what}'s module {module_name} cannot be imported from {here}: "
            f"{type(error).__name__}: {error}."
        ) from error
    finally:
        sys.path.remove(here)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"The {what}'s module {module_name} has no function {function_name!r}.")
    found: Callable[..., Any] = function
    return found
