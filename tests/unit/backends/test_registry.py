"""Which plan of a bundle is taken, and what is said where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.backends import registry
from edge_runtime.backends.base import PlanKey
from edge_runtime.backends.registry import availability, choose, find_plan
from edge_runtime.bundle import Bundle, Manifest, write_bundle
from edge_runtime.bundle.manifest import ModelRecord
from edge_runtime.config import BuildConfig, CpuMode, digest
from edge_runtime.errors import BackendUnavailableError, ConfigError
from edge_runtime.gpu_config import GpuConfig
from edge_runtime.tensors import TensorSpec
from tests import models

ORIN = PlanKey("tensorrt", "10.3.0", ("sm87",), "linux-aarch64")
THOR = PlanKey("tensorrt", "10.13.3", ("sm110",), "linux-aarch64")
ELSEWHERE = PlanKey("tensorrt", "10.3.0", ("sm87",), "plan9-mips")  # Whatever runs this test.
DESKTOP = PlanKey("tensorrt-rtx", "1.7.1.116", (), "linux-x86_64")


def bundle(folder: Path, *keys: PlanKey) -> Bundle:
    net = models.Net()
    net.op("Relu", net.input("x", (2,)), name="y")
    config = BuildConfig(backend="cpu")
    manifest = Manifest(
        model=ModelRecord("relu.onnx", digest(b"model")),
        config=config.to_json(),
        inputs=(TensorSpec("x", "float32", (2,)),),
        outputs=(TensorSpec("y", "float32", (2,)),),
        build_key=digest(b"key"),
        plans={key.entry: key for key in keys},
        plan_settings={key.entry: config.plan_settings for key in keys},
    )
    plans = {key.entry: b"plan" for key in keys}
    graph = net.proto("y").SerializeToString()
    return write_bundle(folder / "relu.edge", manifest, {"graph.onnx": graph, **plans})


def test_the_plan_of_this_machine_is_found_among_others(tmp_path: Path) -> None:
    made = bundle(tmp_path, DESKTOP, THOR, ORIN)
    assert find_plan(made, ORIN) == ORIN.entry
    assert find_plan(made, THOR) == THOR.entry
    assert find_plan(made, replace(DESKTOP, compute_capabilities=("sm89",))) == DESKTOP.entry


def test_without_a_plan_it_says_what_there_is_and_the_command_that_mends_it(
    tmp_path: Path,
) -> None:
    made = bundle(tmp_path, THOR, replace(ORIN, version="10.7.0"))
    with pytest.raises(BackendUnavailableError) as caught:
        find_plan(made, ORIN)
    text = str(caught.value)
    assert "for tensorrt 10.13.3, here is 10.3.0" in text
    assert "for tensorrt 10.7.0, here is 10.3.0" in text
    assert f"edge-runtime build {made.path} --backend tensorrt" in text
    with pytest.raises(BackendUnavailableError, match="it has no plan for it"):
        find_plan(bundle(tmp_path), ORIN)


def test_auto_takes_the_cpu_here_and_says_why_not_better(tmp_path: Path) -> None:
    choice = choose(bundle(tmp_path, ELSEWHERE), "auto", GpuConfig())
    assert (choice.backend, choice.plan) == ("cpu", None)
    names = [reason.split()[0] for reason in choice.passed_over]
    assert names == ["tensorrt", "tensorrt-rtx"]
    # What auto never takes stands behind what it always can.
    assert [entry.name for entry in availability()] == [*names, "cpu", "openvino"]
    assert all("was passed over: " in reason for reason in choice.passed_over)


def test_a_device_asked_for_by_name_is_used_or_refused(tmp_path: Path) -> None:
    made = bundle(tmp_path, ELSEWHERE)
    assert choose(made, "cpu", GpuConfig()).passed_over == ()
    words = r"cannot run on 'tensorrt': .*Use device 'cpu'"
    with pytest.raises(BackendUnavailableError, match=words):
        choose(made, "tensorrt", GpuConfig())
    with pytest.raises(ConfigError, match="device is 'gpu'"):
        choose(made, "gpu", GpuConfig())


def test_openvino_is_taken_by_name_and_refused_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bundle(tmp_path)
    monkeypatch.setattr(registry, "find_spec", lambda name: object())
    assert choose(made, "openvino", GpuConfig()).backend == "openvino"
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'edge-runtime\[openvino\]'"):
        choose(made, "openvino", GpuConfig())


def test_the_fast_mode_is_for_a_cpu_and_a_bundle_that_has_it(tmp_path: Path) -> None:
    made = bundle(tmp_path)
    with pytest.raises(ConfigError, match="cpu_mode is fast, and device 'tensorrt' is no CPU"):
        choose(made, "tensorrt", GpuConfig(), CpuMode.FAST)
    for device in ("auto", "cpu", "openvino"):
        words = r"no graph for cpu_mode fast.*edge-runtime build relu.onnx .*--cpu-mode fast$"
        with pytest.raises(BackendUnavailableError, match=words):
            choose(made, device, GpuConfig(), CpuMode.FAST)
