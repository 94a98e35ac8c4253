"""What a bundle says of its plans, in rows for people: keys, options, the builder's verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edge_runtime.config import PLAN_SETTINGS
from edge_runtime.errors import BundleError
from edge_runtime.gpu_config import TensorRTConfig
from edge_runtime.strict_json import Value
from edge_runtime.text import counted, file_size, number, percent

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle

Row = tuple[str, str]

_SHOWN = 5
_NOT_RUN = "NVIDIA's builder made it, no GPU here ran it"
_MEASURED = "NVIDIA's builder made it and timed it on a GPU"
_UNSEEN = "what became of them shows only where the plan can be loaded, on its GPU"
_EMPTY: dict[str, Any] = {
    "layers": 0,
    "precisions": {},
    "reformats": 0,
    "fell_back": [],
    "notes": [],
    "milliseconds": {},
}


def plan_rows(bundle: Bundle) -> Iterator[Row]:
    """What each plan is for, how it was built and what became of the layers; nothing without plans.

    Raises:
        BundleError: A verdict or a plan's settings are not of the form that edge_runtime writes.
    """
    manifest = bundle.manifest
    sizes = {entry.name: entry.size for entry in manifest.entries}
    for name, key in bundle.plans.items():
        where = f"{bundle.path}: manifest.json: {name}"
        plain = manifest.verdicts.get(name)
        verdict = Value({**_EMPTY, **(plain or {})}, where, BundleError).members()
        ran = _MEASURED if verdict["milliseconds"].members() else _NOT_RUN
        yield "plan", f"{key}, {file_size(sizes[name])}: {ran}"
        settings = manifest.plan_settings.get(name)
        if settings is not None:
            yield from _setting_rows(Value(dict(settings), where, BundleError))
        if plain is None:
            yield "layers", _UNSEEN
        else:
            yield from _verdict_rows(verdict)


def _setting_rows(value: Value) -> Iterator[Row]:
    settings = value.fields(*PLAN_SETTINGS)
    profiles = settings["profiles"].items()
    for index, profile in enumerate(profiles, 1):
        shapes = (f"{name}={shape.text()}" for name, shape in profile.members().items())
        yield "shapes", f"{f'profile {index}: ' if len(profiles) > 1 else ''}{' '.join(shapes)}"
    given = settings["tensorrt"].members()
    usual = {name: getattr(TensorRTConfig(), name) for name in TensorRTConfig.__slots__}
    odd = [f"{n}={v.plain}" for n, v in given.items() if n not in usual or v.plain != usual[n]]
    if odd:
        yield "built with", ", ".join(odd)


def _verdict_rows(verdict: dict[str, Value]) -> Iterator[Row]:
    layers = verdict["layers"].integer(0)
    counts = {name: n.integer(0) for name, n in verdict["precisions"].members().items()}
    parts = [f"{n:,} {name} ({percent(n / max(layers, 1))})" for name, n in _largest(counts)]
    reformats = f"and {counted(verdict['reformats'].integer(0), 'reformat')}"
    yield "layers", f"{layers:,}: {', '.join(parts) or 'none'}; {reformats}"
    times = {n: time.number() for n, time in verdict["milliseconds"].members().items()}
    if times:
        whole = sum(times.values())
        shares = (f"{n} {number(t)} ms ({percent(t / (whole or 1))})" for n, t in _largest(times))
        yield "time", f"{number(whole)} ms: {', '.join(shares)}"
    fallen = [entry.fields("layer", "asked", "ran") for entry in verdict["fell_back"].items()]
    for entry in fallen[:_SHOWN]:
        layer, asked, ran = (entry[name].text() for name in ("layer", "asked", "ran"))
        yield "fell back", f"{layer}: asked for {asked}, runs in {ran}"
    if len(fallen) > _SHOWN:
        yield "fell back", f"and {counted(len(fallen) - _SHOWN, 'layer')} more: --json lists them"
    for note in verdict["notes"].items():
        yield "note", note.text()


def _largest(figures: Mapping[str, float]) -> list[tuple[str, float]]:
    """The figures with their names, largest first."""
    return sorted(figures.items(), key=lambda item: (-item[1], item[0]))
