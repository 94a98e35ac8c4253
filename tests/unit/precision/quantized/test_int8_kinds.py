"""INT8 from calibration to inference on nets of every kind: audio, bytes, tokens, boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import edge_runtime
from edge_runtime.building import build
from edge_runtime.config import BuildConfig, CalibrationConfig
from tests.models import FLOAT, Net, run

Feeds = dict[str, np.ndarray]
Make = Callable[[np.random.Generator], Feeds]


def audio() -> tuple[ModelProto, Make]:
    """Waves of any length [n, samples] through strided convolutions of one axis, a mean, a head."""
    net = Net()
    axes = net.constant("axes", np.array([1]))
    x = net.op("Unsqueeze", net.input("wave", ("n", "samples")), axes, name="channel")
    for i, (c, m, k, s) in enumerate([(1, 16, 16, 8), (16, 32, 5, 2), (32, 32, 3, 1)]):
        w, b = net.weight(f"w{i}", m, c, k), net.weight(f"b{i}", m, scale=0.1)
        x = net.op("Conv", x, w, b, name=f"c{i}", strides=[s], pads=[k // 2] * 2)
        x = net.op("Relu", x, name=f"r{i}")
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="mean"), name="flat")
    y = net.op("Gemm", x, net.weight("fc", 32, 16), name="y")

    def feeds(random: np.random.Generator) -> Feeds:
        t = np.arange(random.integers(400, 700)) / 100
        wave = np.sin(2 * np.pi * random.uniform(1, 20) * t) + 0.1 * random.standard_normal(t.size)
        return {"wave": wave[None].astype(np.float32)}

    return net.proto(y, shapes={"y": ["n", 16]}), feeds


def tokens() -> tuple[ModelProto, Make]:
    """Bytes as int64 tokens [n, length]: an embedding, a convolution, a mean over all, a head."""
    net = Net()
    ids = net.input("ids", ("n", "length"), TensorProto.INT64)
    x = net.op("Gather", net.weight("table", 256, 24, scale=1), ids, name="embedding")
    x = net.op("Transpose", x, name="channels", perm=[0, 2, 1])
    x = net.op("Conv", x, net.weight("w", 32, 24, 3), name="c", pads=[1, 1])
    x = net.op("Transpose", net.op("Relu", x, name="r"), name="back", perm=[0, 2, 1])
    x = net.op("MatMul", x, net.weight("m", 32, 32), name="mm")
    x = net.op("ReduceMean", net.op("Tanh", x, name="th"), name="mean", axes=[1], keepdims=0)
    y = net.op("Gemm", x, net.weight("fc", 32, 16), name="y")

    def feeds(random: np.random.Generator) -> Feeds:
        return {"ids": random.integers(0, 256, (2, int(random.integers(5, 30))))}

    return net.proto(y, shapes={"y": ["n", 16]}), feeds


def picture_bytes() -> tuple[ModelProto, Make]:
    """A uint8 picture [n, h, w, 3], cast, scaled and turned inside the net."""
    net = Net()
    x = net.op("Cast", net.input("image", ("n", 16, 16, 3), TensorProto.UINT8), name="f", to=FLOAT)
    x = net.op("Mul", x, net.constant("scale", 1 / 255), name="scaled")
    x = net.op("Transpose", x, name="nchw", perm=[0, 3, 1, 2])
    x = net.op("Relu", net.conv("c1", x, (3, 16)), name="r1")
    x = net.op("Relu", net.conv("c2", x, (16, 32), strides=[2, 2]), name="r2")
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="gap"), name="flat")
    proto = net.proto(net.op("Gemm", x, net.weight("fc", 32, 16), name="y"))

    def feeds(random: np.random.Generator) -> Feeds:
        return {"image": random.integers(0, 256, (1, 16, 16, 3), np.uint8)}

    return proto, feeds


def detector() -> tuple[ModelProto, Make]:
    """Pictures of any size: a pyramid with Resize and Concat, boxes and scores as two outputs."""
    net = Net()
    x = net.op("Relu", net.conv("c1", net.input("image", ("n", 3, "h", "w")), (3, 16)), name="r1")
    low = net.op("Relu", net.conv("c2", x, (16, 32), strides=[2, 2]), name="r2")
    scales = net.constant("scales", np.array([1, 1, 2, 2], np.float32))
    up = net.op("Resize", low, "", scales, name="up", mode="nearest")
    x = net.op("Concat", x, up, name="cat", axis=1)
    x = net.op("Relu", net.conv("c3", x, (48, 32)), name="r3")
    boxes = net.conv("boxes", x, (32, 16), 1)
    scores = net.op("Sigmoid", net.conv("head", x, (32, 16), 1), name="scores")
    shape = ["n", 16, "h", "w"]

    def feeds(random: np.random.Generator) -> Feeds:
        h, w = 8 * random.integers(1, 4, 2)
        return {"image": random.random((1, 3, h, w), np.float32)}

    return net.proto(boxes, scores, shapes={boxes: shape, scores: shape}), feeds


def recurrent() -> tuple[ModelProto, Make]:
    """A convolution, an LSTM, which stays FP32, and a head; the state is a second input."""
    net = Net()
    x = net.op("Conv", net.input("x", ("n", 8, 20)), net.weight("w", 32, 8, 3), name="c")
    x = net.op("Transpose", net.op("Relu", x, name="r"), name="steps", perm=[2, 0, 1])
    w, r = net.weight("lstm.w", 1, 96, 32, scale=0.2), net.weight("lstm.r", 1, 96, 24, scale=0.2)
    state = net.input("state", (1, "n", 24))
    cell = ("", "", state, state)
    net.nodes.append(
        helper.make_node("LSTM", [x, w, r, *cell], ["", "h"], name="lstm", hidden_size=24)
    )
    axes = net.constant("axes", np.array([0]))
    last = net.op("Squeeze", "h", axes, name="last")
    y = net.op("Gemm", last, net.weight("fc", 24, 16), name="y")

    def feeds(random: np.random.Generator) -> Feeds:
        x = random.standard_normal((1, 8, 20), np.float32)
        return {"x": x, "state": np.tanh(random.standard_normal((1, 1, 24), np.float32))}

    return net.proto(y, shapes={y: ["n", 16]}), feeds


def volume() -> tuple[ModelProto, Make]:
    """Convolutions of three axes with a max pool between."""
    net = Net()
    x = net.input("x", ("n", 2, 8, 8, 8))
    x = net.op("Conv", x, net.weight("w1", 16, 2, 3, 3, 3), name="c1", pads=[1] * 6)
    x = net.op("Relu", x, name="r1")
    x = net.op("MaxPool", x, name="pool", kernel_shape=[2] * 3, strides=[2] * 3)
    y = net.op("Conv", x, net.weight("w2", 16, 16, 3, 3, 3), name="y", pads=[1] * 6)
    return net.proto(y), lambda random: {"x": random.standard_normal((1, 2, 8, 8, 8), np.float32)}


def decoder() -> tuple[ModelProto, Make]:
    """A vector to a picture through transposed convolutions."""
    net = Net()
    x = net.op("Gemm", net.input("code", ("n", 16)), net.weight("fc", 16, 256), name="g")
    x = net.op("Reshape", x, net.constant("shape", np.array([-1, 16, 4, 4])), name="grid")
    for i, (c, m, k, pad) in enumerate([(16, 16, 4, 1), (16, 8, 2, 0)]):
        w, b = net.weight(f"w{i}", c, m, k, k, scale=0.15), net.weight(f"b{i}", m, scale=0.1)
        options = {"strides": [2, 2], "pads": [pad] * 4}
        x = net.op("ConvTranspose", net.op("Relu", x, name=f"r{i}"), w, b, name=f"t{i}", **options)
    proto = net.proto(net.op("Tanh", x, name="y"), shapes={"y": ["n", 8, 16, 16]})
    return proto, lambda random: {"code": random.standard_normal((1, 16), np.float32)}


KINDS = (audio, tokens, picture_bytes, detector, recurrent, volume, decoder)


@pytest.mark.parametrize("effort", ["default", "high"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_net_becomes_int8_and_stays_near(
    tmp_path: Path, kind: Callable[[], tuple[ModelProto, Make]], effort: str
) -> None:
    proto, make = kind()
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    random = np.random.default_rng(0)
    samples = [make(random) for _ in range(16)]
    config = BuildConfig("int8", CalibrationConfig(effort=effort), backend="cpu")
    bundle = build(path, config, output=tmp_path / "net.edge", calibration=samples)
    int8 = [n["name"] for n in bundle.manifest.precision["nodes"] if n["precision"] == "int8"]
    assert int8
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    with edge_runtime.load(tmp_path / "net.edge", device="cpu") as session:
        for _ in range(6):
            feeds = make(random)
            found = session.run(feeds)
            for name, expected in run(proto, feeds).items():
                assert found[name].shape == expected.shape
                signal[name] = signal.get(name, 0.0) + float((expected**2).sum())
                noise[name] = noise.get(name, 0.0) + float(((found[name] - expected) ** 2).sum())
    for name in signal:
        assert noise[name] > 0  # It is INT8.
        assert 10 * np.log10(signal[name] / noise[name]) > 20, name


# --- shapes that differ, from every kind of source


def conv() -> ModelProto:
    net = Net()
    x = net.op("Relu", net.conv("c", net.input("image", ("n", 3, "h", "w")), (3, 16)), name="r")
    return net.proto(net.conv("y", x, (16, 16)), shapes={"y": ["n", 16, "h", "w"]})


def _save(folder: Path, kind: str, feeds: list[Feeds]) -> object:
    """The samples as a source of that kind."""
    import cv2

    if kind == "list":
        return feeds
    folder.mkdir()
    for index, sample in enumerate(feeds):
        array = sample["image"]
        if kind == "npz":
            np.savez(folder / f"{index}.npz", **sample)
        elif kind == "npy":
            np.save(folder / f"{index}.npy", array)
        elif kind == "test data":
            (folder / f"test_data_set_{index}").mkdir()
            tensor = numpy_helper.from_array(array).SerializeToString()
            (folder / f"test_data_set_{index}" / "input_0.pb").write_bytes(tensor)
        else:
            picture = np.rint(array[0].transpose(1, 2, 0) * 255).astype(np.uint8)
            data = cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()
            (folder / f"{index}.png").write_bytes(data)
    if kind == "pictures":
        return edge_runtime.ImageFolder(folder, "size=64,resize=fit,multiple=8")
    return folder


@pytest.mark.parametrize("kind", ["list", "npz", "npy", "test data", "pictures"])
def test_samples_of_many_shapes_calibrate(tmp_path: Path, kind: str) -> None:
    random = np.random.default_rng(0)
    sizes = [(8, 16), (16, 8), (24, 24), (8, 8)]
    pictures = [random.integers(0, 256, (1, 3, h, w)).astype(np.float32) for h, w in sizes]
    feeds = [{"image": picture / 255} for picture in pictures]
    path = tmp_path / "net.onnx"
    path.write_bytes(conv().SerializeToString())
    source = _save(tmp_path / "data", kind, feeds)
    cache = edge_runtime.calibrate(path, source)
    assert cache.samples == 4
    expected = edge_runtime.calibrate(path, feeds).ranges
    for name, bounds in expected.items():
        assert cache.ranges[name].observed == pytest.approx(bounds.observed, rel=1e-5)
