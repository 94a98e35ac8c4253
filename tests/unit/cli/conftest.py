"""What the tests of the commands share: a runner, and a folder like that of a newcomer."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_runtime.cli.main import cli

Run = Callable[..., Result]

# Click before 8.2 mixes stderr into stdout unless told not to; later it knows no such setting.
APART = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


@pytest.fixture
def run() -> Run:
    """Runs a command in this process; what is not an expected error is raised."""

    def invoke(*arguments: object) -> Result:
        words = [str(argument) for argument in arguments]
        return CliRunner(**APART).invoke(
            cli, words, prog_name="edge-runtime", catch_exceptions=False
        )

    return invoke


@pytest.fixture
def start(folder: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a command in a process of its own, in `folder`; `program` may take its place."""

    def popen(*arguments: object, **settings: object) -> subprocess.Popen[str]:
        program = settings.pop("program", ["-m", "edge_runtime"])
        command = [sys.executable, *program, *map(str, arguments)]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= settings.pop("env", {})
        environment.pop("PYTHONUNBUFFERED", None)  # A user's shell does not have it.
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # A shell's background jobs, such as a CI's, ignore Ctrl-C, and so would what they start.
        settings.setdefault("preexec_fn", hear_interrupts)
        return subprocess.Popen(
            command, cwd=folder, env=environment, text=True, **{**pipes, **settings}
        )

    return popen


def hear_interrupts() -> None:
    """Gives Ctrl-C its ordinary effect."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def folder(tmp_path: Path, root: Path, digits: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the digits net as model.onnx and data for it in every form."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))
    (tmp_path / "tests").symlink_to(root / "tests")
    (tmp_path / "model.onnx").symlink_to(digits.model)
    np.savez("calibration.npz", image=digits.as_input(digits.calibration[:16]))
    np.savez("test.npz", image=digits.as_input(digits.images))
    np.save("one.npy", digits.as_input(digits.images[:1]))
    (tmp_path / "pictures").mkdir()
    for index, picture in enumerate(digits.calibration[:16]):
        cv2.imwrite(f"pictures/{index:02}.png", picture)
    cv2.imwrite("pictures/one.png", digits.images[0])
    return tmp_path


@pytest.fixture(scope="session")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory, digits: object) -> Path:
    """The digits net in INT8, without a plan; it says how a picture becomes its input."""
    import edge_runtime

    work = tmp_path_factory.mktemp("bundle")
    (work / "digits").mkdir()
    for index, picture in enumerate(digits.calibration[:16]):
        cv2.imwrite(str(work / f"digits/{index:02}.png"), picture)
    pictures = edge_runtime.ImageFolder(work / "digits", "size=16,color=gray")
    config = edge_runtime.BuildConfig(precision="int8", backend="cpu")
    edge_runtime.build(digits.model, config, output=work / "int8.edge", calibration=pictures)
    return work / "int8.edge"
