"""Runs a step in a process of its own, and keeps its result under a digest of what went in."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1]
PATIENCE = 3600.0
"""Seconds that a step may take."""


def digest_of(*values: object) -> str:
    """A digest of plain JSON values and of files' bytes."""
    total = hashlib.sha256()
    for value in values:
        plain = value.read_bytes() if isinstance(value, Path) else json.dumps(value).encode()
        total.update(hashlib.sha256(plain).digest())
    return total.hexdigest()[:24]


def digest_of_package() -> str:
    """A digest of the sources of edge_runtime: its results hold for them alone."""
    files = sorted((SCRIPTS.parent / "edge_runtime").rglob("*.py"))
    return digest_of(*files)


def run_child(command: list[str], job: dict[str, Any], home: Path, key: str) -> dict[str, Any]:
    """Runs `command JOB.json` unless its result is there, and returns the result.

    Args:
        command: The program and its first arguments.
        job: What the child is told; `output` is added, the path that its result goes to.
        home: The folder of jobs and results.
        key: The digest that the result is kept under.

    Returns:
        What the child wrote, or `{"error": reason}` where it wrote nothing.
    """
    home.mkdir(parents=True, exist_ok=True)
    result, log = home / f"{key}.json", home / f"{key}.log"
    if result.is_file():
        kept: dict[str, Any] = json.loads(result.read_text())
        return kept
    description = home / f"{key}.job"
    description.write_text(json.dumps(job))
    environment = {**os.environ, "PYTHONPATH": f"{SCRIPTS}{os.pathsep}{SCRIPTS.parent}"}
    with log.open("w") as file:
        try:
            code = subprocess.run(
                [*command, str(description)],
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE,
                check=False,
                env=environment,
            ).returncode
        except subprocess.TimeoutExpired:
            return {"error": f"took more than {PATIENCE:.0f} s"}
    if not result.is_file():
        lines = [line.strip() for line in log.read_text().splitlines() if line.strip()]
        return {"error": f"ended with code {code}: {lines[-1][:200] if lines else 'no output'}"}
    written: dict[str, Any] = json.loads(result.read_text())
    return written
