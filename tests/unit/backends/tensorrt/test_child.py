"""A build in a process of its own: what comes back from it, and every way in which it can end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.backends.base import PlanKey
from edge_runtime.backends.tensorrt import child
from edge_runtime.backends.tensorrt.child import ChildBuilder
from edge_runtime.config import ShapeRange
from edge_runtime.errors import BuildError, ConfigError, DeviceError, FeedError

KEY = PlanKey("tensorrt", "10.3.0", ("sm87",), "linux-aarch64")

# What the worker imports: a builder that does what its argument says.
STUB = '''
import ctypes, logging, os, signal, sys, time
from pathlib import Path
from edge_runtime import errors
from edge_runtime.backends.base import Plan, PlanKey
from edge_runtime.backends.tensorrt import worker
worker._GRACE_SECONDS = 0.2
KEY = PlanKey("tensorrt", "10.3.0", ("sm87",), "linux-aarch64")

class Mine(errors.ConfigError):
    """A class that the parent does not know."""

class Builder:
    key = KEY
    def __init__(self, code):
        self.code = code
    def build(self, graph, profiles, progress):
        scope = {**globals(), "graph": graph, "profiles": profiles, "progress": progress}
        exec(self.code, scope)
        return Plan(scope.get("key", KEY), scope.get("data", graph), scope.get("verdict"))
'''
# A parent with nothing around it, as a user's script; it ends by Ctrl-C or by a kill.
SCRIPT = """
from edge_runtime.backends.base import PlanKey
from edge_runtime.backends.tensorrt.child import ChildBuilder
key = PlanKey("tensorrt", "10.3.0", ("sm87",), "linux-aarch64")
def say(what, done, total):
    print(what, flush=True)
try:
    plan = ChildBuilder("stub:Builder", {"code": CODE}, key).build(b"abc", [], say)
    print("plan", plan.data)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
FOREVER = """
progress(str(os.getpid()), 0, 1)
while True:
    time.sleep(0.01)
    progress(str(os.getpid()), 0, 1)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go; the stub can be imported."""
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return temporary


@pytest.fixture(autouse=True)
def _leaves_nothing(folder: Path) -> Any:
    yield
    assert list(folder.iterdir()) == []


def builder(code: str = "", root: Path = Path("/nowhere")) -> ChildBuilder:
    return ChildBuilder("stub:Builder", {"code": code}, KEY, root=root)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_the_end_of(pid: int) -> None:
    while is_running(pid):
        time.sleep(0.01)


def test_plan_and_verdict_come_back() -> None:
    plan = builder("verdict = {'layers': 3, 'notes': ['é']}").build(b"graph" * 100_000, [])
    assert (plan.key, plan.data) == (KEY, b"graph" * 100_000)
    assert plan.verdict == {"layers": 3, "notes": ["é"]}


def test_profiles_arrive_in_order() -> None:
    profiles = [
        {"x": ShapeRange((1, 3), (2, 3), (4, 3)), "y = z,": ShapeRange((1,), (1,), (1,))},
        {"x": ShapeRange((8, 3), (8, 3), (9, 3))},
    ]
    plan = builder("data = repr(profiles).encode()").build(b"x", profiles)
    assert plan.data.decode() == repr(profiles)


def test_progress_and_log_lines_come_through(caplog: pytest.LogCaptureFixture) -> None:
    code = """
for done in (0, 0, 1, 2):
    progress("Building", done, 2)
logging.getLogger("edge_runtime.tensorrt").warning("careful: %s", 1)
logging.getLogger("edge_runtime.tensorrt").info("not asked for")
"""
    calls = []
    with caplog.at_level(logging.WARNING, "edge_runtime"):
        builder(code).build(b"x", [], lambda *call: calls.append(call))
    assert calls == [("Building", 0, 2), ("Building", 1, 2), ("Building", 2, 2)]
    assert caplog.record_tuples == [("edge_runtime.tensorrt", logging.WARNING, "careful: 1")]


def test_what_libraries_print_disturbs_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    code = (
        """os.write(1, b'["plan", 1]\\n'); print("from Python"); os.write(2, b"on stderr \\xff")"""
    )
    with caplog.at_level(logging.DEBUG, "edge_runtime"):
        assert builder(code).build(b"x", []).data == b"x"
    assert capfd.readouterr() == ("", "")
    assert "on stderr" in caplog.text


