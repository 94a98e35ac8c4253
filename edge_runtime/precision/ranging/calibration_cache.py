"""The calibration cache: the range of each tensor, and of which model and data it is."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite

from edge_runtime import strict_json
from edge_runtime.errors import CalibrationCacheError
from edge_runtime.files import StrPath, atomic_write, read_file
from edge_runtime.strict_json import Value

SCHEMA = 2
MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class TensorRange:
    """The range of one tensor.

    Attributes:
        amax: The largest absolute value that quantization keeps; larger ones saturate. 0 for a
            tensor that is always 0.
        observed: The largest absolute value seen in calibration.
        method: How `amax` was chosen, where `auto` chose the method as well; else empty.
    """

    amax: float
    observed: float
    method: str = ""

    def __post_init__(self) -> None:
        for name in ("amax", "observed"):
            value = float(getattr(self, name))
            if not (isfinite(value) and value >= 0):
                raise CalibrationCacheError(f"{name} is {value}; it must be finite, at least 0.")
            object.__setattr__(self, name, value + 0.0)  # -0.0 becomes 0.0.


@dataclass(frozen=True, slots=True)
class CalibrationCache:
    """What calibration found. It is of one model: its ranges fit no other.

    Attributes:
        model_digest: Digest of the model that was calibrated.
        method: How the ranges were chosen, such as `mse`.
        samples: How many samples were seen; 0 if unknown.
        data_digest: Digest of the samples; None if unknown.
        ranges: The range of each tensor, by its name in the graph.
        tool: Version of edge_runtime that calibrated.
        equalization: For each tensor whose channels were scaled alike before its range was taken:
            what each channel is divided by. See `precision.equalize`.
        means: For each tensor that layers with a bias to correct read: each channel's mean, after
            equalization. See `precision.bias`.
        peaks: The largest absolute value of every other tensor that would be half, where that is
            what the rest of the graph is to be.
        tried: What each choice of corrections came to on samples that they were not chosen on, in
            dB: the SQNR at the model's outputs; see `precision.trial`. Empty where none was tried.
        findings: What a user should know about the data or the model, a sentence each.
    """

    model_digest: str
    method: str
    samples: int
    data_digest: str | None
    ranges: Mapping[str, TensorRange]
    tool: str
    equalization: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    means: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    peaks: Mapping[str, float] = field(default_factory=dict)
    tried: Mapping[str, float] = field(default_factory=dict)

    def to_json_bytes(self) -> bytes:
        """The cache as JSON with sorted keys: equal caches give equal bytes, floats are exact."""
        plain = {
            "schema": SCHEMA,
            "model_digest": self.model_digest,
            "method": self.method,
            "samples": self.samples,
            "data_digest": self.data_digest,
            "ranges": {name: asdict(bounds) for name, bounds in self.ranges.items()},
            "tool": self.tool,
            "equalization": {name: list(values) for name, values in self.equalization.items()},
            "means": {name: list(values) for name, values in self.means.items()},
            "findings": list(self.findings),
            "peaks": dict(self.peaks),
            "tried": dict(self.tried),
        }
        text = json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"

    @classmethod
    def from_json_bytes(cls, data: bytes, *, where: str = "calibration.json") -> CalibrationCache:
        """The inverse of `to_json_bytes`.

        Args:
            data: JSON in UTF-8.
            where: The file it is from, for messages.

        Raises:
            CalibrationCacheError: It is not a cache, or not one of this schema; names what is wrong
                and where.
        """
        if data.startswith(b"TRT-"):
            raise CalibrationCacheError(
                f"{where} is TensorRT's own calibration cache, not edge_runtime's JSON; it does "
                "not say which model it is of. Calibrate again."
            )
        return _cache(strict_json.parse(data, where=where, error=CalibrationCacheError))

    def save(self, path: StrPath) -> None:
        """Writes the cache, all or nothing.

        Raises:
            CalibrationCacheError: The file cannot be written.
        """
        with atomic_write(path, error=CalibrationCacheError) as file:
            file.write(self.to_json_bytes())

    @classmethod
    def load(cls, path: StrPath) -> CalibrationCache:
        """Reads a cache.

        Raises:
            CalibrationCacheError: The file cannot be read, is larger than 64 MiB, or as
                `from_json_bytes`.
        """
        data = read_file(path, limit=MAX_BYTES, error=CalibrationCacheError)
        return cls.from_json_bytes(data, where=str(path))

    def check(self, model_digest: str, tensors: Collection[str]) -> None:
        """Checks that the cache is of this model and has a range for exactly these tensors.

        Raises:
            CalibrationCacheError: It is another model's, lacks tensors or has stale ones.
        """
        if model_digest != self.model_digest:
            raise CalibrationCacheError(
                f"The calibration cache is of another model ({self.model_digest}; this one is "
                f"{model_digest}). Calibrate this model."
            )
        missing = sorted(set(tensors) - self.ranges.keys())
        stale = sorted(self.ranges.keys() - set(tensors))
        faults = []
        if missing:
            faults.append(f"has no range for {_few(missing)}")
        if stale:
            faults.append(f"has ranges of tensors that the graph lacks: {_few(stale)}")
        if faults:
            raise CalibrationCacheError(
                f"The calibration cache {' and '.join(faults)}. Calibrate again."
            )


def _cache(root: Value) -> CalibrationCache:
    schema = root.members().get("schema")
    if schema is None:
        root.fail("lacks the key 'schema'")
    # Before all else: a newer schema may have other keys.
    if schema.integer(1) > SCHEMA:
        raise CalibrationCacheError(
            f"{root.where}: made by a newer edge_runtime (schema {schema.plain}; this one reads "
            f"{SCHEMA}). Update edge_runtime, or calibrate again."
        )
    if schema.plain < SCHEMA:
        raise CalibrationCacheError(
            f"{root.where}: made by an older edge_runtime (schema {schema.plain}; this one reads "
            f"{SCHEMA}). Calibrate again."
        )
    fields = root.fields(
        *("schema", "model_digest", "method", "samples", "data_digest", "ranges", "tool"),
        *("equalization", "means", "findings", "peaks", "tried"),
    )
    data_digest = fields["data_digest"]
    return CalibrationCache(
        model_digest=fields["model_digest"].text(),
        method=fields["method"].text(),
        samples=fields["samples"].integer(0),
        data_digest=None if data_digest.plain is None else data_digest.text(),
        ranges={name: _range(value) for name, value in fields["ranges"].members().items()},
        tool=fields["tool"].text(),
        equalization=_by_channel(fields["equalization"], above=0.0),
        means=_by_channel(fields["means"]),
        findings=tuple(finding.text(r".*", "text") for finding in fields["findings"].items()),
        peaks={name: peak.number() for name, peak in fields["peaks"].members().items()},
        tried={name: level.number() for name, level in fields["tried"].members().items()},
    )


def _range(value: Value) -> TensorRange:
    fields = value.fields("amax", "observed", "method")
    amax, observed = (fields[name].number() for name in ("amax", "observed"))
    for name, bound in (("amax", amax), ("observed", observed)):
        if bound < 0:
            fields[name].fail(f"is {bound}; it must be at least 0")
    return TensorRange(amax, observed, fields["method"].text(r".*", "text"))


def _by_channel(value: Value, *, above: float | None = None) -> dict[str, tuple[float, ...]]:
    """A number for each channel of each tensor."""
    found = {}
    for name, channels in value.members().items():
        found[name] = tuple(item.number() for item in channels.items())
        if above is not None and any(number <= above for number in found[name]):
            channels.fail(f"has numbers that are not above {above:g}")
    return found


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more
