"""Rules that every file of the repository keeps."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

MAX_LINES = 400
BINARY = {".onnx", ".npz", ".png", ".jpg", ".edge"}
# In brackets, so that this file keeps its own rule.
MACHINE_PATHS = re.compile("/[r]oot/|/[w]ork/|/[t]mp/x|/home/[a-z]")


def tracked(root: Path) -> list[Path]:
    """What is in the repository, or would be with the next commit."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return [path for name in listing.split("\0") if name and (path := root / name).is_file()]


@pytest.fixture(scope="module")
def texts(root: Path) -> dict[str, str]:
    """Text files of the repository by name."""
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in tracked(root)
        if path.suffix not in BINARY
    }


def test_files_of_the_package_stay_small(texts: dict[str, str]) -> None:
    sizes = {
        name: text.count("\n")
        for name, text in texts.items()
        if name.startswith("edge_runtime/") and name.endswith(".py")
    }
    assert sizes
    assert {name: size for name, size in sizes.items() if size > MAX_LINES} == {}


def test_every_folder_of_the_package_is_a_package(texts: dict[str, str]) -> None:
    files = {name for name in texts if name.startswith("edge_runtime/") and name.endswith(".py")}
    folders = {name.rpartition("/")[0] for name in files}
    assert [folder for folder in sorted(folders) if f"{folder}/__init__.py" not in files] == []


def test_nothing_names_a_path_of_someones_machine(texts: dict[str, str]) -> None:
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert found == []


def test_every_file_ends_with_one_newline(texts: dict[str, str]) -> None:
    wrong = [name for name, text in texts.items() if text and not re.search(r"[^\n]\n\Z", text)]
    assert wrong == []
