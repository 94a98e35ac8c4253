"""Runs what README.md tells its reader to run, in order, in one folder, and compares what it shows.

A ```console block holds commands behind `$ ` and, if it wants, their output, where `...` stands for
anything. A ```bash block is a script, a ```python block a program; neither shows output. What
cannot run in a test stands under `<!-- not run: the reason -->`.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCK = re.compile(r"(?:^<!-- not run:(.*?)-->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN_ONLY = {"text", "toml"}
MAX_NOT_RUN = 4
pytestmark = pytest.mark.timeout(600)  # the demo fetches its networks
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"line{self.line}-{self.language}"


def blocks() -> list[Block]:
    text = (ROOT / "README.md").read_text()
    return [
        Block(text.count("\n", 0, match.start(2)) + 1, match[2], match[3], match[1])
        for match in BLOCK.finditer(text)
    ]


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output it shows."""
    assert text.startswith("$ "), "a console block begins with a command"
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    split = (re.match(r"((?:[^\n]*\\\n)*[^\n]*)\n(.*)\Z", part, re.DOTALL) for part in parts)
    return [(match[1], match[2]) for match in split]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a clone, where what the commands write does no harm."""
    folder = tmp_path_factory.mktemp("clone")
    for path in ROOT.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.parametrize("block", [b for b in blocks() if b.reason is None], ids=str)
def test_what_the_readme_says_works(block: Block, folder: Path) -> None:
    if block.language == "console":
        for command, shown in commands(block.text):
            output = run(["bash", "-euo", "pipefail", "-c", command], folder)
            if shown:
                same = doctest.OutputChecker().check_output(shown, output, FLAGS)
                assert same, f"$ {command}\nshows\n{shown}\nand printed\n{output}"
    elif block.language == "bash":
        run(["bash", "-euo", "pipefail", "-c", block.text], folder)
    elif block.language == "python":
        run([sys.executable, "-W", "error", "-c", block.text], folder)
    else:
        assert block.language in SHOWN_ONLY


def test_what_is_not_run_is_little_and_says_why() -> None:
    not_run = [block for block in blocks() if block.reason is not None]
    assert len(not_run) <= MAX_NOT_RUN
    assert all(len(block.reason.split()) >= 3 for block in not_run)


def test_the_readme_shows_the_command_line_and_the_library() -> None:
    languages = {block.language for block in blocks() if block.reason is None}
    assert {"console", "python"} <= languages
