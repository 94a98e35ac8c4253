"""Every graph that the precision rewriting writes is one that NVIDIA's builder takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import edge_runtime as er
from edge_runtime.backends.tensorrt.plan_header import read_plan_header
from edge_runtime.config import CalibrationConfig
from edge_runtime.data import open_samples
from edge_runtime.errors import ConfigError
from edge_runtime.gpu_config import TensorRTConfig
from edge_runtime.plans import extend
from edge_runtime.precision.rewrite import rewrite
from tests import models

PRECISIONS = ("int8", "fp16", "bf16", "fp32")


def profile(model: models.Model) -> dict[str, str]:
    """Shapes for every dynamic input: a batch of 1, 2 or 4."""
    return {
        spec.name: ",".join(
            "x".join(str(batch if size < 0 else size) for size in spec.shape) for batch in (1, 2, 4)
        )
        for spec in model.inputs
        if not spec.is_static
    }


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", sorted(models.NETS))
def test_a_bundle_of_every_small_net_has_a_plan(tmp_path: Path, name: str, precision: str) -> None:
    proto = models.NETS[name]()
    model = models.model(proto)
    config = er.BuildConfig(precision=precision, backend="tensorrt-rtx", profiles=profile(model))
    data = None if precision == "fp32" else [models.feeds(proto, seed) for seed in range(2)]
    bundle = er.build(model, config, output=tmp_path / "net.edge", calibration=data)
    (entry,) = bundle.plans
    assert read_plan_header(bundle.read(entry)).kind == "tensorrt-rtx"


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        *((name, "fp16") for name in sorted(models.NETS)),
        *((name, "bf16") for name in ("attention", "pools", "residual", "transposed")),
    ],
)
def test_int8_with_a_half_rest_of_every_small_net_has_a_plan(
    tmp_path: Path, name: str, rest: str
) -> None:
    proto = models.NETS[name]()
    config = er.BuildConfig(
        precision="int8",
        high_precision=rest,
        backend="tensorrt-rtx",
        profiles=profile(models.model(proto)),
    )
    data = [models.feeds(proto, seed) for seed in range(2)]
    bundle = er.build(models.model(proto), config, output=tmp_path / "net.edge", calibration=data)
    (entry,) = bundle.plans
    assert read_plan_header(bundle.read(entry)).kind == "tensorrt-rtx"


def test_a_layer_amid_fp32_and_what_half_cannot_hold_have_a_plan(tmp_path: Path) -> None:
    """INT8 layers that read FP32 behind Q/DQ beside others that read half, of one tensor too."""
    net = models.Net()
    x = net.op("Relu", net.conv("c1", net.input("x", models.PICTURE), (16, 16)), name="r1")
    weight = np.random.default_rng(1).standard_normal((16, 16, 1, 1)).astype(np.float32)
    weight[3] *= np.float32(1e-6)
    a = net.op("Conv", x, net.constant("c2.w", weight), name="c2")
    b = net.op("Abs", net.op("Mul", a, net.conv("c3", x, (16, 16)), name="m"), name="abs")
    b = net.op("Mul", b, net.op("Exp", net.constant("big", 11.0), name="e"), name="m2")
    proto = net.proto(net.conv("c4", b, (16, 16)))
    config = er.BuildConfig(
        precision="int8",
        high_precision="fp16",
        calibration=CalibrationConfig(equalize=False),
        backend="tensorrt-rtx",
        profiles=profile(models.model(proto)),
    )
    data = [models.feeds(proto, seed) for seed in range(2)]
    bundle = er.build(models.model(proto), config, output=tmp_path / "net.edge", calibration=data)
    assert {"c2", "m2", "c4"} <= bundle.manifest.precision["kept_full"].keys()
    assert len(bundle.plans) == 1


@pytest.mark.parametrize("scale", [0.5, 2.0**-16, 2.0**-24])
@pytest.mark.parametrize("name", ["x.scale", "y.w.scale"])
def test_a_half_scale_of_any_size_has_a_plan(rtx: Any, name: str, scale: float) -> None:
    """FP16 holds numbers below 6e-5 with fewer digits; TensorRT must not take them as zero."""
    net = models.Net()
    proto = net.proto(net.conv("y", net.input("x", (1, 16, 8, 8)), (16, 16)))
    model = models.model(proto)
    data = open_samples([models.feeds(proto)], model.inputs)
    config = er.BuildConfig(precision="int8", high_precision="fp16")
    graph = ModelProto.FromString(rewrite(model, config, samples=data).graph)
    (found,) = [t for t in graph.graph.initializer if t.name == f"{name}.half"]
    values = np.full_like(numpy_helper.to_array(found), scale)
    found.CopyFrom(numpy_helper.from_array(values, found.name))
    assert rtx.create_builder(["sm86"]).build(graph.SerializeToString(), []).data


@pytest.mark.parametrize("precision", [*PRECISIONS, "int8+fp16", "int8+bf16"])
@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_a_bundle_of_a_trained_net_has_a_plan_for_each_target(
    tmp_path: Path, root: Path, name: str, precision: str
) -> None:
    pictures = np.load(root / "tests" / "data" / f"{name}.npz")["calibration"][:4]
    feeds = [{"image": picture[None, None].astype(np.float32) / 255} for picture in pictures]
    side = pictures.shape[-1]
    precision, _, rest = precision.partition("+")
    config = er.BuildConfig(
        precision=precision,
        high_precision=rest or "fp32",
        backend="tensorrt-rtx",
        targets=("sm86", "sm89"),
        profiles={"image": f"1x1x{side}x{side},8x1x{side}x{side},32x1x{side}x{side}"},
    )
    data = None if precision == "fp32" else feeds
    bundle = er.build(
        root / "tests" / "data" / f"{name}.onnx",
        config,
        output=tmp_path / "net.edge",
        calibration=data,
    )
    (key,) = bundle.plans.values()
    assert key.compute_capabilities == ("sm86", "sm89")


def test_plans_of_other_options_take_the_place_of_one_or_stand_beside_it(
    tmp_path: Path, digits: Any
) -> None:
    config = er.BuildConfig(
        backend="tensorrt-rtx",
        targets=["sm86"],
        profiles=[{"image": "1x1x16x16"}, {"image": "2x1x16x16,8x1x16x16,32x1x16x16"}],
    )
    bundle = er.build(digits.model, config, output=tmp_path / "net.edge")
    assert extend(bundle, config) == (bundle, False)
    streaming = replace(config, tensorrt=TensorRTConfig(weight_streaming=True))
    replaced, is_new = extend(bundle, streaming)
    assert is_new
    (entry,) = replaced.plans
    assert replaced.plans == bundle.plans
    assert replaced.manifest.plan_settings == {entry: streaming.plan_settings}
    both, is_new = extend(replaced, replace(config, targets=("sm89",)))
    assert is_new
    (other,) = both.plans.keys() - {entry}
    assert both.read(entry) != both.read(other)
    assert both.manifest.plan_settings == {
        entry: streaming.plan_settings,
        other: config.plan_settings,
    }


def test_what_tensorrt_rtx_lacks_is_refused_with_a_named_backend_only(
    tmp_path: Path, digits: Any
) -> None:
    options = TensorRTConfig(hardware_compatibility="ampere+")
    config = er.BuildConfig(
        backend="tensorrt-rtx", profiles={"image": "1x1x16x16"}, tensorrt=options
    )
    with pytest.raises(ConfigError, match="hardware_compatibility"):
        er.build(digits.model, config, output=tmp_path / "net.edge")
    assert list(tmp_path.iterdir()) == []
