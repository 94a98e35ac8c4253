"""OpenVINO computes what the graph says, or refuses: it saturates nowhere, loses nothing unsaid."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from edge_runtime.config import BuildConfig
from edge_runtime.errors import BackendUnavailableError, FeedError, InferenceError, ModelError
from edge_runtime.precision.rewrite import rewrite
from tests import models

pytest.importorskip("openvino", reason="OpenVINO is not installed")

import openvino

from edge_runtime.backends.openvino import OpenVinoContext, OpenVinoRuntime, _Profiled


def context(proto: ModelProto | bytes, *, fast: bool = False, threads: int = 1) -> OpenVinoContext:
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    return OpenVinoRuntime(threads=threads, fast=fast).load(data).create_context()


def run(proto: ModelProto | bytes, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    opened = context(proto)
    opened.enqueue(feeds)
    return opened.wait()


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    noise = ((reference.astype(np.float64) - other) ** 2).sum()
    return float(10 * np.log10((reference.astype(np.float64) ** 2).sum() / max(noise, 1e-30)))


def identity(kind: int) -> ModelProto:
    value = [helper.make_tensor_value_info(name, kind, ["n", 3]) for name in "xy"]
    nodes = [helper.make_node("Identity", ["x"], ["y"], name="same")]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool"],
)
def test_every_type_that_it_computes_comes_out_as_it_went_in(dtype: str) -> None:
    proto = identity(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    x = np.array([[0, 1, 100], [1, 0, 7]]).astype(dtype)
    found = run(proto, x=x)["y"]
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, x)


_INTERRUPTED = """
import os, signal, sys
from edge_runtime.backends.openvino import OpenVinoRuntime

graph = sys.stdin.buffer.read()
first = OpenVinoRuntime(threads=1).load(graph)
second = OpenVinoRuntime(threads=1).load(graph)
first.close()
del first
second.close()
del second
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_engines_came_and_went_is_ctrl_c() -> None:
    graph = identity(TensorProto.FLOAT).SerializeToString()
    command = [sys.executable, "-c", _INTERRUPTED]
    done = subprocess.run(command, input=graph, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"interrupted\n", b"")


@pytest.mark.parametrize("kind", ["STRING", "DOUBLE", "BFLOAT16"])
def test_types_that_it_would_compute_as_others_are_refused(kind: str) -> None:
    with pytest.raises(ModelError, match=r"^Tensor 'x' is .*Use device 'cpu'\.$"):
        context(identity(TensorProto.DataType.Value(kind)))


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_integers_beyond_32_bits_are_refused(value: int) -> None:
    with pytest.raises(FeedError, match="within 32 bits"):
        run(identity(TensorProto.INT64), x=np.array([[1, 2, value]]))
    largest = np.array([[2**31 - 1, -(2**31), 0]])
    np.testing.assert_array_equal(run(identity(TensorProto.INT64), x=largest)["y"], largest)


def test_what_is_empty_and_what_is_a_scalar_pass() -> None:
    empty = np.zeros((0, 3), np.float32)
    assert run(identity(TensorProto.FLOAT), x=empty)["y"].shape == (0, 3)
    net = models.Net()
    proto = net.proto(net.op("Relu", net.input("x", ()), name="y"))
    assert run(proto, x=np.array(3, np.float32))["y"].shape == ()


def test_outputs_have_the_graphs_names_in_its_order() -> None:
    net = models.Net()
    x = net.input("x", ("n", 3))
    names = [net.op("Identity", x, name="z"), net.op("Relu", x, name="b")]
    names += [net.op("Identity", "b", name="a"), net.op("Identity", "b", name="c")]
    found = run(net.proto(*names), x=np.array([[-1, 0, 2]], np.float32))
    assert [(name, values.tolist()) for name, values in found.items()] == [
        ("z", [[-1, 0, 2]]),
        ("b", [[0, 0, 2]]),
        ("a", [[0, 0, 2]]),
        ("c", [[0, 0, 2]]),
    ]


# What is refused.


def test_a_node_of_another_domain_is_named() -> None:
    net = models.Net()
    net.op("Foo", net.op("Relu", net.input("x", (3,)), name="fine"), name="odd", domain="mine")
    proto = net.proto("odd", shapes={"odd": [3]})
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    with pytest.raises(ModelError, match=r"node 'odd' \(Foo\): .*mine\.Foo") as caught:
        context(proto)
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match="OpenVINO cannot load the graph"):
        context(b"not a model")


