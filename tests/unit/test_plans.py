"""Plans: built with a bundle or added to it, kept while nothing they depend on has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.backends import registry
from edge_runtime.backends.base import Plan
from edge_runtime.building import build
from edge_runtime.bundle import Bundle
from edge_runtime.bundle.manifest import PlanKey
from edge_runtime.config import BuildConfig, OptimizationProfile
from edge_runtime.errors import BackendUnavailableError, BuildError, ConfigError
from edge_runtime.gpu_config import TensorRTConfig
from edge_runtime.plans import extend
from edge_runtime.progress import Progress, silent
from edge_runtime.session import load
from tests import models
from tests.models import NETS

KEY = PlanKey("tensorrt-rtx", "1.0", ("sm86",), "linux-x86_64")
VERDICT = {"layers": 7, "precisions": {"INT8": 0.5}}


class Copier:
    """A builder whose plan is the graph itself, or an error."""

    def __init__(self, config: BuildConfig, failure: Exception | None = None) -> None:
        self.config = config
        self.failure = failure
        self.key = replace(KEY, traits=("dla",)) if config.tensorrt.dla_core is not None else KEY

    def build(
        self, graph: bytes, profiles: Sequence[OptimizationProfile], progress: Progress = silent
    ) -> Plan:
        assert tuple(profiles) == self.config.profiles
        progress("Building the tensorrt-rtx plan", 37, 100)
        if self.failure is not None:
            raise self.failure
        return Plan(self.key, graph, VERDICT)


@pytest.fixture
def builders(monkeypatch: pytest.MonkeyPatch) -> list[Copier]:
    """Every builder that was made; TensorRT-RTX can be built for, whatever is installed."""
    made: list[Copier] = []

    def create(backend: str, config: BuildConfig) -> Copier:
        assert backend == config.backend == "tensorrt-rtx"
        made.append(Copier(config))
        return made[-1]

    available(monkeypatch, "tensorrt-rtx")
    monkeypatch.setattr(registry, "create_builder", create)
    return made


def available(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Makes it seem that these backends' plans can be built here and no others."""
    entries = [
        registry.Availability(name, name in names, False, "it is not installed")
        for name in ("tensorrt", "tensorrt-rtx")
    ]
    entries.append(registry.Availability("cpu", True, True, ""))
    monkeypatch.setattr(registry, "availability", lambda: tuple(entries))


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A model whose input has a dynamic batch."""
    (tmp_path / "net.onnx").write_bytes(NETS["residual"]().SerializeToString())
    return tmp_path / "net.onnx"


@pytest.fixture
def bundle(net: Path) -> Bundle:
    """A bundle without a plan."""
    config = BuildConfig(backend="cpu", profiles=shapes(1))
    return build(net, config, output=net.with_name("net.edge"))


def shapes(batch: int) -> dict[str, str]:
    return {"x": f"{batch}x16x8x8"}


def own(bundle: Bundle, **changes: object) -> BuildConfig:
    return replace(bundle.manifest.build_config, backend="auto", **changes)


def state(bundle: Bundle) -> tuple[int, bytes]:
    return bundle.path.stat().st_ino, bundle.path.read_bytes()


# Adding a plan to a bundle.


def test_a_bundle_is_extended_once_and_stays_that_way(
    bundle: Bundle, builders: list[Copier]
) -> None:
    told: list[tuple[str, int, int]] = []
    extended, is_new = extend(bundle, progress=lambda *step: told.append(step))
    assert is_new
    assert list(extended.plans.values()) == [KEY]
    assert extended.manifest.verdicts == {KEY.entry: VERDICT}
    assert extended.read(KEY.entry) == extended.read("graph.onnx")
    assert told == [
        ("Building the tensorrt-rtx plan", 0, 100),
        ("Building the tensorrt-rtx plan", 37, 100),
        ("Building the tensorrt-rtx plan", 100, 100),
    ]
    before = state(extended)
    assert extend(extended) == (extended, False)
    assert extend(extended, own(extended)) == (extended, False)
    assert state(extended) == before
    with load(extended, device="cpu") as session:
        session.run(models.feeds(NETS["residual"](), 0, batch=1))


def test_an_extended_bundle_is_that_of_its_build_and_more(
    net: Path, bundle: Bundle, builders: list[Copier]
) -> None:
    extended, _ = extend(bundle, own(bundle, profiles=(shapes(2),)))
    config = BuildConfig(backend="cpu", profiles=shapes(1))
    assert build(net, config, output=bundle.path) == extended
    replaced, _ = extend(extended, own(extended, tensorrt=TensorRTConfig(refit=True)))
    assert replaced.plans == extended.plans
    assert build(net, config, output=bundle.path).plans == {}  # Nobody built such a plan before.


@pytest.mark.parametrize(
    "change",
    [
        {"profiles": (shapes(2),)},
        {"profiles": (shapes(1), shapes(2))},
        {"tensorrt": TensorRTConfig(workspace="64MiB")},
        {"tensorrt": TensorRTConfig(strict=True)},
    ],
)
def test_a_plan_built_otherwise_is_never_kept(
    bundle: Bundle, builders: list[Copier], change: dict[str, object]
) -> None:
    first, _ = extend(bundle, own(bundle, profiles=(shapes(1),)))
    before = state(first)
    second, is_new = extend(first, own(first, **change))
    assert is_new
    assert state(second) != before
    asked = BuildConfig(**{"profiles": (shapes(1),), **change})
    assert second.manifest.plan_settings == {KEY.entry: asked.plan_settings}
    assert builders[-1].config.profiles == asked.profiles
    assert builders[-1].config.tensorrt == asked.tensorrt
    assert extend(second) == (second, False)  # They are the bundle's own from now on.


def test_plans_for_other_hardware_stand_side_by_side(
    bundle: Bundle, builders: list[Copier]
) -> None:
    gpu, _ = extend(bundle)
    both, is_new = extend(gpu, own(gpu, tensorrt=TensorRTConfig(dla_core=0)))
    assert is_new
    assert {key.traits for key in both.plans.values()} == {(), ("dla",)}
    # The bundle's own settings are those of the last plan; the first was built with others.
    again, is_new = extend(both, own(both, tensorrt=TensorRTConfig()))
    assert not is_new
    assert again == both


def test_a_plan_of_unknown_settings_is_built_again(bundle: Bundle, builders: list[Copier]) -> None:
    from edge_runtime.bundle import write_bundle

    extended, _ = extend(bundle)
    contents = {entry.name: extended.read(entry.name) for entry in extended.manifest.entries}
    manifest = replace(extended.manifest, plan_settings={})
    assert extend(write_bundle(bundle.path, manifest, contents))[1]


def test_a_damaged_plan_is_noticed_though_it_is_up_to_date(
    bundle: Bundle, builders: list[Copier]
) -> None:
    extended, _ = extend(bundle)
    data = extended.path.read_bytes()
    graph = extended.read(KEY.entry)
    at = data.rindex(graph)
    extended.path.write_bytes(data[:at] + b"?" + data[at + 1 :])
    with pytest.raises(Exception, match="damaged"):
        extend(extended)


@pytest.mark.parametrize(
    "change",
    [{"precision": "fp16"}, {"exclude": ("c1",)}, {"backend": "cpu"}],
)
def test_the_graph_of_a_bundle_stays_as_it_is(
    bundle: Bundle, builders: list[Copier], change: dict[str, object]
) -> None:
    before = state(bundle)
    with pytest.raises(ConfigError, match=r"net\.edge"):
        extend(bundle, replace(own(bundle), **change))
    assert state(bundle) == before
    assert builders == []


def test_a_bundle_is_not_extended_where_there_is_no_builder(
    net: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    available(monkeypatch)
    before = state(bundle)
    for backend in ("auto", "tensorrt", "tensorrt-rtx"):
        with pytest.raises(BackendUnavailableError, match="tensorrt"):
            extend(bundle, replace(own(bundle), backend=backend))
    with pytest.raises(BackendUnavailableError):
        build(net, BuildConfig(backend="tensorrt-rtx"), output=bundle.path)
    assert state(bundle) == before


# A plan as part of a build.


def test_a_build_brings_the_plan_with_its_verdict(net: Path, builders: list[Copier]) -> None:
    config = BuildConfig(backend="tensorrt-rtx", profiles=[shapes(1), shapes(4)], targets=["sm86"])
    bundle = build(net, config, output=net.with_name("net.edge"))
    assert bundle.plans == {KEY.entry: KEY}
    assert bundle.manifest.verdicts == {KEY.entry: VERDICT}
    assert bundle.manifest.plan_settings == {KEY.entry: config.plan_settings}
    assert builders[0].config == config
    assert extend(bundle, config) == (bundle, False)


def refuse_to_start(backend: str, config: BuildConfig) -> Copier:
    raise BackendUnavailableError("There is no GPU.")


def refuse_to_build(backend: str, config: BuildConfig) -> Copier:
    return Copier(config, BuildError("It ran out of memory.", log=("the killer's line",)))


@pytest.mark.parametrize("create", [refuse_to_start, refuse_to_build])
def test_auto_is_whole_without_a_plan_and_a_named_backend_is_not(
    net: Path, monkeypatch: pytest.MonkeyPatch, create: Callable[[str, BuildConfig], Copier]
) -> None:
    available(monkeypatch, "tensorrt-rtx")
    monkeypatch.setattr(registry, "create_builder", create)
    output = net.with_name("net.edge")
    with pytest.raises((BackendUnavailableError, BuildError)):
        build(net, BuildConfig(backend="tensorrt-rtx", profiles=shapes(1)), output=output)
    assert not output.exists()
    bundle = build(net, BuildConfig(profiles=shapes(1)), output=output)
    assert bundle.plans == {}
    said = bundle.manifest.precision["no_plan"]
    assert said in ("There is no GPU.", "It ran out of memory.\n  the killer's line")


def test_shapes_that_are_missing_are_asked_for(net: Path, builders: list[Copier]) -> None:
    output = net.with_name("net.edge")
    bundle = build(net, BuildConfig(), output=output)
    assert "--shape x=1x16x" in bundle.manifest.precision["no_plan"]
    with pytest.raises(ConfigError, match="--shape x=1x16x"):
        build(net, BuildConfig(backend="tensorrt-rtx"), output=output)
    with pytest.raises(ConfigError, match="--shape x=1x16x"):
        extend(bundle)


def test_the_profile_that_lacks_shapes_is_named(tmp_path: Path, builders: list[Copier]) -> None:
    net = models.Net()
    a, b = (net.input(name, ("n", 4)) for name in "ab")
    (tmp_path / "two.onnx").write_bytes(
        net.proto(net.op("Add", a, b, name="y")).SerializeToString()
    )
    profiles = [{"a": "1x4", "b": "1x4"}, {"a": "2x4"}]
    config = BuildConfig(backend="tensorrt-rtx", profiles=profiles)
    with pytest.raises(ConfigError, match=r"^Profile 2: Input 'b'"):
        build(tmp_path / "two.onnx", config, output=tmp_path / "two.edge")


def test_shapes_that_do_not_fit_are_refused_in_every_profile(
    net: Path, builders: list[Copier]
) -> None:
    config = BuildConfig(profiles=[shapes(1), {"x": "1x3x8x8"}])
    with pytest.raises(ConfigError, match="does not fit input 'x'"):
        build(net, config, output=net.with_name("net.edge"))


def test_a_target_of_tensorrt_rtx_does_not_hinder_tensorrt(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[BuildConfig] = []

    def create(backend: str, config: BuildConfig) -> Copier:
        asked.append(config)
        return Copier(config)

    available(monkeypatch, "tensorrt", "tensorrt-rtx")
    monkeypatch.setattr(registry, "create_builder", create)
    config = BuildConfig(targets=["sm86"], profiles=shapes(1))
    build(net, config, output=net.with_name("net.edge"))
    assert (asked[0].backend, asked[0].targets) == ("tensorrt", ())
