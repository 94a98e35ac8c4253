"""Settings: what contradicts itself cannot be written, and equal settings have equal digests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config import (
    BuildConfig,
    CalibrationConfig,
    CalibrationMethod,
    Precision,
    ShapeRange,
    canonical_json,
    digest,
)
from edge_runtime.errors import ConfigError
from edge_runtime.gpu_config import HardwareCompatibility, TensorRTConfig

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def shape_ranges(draw: st.DrawFn) -> ShapeRange:
    columns = draw(st.lists(st.lists(st.integers(1, 99), min_size=3, max_size=3), max_size=4))
    smallest, best, largest = zip(*map(sorted, columns), strict=True) if columns else ((),) * 3
    return ShapeRange(smallest, best, largest)


CONFIGS = st.builds(
    BuildConfig,
    precision=st.sampled_from(Precision),
    calibration=st.builds(
        CalibrationConfig,
        method=st.sampled_from(CalibrationMethod),
        percentile=st.floats(50, 100, exclude_min=True),
    ),
    profiles=st.lists(
        st.dictionaries(
            NAMES, shape_ranges().filter(lambda shapes: shapes.min), min_size=1, max_size=2
        ),
        max_size=3,
    ).map(tuple),
    exclude=st.lists(NAMES, max_size=3).map(tuple),
    backend=st.sampled_from(["auto", "tensorrt-rtx"]),
    targets=st.lists(st.sampled_from(["sm86", "SM87", "sm89"]), max_size=3).map(tuple),
    tensorrt=st.builds(
        TensorRTConfig,
        workspace=st.none() | st.integers(1, 2**40) | st.just("64MiB"),
        optimization_level=st.none() | st.integers(0, 5),
        tf32=st.booleans(),
        hardware_compatibility=st.sampled_from(HardwareCompatibility),
        strict=st.booleans(),
    ),
)


@given(CONFIGS)
def test_settings_survive_a_manifest(config: BuildConfig) -> None:
    plain = json.loads(canonical_json(config.to_json()))
    assert plain == config.to_json()
    assert BuildConfig.from_json(plain) == config


@given(CONFIGS, CONFIGS)
def test_a_plan_depends_on_profiles_and_tensorrt_s_options(
    first: BuildConfig, second: BuildConfig
) -> None:
    same = (first.profiles, first.tensorrt) == (second.profiles, second.tensorrt)
    assert (first.plan_settings == second.plan_settings) == same
    assert first.plan_settings.items() <= first.to_json().items()


@given(CONFIGS, CONFIGS)
def test_settings_have_one_digest_if_they_are_equal_and_two_if_not(
    first: BuildConfig, second: BuildConfig
) -> None:
    assert (digest(first.to_json()) == digest(second.to_json())) == (first == second)


def test_the_spelling_of_settings_does_not_count() -> None:
    plain = BuildConfig(
        precision="int8",
        calibration=CalibrationConfig(method="percentile", percentile=100),
        profiles={"x": "1x3x8x8"},
        exclude=("b", "a", "b"),
        targets=("SM86", "sm86"),
        tensorrt={"workspace": "1MiB", "refit": True},
    )
    spelt = BuildConfig(
        precision=Precision.INT8,
        calibration=CalibrationConfig(CalibrationMethod.PERCENTILE, 100.0),
        profiles=[{"x": ShapeRange((1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8))}, {}],
        exclude=("a", "b"),
        targets=("sm86",),
        tensorrt=TensorRTConfig(workspace=1 << 20, refit=True),
    )
    assert plain == spelt
    assert digest(plain.to_json()) == digest(spelt.to_json())


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"precision": "int4"}, "fp32, fp16, bf16, int8"),
        ({"precision": "INT8"}, "INT8"),
        ({"precision": None}, "None"),
        ({"backend": "cuda"}, "cuda"),
        ({"backend": ""}, "auto"),
        ({"backend": "cpu", "targets": ("sm86",)}, "targets"),
        ({"backend": "tensorrt", "targets": ("sm86",)}, "targets"),
        ({"profiles": {"x": "1x3x"}}, "1x3x"),
        ({"profiles": "x=1x3"}, "'x'"),
        ({"exclude": "head"}, "head"),
        ({"tensorrt": {"fast": True}}, "workspace, optimization_level"),
        ({"tensorrt": "refit"}, "'refit'"),
        ({"tensorrt": {"refit": "yes"}}, "refit is 'yes'"),
        ({"targets": "sm86"}, "sm86"),
        ({"profiles": [{"x": (1, 3, 8, 8)}]}, "'x'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BuildConfig(**settings)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("percentile", [0, 50, 100.1, -1, float("nan"), float("inf")])
def test_a_percentile_must_leave_something(percentile: float) -> None:
    with pytest.raises(ConfigError, match="percentile"):
        CalibrationConfig(percentile=percentile)


def test_a_method_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="max, percentile, mse, entropy"):
        CalibrationConfig(method="median")


def remove(key: str) -> Any:
    return lambda plain: plain.pop(key)


def put(key: str, value: object) -> Any:
    return lambda plain: plain.update({key: value})


@pytest.mark.parametrize(
    "change",
    [
        *(remove(field) for field in BuildConfig().to_json()),
        put("speed", 9),
        *(put("calibration", None), put("calibration", {"method": "mse", "bins": 9})),
        *(put("profiles", None), put("profiles", [{"x": [1]}]), put("profiles", [{"x": "0x1"}])),
        *(put("tensorrt", None), put("tensorrt", {"fast": True})),
        *(put("tensorrt", {"tf32": "yes"}), put("tensorrt", {"workspace": 0.5})),
        *(put("exclude", None), put("precision", "int1"), put("targets", 7)),
        put("calibration", {"method": "mse", "percentile": "high"}),
    ],
)
def test_settings_of_another_version_are_refused_not_guessed(change: Any) -> None:
    plain = BuildConfig().to_json()
    change(plain)
    with pytest.raises(ConfigError):
        BuildConfig.from_json(plain)


# Shapes.


@given(shape_ranges().filter(lambda shapes: shapes.min))
def test_a_shape_range_is_read_as_it_is_written(shapes: ShapeRange) -> None:
    assert ShapeRange.parse(str(shapes)) == shapes


def test_one_shape_serves_as_all_three() -> None:
    assert ShapeRange.parse("4x3x96x96") == ShapeRange(*[(4, 3, 96, 96)] * 3)


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "1x", "1x3,1x3", "1,1,1,1", "1x3,1x3x3,1x3", "0x3", "-1x3", "1x3,1x2,1x3"),
        *("1x3,1x4,1x3", "1.5", "1x3;1x3;1x3", "1 x"),
    ],
)
def test_shapes_that_make_no_range_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="Shape"):
        ShapeRange.parse(text)


def test_calibration_is_given_as_other_settings_are() -> None:
    config = BuildConfig(calibration={"method": "max", "equalize": False})
    assert config.calibration == CalibrationConfig(method="max", equalize=False)
    for wrong in ({"bins": 9}, "max"):
        with pytest.raises(ConfigError, match=r"calibration is .*CalibrationConfig"):
            BuildConfig(calibration=wrong)


# Digests.


def test_canonical_json_has_one_form() -> None:
    assert canonical_json({"b": [1, None], "a": "ü"}) == '{"a":"ü","b":[1,null]}'.encode()
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_a_digest_is_sha256() -> None:
    empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest(b"") == empty
    assert digest("") == digest(b'""') != empty