@pytest.mark.parametrize(
    ("code", "kind", "fields"),
    [
        ("errors.BuildError('no', log=('a', 'b'))", BuildError, {"log": ("a", "b")}),
        ("errors.ConfigError('bad')", ConfigError, {}),
        ("Mine('bad')", ConfigError, {}),
        (
            "errors.DeviceError(2, 'CUDA_ERROR_OUT_OF_MEMORY', 'cuMemAlloc')",
            DeviceError,
            {"code": 2, "name": "CUDA_ERROR_OUT_OF_MEMORY", "call": "cuMemAlloc"},
        ),
        (
            "errors.FeedError('x', expected='a', found='b', hint='c')",
            FeedError,
            {"tensor": "x", "expected": "a", "found": "b"},
        ),
    ],
)
def test_an_error_is_raised_here_as_it_was_there(
    code: str, kind: type[Exception], fields: dict[str, object]
) -> None:
    with pytest.raises(kind) as raised:
        builder(f"raise {code}").build(b"x", [])
    assert type(raised.value) is kind
    assert vars(raised.value) == fields
    if kind is BuildError:
        assert str(raised.value) == "no\n  a\n  b"


@pytest.mark.parametrize(
    "code", ["ratio = 1 / 0", "import no_such_module", "sys.exit(0)", "raise Exception('ratio')"]
)
def test_a_bug_comes_with_its_traceback(code: str) -> None:
    with pytest.raises(
        RuntimeError, match=r"(?s)Traceback.*(ZeroDivisionError|no_such_module|SystemExit|ratio)"
    ):
        builder(code).build(b"x", [])


def test_a_factory_that_is_not_there_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="no_such_function"):
        ChildBuilder("stub:no_such_function", {}, KEY).build(b"x", [])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", r"was killed by signal 9 \(SIGKILL\)"),
        ("ctypes.string_at(0)", r"was killed by signal 11 \(SIGSEGV\)"),
        ("os.abort()", r"was killed by signal 6 \(SIGABRT\)"),
        ("os._exit(3)", "ended with exit code 3"),
        ("os._exit(0)", "ended with exit code 0"),
    ],
)
def test_a_death_is_an_error_with_the_last_words(code: str, words: str) -> None:
    last = "logging.getLogger('edge_runtime.tensorrt.recorded').debug('tactic 7 failed')"
    printed = "os.write(2, b'terminate called\\n')"
    with pytest.raises(BuildError, match=words) as death:
        builder(f"{last}\n{printed}\n{code}").build(b"x", [])
    assert "for tensorrt 10.3.0 for sm87 on linux-aarch64" in str(death.value)
    assert [line for line in death.value.log if "Warning" not in line][:2] == [
        "tactic 7 failed",
        "terminate called",
    ]


def test_a_worker_that_loses_its_pipe_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_CANCEL_SECONDS", 0.2)
    with pytest.raises(BuildError, match="lost its pipe"):
        builder("os.closerange(3, 64); time.sleep(60)").build(b"x", [])


def test_only_the_last_of_many_words_are_shown() -> None:
    code = "for i in range(1000): os.write(1, b'line %d\\n' % i)\nos._exit(1)"
    with pytest.raises(BuildError) as death:
        builder(code).build(b"x", [])
    assert death.value.log == tuple(f"line {i}" for i in range(990, 1000))


@pytest.mark.parametrize("file", ["proc/vmstat", "sys/fs/cgroup/memory.events"])
def test_the_oom_killer_is_called_by_its_name(tmp_path: Path, file: str) -> None:
    counter = tmp_path / file
    counter.parent.mkdir(parents=True)
    counter.write_text("oom_kill 3\n")
    (tmp_path / "proc").mkdir(exist_ok=True)
    (tmp_path / "proc/meminfo").write_text("MemAvailable: 512000 kB\n")
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(BuildError, match=r"killed by signal 9"):
        builder(kill, tmp_path).build(b"x", [])
    with pytest.raises(BuildError, match=r"OOM killer.* 500 MiB were available before"):
        builder(f"Path({str(counter)!r}).write_text('oom_kill 4\\n'); {kill}", tmp_path).build(
            b"x", []
        )


