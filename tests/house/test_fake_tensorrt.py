"""The fake TensorRT is as strict as the dump of its version, and as the real module where it is."""

from __future__ import annotations

import gc
import inspect
from typing import Any

import numpy as np
import onnx
import pytest

from tests.fakes.tensorrt import labels, make
from tests.fakes.tensorrt.classes import BEHAVIOURS, Behaviour
from tests.fakes.tensorrt.dump import read

CONV = """<ir_version: 10, opset_import: ["" : 20]>
g (float[n,3,8,8] x) => (float[n,2,8,8] y) <float[2,3,1,1] w = {1,2,3,4,5,6}>
{ [c1] h = Conv(x, w) [r1] y = Relu(h) }"""


def log_of(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity.name == "ERROR":
                self.errors.append(msg)

    return Logger()


def parsed(trt: Any, text: str = CONV) -> tuple[Any, ...]:
    """Logger, builder, network, parser: all must be kept."""
    logger = log_of(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parser.parse(onnx.parser.parse_model(text).SerializeToString())
    return logger, builder, network, parser


def configured(trt: Any, builder: Any) -> Any:
    profile = builder.create_optimization_profile()
    profile.set_shape("x", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))
    config = builder.create_builder_config()
    assert config.add_optimization_profile(profile) == 0
    if hasattr(trt, "ComputeCapability"):
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    return config


@pytest.mark.parametrize("label", labels())
def test_it_has_what_the_dump_has_and_nothing_else(label: str) -> None:
    trt, api = make(label), read(label)
    extra = {"violations", "calls", "options"}
    names = {name for name in vars(trt) if not name.startswith("_")} - extra
    wanted = {*api["classes"], *api["enums"], *api["functions"], *api["constants"]}
    assert names <= wanted
    assert wanted - names <= {"value"}  # A loop variable that the real module forgot to delete.
    assert trt.__version__ == api["version"]
    for name, entry in api["classes"].items():
        found = {m for m in vars(getattr(trt, name)) if not m.startswith("_")}
        kinds = ("methods", "static", "properties", "constants", "enums")
        wanted = {m for kind in kinds for m in entry.get(kind, {}) if not m.startswith("_")}
        assert found == wanted, name
    for name, members in api["enums"].items():
        made = getattr(trt, name).__members__
        assert {k: int(v) for k, v in made.items()} == members


def test_every_behaviour_belongs_to_something() -> None:
    """A misspelt method of a behaviour could never be reached."""
    ours = {"library", "facade_name", "hands_out_facade", "facade_base", *dir(Behaviour)}
    known: dict[str, set[str]] = {}
    for label in labels():
        for name, entry in read(label)["classes"].items():
            for kind in ("methods", "properties", "static"):
                known.setdefault(name, set()).update(entry.get(kind, {}))
    internal = {
        "alive", "load", "error", "destroyed", "job_done", "as_facade", "fill", "computed",
        "layers",
        "tensor", "number", "strongly_typed", "fits", "warn", "ranges", "contexts", "wrong",
    }  # fmt: skip
    for cls in set(BEHAVIOURS.values()):
        name = cls.facade_name
        own = {m for m in vars(cls) if not m.startswith("_")}
        assert own - known[name] - ours - internal == set(), name


def modules() -> list[Any]:
    """The fake TensorRT-RTX and, where it is installed, the real one: they must agree."""
    found = [pytest.param(make("rtx-1.7.1.116", device="sm86"), id="fake")]
    try:
        import tensorrt_rtx_bindings
    except ImportError:
        skip = pytest.mark.skip(reason="TensorRT-RTX (the extra rtx) is not installed")
        return [*found, pytest.param(None, id="real", marks=skip)]
    return [*found, pytest.param(tensorrt_rtx_bindings, id="real")]


@pytest.fixture(params=modules())
def rtx(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wrong_arguments_are_type_errors(rtx: Any) -> None:
    logger, builder, _network, parser = parsed(rtx)
    config, flag = configured(rtx, builder), rtx.BuilderFlag.TF32
    profile, pool = builder.create_optimization_profile(), rtx.MemoryPoolType.WORKSPACE
    for wrong in (
        lambda: rtx.Builder(),
        lambda: rtx.Builder(3),
        lambda: rtx.Builder(log=logger),
        lambda: rtx.ICudaEngine(),
        lambda: rtx.Dims(3),
        lambda: 1 << flag,
        lambda: flag | flag,
        lambda: flag < 3,
        lambda: list(rtx.BuilderFlag),
        lambda: rtx.BuilderFlag["TF32"],
        lambda: config.set_flag(6),
        lambda: config.set_flag(flag=flag, x=1),
        lambda: config.set_flag(flag, flag),
        lambda: config.set_memory_pool_limit(pool, 1.5),
        lambda: config.set_memory_pool_limit(pool, -1),
        lambda: config.set_timing_cache(None),
        lambda: config.create_timing_cache("text"),
        lambda: setattr(config, "builder_optimization_level", "x"),
        lambda: setattr(config, "builder_optimization_level", 2.0),
        lambda: profile.set_shape("x", (1.0,), (1,), (1,)),
        lambda: parser.parse("text"),
        lambda: parser.parse(b"", path=3),
        lambda: len(config.create_timing_cache(b"").serialize()),
        lambda: vars(config),
    ):
        with pytest.raises(TypeError):
            wrong()


def test_unknown_and_read_only_attributes(rtx: Any) -> None:
    _logger, builder, network, _parser = parsed(rtx)
    config = builder.create_builder_config()
    for wrong in (
        lambda: rtx.BuilderFlag.FP16,
        lambda: rtx.Buildr,
        lambda: config.nope,
        lambda: setattr(config, "nope", 1),
        lambda: setattr(config, "num_optimization_profiles", 1),
        lambda: setattr(network.get_input(0), "dtype", rtx.DataType.HALF),
        lambda: setattr(rtx.BuilderFlag.TF32, "name", "x"),
        lambda: builder.gpu_allocator,
    ):
        with pytest.raises(AttributeError):
            wrong()


def test_what_conversions_allow(rtx: Any) -> None:
    _logger, builder, network, _parser = parsed(rtx)
    config, flag = builder.create_builder_config(), rtx.BuilderFlag.TF32
    config.set_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE, np.int64(1 << 20))
    profile = builder.create_optimization_profile()
    profile.set_shape("x", rtx.Dims([1, 3, 8, 8]), [1, 3, 8, 8], np.array([1, 3, 8, 8]))
    assert profile.get_shape("x") == [(1, 3, 8, 8)] * 3
    assert network.get_input(0).shape == (-1, 3, 8, 8)
    assert network.get_input(0) is network.get_input(0)
    assert (int(flag), flag.name, str(flag), flag == 6) == (6, "TF32", "BuilderFlag.TF32", False)
    assert repr(rtx.BuilderFlag(7)) == "<BuilderFlag.SPARSE_WEIGHTS: 7>"
    assert rtx.DataType.HALF.itemsize == 2
    assert config.progress_monitor is None
    assert (config.DLA_core, config.max_aux_streams, config.builder_optimization_level) == (
        -1,
        -1,
        3,
    )


def test_init_of_the_base_must_be_called(rtx: Any) -> None:
    class Forgot(rtx.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"IProgressMonitor.__init__\(\) must be called"):
        Forgot()


def test_builds_and_their_refusals(rtx: Any) -> None:
    logger, builder, network, parser = parsed(rtx)
    targets = configured(rtx, builder)
    plan = builder.build_serialized_network(network, targets)
    assert bytes(plan)[:4] == b"vtrt"
    assert memoryview(plan).nbytes == plan.nbytes
    assert logger.errors == []
    without = builder.create_builder_config()
    without.num_compute_capabilities = 1
    without.set_compute_capability(rtx.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(network, without) is None
    assert "no optimization profile has been defined" in "".join(logger.errors)
    profile = builder.create_optimization_profile()
    profile.set_shape("x", (4, 3, 8, 8), (2, 3, 8, 8), (1, 3, 8, 8))
    assert without.add_optimization_profile(profile) == -1
    assert parser.parse(b"") is False  # It has parsed already.


@pytest.mark.parametrize(
    ("text", "code", "index", "op"),
    [
        ("(float[4] x) => (float[4] y) { [d] y = Det(x) }", "UNSUPPORTED_NODE", 0, "Det"),
        ("(float[4] x) => (float[4] y) { [d] y = my.Foo(x) }", "INVALID_NODE", 0, "Foo"),
        ("(int16[4] x) => (int16[4] y) { [d] y = Neg(x) }", "UNSUPPORTED_NODE", -1, ""),
    ],
)
def test_what_the_parser_refuses(rtx: Any, text: str, code: str, index: int, op: str) -> None:
    header = '<ir_version: 10, opset_import: ["" : 20, "my" : 1]> g '
    _logger, _builder, _network, parser = parsed(rtx, header + text)
    assert parser.num_errors == 1
    error = parser.get_error(0)
    assert (error.code().name, error.node(), error.node_operator()) == (code, index, op)
    assert error.node_name() == ("d" if op else "")
    assert error.file() == ("x" if not op else error.file())


def test_a_monitor_sees_nested_phases_and_can_cancel(rtx: Any) -> None:
    class Monitor(rtx.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self, go_on: bool) -> None:
            rtx.IProgressMonitor.__init__(self)
            self.open: list[str] = []
            self.steps, self.parents, self.go_on = 0, set(), go_on  # type: ignore[var-annotated]

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            assert parent_phase is None or parent_phase in self.open
            self.parents.add(parent_phase)
            self.open.append(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.steps += 1
            return self.go_on

        def phase_finish(self, phase_name: str) -> None:
            self.open.remove(phase_name)

    logger, builder, network, _parser = parsed(rtx)
    config = configured(rtx, builder)
    config.progress_monitor = monitor = Monitor(True)
    assert builder.build_serialized_network(network, config) is not None
    assert monitor.open == []
    assert {None, "Building engine"} < monitor.parents
    config.progress_monitor = monitor = Monitor(False)
    assert builder.build_serialized_network(network, config) is None
    assert monitor.steps == 1
    assert "BuildCanceled" in "".join(logger.errors)


def test_a_plan_of_another_library_is_refused(rtx: Any) -> None:
    logger = log_of(rtx)
    assert rtx.Runtime(logger).deserialize_cuda_engine(b"ftrt" + bytes(100)) is None
    assert logger.errors


# What only the fake can show.


def test_a_network_or_parser_that_nobody_keeps_is_a_violation() -> None:
    trt = make("10.3.0")
    logger = log_of(trt)
    builder = trt.Builder(logger)
    parser = trt.OnnxParser(builder.create_network(2), logger)
    parser.parse(onnx.parser.parse_model(CONV).SerializeToString())
    assert "its network is destroyed" in trt.violations.pop()
    logger, builder, network, parser = parsed(trt)
    del parser
    builder.build_serialized_network(network, configured(trt, builder))
    assert "parser" in trt.violations.pop()


def test_what_has_no_behaviour_says_so() -> None:
    trt = make("10.3.0")
    _logger, builder, network, _parser = parsed(trt)
    with pytest.raises(NotImplementedError, match=r"INetworkDefinition\.add_shape"):
        network.add_shape(network.get_input(0))
    with pytest.raises(NotImplementedError, match=r"IBuilderConfig.int8_calibrator"):
        builder.create_builder_config().int8_calibrator  # noqa: B018


def test_the_timing_cache_is_of_one_device() -> None:
    trt, other = make("10.3.0"), make("10.3.0", device="sm72")
    _logger, builder, network, _parser = parsed(trt)
    config = configured(trt, builder)
    cache = config.create_timing_cache(b"")
    assert config.set_timing_cache(cache, ignore_mismatch=False)
    assert builder.build_serialized_network(network, config) is not None
    data = bytes(config.get_timing_cache().serialize())
    assert b"c1" in data
    logger, builder, _network, _parser = parsed(other)
    config = builder.create_builder_config()
    foreign = config.create_timing_cache(data)
    assert not config.set_timing_cache(foreign, ignore_mismatch=False)
    assert logger.errors
    assert not config.create_timing_cache(b"").combine(foreign, ignore_mismatch=False)
    assert config.set_timing_cache(foreign, ignore_mismatch=True)


def test_faults() -> None:
    trt = make("10.7.0", fail_build="Error Code 10: Internal Error (no tactics)")
    logger, builder, network, _parser = parsed(trt)
    assert builder.build_serialized_network(network, configured(trt, builder)) is None
    assert "no tactics" in logger.errors[-1]
    trt.options.fail_build = ""
    plan = builder.build_serialized_network(network, configured(trt, builder))
    trt.options.fail_deserialize = "damaged"
    assert trt.Runtime(logger).deserialize_cuda_engine(plan) is None
    trt.options.fail_deserialize, trt.options.fail_context = "", "no"
    assert trt.Runtime(logger).deserialize_cuda_engine(plan).create_execution_context() is None
    assert trt.calls["Builder.build_serialized_network"] == 2


def test_the_inspector_tells_what_fell_back() -> None:
    import json

    trt = make("10.3.0", fell_back={"c1": "FP32"}, reformats=("c1",))
    half = CONV.replace("float[", "float16[")
    logger, builder, network, _parser = parsed(trt, half)
    config = configured(trt, builder)
    for verbosity in ("DETAILED", "LAYER_NAMES_ONLY", "NONE"):
        config.profiling_verbosity = getattr(trt.ProfilingVerbosity, verbosity)
        plan = builder.build_serialized_network(network, config)
        engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
        inspector = engine.create_engine_inspector()
        told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
        assert told["Bindings"] == ["x", "y"]
        if verbosity == "DETAILED":
            kinds = [
                (layer["LayerType"], layer["Outputs"][0]["Format/Datatype"].split()[3])
                for layer in told["Layers"]
            ]
            assert kinds == [
                ("Reformat", "FP32"),
                ("CaskConvolution", "FP32"),
                ("PointWiseV2", "FP16"),
            ]
        elif verbosity == "LAYER_NAMES_ONLY":
            assert told["Layers"][1:] == ["c1", "r1"]
        else:
            assert told["Layers"] == []


def test_objects_keep_what_they_were_made_by() -> None:
    trt = make("10.3.0")
    logger, builder, network, _parser = parsed(trt)
    plan = builder.build_serialized_network(network, configured(trt, builder))
    context = trt.Runtime(logger).deserialize_cuda_engine(plan).create_execution_context()
    gc.collect()
    assert context.engine.num_io_tensors == 2
    assert inspect.isclass(trt.ICudaEngine)
