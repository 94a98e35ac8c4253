"""What the commands do with plans: options for the builder, its progress, and what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import session
from edge_runtime.backends import registry
from edge_runtime.backends.base import Plan
from edge_runtime.bundle import Bundle, write_bundle
from edge_runtime.bundle.manifest import PlanKey
from edge_runtime.cli import options_tensorrt
from edge_runtime.config import BuildConfig, OptimizationProfile, ShapeRange
from edge_runtime.gpu_config import GpuConfig, TensorRTConfig
from edge_runtime.progress import Progress, silent

KEY = PlanKey("tensorrt-rtx", "1.0", ("sm86",), "linux-x86_64")
SHAPE = ("--shape", "image=1x1x16x16,2x1x16x16,4x1x16x16")
VERDICT = {
    "layers": 20,
    "precisions": {"INT8": 12, "FP32": 7, "unknown": 1},
    "reformats": 3,
    "fell_back": [{"layer": "node_linear", "asked": "INT8", "ran": "FP32"}],
    "notes": ["TensorRT does not tell the precision within 1 of 20 layers."],
}


class Copier:
    """A builder whose plan is the graph itself."""

    def __init__(self, config: BuildConfig) -> None:
        self.key = replace(KEY, traits=("dla",)) if config.tensorrt.dla_core is not None else KEY

    def build(
        self, graph: bytes, profiles: Sequence[OptimizationProfile], progress: Progress = silent
    ) -> Plan:
        progress("Building the tensorrt-rtx plan", 50, 100)
        return Plan(self.key, graph, VERDICT)


@pytest.fixture(autouse=True)
def configs(monkeypatch: pytest.MonkeyPatch) -> list[BuildConfig]:
    """The settings that builders were made with; TensorRT-RTX can be built for."""
    made: list[BuildConfig] = []

    def create(backend: str, config: BuildConfig) -> Copier:
        made.append(config)
        return Copier(config)

    available = [
        registry.Availability("tensorrt", False, False, "it is not here"),
        registry.Availability("tensorrt-rtx", True, False, "it has no GPU"),
        registry.Availability("cpu", True, True, ""),
    ]
    monkeypatch.setattr(registry, "availability", lambda: tuple(available))
    monkeypatch.setattr(registry, "create_builder", create)
    return made


@pytest.fixture
def bundle(folder: Path, int8_bundle: Path) -> Path:
    """A bundle without a plan, in the current folder."""
    Path("digits.edge").write_bytes(int8_bundle.read_bytes())
    return Path("digits.edge")


def flat(text: str) -> str:
    return " ".join(text.split())


# Options.


def test_every_tensorrt_option_has_a_spelling_in_its_own_section(run) -> None:
    text = run("build", "--help").stdout
    plain, _, tensorrt = text.partition("\nTensorRT options:\n")
    for field in fields(TensorRTConfig):
        spelling = options_tensorrt.spelling(field.name)
        assert f"  {spelling}" in tensorrt
        assert f"  {spelling}" not in plain
    assert "--precision" in plain
    assert "--shape x=1x3x64x64 --shape x=8x3x64x64" in flat(plain)


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--workspace", "512MiB"], {"workspace": 512 << 20}),
        (["--workspace", "2GB"], {"workspace": 2 * 10**9}),
        (["--workspace", "4096"], {"workspace": 4096}),
        (["--optimization-level", "5"], {"optimization_level": 5}),
        (["--max-aux-streams", "0"], {"max_aux_streams": 0}),
        (["--hardware-compatible", "ampere+"], {"hardware_compatibility": "ampere+"}),
        (["--dla", "1"], {"dla_core": 1}),
        (["--version-compatible"], {"version_compatible": True}),
        (["--sparse-weights"], {"sparse_weights": True}),
        (["--tf32"], {"tf32": True}),
        (["--refit"], {"refit": True}),
        (["--strip-weights"], {"strip_weights": True}),
        (["--weight-streaming"], {"weight_streaming": True}),
        (["--strict-precision"], {"strict": True}),
    ],
)
def test_each_option_reaches_the_builder(
    run, bundle: Path, configs: list[BuildConfig], words: list[str], settings: dict[str, Any]
) -> None:
    assert run("build", "model.onnx", "--precision", "fp32", *SHAPE, *words).exit_code == 0
    assert run("build", bundle, *SHAPE, *words).exit_code == 0
    expected = TensorRTConfig(**settings)
    assert [config.tensorrt for config in configs] == [expected, expected]
    for path in ("model.edge", bundle):
        assert Bundle.open(path).manifest.build_config.tensorrt == expected


def test_what_a_recipe_or_bundle_says_can_be_taken_back(
    run, bundle: Path, configs: list[BuildConfig]
) -> None:
    Path("recipe.toml").write_text(
        '[tensorrt]\ndla_core = 0\nworkspace = "1GiB"\nrefit = true\n'
        '[[profile]]\nimage = "1x1x16x16"\n[[profile]]\nimage = "8x1x16x16"\n'
    )
    model = ("build", "model.onnx", "--precision", "fp32", "--recipe", "recipe.toml")
    assert run(*model, "--shape", "image=2x1x16x16").exit_code == 0
    assert configs[-1].tensorrt == TensorRTConfig(dla_core=0, workspace=1 << 30, refit=True)
    two, eight = (ShapeRange.parse(f"{n}x1x16x16") for n in (2, 8))
    assert configs[-1].profiles == ({"image": two}, {"image": eight})
    back = ("--dla", "none", "--workspace", "auto", "--no-refit")
    assert run(*model, *back).exit_code == 0
    assert configs[-1].tensorrt == TensorRTConfig()
    assert run("build", bundle, *SHAPE, "--dla", "0").exit_code == 0
    assert run("build", bundle, "--dla", "none").exit_code == 0
    assert {key.traits for key in Bundle.open(bundle).plans.values()} == {(), ("dla",)}


def test_a_name_given_twice_makes_two_profiles(run, bundle: Path) -> None:
    twice = ("--shape", "image=1x1x16x16", "--shape", "image=2x1x16x16,4x1x16x16,8x1x16x16")
    result = run("build", bundle, *twice)
    assert result.exit_code == 0, result.stderr
    one, several = ShapeRange.parse("1x1x16x16"), ShapeRange.parse(twice[3].partition("=")[2])
    opened = Bundle.open(bundle)
    assert opened.manifest.build_config.profiles == ({"image": one}, {"image": several})
    assert "profile 2: image=2x1x16x16,4x1x16x16,8x1x16x16" in flat(result.stdout)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--workspace", "much"], 1, "512MiB"),
        (["--workspace", "1TB"], 1, "512MiB"),
        (["--optimization-level", "6"], 2, "--optimization-level"),
        (["--optimization-level", "none"], 2, "--optimization-level"),
        (["--dla", "-1"], 2, "--dla"),
        (["--dla", "auto"], 2, "--dla"),
        (["--hardware-compatible", "turing"], 2, "ampere+"),
        (["--dla", "0", "--hardware-compatible", "ampere+"], 1, "DLA"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    run, bundle: Path, words: list[str], code: int, said: str
) -> None:
    before = bundle.read_bytes()
    for target in (["model.onnx", "--precision", "fp32"], [bundle]):
        result = run("build", *target, *SHAPE, *words)
        assert (result.exit_code, result.stdout) == (code, "")
        assert said in flat(result.stderr)
    assert bundle.read_bytes() == before
    assert not Path("model.edge").exists()


def test_options_for_a_plan_are_refused_where_none_is_built(run, folder: Path) -> None:
    result = run("build", "model.onnx", "--precision", "fp32", "--backend", "cpu", "--dla", "0")
    assert result.exit_code == 2
    assert "--dla does nothing" in result.stderr


# What is built is said.


def test_progress_and_verdict_are_shown(run, bundle: Path) -> None:
    result = run("build", bundle, *SHAPE)
    assert result.stderr == "Building the tensorrt-rtx plan ...\n"
    assert result.stdout.startswith("Added a plan to digits.edge")
    for words in (
        "tensorrt-rtx 1.0 for sm86 on linux-x86_64, ",
        "no GPU here ran it",
        "image=1x1x16x16,2x1x16x16,4x1x16x16",
        "layers 20: 12 INT8 (60.0 %), 7 FP32 (35.0 %), 1 unknown (5.0 %); and 3 reformats",
        "fell back node_linear: asked for INT8, runs in FP32",
        "note TensorRT does not tell the precision within 1 of 20 layers.",
    ):
        assert words in flat(result.stdout)
    assert flat(result.stdout.partition("\n")[2]) in flat(run("inspect", bundle).stdout)
    result = run("build", bundle)
    assert "is up to date: it has this machine's plan" in result.stdout


def test_another_option_builds_the_plan_again(run, bundle: Path, configs: list[Any]) -> None:
    run("build", bundle, *SHAPE)
    first = Bundle.open(bundle)
    result = run("build", bundle, "--optimization-level", "5", "--tf32")
    assert "Added a plan" in result.stdout
    assert "built with optimization_level=5, tf32=True" in flat(result.stdout)
    second = Bundle.open(bundle)
    assert second.plans == first.plans
    assert second.digest != first.digest


def test_json_has_the_verdict_and_the_settings(run, bundle: Path) -> None:
    plain = json.loads(run("build", bundle, *SHAPE, "--json").stdout)
    (plan,) = plain["manifest"]["plans"]
    assert plan["verdict"] == VERDICT
    assert plan["traits"] == []
    assert plan["settings"]["profiles"] == [{"image": SHAPE[1].partition("=")[2]}]


def rewritten(path: Path, verdict: dict[str, Any] | None) -> None:
    """Puts another verdict into a bundle."""
    bundle = Bundle.open(path)
    contents = {entry.name: bundle.read(entry.name) for entry in bundle.manifest.entries}
    verdicts = {} if verdict is None else {KEY.entry: verdict}
    write_bundle(path, replace(bundle.manifest, verdicts=verdicts), contents)


def test_times_of_a_gpu_and_long_lists_are_shown_in_short(run, bundle: Path) -> None:
    run("build", bundle, *SHAPE)
    fell_back = [{"layer": f"node_{i}", "asked": "INT8", "ran": "FP16"} for i in range(8)]
    times = {"INT8": 0.75, "reformats": 0.25}
    rewritten(bundle, {**VERDICT, "fell_back": fell_back, "milliseconds": times})
    text = flat(run("inspect", bundle).stdout)
    assert "time 1 ms: INT8 0.75 ms (75.0 %), reformats 0.25 ms (25.0 %)" in text
    assert "node_4: asked" in text
    assert "node_5" not in text
    assert "and 3 layers more" in text
    assert "no GPU here ran it" not in text
    rewritten(bundle, None)
    assert "layers what became of them shows only where the plan can be loaded" in flat(
        run("inspect", bundle).stdout
    )


@pytest.mark.parametrize(
    "verdict",
    [
        {**VERDICT, "layers": "many"},
        {**VERDICT, "precisions": ["INT8"]},
        {**VERDICT, "fell_back": [{"layer": "x"}]},
        {**VERDICT, "notes": [1]},
        {**VERDICT, "milliseconds": {"INT8": "fast"}},
    ],
)
def test_a_verdict_of_another_form_is_refused_in_one_line(
    run, bundle: Path, verdict: dict[str, Any]
) -> None:
    run("build", bundle, *SHAPE)
    rewritten(bundle, verdict)
    result = run("inspect", bundle)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "digits.edge: manifest.json: plans/tensorrt-rtx-1.0" in result.stderr


# Running on a GPU.


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[GpuConfig]:
    """How sessions were told to use a GPU."""
    seen: list[GpuConfig] = []
    real = session.load

    def load(*args: Any, gpu: GpuConfig, **settings: Any) -> Any:
        seen.append(gpu)
        return real(*args, gpu=gpu, **settings)

    monkeypatch.setattr(session, "load", load)
    return seen


def test_the_settings_of_a_gpu_reach_the_session(
    run, bundle: Path, loaded: list[GpuConfig]
) -> None:
    result = run("run", bundle, "--input", "one.npy")
    assert result.exit_code == 0, result.stderr
    words = ("--driver", "pycuda", "--cuda-graphs", "--on-device-error", "cpu")
    assert run("run", bundle, "--input", "one.npy", *words).exit_code == 0
    given = GpuConfig(driver="pycuda", cuda_graphs=True, on_device_error="cpu")
    assert loaded == [GpuConfig(), given]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "cpu", "--driver", "pycuda"], "--driver is for a GPU"),
        (["--device", "cpu", "--cuda-graphs"], "--cuda-graphs is for a GPU"),
        (["--device", "cpu", "--on-device-error", "cpu"], "--on-device-error is for a GPU"),
        (["--driver", "opencl"], "'cuda-bindings', 'pycuda'"),
        (["--on-device-error", "ignore"], "'raise', 'cpu'"),
    ],
)
def test_settings_of_a_gpu_that_do_nothing_are_refused(
    run, bundle: Path, words: list[str], said: str
) -> None:
    result = run("run", bundle, "--input", "one.npy", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in flat(result.stderr)
