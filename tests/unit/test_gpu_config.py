"""Settings of TensorRT's builder and of a GPU: nonsense cannot be written down."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from edge_runtime.errors import ConfigError
from edge_runtime.gpu_config import DeviceErrorPolicy, GpuConfig, TensorRTConfig

SWITCHES = [field.name for field in fields(TensorRTConfig) if field.type == "bool"]


def test_the_defaults_leave_everything_to_tensorrt_but_tf32() -> None:
    config = TensorRTConfig()
    assert not any(getattr(config, name) for name in SWITCHES)
    assert config.workspace is config.optimization_level is config.dla_core is None
    assert config.hardware_compatibility.value == "none"


def test_settings_may_be_spelt() -> None:
    assert TensorRTConfig(workspace="64MiB").workspace == 64 << 20
    level = TensorRTConfig(hardware_compatibility="ampere+").hardware_compatibility
    assert level.name == "AMPERE_PLUS"
    gpu = GpuConfig(on_device_error="cpu", weight_budget="1kB")
    assert (gpu.on_device_error, gpu.weight_budget) == (DeviceErrorPolicy.CPU, 1000)


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", ["yes", 1, None])
def test_a_switch_is_on_or_off(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is"):
        TensorRTConfig(**{name: value})


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"workspace": 0}, "workspace is 0"),
        ({"workspace": "0MiB"}, "workspace is 0"),
        ({"workspace": "much"}, "'much'"),
        ({"workspace": True}, "workspace is True"),
        ({"optimization_level": -1}, "from 0 to 5"),
        ({"optimization_level": 6}, "from 0 to 5"),
        ({"optimization_level": True}, "whole number"),
        ({"max_aux_streams": -1}, "0 or more"),
        ({"max_aux_streams": "2"}, "whole number"),
        ({"dla_core": -1}, "0 or more"),
        ({"dla_core": 0.0}, "whole number"),
        ({"hardware_compatibility": "turing"}, "none, same-compute-capability, ampere+"),
        ({"dla_core": 0, "hardware_compatibility": "ampere+"}, "DLA"),
    ],
)
def test_builder_options_that_make_no_sense_are_refused(
    settings: dict[str, Any], word: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        TensorRTConfig(**settings)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"driver": "opencl"}, "auto, cuda-bindings, pycuda"),
        ({"on_device_error": "ignore"}, "raise, cpu"),
        ({"weight_budget": -1}, "0 or more"),
        ({"weight_budget": "-1"}, "'-1'"),
    ],
)
def test_uses_of_a_gpu_that_make_no_sense_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GpuConfig(**settings)
    assert word in str(caught.value)
