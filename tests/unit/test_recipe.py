"""Recipes: what they become, and that all mistakes are told at once by name."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config import BuildConfig, CalibrationConfig, ShapeRange
from edge_runtime.data.evaluation import Evaluation
from edge_runtime.errors import ConfigError
from edge_runtime.gpu_config import TensorRTConfig
from edge_runtime.recipe import Recipe, load_recipe
from edge_runtime.vision.preprocess import Preprocessing

SHA256 = "0123456789abcdef" * 4

COMPLETE = f"""
[build]
precision = "int8"
backend = "tensorrt-rtx"
targets = ["sm87", "SM86"]
exclude = ["/head/Softmax"]
high_precision = "fp16"
cpu_mode = "fast"

[calibration]
method = "percentile"
percentile = 99.9
data = "../pictures"
limit = 128
equalize = false
bias_correction = false
effort = "high"

[guard]
max_drop = "0.5%"
metric = "top1"
confident = true
data = "held-out"
labels = "labels.txt"
limit = 500

[preprocessing]
size = [480, 640]
resize = "letterbox"
color = "bgr"
layout = "nhwc"
scale = "1/255"
mean = [0.485, 0.456, 0.406]
std = 0.25
dtype = "float16"
interpolation = "area"
pad = 0

[profile]
"images" = "1x480x640x3,4x480x640x3,8x480x640x3"
"sizes" = "2x2"

[tensorrt]
workspace = "512MiB"
optimization_level = 4
max_aux_streams = 0
tf32 = true
sparse_weights = true
version_compatible = true
hardware_compatibility = "ampere+"
refit = true
strip_weights = true
weight_streaming = true
strict = true

[model]
path = "model.onnx"
sha256 = "{SHA256}"
"""

COMPLETE_BUILD = {
    "precision": "int8",
    "calibration": {
        "method": "percentile",
        "percentile": 99.9,
        "equalize": False,
        "bias_correction": False,
        "effort": "high",
    },
    "high_precision": "fp16",
    "cpu_mode": "fast",
    "guard": {"max_drop": 0.005, "metric": "top1", "confident": True},
    "profiles": [
        {"images": "1x480x640x3,4x480x640x3,8x480x640x3", "sizes": "2x2,2x2,2x2"},
    ],
    "tensorrt": {
        "workspace": 512 << 20,
        "optimization_level": 4,
        "max_aux_streams": 0,
        "tf32": True,
        "sparse_weights": True,
        "version_compatible": True,
        "hardware_compatibility": "ampere+",
        "refit": True,
        "strip_weights": True,
        "weight_streaming": True,
        "dla_core": None,
        "strict": True,
    },
    "exclude": ["/head/Softmax"],
    "backend": "tensorrt-rtx",
    "targets": ["sm86", "sm87"],
}


def load(folder: Path, text: str) -> Recipe:
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return load_recipe(folder / "recipe.toml")


def mistakes(folder: Path, text: str) -> list[str]:
    """The dotted names in the error, in order."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    first, *lines = str(caught.value).split("\n  ")
    assert first.startswith(str(folder / "recipe.toml"))
    return [line.partition(":")[0] for line in lines]


def test_a_recipe_that_says_everything(tmp_path: Path) -> None:
    assert load(tmp_path, COMPLETE) == Recipe(
        path=tmp_path / "recipe.toml",
        build=BuildConfig.from_json(COMPLETE_BUILD),
        preprocessing=Preprocessing(
            size=(480, 640),
            resize="letterbox",
            color="bgr",
            layout="nhwc",
            scale=1 / 255,
            mean=(0.485, 0.456, 0.406),
            std=0.25,
            dtype="float16",
            interpolation="area",
            pad=0,
        ),
        data=tmp_path / "../pictures",
        limit=128,
        model=tmp_path / "model.onnx",
        model_digest=f"sha256:{SHA256}",
        evaluation=Evaluation(tmp_path / "held-out", tmp_path / "labels.txt", 500),
    )


def test_a_recipe_that_says_nothing_has_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Recipe(path=tmp_path / "recipe.toml", build=BuildConfig())


def test_each_setting_reaches_its_place(tmp_path: Path) -> None:
    recipe = load(tmp_path, '[build]\nprecision = "bf16"\n[calibration]\nmethod = "entropy"')
    assert recipe.build == BuildConfig("bf16", CalibrationConfig("entropy"))
    recipe = load(tmp_path, '[profile]\nx = "1x3,2x3,4x3"')
    assert recipe.build.profiles == ({"x": ShapeRange((1, 3), (2, 3), (4, 3))},)
    recipe = load(tmp_path, '[[profile]]\nx = "1x3"\n[[profile]]\nx = "4x3"\ny = "2"')
    one, four, two = (ShapeRange.parse(text) for text in ("1x3", "4x3", "2"))
    assert recipe.build.profiles == ({"x": one}, {"x": four, "y": two})
    recipe = load(tmp_path, "[tensorrt]\ndla_core = 1")
    assert recipe.build.tensorrt == TensorRTConfig(dla_core=1)
    recipe = load(tmp_path, '[preprocessing]\nsize = 224\nresize = "crop"\nshort_side = 256')
    assert recipe.preprocessing == Preprocessing(size=224, resize="crop", short_side=256)
    recipe = load(tmp_path, '[preprocessing]\nsize = 64\nresize = "fit"\nmultiple = 16')
    assert recipe.preprocessing == Preprocessing(size=64, resize="fit", multiple=16)


