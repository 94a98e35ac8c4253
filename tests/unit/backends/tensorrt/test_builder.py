"""The builder on every TensorRT that is supported, and with every failure of TensorRT's own."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_runtime.backends.base import PlanKey
from edge_runtime.backends.tensorrt.builder import TensorRTBuilder
from edge_runtime.backends.tensorrt.memory_guard import MemoryGuard
from edge_runtime.backends.tensorrt.plan_header import read_plan_header
from edge_runtime.backends.tensorrt.timing_cache import TimingCacheFile
from edge_runtime.config import ShapeRange
from edge_runtime.errors import BackendUnavailableError, BuildError, ConfigError
from edge_runtime.gpu_config import TensorRTConfig
from tests.fakes.tensorrt import make
from tests.fakes.tensorrt.plan import Plan, read
from tests.unit.backends.tensorrt.modules import STANDARD, VERSIONS, module

CONV = """(float[n,3,8,8] x) => (float[n,2,8,8] y) <float[2,3,1,1] w = {1,2,3,4,5,6}>
    { [c1] t = Conv(x, w) [r1] y = Relu(t) }"""
STATIC = CONV.replace("[n,", "[1,")
QDQ = """(float[1,3,8,8] x) => (float[1,2,8,8] y)
    <float s = {1}, int8 z = {0}, float[2] ws = {1, 1}, int8[2] wz = {0, 0},
     int8[2,3,1,1] w = {1,2,3,4,5,6}>
    { [q1] q = QuantizeLinear(x, s, z) [d1] d = DequantizeLinear(q, s, z)
      [dw] v = DequantizeLinear<axis=0>(w, ws, wz) [c1] t = Conv(d, v) [r1] y = Relu(t) }"""


def graph(text: str) -> bytes:
    header = '<ir_version: 10, opset_import: ["" : 20]> g '
    return bytes(onnx.parser.parse_model(header + text).SerializeToString())


def key(trt: Any) -> PlanKey:
    if trt.__name__ == "tensorrt":
        return PlanKey("tensorrt", trt.__version__, ("sm87",), "linux-aarch64")
    return PlanKey("tensorrt-rtx", trt.__version__, ("sm86",), "linux-x86_64")


def builder(trt: Any, config: TensorRTConfig | None = None, **more: Any) -> TensorRTBuilder:
    return TensorRTBuilder(trt, key(trt), config, **more)


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest) -> Any:
    made = module(request.param)
    yield made
    assert made.violations == []


def contents(trt: Any, data: bytes) -> Plan:
    """What a plan of the fake's holds."""
    header = read_plan_header(data)
    return read(data, tuple(map(int, header.version.split("."))), header.kind == "tensorrt-rtx")


def test_a_plan_of_every_version_is_strongly_typed_and_told_apart(trt: Any) -> None:
    plan = builder(trt).build(graph(STATIC), [])
    assert plan.key == key(trt)
    assert read_plan_header(plan.data).kind == plan.key.backend
    settings = contents(trt, plan.data).settings
    assert settings["strongly_typed"]
    assert settings["name"] == "edge-runtime"
    assert settings["targets"] == (["sm86"] if plan.key.backend == "tensorrt-rtx" else [])


def test_profiles_keep_their_order(trt: Any) -> None:
    profiles = [{"x": ShapeRange.parse(f"1x3x8x8,{size}x3x8x8,{size}x3x8x8")} for size in (8, 2, 4)]
    plan = builder(trt).build(graph(CONV), profiles)
    shapes = [p["shapes"]["x"] for p in contents(trt, plan.data).settings["profiles"]]
    assert [next(iter(shape[2])) for shape in shapes] == [8, 2, 4]


@pytest.mark.parametrize("profiles", [[], [{}]])
def test_a_dynamic_input_needs_a_profile(trt: Any, profiles: list[dict[str, ShapeRange]]) -> None:
    with pytest.raises(ConfigError, match="'x' has dynamic dimensions"):
        builder(trt).build(graph(CONV), profiles)


@pytest.mark.parametrize("version", STANDARD)
def test_the_verdict_says_what_was_built(version: str) -> None:
    trt = module(version, reformats=("c1",))
    assert builder(trt).build(graph(QDQ), []).verdict == {
        "layers": 2,
        "precisions": {"FP32": 1, "INT8": 1},
        "reformats": 1,
        "fell_back": [],
        "notes": [],
    }


@pytest.mark.parametrize("version", STANDARD)
def test_what_fell_back_is_in_the_verdict_and_strict_refuses_it(version: str) -> None:
    trt = module(version, fell_back={"c1": "FP32"})
    plan = builder(trt).build(graph(QDQ), [])
    assert plan.verdict is not None
    assert plan.verdict["fell_back"] == [{"layer": "c1", "asked": "INT8", "ran": "FP32"}]
    with pytest.raises(BuildError, match="built 1 layer") as refusal:
        builder(trt, TensorRTConfig(strict=True)).build(graph(QDQ), [])
    assert refusal.value.log == ("c1: asked for INT8, runs in FP32",)
    assert builder(module(version), TensorRTConfig(strict=True)).build(graph(QDQ), []).verdict


