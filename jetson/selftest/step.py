"""Runs one step in a process of its own, and says what became of it."""

from __future__ import annotations

import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """A command.

    Attributes:
        name: Its short name.
        command: Its words.
        limit: Seconds after which it is ended.
        junit: The file in which pytest counts its tests, where it is pytest.
        why_not: Why it is not run at all; empty if it is.
    """

    name: str
    command: Sequence[str]
    limit: int = 600
    junit: Path | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a step: `status` is `passed`, `failed: why` or `not run: why`."""

    step: str
    status: str
    seconds: float = 0.0
    command: Sequence[str] = ()

    @property
    def failed(self) -> bool:
        """Whether it was run and did not do what it should."""
        return self.status.startswith("failed")


def run(step: Step, logs: Path, *, skip: bool, cwd: Path) -> Outcome:
    """Runs a step; what it prints goes to a log of its name.

    Args:
        step: The step.
        logs: The folder for its log.
        skip: Whether somebody asked to leave it out.
        cwd: The folder that it runs in.
    """
    why_not = step.why_not or ("left out" if skip else "")
    if why_not:
        return Outcome(step.name, f"not run: {why_not}")
    start = time.monotonic()
    with (logs / f"{step.name}.log").open("w", encoding="utf-8") as log:
        try:
            code = subprocess.run(
                step.command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=step.limit,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            fault = f"ended after {step.limit} s"
        except OSError as error:  # Such as no .venv, after a setup that failed.
            fault = f"cannot start {step.command[0]}: {error.strerror}"
        else:
            fault = f"exit code {code}" if code else ""
    count = ""
    if step.junit is not None:
        count, fault = _count(step.junit, fault)
    status = (f"failed: {fault}" if fault else "passed") + (f" ({count})" if count else "")
    return Outcome(step.name, status, time.monotonic() - start, step.command)


def _count(junit: Path, fault: str) -> tuple[str, str]:
    """How many tests did what; and what is wrong, which no test at all is too."""
    if not junit.exists():
        return "", fault or "pytest left no results"
    suite = ET.parse(junit).getroot().find("testsuite")
    assert suite is not None
    total, skipped, broken = (
        sum(int(suite.attrib[key]) for key in keys)
        for keys in (("tests",), ("skipped",), ("failures", "errors"))
    )
    if total == skipped and not fault:
        reason = next((case.attrib["message"] for case in suite.iter("skipped")), "there is none")
        fault = f"no test was run: {reason}"
    return f"{total - skipped - broken} passed, {broken} failed, {skipped} skipped", fault
