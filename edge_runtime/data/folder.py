"""The files of a data folder and what they are, told by their endings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from edge_runtime.errors import DataError
from edge_runtime.files import StrPath

ARRAYS = frozenset({".npz", ".npy"})
PICTURES = frozenset(
    # Those of the second line cannot be read: they are listed to be refused, not passed over.
    {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
    | {".avif", ".gif", ".heic", ".jp2", ".pgm", ".ppm", ".tif", ".tiff"}
)


def list_files(folder: StrPath) -> list[Path]:
    """All files in a folder and the folders in it, sorted by their path in it.

    Hidden ones (`.name`) are left out; links to folders are not followed.

    Raises:
        DataError: There is no such folder, it cannot be read, or it holds no file.
    """
    if not Path(folder).is_dir():
        found = "a file" if Path(folder).exists() else "not there"
        raise DataError(f"{folder} is {found}; expected a folder.")
    files: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    if not files:
        raise DataError(f"{folder} holds no files; put pictures, .npz or .npy files into it.")
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


def of_kind(files: Iterable[Path], endings: frozenset[str]) -> list[Path]:
    """Those of `files` with one of these endings, in capitals or not."""
    return [file for file in files if file.suffix.lower() in endings]


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