def test_a_plan_that_its_own_maker_cannot_load_is_refused() -> None:
    trt = module("11.4.0.106", fail_deserialize="out of memory")
    with pytest.raises(BuildError, match=r"cannot load the plan[^\n]*\n  .*out of memory"):
        builder(trt).build(graph(STATIC), [])


def test_rtx_without_a_gpu_has_no_verdict_and_cannot_be_strict() -> None:
    trt = module("rtx-1.7.1.116", fail_deserialize="cudaError 35")
    assert builder(trt).build(graph(STATIC), []).verdict is None
    with pytest.raises(BuildError, match="Strict precision cannot be kept here"):
        builder(trt, TensorRTConfig(strict=True)).build(graph(STATIC), [])


@pytest.mark.parametrize("version", STANDARD)
def test_a_dla_gets_int8_and_the_verdict_says_what_it_does_not_run(version: str) -> None:
    trt = module(version, dla_cores=1)
    plan = builder(trt, TensorRTConfig(dla_core=0)).build(graph(QDQ), [])
    assert {"c1", "r1"} <= set(contents(trt, plan.data).settings["dla"])
    assert plan.verdict is not None
    assert plan.verdict["fell_back"] == []
    with pytest.raises(ConfigError, match="A DLA computes in FP16 and INT8"):
        builder(trt, TensorRTConfig(dla_core=0)).build(graph(STATIC), [])


@pytest.mark.parametrize("version", STANDARD)
def test_what_the_dla_lacks_runs_on_the_gpu_and_strict_allows_it(version: str) -> None:
    trt = module(version, dla_cores=1)
    text = QDQ.replace("[r1] y = Relu(t)", "[s1] y = Softmax(t)")
    config = TensorRTConfig(dla_core=0, strict=True)
    verdict = builder(trt, config).build(graph(text), []).verdict
    assert verdict is not None
    assert verdict["fell_back"] == [{"layer": "s1", "asked": "DLA", "ran": "GPU"}]


@pytest.mark.parametrize("version", STANDARD)
def test_a_version_compatible_or_stripped_plan_has_its_verdict_too(version: str) -> None:
    trt = module(version)
    config = TensorRTConfig(version_compatible=True, strip_weights=True)
    plan = builder(trt, config).build(graph(STATIC), [])
    settings = contents(trt, plan.data).settings
    assert (settings["version_compatible"], settings["stripped"]) == (True, True)
    assert plan.verdict is not None
    assert plan.verdict["layers"] == 2


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (TensorRTConfig(), {}),
        (TensorRTConfig(version_compatible=True), {"engine_host_code_allowed": True}),
        (TensorRTConfig(dla_core=1), {"DLA_core": 1}),
    ],
)
def test_a_plan_is_loaded_for_its_verdict_as_it_was_built(
    config: TensorRTConfig, settings: dict[str, object]
) -> None:
    trt = make("10.3.0", dla_cores=2)
    told: dict[str, object] = {}

    class Spy:
        def __init__(self, logger: Any) -> None:
            vars(self)["runtime"] = real(logger)

        def __setattr__(self, name: str, value: object) -> None:
            told[name] = value
            setattr(self.runtime, name, value)

        def __getattr__(self, name: str) -> Any:
            return getattr(vars(self)["runtime"], name)

    real, trt.Runtime = trt.Runtime, Spy
    assert builder(trt, config).build(graph(QDQ), []).verdict
    assert told == settings


@pytest.mark.parametrize("version", STANDARD)
def test_timings_are_kept_from_build_to_build(version: str, tmp_path: Path) -> None:
    trt, path = module(version), tmp_path / "new" / "a.cache"
    builder(trt, timing_cache=TimingCacheFile(path)).build(graph(STATIC), [])
    first = path.read_bytes()
    assert b"edge-runtime/c1" in first
    text = STATIC.replace("c1", "c2")
    builder(trt, timing_cache=TimingCacheFile(path)).build(graph(text), [])
    assert all(name in path.read_bytes() for name in (b"edge-runtime/c1", b"edge-runtime/c2"))
    assert trt.violations == []


def test_timings_of_another_gpu_are_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.cache"
    for device in ("sm110", "sm87"):
        trt = make("10.3.0", device=device)
        builder(trt, timing_cache=TimingCacheFile(path)).build(graph(STATIC), [])
    assert "TensorRT does not take it" in caplog.text
    assert b"sm87" in path.read_bytes()


