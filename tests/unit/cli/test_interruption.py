"""What is left when a command is cut short: by Ctrl-C, or by the disk."""

from __future__ import annotations

import os
import pty
import resource
import signal
from pathlib import Path

import numpy as np
import pytest


def long_data(digits: object) -> None:
    """Samples that take long enough to be interrupted."""
    np.savez("long.npz", image=np.tile(digits.as_input(digits.images), (20, 1, 1, 1)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["calibrate", "model.onnx", "--data", "long.npz", "-o", "old"],
        [
            "build",
            "model.onnx",
            "--precision",
            "int8",
            "--calibration-data",
            "long.npz",
            "-o",
            "old",
        ],
    ],
    ids=["calibrate", "build"],
)
def test_ctrl_c_leaves_the_old_file(
    start, folder: Path, digits: object, arguments: list[str]
) -> None:
    long_data(digits)
    Path("old").write_text("what was there")
    before = sorted(folder.iterdir())
    process = start(*arguments)
    assert process.stderr.readline() == "Calibrating ...\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert (process.returncode, output) == (130, "")
    assert errors == "Interrupted; no file was left half-written.\n"
    assert Path("old").read_text() == "what was there"
    assert sorted(folder.iterdir()) == before


ENDLESS = """
import os, sys, time
from edge_runtime.backends import registry
from edge_runtime.backends.tensorrt.child import ChildBuilder
from edge_runtime.bundle.manifest import PlanKey

KEY = PlanKey("tensorrt-rtx", "1.0", (), "linux-x86_64")


class Endless:
    def build(self, graph, profiles, progress):
        while True:
            progress(f"In process {os.getpid()}", 1, 100)
            time.sleep(0.01)


if __name__ == "__main__":
    registry.availability = lambda: (
        registry.Availability("tensorrt-rtx", True, False, ""),
        registry.Availability("cpu", True, True, ""),
    )
    registry.create_builder = lambda *_: ChildBuilder("endless:Endless", {}, KEY)
    from edge_runtime.cli.main import main

    main()
"""


@pytest.mark.parametrize("whole_group", [False, True], ids=["kill", "terminal"])
@pytest.mark.parametrize("what", ["model", "bundle"])
def test_ctrl_c_while_a_plan_is_built_ends_the_builder_too(
    start, folder: Path, int8_bundle: Path, what: str, whole_group: bool
) -> None:
    Path("endless.py").write_text(ENDLESS)
    Path("old.edge").write_bytes(int8_bundle.read_bytes())
    Path("temporary").mkdir()
    before = sorted(folder.iterdir())
    shape = ("--shape", "image=1x1x16x16")
    arguments = ("build", "model.onnx", "--precision", "fp32", *shape, "-o", "old.edge")
    if what == "bundle":
        arguments = ("build", "old.edge", *shape)
    process = start(
        *arguments,
        program=["endless.py"],
        start_new_session=True,
        env={"TMPDIR": str(folder / "temporary")},
    )
    assert process.stderr.readline() == "Building the tensorrt-rtx plan ...\n"
    builder = int(process.stderr.readline().removeprefix("In process ").split()[0])
    assert builder != process.pid
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    output, errors = process.communicate()
    assert (process.returncode, output) == (130, "")
    assert errors == "Interrupted; no file was left half-written.\n"
    with pytest.raises(ProcessLookupError):
        os.kill(builder, 0)
    assert Path("old.edge").read_bytes() == int8_bundle.read_bytes()
    assert sorted(folder.iterdir()) == before
    assert list(Path("temporary").glob("edge-runtime*")) == []  # ONNX Runtime leaves its own .ses.


def test_a_disk_that_is_full_leaves_the_old_file(start, folder: Path) -> None:
    Path("old.edge").write_text("what was there")
    before = sorted(folder.iterdir())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    arguments = ("build", "model.onnx", "--precision", "fp32", "--backend", "cpu")
    process = start(*arguments, "-o", "old.edge", "--json", preexec_fn=limit)
    output, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith("Error: Cannot write old.edge: file too large.")
    assert '"type": "BundleError"' in output
    assert Path("old.edge").read_text() == "what was there"
    assert sorted(folder.iterdir()) == before


def test_on_a_terminal_bars_come_and_go_on_stderr_alone(start, folder: Path) -> None:
    ours, theirs = pty.openpty()
    process = start("calibrate", "model.onnx", "--data", "calibration.npz", stderr=theirs)
    os.close(theirs)
    shown = b""
    while chunk := read(ours):
        shown += chunk
    output = process.communicate()[0]
    os.close(ours)
    assert process.returncode == 0
    assert b"Calibrating" in shown
    assert b"16/16" in shown
    assert shown.endswith(b"\x1b[2K")  # The last thing that is done is to wipe a line.
    assert output.startswith("Wrote model.calibration.json\n")
    assert "\x1b" not in output


def read(terminal: int) -> bytes:
    """What comes next; nothing once the other side is closed, which Linux reports as an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
