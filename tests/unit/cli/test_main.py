"""What every command does alike: help, errors, exit codes, JSON."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

import edge_runtime
from edge_runtime.cli import main

COMMANDS = sorted(main.COMMANDS)


def command(name: str) -> click.Command:
    return importlib.import_module(f"edge_runtime.cli.{name}").command


def examples(epilog: str) -> list[list[str]]:
    """The commands under `Examples:`, as words."""
    text = epilog.partition("Examples:\n")[2].replace("\\\n", " ").partition("\n\n")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    assert lines
    assert all(line.startswith("edge-runtime ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


def test_the_version_is_the_package_s(run) -> None:
    assert edge_runtime.__version__ in run("--version").stdout


def test_help_lists_every_command_with_a_line(run) -> None:
    text = run("--help").stdout
    for name, line in main.COMMANDS.items():
        assert f"  {name} " in text
        assert line.split()[0] in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_teaches(run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert "--json" in result.stdout
    assert f"edge-runtime {name} " in result.stdout


@pytest.mark.parametrize("name", ["edge-runtime", *COMMANDS])
def test_the_examples_in_the_help_work(run, folder: Path, name: str) -> None:
    epilog = main.cli.epilog if name == "edge-runtime" else command(name).epilog
    for words in examples(epilog):
        if words[:2] == ["build", "digits.edge"] and find_spec("tensorrt_rtx_bindings") is None:
            pytest.skip("tensorrt_rtx_bindings is missing: no plan can be added")
        result = run(*words)
        assert result.exit_code == 0, f"{words}: {result.stderr}"


def test_a_command_that_does_not_exist_is_named(run) -> None:
    result = run("compile")
    assert result.exit_code == 2
    assert "compile" in result.stderr


def test_an_unknown_option_is_named(run) -> None:
    result = run("doctor", "--jsn")
    assert result.exit_code == 2
    assert "--jsn" in result.stderr


def test_an_error_is_one_line_on_stderr(run, folder: Path) -> None:
    result = run("inspect", "nosuch.edge")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: Cannot read nosuch.edge: no such file or directory.\n"


def test_with_json_an_error_is_a_document_too(run, folder: Path) -> None:
    result = run("inspect", "nosuch.edge", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "error": {
            "type": "ModelError",
            "message": "Cannot read nosuch.edge: no such file or directory.",
        }
    }
    assert result.stderr.startswith("Error: ")


def test_a_bug_keeps_its_traceback(run, folder: Path, monkeypatch) -> None:
    from edge_runtime import doctor

    def broken() -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(doctor, "diagnose", broken)
    with pytest.raises(KeyError, match="a bug"):
        run("doctor")


@pytest.mark.parametrize("quiet", [False, True])
def test_what_tensorrt_warns_of_is_shown_unless_quiet(
    run, folder: Path, monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    """TensorRT warns from threads of its own."""
    from edge_runtime import building

    write = building.write

    def warn(*arguments: object) -> object:
        log = logging.getLogger("edge_runtime.tensorrt")
        thread = threading.Thread(target=log.warning, args=("weights are odd",))
        thread.start()
        thread.join()
        return write(*arguments)

    monkeypatch.setattr(building, "write", warn)
    arguments = ("build", "model.onnx", "--precision", "fp32", "--backend", "cpu")
    result = run(*arguments, *(["--quiet"] if quiet else []))
    assert result.exit_code == 0
    assert ("Warning: weights are odd\n" in result.stderr) is not quiet
    assert "weights are odd" not in result.stdout


@pytest.mark.parametrize(
    ("blocked", "arguments", "extra"),
    [
        ("onnx", ["inspect", "model.onnx"], "build"),
        ("onnx", ["build", "model.onnx", "--precision", "fp32"], "build"),
        ("onnx", ["compare", "model.onnx", "model.onnx", "--data", "test.npz"], "build"),
        ("pydantic", ["build", "--recipe", "recipe.toml"], "build"),
        ("cv2", ["run", "int8.edge", "--input", "pictures/one.png"], "vision"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(
    folder: Path, int8_bundle: Path, blocked: str, arguments: list[str], extra: str
) -> None:
    (folder / "int8.edge").symlink_to(int8_bundle)
    result = without((blocked,), arguments)
    assert result.returncode == 1
    assert f"pip install 'edge-runtime[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_device_inspects_and_runs_without_the_build_half(folder: Path, int8_bundle: Path) -> None:
    blocked = ("onnx", "pydantic", "cv2", "tensorrt_rtx_bindings")
    inspected = without(blocked, ["inspect", str(int8_bundle), "--layers"])
    assert "node_linear" in inspected.stdout, inspected.stderr
    ran = without(blocked, ["run", str(int8_bundle), "--input", "one.npy"])
    assert "logits" in ran.stdout, ran.stderr


def without(modules: tuple[str, ...], arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command in a Python that cannot import these modules."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({modules}))
sys.argv = ["edge-runtime", *{arguments}]
from edge_runtime.cli.main import main
main()
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_reader_that_has_seen_enough_is_no_error(start, int8_bundle: Path) -> None:
    with start("inspect", int8_bundle, "--layers") as process:
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is missing")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_full_disk_behind_stdout_is_an_error_of_one_line(
    start, int8_bundle: Path, form: list[str]
) -> None:
    with open("/dev/full", "w") as full:
        process = start("inspect", int8_bundle, *form, stdout=full)
        errors = process.communicate()[1].lower()
    assert process.returncode == 1
    assert errors.splitlines()[0] == "error: cannot write to stdout: no space left on device."
    assert "traceback" not in errors


@pytest.mark.parametrize("name", [b"a\xe9.onnx", "a\u0416.onnx".encode()])
def test_a_name_that_cannot_be_printed_is_shown_escaped(
    start, folder: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    """A name that is no UTF-8, and one that a stdout of Latin-1 cannot take."""
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    (folder / os.fsdecode(name)).symlink_to(folder / "model.onnx")
    process = start("inspect", os.fsdecode(name))
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert re.match(r"a\\(udce9|u0416)\.onnx: an ONNX model", output)