def test_the_worker_is_the_one_that_the_oom_killer_takes() -> None:
    code = "data = Path('/proc/self/oom_score_adj').read_bytes().strip()"
    assert builder(code).build(b"x", []).data == b"1000"


def test_ctrl_c_never_reaches_the_worker_itself() -> None:
    # Blocked before it starts, so that its first moments are covered too.
    code = "data = repr(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())).encode()"
    assert builder(code).build(b"x", []).data == b"True"


def test_an_error_of_the_callback_ends_the_worker() -> None:
    pids = []

    def progress(what: str, done: int, total: int) -> None:
        pids.append(int(what))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        builder(FOREVER).build(b"x", [], progress)
    assert not is_running(pids[0])


def test_a_cancelled_build_ends_by_itself(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    loop = "".join(f"    {line}\n" for line in FOREVER.strip().splitlines())
    code = f"try:\n{loop}except KeyboardInterrupt:\n    Path({str(marker)!r}).touch()\n    raise"

    def progress(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        builder(code).build(b"x", [], progress)
    assert marker.exists()


def test_a_worker_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_CANCEL_SECONDS", 0.1)
    pids = []

    def progress(what: str, done: int, total: int) -> None:
        pids.append(int(what))
        raise KeyboardInterrupt

    # Holds the interpreter's lock, as a library may: nothing in the worker can stop it.
    stuck = "progress(str(os.getpid()), 0, 1); ctypes.PyDLL(None).sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        builder(stuck).build(b"x", [], progress)
    assert not is_running(pids[0])


def test_a_plan_for_another_machine_is_refused() -> None:
    code = 'key = PlanKey("tensorrt", "10.7.0", ("sm87",), "linux-aarch64")'
    with pytest.raises(BuildError, match=r"10\.7\.0.* not for tensorrt 10\.3\.0"):
        builder(code).build(b"x", [])


def test_a_full_disk_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    with pytest.raises(BuildError, match=r"cannot be handed to the build's own process.*TMPDIR"):
        builder().build(b"x", [])


def start(folder: Path, code: str) -> subprocess.Popen[str]:
    """The script, as from a terminal: a process group of its own."""
    path = os.pathsep.join([str(folder.parent), *filter(None, sys.path)])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.replace("CODE", repr(code))],
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_script_needs_no_main_guard(folder: Path) -> None:
    script = start(folder, "progress('hello', 0, 1)")
    assert script.communicate() == ("hello\nplan b'abc'\n", "")


def test_ctrl_c_in_a_terminal_cancels_and_says_nothing_else(folder: Path) -> None:
    script = start(folder, FOREVER)
    assert script.stdout is not None
    pid = int(script.stdout.readline())
    os.killpg(script.pid, signal.SIGINT)
    assert script.communicate() == ("interrupted\n", "")
    assert not is_running(pid)


@pytest.mark.parametrize("code", [FOREVER, FOREVER.replace("time.sleep(0.01)", "time.sleep(60)")])
def test_a_worker_whose_parent_is_killed_ends_and_cleans_up(folder: Path, code: str) -> None:
    script = start(folder, code)
    assert script.stdout is not None
    pid = int(script.stdout.readline())
    script.kill()
    script.communicate()
    wait_for_the_end_of(pid)


def test_a_process_without_stdin_and_stdout_can_build(folder: Path, tmp_path: Path) -> None:
    code = SCRIPT.replace("CODE", "''").replace(
        "print(", f"open({str(tmp_path / 'out')!r}, 'w').write("
    )
    code = code.replace(", flush=True", "").replace('"plan", plan.data', "repr(plan.data)")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    closed = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" <&- >&-', sys.executable, code],
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (closed.returncode, closed.stderr) == (0, "")
    assert (tmp_path / "out").read_text() == "b'abc'"


def test_files_in_the_current_folder_do_not_pass_for_pythons_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "profile", "logger"):
        (tmp_path / "here").mkdir(exist_ok=True)
        (tmp_path / "here" / f"{name}.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path / "here")
    assert builder().build(b"x", []).data == b"x"
