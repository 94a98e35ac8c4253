"""Runs a step in a process of its own, and keeps its result under a digest of what went in."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1]
PATIENCE = 3600.0
"""Seconds that a step may take."""
SHARE = 0.6
"""Share of this machine's memory that a step may take: some tools would take all of it."""


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
        child = subprocess.Popen(
            [*command, str(description)], stdout=file, stderr=subprocess.STDOUT, env=environment
        )
        stopped = _watch(child)
    if stopped is not None:  # Kept as well: it would end so again.
        result.write_text(json.dumps({"error": stopped}))
    if not result.is_file():
        lines = [line.strip() for line in log.read_text().splitlines() if line.strip()]
        last = lines[-1][:200] if lines else "no output"
        return {"error": f"ended with code {child.returncode}: {last}"}
    written: dict[str, Any] = json.loads(result.read_text())
    return written


def _watch(child: subprocess.Popen[bytes]) -> str | None:
    """Waits for the child; ends it where it takes too long or too much memory, and says which."""
    limit = SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    start = time.monotonic()
    while child.poll() is None:
        reason = None
        if time.monotonic() - start > PATIENCE:
            reason = f"stopped: it took more than {PATIENCE:.0f} s"
        elif memory_mib(child.pid) > limit:
            reason = f"stopped: it took more than {limit:.0f} MiB"
        if reason is not None:
            child.kill()
            child.wait()
            return reason
        time.sleep(0.1)
    return None


def memory_mib(pid: int) -> float:
    """The memory that a process holds now; 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0
