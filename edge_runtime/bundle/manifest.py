"""The manifest of a bundle: what is in it, made from what, for what; read strictly.

Part of the device half: only the standard library, and `tensors` for the specs, stand behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from edge_runtime import strict_json
from edge_runtime.bundle.container import GRAPH, MAX_ENTRIES, MAX_SIZE, Entry, entry_order
from edge_runtime.config import BuildConfig, canonical_json
from edge_runtime.errors import BundleError
from edge_runtime.strict_json import Value
from edge_runtime.tensors import TensorSpec

SCHEMA = 3
"""Version of the format. It grows whenever a reader of the old one could not read the new one."""


_PLAN_FIELDS = (
    *("entry", "backend", "version", "compute_capabilities", "platform", "traits"),
    *("settings", "verdict"),
)

TRAITS = ("dla", "stripped", "version-compatible")
"""What may set a plan apart from others for the same machine; sorted."""


@dataclass(frozen=True, slots=True)
class PlanKey:
    """What a plan was built for; a runtime compares it with itself before it deserialises.

    Attributes:
        backend: `tensorrt` or `tensorrt-rtx`.
        version: Version of the library that built it, such as `1.7.1.116`.
        compute_capabilities: GPU architectures it runs on, such as `sm86`; empty means every one
            from Ampere on.
        platform: Operating system and machine, such as `linux-x86_64`.
        traits: Those of `TRAITS` that it has, sorted: it needs a DLA, takes its weights from the
            bundle's graph, or is loaded by newer versions too.
    """

    backend: str
    version: str
    compute_capabilities: tuple[str, ...]
    platform: str
    traits: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """A file name without ending that is different for every key."""
        targets = "-".join(self.compute_capabilities) or "ampere-and-newer"
        return "-".join((self.backend, self.version, targets, self.platform, *self.traits))

    @property
    def entry(self) -> str:
        """Name of the plan's entry in a bundle."""
        return f"plans/{self.slug}.plan"

    def __str__(self) -> str:
        targets = ", ".join(self.compute_capabilities) or "Ampere and newer"
        traits = f" ({', '.join(self.traits)})" if self.traits else ""
        return f"{self.backend} {self.version} for {targets} on {self.platform}{traits}"


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The model that a bundle was built from.

    Attributes:
        name: Its file name.
        digest: Digest of its graph and weights.
    """

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class DataRecord:
    """The data that a bundle was calibrated with.

    Attributes:
        digest: Digest of the samples.
        samples: How many there were.
        description: Where they came from, in words.
    """

    digest: str
    samples: int
    description: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that a bundle says about itself.

    Attributes:
        model: The model it was built from.
        config: What `BuildConfig.to_json` gave; `build_config` reads it.
        inputs: The inputs, in the model's order.
        outputs: The outputs, in the model's order.
        build_key: Digest of all that the result depends on.
        tools: Version of each library that had a part in it.
        preprocessing: How a picture becomes the input, for `edge_runtime.vision`; None if unsaid.
        data: The calibration data; None if there was none.
        precision: Report of what the rewriting of the graph did, as plain JSON.
        plans: The key of each plan, by the name of its entry.
        verdicts: What the builder made of the graph, as plain JSON, by the name of the plan's
            entry; without those that nobody could ask.
        plan_settings: `BuildConfig.plan_settings` of each plan, by the name of its entry.
        entries: Every file in the bundle but the manifest, in the file's order.
    """

    model: ModelRecord
    config: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    build_key: str
    tools: Mapping[str, str] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] | None = None
    data: DataRecord | None = None
    precision: Mapping[str, Any] = field(default_factory=dict)
    plans: Mapping[str, PlanKey] = field(default_factory=dict)
    verdicts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plan_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()

    @property
    def build_config(self) -> BuildConfig:
        """The settings of the build.

        Raises:
            ConfigError: This edge_runtime does not know one of them.
        """
        return BuildConfig.from_json(self.config)

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain JSON values."""
        return {
            "schema": SCHEMA,
            "model": asdict(self.model),
            "config": dict(self.config),
            "inputs": [_spec_json(spec) for spec in self.inputs],
            "outputs": [_spec_json(spec) for spec in self.outputs],
            "preprocessing": None if self.preprocessing is None else dict(self.preprocessing),
            "data": None if self.data is None else asdict(self.data),
            "precision": dict(self.precision),
            "build_key": self.build_key,
            "tools": dict(self.tools),
            "plans": [self._plan_json(name) for name in sorted(self.plans)],
            "entries": [asdict(entry) for entry in self.entries],
        }

    def _plan_json(self, name: str) -> dict[str, Any]:
        key, verdict, settings = self.plans[name], self.verdicts.get(name), self.plan_settings
        return {
            **asdict(key),
            "compute_capabilities": list(key.compute_capabilities),
            "traits": list(key.traits),
            "entry": name,
            "settings": dict(settings[name]) if name in settings else None,
            "verdict": None if verdict is None else dict(verdict),
        }

    def to_bytes(self) -> bytes:
        """The manifest as it stands in a bundle: canonical JSON."""
        return canonical_json(self.to_json())

    @classmethod
    def from_json(cls, plain: object, *, where: str = "manifest.json") -> Manifest:
        """The inverse of `to_json`.

        Args:
            plain: Plain JSON values.
            where: The file they are from, for messages.

        Raises:
            BundleError: A key is missing, unknown or of the wrong kind, parts contradict each
                other, or the schema is not ours; names the dotted path.
        """
        return _manifest(Value(plain, where, BundleError))

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = "manifest.json") -> Manifest:
        """The inverse of `to_bytes`.

        Raises:
            BundleError: As `from_json`, or these are not the bytes that `to_bytes` would give.
        """
        manifest = _manifest(strict_json.parse(data, where=where, error=BundleError))
        if manifest.to_bytes() != data:
            raise BundleError(f"{where}: not written as edge_runtime writes it.")
        return manifest


def _spec_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _manifest(root: Value) -> Manifest:
    schema = root.members().get("schema")
    if schema is None:
        root.fail("lacks the key 'schema'")
    # Before all else: a newer schema may have other keys.
    if schema.integer(1) > SCHEMA:
        raise BundleError(
            f"{root.where}: made by a newer edge_runtime (schema {schema.plain}; this one reads "
            f"{SCHEMA}). Update edge_runtime, or build the bundle again with this one."
        )
    if schema.plain < SCHEMA:
        raise BundleError(
            f"{root.where}: made by an older edge_runtime (schema {schema.plain}; this one reads "
            f"{SCHEMA}). Build it again from its model: edge-runtime build MODEL.onnx."
        )
    fields = root.fields(
        *("schema", "model", "config", "inputs", "outputs", "preprocessing", "data", "precision"),
        *("build_key", "tools", "plans", "entries"),
    )
    model = fields["model"].fields("name", "digest")
    preprocessing, data = fields["preprocessing"], fields["data"]
    entries = _entries(fields["entries"])
    plans = _plans(fields["plans"], entries)
    return Manifest(
        model=ModelRecord(model["name"].text(), model["digest"].text()),
        config=fields["config"].mapping(),
        inputs=_specs(fields["inputs"]),
        outputs=_outputs(fields["outputs"]),
        build_key=fields["build_key"].text(),
        tools={name: version.text() for name, version in fields["tools"].members().items()},
        preprocessing=None if preprocessing.plain is None else preprocessing.mapping(),
        data=None if data.plain is None else _data(data),
        precision=fields["precision"].mapping(),
        plans=plans,
        verdicts=_by_plan(fields["plans"], "verdict"),
        plan_settings=_by_plan(fields["plans"], "settings"),
        entries=entries,
    )


def _specs(value: Value) -> tuple[TensorSpec, ...]:
    specs = []
    for item in value.items():
        spec = item.fields("name", "dtype", "shape")
        shape = tuple(size.integer(-1) for size in spec["shape"].items())
        specs.append(TensorSpec(spec["name"].text(), spec["dtype"].text(), shape))
    if len({spec.name for spec in specs}) < len(specs):
        value.fail("has two tensors of one name")
    return tuple(specs)


def _outputs(value: Value) -> tuple[TensorSpec, ...]:
    specs = _specs(value)
    if not specs:  # No inputs are fine: a model may compute from constants alone.
        value.fail("is empty")
    return specs


def _data(value: Value) -> DataRecord:
    data = value.fields("digest", "samples", "description")
    return DataRecord(
        data["digest"].text(),
        data["samples"].integer(1),
        data["description"].text(r".*", "text"),
    )


def _entries(value: Value) -> tuple[Entry, ...]:
    items = value.items()
    if len(items) > MAX_ENTRIES:
        value.fail(f"has {len(items)} entries; a bundle has at most {MAX_ENTRIES}")
    entries = tuple(_entry(item) for item in items)
    for before, after in pairwise(entries):
        if not entry_order(before.name) < entry_order(after.name):
            value.fail(f"has {after.name!r} twice or in the wrong place")
    if not entries or entries[0].name != GRAPH:
        value.fail(f"lacks {GRAPH}")
    return entries


def _entry(value: Value) -> Entry:
    entry = value.fields("name", "size", "crc32", "sha256")
    name = entry["name"].text()
    try:
        entry_order(name)
    except BundleError as error:
        raise BundleError(f"{value.where}: {value.path}.name: {error}") from None
    return Entry(
        name,
        entry["size"].integer(1, MAX_SIZE),
        entry["crc32"].integer(0, 2**32 - 1),
        entry["sha256"].text(r"[0-9a-f]{64}", "64 hexadecimal digits"),
    )


def _plans(value: Value, entries: tuple[Entry, ...]) -> dict[str, PlanKey]:
    plans = {}
    for item in value.items():
        plan = item.fields(*_PLAN_FIELDS)
        key = PlanKey(
            plan["backend"].text(),
            plan["version"].text(),
            tuple(target.text() for target in plan["compute_capabilities"].items()),
            plan["platform"].text(),
            _traits(plan["traits"]),
        )
        if plan["entry"].text() != key.entry:
            plan["entry"].fail(f"is {plan['entry'].plain!r}; a plan for {key} is {key.entry!r}")
        plans[key.entry] = key
    named = {entry.name for entry in entries if entry.name.startswith("plans/")}
    if named != plans.keys():
        odd = min(named ^ plans.keys())
        value.fail(f"and entries disagree about {odd!r}: it is in one of them only")
    return plans


def _traits(value: Value) -> tuple[str, ...]:
    traits = tuple(trait.text() for trait in value.items())
    if traits != tuple(trait for trait in TRAITS if trait in traits):
        value.fail(f"is {list(traits)}; it must be some of {', '.join(TRAITS)}, in this order")
    return traits


def _by_plan(value: Value, name: str) -> dict[str, Mapping[str, Any]]:
    """An object of each plan that has it, by the name of the plan's entry."""
    plans = [item.members() for item in value.items()]
    given = [plan for plan in plans if plan[name].plain is not None]
    return {plan["entry"].text(): plan[name].mapping() for plan in given}
