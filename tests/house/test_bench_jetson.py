"""scripts/bench_jetson.sh with fake Jetson tools: what it changes, it puts back, whatever happens.

The fakes take what NVIDIA's tools are documented to take and nothing else; any other call of theirs
is an error, which the fixture finds in the log.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import edge_runtime as er

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "bench_jetson.sh"

NVPMODEL = """#!/bin/bash
echo "nvpmodel $*" >>"$FAKE/log"
case "$*" in
    -q) printf 'NV Power Mode: MODE_%s\\n%s\\n' "$(<"$FAKE/mode")" "$(<"$FAKE/mode")" ;;
    "-m "[0-3])
        [[ $2 != 3 ]] || { echo "Reboot required. Reboot now? enter YES/yes:"; ! read -r; exit; }
        echo "$2" >"$FAKE/mode"
        echo free >"$FAKE/clocks" ;;
    *) echo "unknown: nvpmodel $*" >>"$FAKE/errors"; exit 1 ;;
esac
"""
JETSON_CLOCKS = """#!/bin/bash
echo "jetson_clocks $*" >>"$FAKE/log"
case $1 in
    --store)
        [[ $# == 2 && ! -e $2 && ! -e $FAKE/store-fails ]] || exit 1
        cp "$FAKE/clocks" "$2" ;;
    --restore)
        [[ $# == 2 && ! -e $FAKE/restore-fails ]] || exit 1
        cp "$2" "$FAKE/clocks" ;;
    --show) echo "GPU MinFreq=1 MaxFreq=2" ;;
    "") echo locked >"$FAKE/clocks" ;;
    *) echo "unknown: jetson_clocks $*" >>"$FAKE/errors"; exit 1 ;;
esac
"""
# Not root, and sudo works or does not.
ID = '#!/bin/bash\n[[ "$*" == -u ]] && echo 1000\n'
SUDO = """#!/bin/bash
[[ $1 == -n ]] || { echo "sudo may ask" >>"$FAKE/errors"; exit 1; }
[[ ! -e $FAKE/no-sudo ]] || exit 1
shift
"$@"
"""
# Stands for the sweep: says in what state it ran.
PYTHON = """#!/bin/bash
shift
echo "sweep mode=$(<"$FAKE/mode") clocks=$(<"$FAKE/clocks") $*" >>"$FAKE/log"
[[ "$*" == --index* || ! -e $FAKE/sweep-fails ]] || exit 1
[[ "$*" == --index* || ! -e $FAKE/sweep-hangs ]] || { touch "$FAKE/hanging"; exec sleep 60; }
"""


@dataclass
class Jetson:
    """A fake Jetson: power mode 2, clocks free."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        tools = self.folder / "bin"
        path = f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin"
        return {
            "PATH": path,
            "FAKE": str(self.folder),
            "PYTHON": str(tools / "fake-python"),
            "HOME": str(self.folder),
        }

    def command(self, *arguments: object) -> list[str]:
        given = [str(argument) for argument in arguments]
        return [str(SCRIPT), "--output", str(self.folder / "out"), *given]

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments, self.bundle),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @property
    def bundle(self) -> Path:
        return self.folder / "net.edge"

    @property
    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def state(self) -> tuple[str, str]:
        mode, clocks = ((self.folder / name).read_text().strip() for name in ("mode", "clocks"))
        return mode, clocks

    def set(self, name: str) -> None:
        (self.folder / name).touch()

    def remove(self, *tools: str) -> None:
        for name in tools:
            (self.folder / "bin" / name).unlink()


@pytest.fixture
def jetson(tmp_path: Path) -> Iterator[Jetson]:
    tools = tmp_path / "bin"
    tools.mkdir()
    fakes = {"nvpmodel": NVPMODEL, "jetson_clocks": JETSON_CLOCKS, "id": ID, "sudo": SUDO}
    for name, text in {**fakes, "fake-python": PYTHON}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / "mode").write_text("2\n")
    (tmp_path / "clocks").write_text("free\n")
    (tmp_path / "net.edge").touch()
    yield Jetson(tmp_path)
    errors = tmp_path / "errors"
    assert not errors.exists(), errors.read_text()