def test_an_input_that_nothing_reads_is_named() -> None:
    net = models.Net()
    net.input("idle", (3,))
    with pytest.raises(ModelError, match="'idle' is read by no node"):
        context(net.proto(net.op("Relu", net.input("x", (3,)), name="y")))


@pytest.mark.parametrize("threads", [1, 2])
def test_sizes_that_do_not_fit_fail_and_leave_no_old_outputs(threads: int) -> None:
    net = models.Net()
    x, y = net.input("x", ("n",)), net.input("y", ("m",))
    proto = net.proto(net.op("Add", x, y, name="sum"), shapes={"sum": ["k"]})
    opened = context(proto, threads=threads)
    good = {"x": np.ones(3, np.float32), "y": np.ones(3, np.float32)}
    for _ in range(2):
        opened.enqueue(good)
        assert opened.wait()["sum"].tolist() == [2, 2, 2]
        with pytest.raises(InferenceError, match=r"node 'sum' \(Add\)"):
            opened.enqueue({**good, "y": np.ones(4, np.float32)})
        with pytest.raises(InferenceError, match="Nothing was enqueued"):
            opened.wait()


def test_it_has_no_gpu() -> None:
    opened = context(identity(TensorProto.FLOAT))
    with pytest.raises(BackendUnavailableError):
        opened.run_on_device({})


def test_layers_are_named_by_the_nodes_that_they_compute() -> None:
    feeds = {"x": np.ones((2, 16, 8, 8), np.float32)}
    times = context(models.residual()).layer_times(feeds, runs=5)
    convs = {time.nodes: time for time in times if time.nodes and time.nodes[0].startswith("c")}
    assert {name for nodes in convs for name in nodes} >= {"c0", "r0", "c1", "r1", "c2", "c3"}
    assert all(time.precision == "fp32" for time in convs.values())
    assert all(len(time.milliseconds) == 5 for time in times)
    assert min(min(time.milliseconds) for time in times) >= 0


class Request:
    """A request that tells the mean time of a layer so far, in microseconds, as OpenVINO does."""

    def __init__(self, *means: int) -> None:
        self.means = iter(means)

    def set_input_tensor(self, index: int, tensor: object) -> None:
        """Takes an input."""

    def start_async(self) -> None:
        """Runs."""

    def wait(self) -> None:
        """Is done."""

    @property
    def profiling_info(self) -> list[object]:
        executed = openvino.ProfilingInfo.Status.EXECUTED
        time = timedelta(microseconds=next(self.means))
        layer = {"node_name": "a", "exec_type": "jit_avx2_I8", "real_time": time}
        fused = {**layer, "node_name": "b", "status": openvino.ProfilingInfo.Status.NOT_RUN}
        return [SimpleNamespace(**layer, status=executed), SimpleNamespace(**fused)]


def test_running_means_become_the_times_of_single_inferences() -> None:
    opened = context(identity(TensorProto.FLOAT))
    opened._profiled = lambda: _Profiled(Request(10, 6, 5, 4), {"a": ("y",)})
    (time,) = opened.layer_times({"x": np.zeros((1, 3), np.float32)}, runs=4)
    assert time.milliseconds == pytest.approx((0.010, 0.002, 0.003, 0.001))
    assert (time.name, time.nodes, time.precision) == ("a", ("y",), "int8")


# INT8.


def extreme() -> ModelProto:
    """All that a convolution reads is as large as it can be: its sums are the largest of all."""
    net = models.Net()
    x = net.op("Relu", net.input("x", ("n", 32, 4, 4)), name="r")
    w = net.constant("w", np.ones((32, 32, 3, 3), np.float32))
    x = net.op("Relu", net.op("Conv", x, w, name="c", pads=[1] * 4), name="r2")
    return net.proto(net.op("Conv", x, net.weight("w2", 16, 32, 1, 1), name="last"))


def test_neither_graph_of_a_bundle_saturates() -> None:
    feeds = {"x": np.ones((1, 32, 4, 4), np.float32)}
    config = BuildConfig(precision="int8", cpu_mode="fast", backend="cpu")
    made = rewrite(models.model(extreme()), config, samples=samples(feeds))
    assert made.fast_graph is not None
    for graph, fast, least in ((made.graph, False, 60), (made.fast_graph, True, 40)):
        opened = context(graph, fast=fast)
        opened.enqueue(feeds)
        assert sqnr(models.run(graph, feeds)["last"], opened.wait()["last"]) > least


def samples(feeds: dict[str, np.ndarray]):
    from edge_runtime.data import open_samples

    return open_samples([feeds], models.model(extreme()).inputs)