def test_what_the_memory_guard_lowered_is_in_the_plan_and_its_verdict(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemAvailable: 1048576 kB\nSwapFree: 0 kB\n")
    guard = MemoryGuard(shared=True, root=tmp_path)
    plan = builder(module("10.3.0"), TensorRTConfig(workspace=2**40), memory=guard).build(
        graph(STATIC), []
    )
    assert plan.verdict is not None
    (note,) = plan.verdict["notes"]
    assert "lowered from 1048576 MiB to 768 MiB" in note
    (tmp_path / "proc" / "meminfo").write_text("MemAvailable: 1024 kB\nSwapFree: 0 kB\n")
    with pytest.raises(BuildError, match="1 MiB are available"):
        builder(module("10.3.0"), memory=guard).build(graph(STATIC), [])


def test_progress_goes_from_0_to_100(trt: Any) -> None:
    calls: list[tuple[str, int, int]] = []
    builder(trt).build(graph(STATIC), [], lambda *call: calls.append(call))
    shares = [done for _, done, _ in calls]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 100)
    assert {what for what, _, _ in calls} == {f"Building the {key(trt).backend} plan"}


def test_an_error_of_the_callback_is_raised_not_swallowed(trt: Any) -> None:
    def progress(what: str, done: int, total: int) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        builder(trt).build(graph(STATIC), [], progress)


def test_ctrl_c_cancels(trt: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def progress(what: str, done: int, total: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        builder(trt).build(graph(STATIC), [], progress)
    assert capfd.readouterr() == ("", "")


def test_a_refused_build_has_tensorrts_reason(trt: Any) -> None:
    trt.options.fail_build = "Error Code 2: OutOfMemory\nby far"
    with pytest.raises(BuildError) as refusal:
        builder(trt).build(graph(STATIC), [])
    assert "cannot build the graph.\n  " in str(refusal.value)
    assert "OutOfMemory; by far" in refusal.value.log[-1]
    assert str(refusal.value).startswith(str(key(trt)))


def test_the_parsers_refusals_are_listed(trt: Any) -> None:
    trt.options.unsupported = ("Relu",)
    failures = builder(trt).parser_failures(graph(STATIC))
    assert [(failure.node, failure.op) for failure in failures] == [("r1", "Relu")]
    with pytest.raises(BuildError, match=r"cannot read the graph.\n  node 'r1' \(Relu\)"):
        builder(trt).build(graph(STATIC), [])
    assert builder(module("10.3.0")).parser_failures(graph(STATIC)) == ()


@pytest.mark.parametrize("version", ["10.3.0", "rtx-1.7.1.116"])
def test_a_tensorrt_that_does_not_start_says_why(version: str) -> None:
    trt = make(version)

    class Broken:
        def __init__(self, logger: Any) -> None:
            logger.log(trt.ILogger.Severity.ERROR, "no CUDA-capable device")
            raise TypeError("factory function returned nullptr")

    trt.Builder = Broken
    with pytest.raises(BuildError, match=r"cannot start.\n  no CUDA-capable"):
        builder(trt).build(graph(STATIC), [])


@pytest.mark.parametrize("method", ["create_network", "create_builder_config"])
def test_a_tensorrt_that_gives_nothing_is_refused(method: str) -> None:
    trt = make("11.4.0.106")

    class Empty:
        def __init__(self, logger: Any) -> None:
            self._builder = real(logger)

        def __getattr__(self, name: str) -> Any:
            return (lambda *_: None) if name == method else getattr(self._builder, name)

    real, trt.Builder = trt.Builder, Empty
    with pytest.raises(BuildError, match=r"cannot start\.\n  It gave no reason"):
        builder(trt).build(graph(STATIC), [])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"what?", "returned a broken plan. These 5 bytes are not"),
        (b"ftrt".ljust(50, b"\0"), "returned a broken plan. A plan of 50 bytes is cut off"),
        (b"vtrt" + bytes(12) + b"\x40" + bytes(47), "returned a plan for tensorrt-rtx"),
    ],
)
def test_a_broken_plan_is_refused_before_it_is_loaded(data: bytes, words: str) -> None:
    trt = make("10.3.0")

    class Odd:
        def __init__(self, logger: Any) -> None:
            self._builder = real(logger)

        def __getattr__(self, name: str) -> Any:
            built = name == "build_serialized_network"
            return (lambda *_: data) if built else getattr(self._builder, name)

    real, trt.Builder = trt.Builder, Odd
    with pytest.raises(BuildError, match=words):
        builder(trt).build(graph(STATIC), [])
    assert trt.calls["Runtime.deserialize_cuda_engine"] == 0


@pytest.mark.parametrize("data", [b"", b"hello"])
def test_what_is_no_model_is_refused(trt: Any, data: bytes) -> None:
    with pytest.raises(BuildError):
        builder(trt).build(data, [])


def test_a_tensorrt_that_would_choose_precisions_itself_is_refused() -> None:
    trt = make("10.3.0")
    members = {"EXPLICIT_BATCH": 0}
    trt.NetworkDefinitionCreationFlag = type("NetworkDefinitionCreationFlag", (), members)
    with pytest.raises(BackendUnavailableError, match="no strongly typed networks"):
        builder(trt).build(graph(STATIC), [])
