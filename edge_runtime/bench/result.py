"""What a benchmark run was, and all that was measured in it: kept as JSON, figures computed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from edge_runtime.bench.statistics import (
    PERCENTILES,
    EarlyStopping,
    Summary,
    Times,
    early_stopping,
    summarize,
    throughput,
)
from edge_runtime.errors import DataError
from edge_runtime.files import StrPath, atomic_write, read_file
from edge_runtime.strict_json import Value, parse

SCHEMA = 1
"""Version of the file's format."""

FORMAT = "edge_runtime benchmark"

_LIMIT = 512 << 20
_SCENARIOS = ("single-stream", "multi-stream", "offline", "server")
_CLAIMED = 99.0

Json = Mapping[str, Any]
"""Plain JSON values."""

MEASURED = ("latency", "enqueue", "h2d", "compute", "d2h", "preprocess", "inference", "postprocess")
"""The series of milliseconds in `Samples`."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """What was measured of each query, in the order in which they started.

    A series that does not apply to the backend or the protocol is None, never zero.

    Attributes:
        start: float64[n], seconds from the start of the measured part. In the server scenario, when
            the query was due.
        latency: float64[n], ms. trtexec's protocols: H2D + compute + D2H, on a CPU the call. Else,
            from the query's start, or when it was due, to its last result.
        enqueue: float64[n], ms that the host took to enqueue a query; on a CPU the call.
        h2d: float64[n], ms of copies from the host to the GPU.
        compute: float64[n], ms of the engine's own work.
        d2h: float64[n], ms of copies from the GPU to the host.
        enqueue_start: float64[n], seconds as `start`, on the host's clock: when the host began to
            enqueue the engine's work.
        compute_start: float64[n], seconds as `start`: when the engine's work began.
        d2h_start: float64[n], seconds as `start`: when the copies back began.
        preprocess: float64[n], ms from the picture to the network's input, end to end only.
        inference: float64[n], ms of `Session.run`, end to end only.
        postprocess: float64[n], ms from the outputs to the decoded result, end to end only.
    """

    start: Times
    latency: Times
    enqueue: Times | None = None
    h2d: Times | None = None
    compute: Times | None = None
    d2h: Times | None = None
    enqueue_start: Times | None = None
    compute_start: Times | None = None
    d2h_start: Times | None = None
    preprocess: Times | None = None
    inference: Times | None = None
    postprocess: Times | None = None

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, slots=True)
class Subject:
    """What was run.

    Attributes:
        bundle: The bundle's file name, without its folders.
        bundle_digest: SHA-256 of the file, as `sha256:<hex>`.
        model: The name of the model that the bundle was made of.
        model_digest: That model's digest.
        precision: `fp32`, `fp16`, `bf16` or `int8`.
        backend: What ran it, such as `cpu` or `tensorrt`.
        device: The name of the CPU or GPU; empty where nothing says it.
        cpu_mode: `exact` or `fast` on a CPU; None on a GPU.
        threads: CPU threads that one inference uses, 0 for one each core; None on a GPU.
        shapes: Shape of each input, in the model's order.
        batch: Samples in one call: the inputs' first dimension where it is dynamic, else 1.
        streams: Calls that may be in flight at a time.
    """

    bundle: str
    bundle_digest: str
    model: str
    model_digest: str
    precision: str
    backend: str
    device: str
    cpu_mode: str | None
    threads: int | None
    shapes: Mapping[str, tuple[int, ...]]
    batch: int
    streams: int


@dataclass(frozen=True, slots=True, eq=False)
class BenchResult:
    """A benchmark run.

    Attributes:
        protocol: The protocol's name, such as `trtexec10`.
        parameters: Every setting that defines how the protocol ran, as plain JSON values. Results
            can be compared if `protocol` and these are equal.
        subject: What was run.
        samples: What was measured.
        walltime: Seconds from the start of the first query measured to the end of the last.
        samples_per_query: Samples of the model in each query of `samples`.
        warmup: Queries before the measured ones.
        created: When it began, in UTC, such as `2026-11-22T21:30:00Z`.
        version: The version of edge_runtime that ran it.
        warnings: What makes the figures less than they look, a sentence each.
        load_before: The machine's load average over 1, 5 and 15 minutes, before the run; None
            where the system does not say.
        load_after: The same after it.
        conditions: State of the machine, as `telemetry.conditions` writes it; may be empty.
        telemetry: What was read while it ran, as `telemetry` writes it; may be empty.
        layers: Times by layer; None if they were not asked for.
    """

    protocol: str
    parameters: Json
    subject: Subject
    samples: Samples
    walltime: float
    samples_per_query: int
    warmup: int
    created: str
    version: str
    warnings: tuple[str, ...] = ()
    load_before: tuple[float, ...] | None = None
    load_after: tuple[float, ...] | None = None
    conditions: Json = field(default_factory=dict)
    telemetry: Json = field(default_factory=dict)
    layers: Sequence[Json] | None = None

    @property
    def throughput(self) -> float:
        """Queries per second: trtexec's `Throughput`."""
        return throughput(len(self.samples), self.walltime)

    @property
    def names(self) -> dict[str, str]:
        """What trtexec calls each of `MEASURED`; on a CPU the call is the compute time."""
        return {
            "latency": "Latency",
            "enqueue": "Enqueue Time",
            "h2d": "H2D Latency",
            "compute": "Compute Time" if self.samples.compute_start is None else "GPU Compute Time",
            "d2h": "D2H Latency",
            "preprocess": "Preprocessing",
            "inference": "Inference",
            "postprocess": "Decoding",
        }

    @property
    def verdict(self) -> str:
        """`VALID` or `INVALID` for LoadGen's scenarios, as its rules say; empty for others."""
        if self.protocol not in _SCENARIOS:
            return ""
        invalid = any(warning.startswith("INVALID") for warning in self.warnings)
        return "INVALID" if invalid else "VALID"

    @property
    def samples_per_second(self) -> float:
        """The model's samples per second."""
        return throughput(len(self.samples) * self.samples_per_query, self.walltime)

    @property
    def claimed(self) -> EarlyStopping:
        """Whether the latency's percentile that the protocol claims may be claimed; 99 by default.

        See `early_stopping`.
        """
        percent = self.parameters.get("percentile", _CLAIMED)
        return early_stopping(self.samples.latency, float(percent))

    def summary(
        self, series: str = "latency", percentiles: Sequence[float] = PERCENTILES
    ) -> Summary | None:
        """Figures of one of `MEASURED`; None where it does not apply."""
        times: Times | None = getattr(self.samples, series)
        return None if times is None else summarize(times, percentiles)

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values, with the figures that follow from it in `summary`."""
        claimed = self.claimed
        percentiles = tuple(sorted({*PERCENTILES, claimed.percentile}))
        summaries = {name: self.summary(name, percentiles) for name in MEASURED}
        return {
            "format": FORMAT,
            "schema": SCHEMA,
            "version": self.version,
            "created": self.created,
            "protocol": self.protocol,
            "parameters": dict(self.parameters),
            "subject": {
                **asdict(self.subject),
                "shapes": {name: list(shape) for name, shape in self.subject.shapes.items()},
            },
            "warmup": self.warmup,
            "walltime": self.walltime,
            "samples_per_query": self.samples_per_query,
            "summary": {
                "queries": len(self.samples),
                "throughput": self.throughput,
                "samples_per_second": self.samples_per_second,
                "early_stopping": claimed.to_json(),
                **{k: None if found is None else found.to_json() for k, found in summaries.items()},
            },
            "warnings": list(self.warnings),
            "load_before": None if self.load_before is None else list(self.load_before),
            "load_after": None if self.load_after is None else list(self.load_after),
            "conditions": dict(self.conditions),
            "telemetry": dict(self.telemetry),
            "layers": None if self.layers is None else [dict(layer) for layer in self.layers],
            "samples": {
                name: None if times is None else times.tolist()
                for name, times in (
                    (f.name, getattr(self.samples, f.name)) for f in fields(Samples)
                )
            },
        }

    def save(self, path: StrPath) -> None:
        """Writes a JSON file, all or nothing.

        Raises:
            DataError: The system refused.
        """
        text = json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False)
        with atomic_write(path, error=DataError) as file:
            file.write(text.encode())

    @classmethod
    def load(cls, path: StrPath) -> BenchResult:
        """Reads what `save` wrote.

        Raises:
            DataError: It is another file, of another schema, or damaged.
        """
        data = read_file(path, limit=_LIMIT, error=DataError)
        return _result(parse(data, where=str(path), error=DataError))


def _result(value: Value) -> BenchResult:
    members = value.members()
    if "format" not in members or members["format"].plain != FORMAT:
        value.fail("is no result of edge-runtime bench")
    if "schema" not in members or members["schema"].plain != SCHEMA:
        found = members["schema"].plain if "schema" in members else None
        value.fail(
            f"has schema {found!r}, and this edge-runtime reads {SCHEMA}: run the benchmark again, "
            "or use the edge-runtime that wrote it"
        )
    names = [f.name for f in fields(BenchResult)]
    got = value.fields("format", "schema", "summary", *names)
    samples = _samples(got["samples"])
    walltime = got["walltime"].number()
    if walltime <= 0:
        got["walltime"].fail(f"is {walltime:g}; it must be above 0 seconds")
    got["summary"].mapping()  # For other programs: here it is computed from the samples.
    return BenchResult(
        protocol=got["protocol"].text(),
        parameters=_parameters(got["parameters"]),
        subject=_subject(got["subject"]),
        samples=samples,
        walltime=walltime,
        samples_per_query=got["samples_per_query"].integer(1),
        warmup=got["warmup"].integer(0),
        created=got["created"].text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "a time in UTC"),
        version=got["version"].text(),
        warnings=tuple(item.text() for item in got["warnings"].items()),
        load_before=_load(got["load_before"]),
        load_after=_load(got["load_after"]),
        conditions=got["conditions"].mapping(),
        telemetry=got["telemetry"].mapping(),
        layers=None
        if got["layers"].plain is None
        else [item.mapping() for item in got["layers"].items()],
    )


def _parameters(value: Value) -> Json:
    members = value.members()
    if "percentile" in members and not 0 < members["percentile"].number() < 100:
        members["percentile"].fail("must be above 0 and below 100")
    return value.mapping()


def _subject(value: Value) -> Subject:
    got = value.fields(*(f.name for f in fields(Subject)))
    digest = (r"sha256:[0-9a-f]{64}", "a digest, sha256:<64 hexadecimal digits>")
    mode, threads = got["cpu_mode"], got["threads"]
    return Subject(
        bundle=got["bundle"].text(),
        bundle_digest=got["bundle_digest"].text(*digest),
        model=got["model"].text(),
        model_digest=got["model_digest"].text(*digest),
        precision=got["precision"].text(),
        backend=got["backend"].text(),
        device=got["device"].text(r".*", "text"),
        cpu_mode=None if mode.plain is None else mode.text(),
        threads=None if threads.plain is None else threads.integer(0),
        shapes={
            name: tuple(size.integer(0) for size in shape.items())
            for name, shape in got["shapes"].members().items()
        },
        batch=got["batch"].integer(1),
        streams=got["streams"].integer(1),
    )


def _samples(value: Value) -> Samples:
    got = value.fields(*(f.name for f in fields(Samples)))
    start, latency = _times(got["start"]), _times(got["latency"])
    if not len(start):
        value.fail("holds no query")
    rest = {
        name: None if found.plain is None else _times(found)
        for name, found in got.items()
        if name not in ("start", "latency")
    }
    for name, times in {"latency": latency, **rest}.items():
        if times is not None and len(times) != len(start):
            got[name].fail(f"has {len(times)} values for {len(start)} queries")
    return Samples(start=start, latency=latency, **rest)


def _times(value: Value) -> Times:
    """Numbers of 0 or more. One test for all of them: there may be a million."""
    plain = value.plain
    if not isinstance(plain, list) or not {type(item) for item in plain} <= {int, float}:
        value.fail("is not a list of numbers")
    times = np.array(plain, np.float64)
    if not (np.isfinite(times) & (times >= 0)).all():
        value.fail("has a time below 0, or one that is no finite number")
    return times


def _load(value: Value) -> tuple[float, ...] | None:
    if value.plain is None:
        return None
    return tuple(item.number() for item in value.items())
