"""NVIDIA's builder in a process of its own: the same plan, and every way in which it can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_runtime.config import ShapeRange
from edge_runtime.errors import BuildError, ConfigError
from edge_runtime.gpu_config import TensorRTConfig

CONV = """<ir_version: 10, opset_import: ["" : 20]> g
    (float[n,3,8,8] x) => (float[n,2,8,8] y) <float[2,3,1,1] w = {1,2,3,4,5,6}>
    { [c1] y = Conv(x, w) }"""

SCRIPT = """
from pathlib import Path
from edge_runtime.backends import tensorrt_rtx
def say(*progress):
    print("working", flush=True)
try:
    tensorrt_rtx.create_child_builder(["sm86"]).build(Path(GRAPH).read_bytes(), [], say)
    print("built")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where temporary folders go; they are gone at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def graph() -> bytes:
    return bytes(onnx.parser.parse_model(CONV).SerializeToString())


def slow() -> bytes:
    """A graph whose build takes some seconds, most of them within one step."""
    nodes = [
        onnx.helper.make_node("GRU", [f"t{i}", f"w{i}", f"r{i}"], [f"o{i}"], hidden_size=8)
        for i in range(6)
    ]
    squeeze = [onnx.helper.make_node("Squeeze", [f"o{i}", "axis"], [f"t{i + 1}"]) for i in range(6)]
    weights = {"axis": onnx.helper.make_tensor("axis", 7, [1], [1])}
    for i in range(6):
        for name in ("w", "r"):
            weights[f"{name}{i}"] = onnx.helper.make_tensor(
                f"{name}{i}", 1, [1, 24, 8], [0.1 * i] * 192
            )
    value = onnx.helper.make_tensor_value_info
    model = onnx.helper.make_graph(
        [node for pair in zip(nodes, squeeze, strict=True) for node in pair],
        "g",
        [value("t0", 1, [5, 2, 8])],
        [value("t6", 1, [5, 2, 8])],
        list(weights.values()),
    )
    opset = onnx.helper.make_opsetid("", 20)
    return bytes(
        onnx.helper.make_model(model, opset_imports=[opset], ir_version=10).SerializeToString()
    )


def children() -> list[int]:
    """The processes that this one has started and that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # It ended meanwhile.
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def test_the_plan_is_that_of_a_build_in_this_process(rtx: Any) -> None:
    profiles = [{"x": ShapeRange.parse(f"1x3x8x8,{n}x3x8x8,{n}x3x8x8")} for n in (2, 8)]
    config = TensorRTConfig(optimization_level=2, weight_streaming=True)
    here = rtx.create_builder(["sm86"], config)
    there = rtx.create_child_builder(["sm86"], config)
    assert there.key == here.key
    calls: list[tuple[str, int, int]] = []
    assert there.build(graph(), profiles, lambda *call: calls.append(call)) == here.build(
        graph(), profiles
    )
    assert calls[-1] == ("Building the tensorrt-rtx plan", 100, 100)
    assert len(calls) > 5


def test_errors_are_those_of_a_build_in_this_process(rtx: Any) -> None:
    builders = rtx.create_builder(["sm86"]), rtx.create_child_builder(["sm86"])
    for data, kind in (
        (b"hello world", BuildError),
        (graph()[:60], BuildError),
        (graph(), ConfigError),
    ):
        raised = []
        for builder in builders:
            with pytest.raises(kind) as refusal:
                builder.build(data, [])
            raised.append((str(refusal.value), vars(refusal.value)))
        assert raised[0] == raised[1]


def test_what_nvidia_prints_stays_out_of_stdout(
    rtx: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    config = TensorRTConfig(refit=True)  # It prints its reason, beside logging it.
    with pytest.raises(BuildError, match="MyelinCheckException"):
        rtx.create_child_builder(["sm86"], config).build(
            graph(), [{"x": ShapeRange.parse("1x3x8x8")}]
        )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_is_killed_is_an_error(rtx: Any, number: signal.Signals) -> None:
    def progress(what: str, done: int, total: int) -> None:
        for pid in children():
            os.kill(pid, number)

    with pytest.raises(BuildError, match=rf"killed by signal {int(number)} \({number.name}\)"):
        rtx.create_child_builder(["sm86"]).build(slow(), [], progress)


def test_ctrl_c_in_this_process_ends_the_worker(rtx: Any) -> None:
    def progress(what: str, done: int, total: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        rtx.create_child_builder(["sm86"]).build(slow(), [], progress)
    assert children() == []


def test_ctrl_c_in_a_terminal_ends_both_quietly(tmp_path: Path, temporary: Path) -> None:
    path = tmp_path / "graph"
    path.write_bytes(slow())
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.replace("GRAPH", repr(str(path)))],
        env={
            **os.environ,
            "TMPDIR": str(temporary),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "working\n"
    os.killpg(script.pid, signal.SIGINT)
    stdout, stderr = script.communicate()
    assert (stdout.splitlines()[-1], stderr) == ("interrupted", "")
    with pytest.raises(ProcessLookupError):
        os.killpg(script.pid, 0)  # Nothing of its group is left.
