"""Small files of the kernel, read often: what is missing, off or no number is None."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOST = 1 << 16
"""Bytes that are read: files of /sys have at most 4096, and of /proc/stat the beginning is used."""

_NUMBER = re.compile(r"-?[0-9]{1,19}")  # More digits than 64 bits have are no number of the kernel.


def read_text(path: str | Path) -> str | None:
    """The text of a file without what surrounds it; None if the kernel gives none.

    A file may be there and not be readable: a sensor that is off answers with an error.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, _MOST).decode("ascii", "replace").strip("\0\n ")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_number(path: str | Path) -> int | None:
    """The whole number in a file; None if there is none."""
    text = read_text(path)
    return int(text) if text and _NUMBER.fullmatch(text) else None


def find(root: Path, pattern: str) -> list[Path]:
    """Paths below `root` that match, those with lower numbers in their name first."""
    return sorted(root.glob(pattern), key=lambda path: (len(path.name), path.name))