@pytest.mark.parametrize("field", [field.name for field in fields(Preprocessing)])
def test_no_preprocessing_setting_is_unknown_to_recipes(tmp_path: Path, field: str) -> None:
    text = f"[preprocessing]\n{field} = {{}}\n"
    assert f"preprocessing.{field}" in mistakes(tmp_path, text)


@pytest.mark.parametrize("field", [field.name for field in fields(TensorRTConfig)])
def test_no_tensorrt_option_is_unknown_to_recipes(tmp_path: Path, field: str) -> None:
    assert f"tensorrt.{field}" in mistakes(tmp_path, f"[tensorrt]\n{field} = {{}}\n")


def test_mistakes_in_profiles_are_told_by_number(tmp_path: Path) -> None:
    text = '[[profile]]\nx = "1x3"\n[[profile]]\nx = "1x"\ny = 2'
    assert mistakes(tmp_path, text) == ["profile.1.x", "profile.1.y"]
    assert mistakes(tmp_path, 'profile = "x=1x3"') == ["profile"]
    assert mistakes(tmp_path, "profile = [3]") == ["profile.0"]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = """
        [build]
        precision = "int9"
        backend = "gpu"
        targets = "sm86"
        fast = true
        [calibration]
        method = "minmax"
        percentile = 3.0
        limit = 0
        data = ""
        [preprocessing]
        resize = "zoom"
        scale = "1/0"
        mean = [1, "b"]
        pad = 3.5
        [profile]
        x = "1x3,2"
        y = 3
        [tensorrt]
        workspace = "much"
        tf32 = "yes"
        strict_precision = true
        [guard]
        max_drop = "half"
        metric = "top5"
        confident = 1
        labels = ""
        [model]
        sha256 = "12"
        [calib]
    """
    assert sorted(mistakes(tmp_path, text)) == sorted(
        [
            "build.precision",
            "build.backend",
            "build.targets",
            "build.fast",
            "calibration.method",
            "calibration.percentile",
            "calibration.limit",
            "calibration.data",
            "preprocessing.size",
            "preprocessing.resize",
            "preprocessing.scale",
            "preprocessing.mean",
            "preprocessing.pad",
            "profile.x",
            "profile.y",
            "tensorrt.workspace",
            "tensorrt.tf32",
            "tensorrt.strict_precision",
            "guard.max_drop",
            "guard.metric",
            "guard.confident",
            "guard.labels",
            "model.path",
            "model.sha256",
            "calib",
        ]
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('[build]\nbackend = "cpu"\ntargets = ["sm86"]', "build"),
        ("[calibration]\npercentile = 99.0", "calibration"),
        ("[preprocessing]\nsize = 8\npad = 0", "preprocessing"),
        ("[preprocessing]\nsize = [1, 2, 3]", "preprocessing"),
        ('[preprocessing]\nsize = "8"', "preprocessing.size"),
        ("[preprocessing]\nsize = true", "preprocessing.size"),
        ("[preprocessing]\nsize = 8\nscale = nan", "preprocessing"),
        ("[model]", "model.path"),
        ("[calibration]\nlimit = 1.0", "calibration.limit"),
        ("[calibration]\nlimit = true", "calibration.limit"),
        ("build = 3", "build"),
        ('[build]\ncpu_mode = "fast"\nprecision = "fp16"', "build"),
        ('[build]\nprecision = "int8"\n[guard]\nmetric = "top1"', "guard.max_drop"),
        ('[build]\nprecision = "int8"\n[guard]\nmax_drop = true', "guard.max_drop"),
        ('[build]\nprecision = "int8"\n[guard]\nmax_drop = 0.1\nlimit = 3', "guard"),
        ('[build]\nprecision = "fp16"\n[guard]\nmax_drop = 0.1', "guard"),
        ("[guard]\nmax_drop = 0.1", "guard"),
    ],
)
def test_settings_of_the_wrong_kind_or_that_contradict(
    tmp_path: Path, text: str, name: str
) -> None:
    assert mistakes(tmp_path, text) == [name]


def test_an_unknown_setting_is_told_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"calibration\.count: .*limit"):
        load(tmp_path, "[calibration]\ncount = 3")


@pytest.mark.parametrize("text", ["[build", "a = 1\na = 2", "x = " + "9" * 5000])
def test_what_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.toml"):
        load(tmp_path, text)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'[model]\npath = "\xe9"')
    for name in ("latin.toml", "missing.toml", ""):
        with pytest.raises(ConfigError, match=name or tmp_path.name):
            load_recipe(tmp_path / name)


scalars = st.one_of(
    st.booleans(), st.integers(-(10**6), 10**6), st.floats(), st.text("aé1/x", max_size=5)
)
values = scalars | st.lists(scalars, max_size=4)
names = st.sampled_from(
    [
        *("precision", "targets", "method", "percentile", "limit", "size", "scale", "mean"),
        *("sha256", "max_drop", "metric"),
    ]
)


def toml(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


@given(
    st.dictionaries(
        st.sampled_from(
            ["build", "calibration", "preprocessing", "profile", "tensorrt", "model", "guard"]
        ),
        st.dictionaries(names, values, max_size=4),
        max_size=4,
    )
)
def test_any_tables_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, tables: dict[str, dict[str, object]]
) -> None:
    lines = []
    for table, settings in tables.items():
        lines += [f"[{table}]", *(f"{name} = {toml(value)}" for name, value in settings.items())]
    folder = tmp_path_factory.mktemp("recipe")
    with suppress(ConfigError):
        assert isinstance(load(folder, "\n".join(lines)).build, BuildConfig)