def sweeps(jetson: Jetson) -> list[str]:
    return [" ".join(line.split()[1:3]) for line in jetson.log if line.startswith("sweep")]


def test_each_mode_is_measured_with_locked_clocks_and_all_is_put_back(jetson: Jetson) -> None:
    result = jetson.run("--modes", "0,1", "--batch", "1,8", "--streams", "2")
    assert result.returncode == 0, result.stderr
    assert sweeps(jetson)[:2] == ["mode=0 clocks=locked", "mode=1 clocks=locked"]
    assert jetson.state == ("2", "free")
    out = jetson.folder / "out"
    assert not (out / "clocks.stored").exists()
    assert "NV Power Mode: MODE_1" in (out / "mode-1" / "power.txt").read_text()
    assert "GPU MinFreq" in (out / "mode-1" / "power.txt").read_text()
    first = next(line for line in jetson.log if line.startswith("sweep"))
    given = f"{jetson.bundle} --batch 1,8 --streams 2 --output {out}/mode-0"
    assert first.endswith(given)
    index = [line for line in jetson.log if "--index" in line]
    assert [line.partition(" --index")[2] for line in index] == [f" --output {out}"]
    # The mode comes before the clocks, since it changes their limits.
    assert [line.split(" /")[0] for line in jetson.log if "sweep" not in line][-2:] == [
        "nvpmodel -m 2",
        "jetson_clocks --restore",
    ]


