"""The git commit of a folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SECONDS = 20


def read_commit(folder: Path) -> str | None:
    """The commit that is checked out, with `-dirty` if tracked files differ from it.

    Returns:
        None where `folder` is in no repository with a commit, or there is no git.
    """
    program = shutil.which("git")
    if program is None:
        return None
    # It asks no program that the repository names, and does not write to its index.
    safely = ("--no-optional-locks", "-c", "core.fsmonitor=false")
    describe = ("describe", "--always", "--abbrev=64", "--dirty", "--exclude=*")
    try:
        result = subprocess.run(  # noqa: S603 - git, and nothing of the repository
            [program, *safely, *describe],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
