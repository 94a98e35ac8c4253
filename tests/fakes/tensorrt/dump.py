"""Reads the carried API dumps: what each TensorRT's Python module has, and nothing else.

The dumps are made from NVIDIA's public wheels by `scripts/dump_tensorrt_api`.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "tensorrt_api"

# The wheels' version as a plan's header has it: the dump of 10.3.0 does not say its build number.
BUILDS = {"10.3.0": 26, "10.7.0": 23}


def labels() -> tuple[str, ...]:
    """The versions that are carried, oldest first, RTX last."""
    names = [path.stem for path in FOLDER.glob("*.json")]
    return tuple(sorted(names, key=lambda name: (name.startswith("rtx"), header_version(name))))


@cache
def read(label: str) -> dict[str, Any]:
    """The dump of one version; see `scripts/dump_tensorrt_api` for its form."""
    path = FOLDER / f"{label}.json"
    if not path.exists():
        raise ValueError(f"There is no dump of TensorRT {label}; carried are {', '.join(labels())}")
    api: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return api


def header_version(label: str) -> tuple[int, int, int, int]:
    """The four version bytes of a plan's header: (10, 3, 0, 26) for `10.3.0`."""
    numbers = [int(part) for part in label.removeprefix("rtx-").split(".")]
    if len(numbers) == 3:
        numbers.append(BUILDS[label])
    major, minor, patch, build = numbers
    return major, minor, patch, build