def test_without_modes_the_one_in_use_is_measured(jetson: Jetson) -> None:
    result = subprocess.run(
        jetson.command(jetson.bundle, "--", "--device", "cpu"),
        env=jetson.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert sweeps(jetson)[0] == "mode=2 clocks=locked"
    assert any(line.endswith("mode-2 -- --device cpu") for line in jetson.log)
    assert not any(line.startswith("nvpmodel -m") for line in jetson.log)
    assert jetson.state == ("2", "free")


def test_no_lock_leaves_the_clocks_alone(jetson: Jetson) -> None:
    assert jetson.run("--no-lock").returncode == 0
    assert sweeps(jetson)[0] == "mode=2 clocks=free"
    clocks = [line for line in jetson.log if line.startswith("jetson_clocks")]
    assert clocks == ["jetson_clocks --show"]


def test_a_failed_sweep_is_an_exit_code_and_the_others_run(jetson: Jetson) -> None:
    jetson.set("sweep-fails")
    result = jetson.run("--modes", "0,1")
    assert result.returncode == 1
    assert len(sweeps(jetson)) == 3  # Two modes and the index.
    assert jetson.state == ("2", "free")


def test_a_mode_that_wants_a_reboot_is_left_out(jetson: Jetson) -> None:
    result = jetson.run("--modes", "3,1")
    assert result.returncode == 1
    assert "power mode 3 was not taken" in result.stderr
    assert sweeps(jetson)[0] == "mode=1 clocks=locked"
    assert jetson.state == ("2", "free")


@pytest.mark.parametrize(
    ("number", "code", "group"),
    [
        (signal.SIGINT, 130, True),  # Ctrl-C goes to all processes of the terminal.
        (signal.SIGINT, 130, False),
        (signal.SIGTERM, 143, False),
        (signal.SIGHUP, 129, False),
    ],
)
def test_a_signal_puts_everything_back_at_once(
    jetson: Jetson, number: signal.Signals, code: int, group: bool
) -> None:
    jetson.set("sweep-hangs")
    process = subprocess.Popen(
        jetson.command("--modes", "0,1", jetson.bundle),
        env=jetson.environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell ignores for good what was ignored when it began, as in a background job.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (jetson.folder / "hanging").exists():
        assert process.poll() is None
        time.sleep(0.01)
    assert jetson.state == ("0", "locked")
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=30)  # The sweep sleeps for longer.
    assert process.returncode == code, said
    assert jetson.state == ("2", "free")
    assert len(sweeps(jetson)) == 1
    assert not (jetson.folder / "out" / "clocks.stored").exists()


def test_what_cannot_be_put_back_is_said_and_kept(jetson: Jetson) -> None:
    jetson.set("restore-fails")
    result = jetson.run()
    assert result.returncode == 1
    stored = jetson.folder / "out" / "clocks.stored"
    assert f"sudo jetson_clocks --restore {stored}" in result.stderr
    assert stored.read_text() == "free\n"
    # The next run does not take the locked clocks for those to put back.
    (jetson.folder / "restore-fails").unlink()
    again = jetson.run()
    assert again.returncode == 2
    assert "an earlier run was killed" in again.stderr
    assert stored.read_text() == "free\n"


def test_clocks_that_cannot_be_stored_are_not_locked(jetson: Jetson) -> None:
    jetson.set("store-fails")
    assert jetson.run().returncode == 1
    assert jetson.state == ("2", "free")
    assert sweeps(jetson) == []


def test_without_root_it_measures_as_things_are_and_says_so(jetson: Jetson) -> None:
    jetson.set("no-sudo")
    result = jetson.run()
    assert result.returncode == 0, result.stderr
    assert "locking clocks needs root" in result.stderr
    assert sweeps(jetson)[0] == "mode=2 clocks=free"
    refused = jetson.run("--modes", "0")
    assert (refused.returncode, "--modes needs root" in refused.stderr) == (2, True)
    assert jetson.state == ("2", "free")


def test_without_any_tool_it_says_what_is_missing(jetson: Jetson) -> None:
    jetson.remove("nvpmodel", "jetson_clocks", "sudo")
    if shutil.which("nvpmodel", path="/usr/bin:/bin"):
        pytest.skip("this is a Jetson: its tools are on PATH")
    result = jetson.run()
    assert result.returncode == 0, result.stderr
    assert "nvpmodel is missing" in result.stderr
    assert "jetson_clocks is missing" in result.stderr
    assert "mode-as-is" in jetson.log[0]
    assert jetson.run("--modes", "1").returncode == 2


def test_dry_run_shows_every_command_and_changes_nothing(jetson: Jetson) -> None:
    result = jetson.run("--dry-run", "--modes", "0,1")
    assert result.returncode == 0, result.stderr
    assert jetson.log == ["nvpmodel -q"]  # What it would put back.
    assert not (jetson.folder / "out").exists()
    shown = [shlex.split(line[2:]) for line in result.stdout.splitlines()]
    names = [" ".join(word for word in line if not word.startswith("/")) for line in shown]
    assert names == [
        "mkdir -p",
        "sudo -n jetson_clocks --store",
        *("sudo -n nvpmodel -m 0", "sudo -n jetson_clocks", "sudo -n nvpmodel -q", "--output"),
        *("sudo -n nvpmodel -m 1", "sudo -n jetson_clocks", "sudo -n nvpmodel -q", "--output"),
        "--index --output",
        *("sudo -n nvpmodel -m 2", "sudo -n jetson_clocks --restore"),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fast"], "there is no option --fast"),
        (["--modes"], "--modes wants a value"),
        (["--modes", "MAXN"], "--modes wants numbers"),
        ([], "name bundles"),
        (["none.edge"], "there is no none.edge"),
    ],
)
def test_what_it_does_not_understand_is_refused(
    jetson: Jetson, arguments: list[str], said: str
) -> None:
    result = subprocess.run(
        [SCRIPT, *arguments], env=jetson.environment, capture_output=True, text=True, check=False
    )
    assert (result.returncode, said in result.stderr) == (2, True)
    assert result.stderr.count("\n") == 1
    assert jetson.log == []


def test_help_names_every_option() -> None:
    said = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("modes", "batch", "streams", "protocol", "duration", "no-lock", "dry-run"):
        assert f"--{option}" in said


def test_it_measures_on_this_machine(
    tmp_path: Path, digits: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = er.build(digits.model, output=tmp_path / "digits.edge").path  # type: ignore[attr-defined]
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    given = ["--no-lock", "--duration", "0.05", "--output", tmp_path / "out", bundle]
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    result = run([SCRIPT, *given, "--", "--device", "cpu"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "out").glob("mode-*")
    assert (folder / "digits-busual-s1.json").exists()
    assert f"{folder.name}/digits-busual-s1.html" in (tmp_path / "out/index.html").read_text()
    assert "| fp32 | cpu |" in result.stdout
