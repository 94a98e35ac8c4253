"""The protocols that a benchmark can declare, with every setting that decides what is measured.

| | trtexec10 | trtexec11 |
|---|---|---|
| copies between host and GPU | timed | left out: inputs are on the GPU already |
| the engine's work | enqueued each time | replayed as a CUDA graph |
| the host waits for the GPU | asleep | with a busy core |
| compute time is called unstable | above 1 % variation | above 2.5 % |

Both warm up for 200 ms, then run for 3 s and 10 queries at least, and print the percentiles 90, 95
and 99. So the figures of TensorRT 10's trtexec and 11's are not of the same thing, and neither are
those of the two protocols. Source: NVIDIA/TensorRT, samples/common/sampleOptions.h and .cpp,
sampleInference.cpp (`inferenceLoop`), sampleReporting.cpp, of releases 10 and 11; NVIDIA's guide
"Migrating from TensorRT 10.x to 11.x", trtexec.

The scenarios single-stream, multi-stream, offline and server are those of MLPerf's LoadGen, with
its terms and the defaults of its TestSettings (mlcommons/inference, loadgen/test_settings.h).
MLPerf's rules for submissions want 600 s, and 24,576 samples offline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from edge_runtime.bench.statistics import PERCENTILES
from edge_runtime.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What all protocols have.

    Attributes:
        name: The protocol's name.
        warmup: Seconds of queries that are not counted, before the others.
        streams: Calls that may be in flight at a time, each in a context of its own.
        cuda_graph: On a GPU, the engine's work is captured once and replayed.
        spin: On a GPU, the host waits with a busy core.
        percentile: The percentile that the protocol claims: 0 to 100, both excluded.
    """

    name: str
    warmup: float = 0.2
    streams: int = 1
    cuda_graph: bool = False
    spin: bool = False
    percentile: float = 99.0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(self.name, field.name, getattr(self, field.name))

    def parameters(self) -> dict[str, Any]:
        """Every setting but the name, as plain JSON values."""
        plain = asdict(self)
        del plain["name"]
        return plain

    @property
    def percentiles(self) -> tuple[float, ...]:
        """Those to print: trtexec's and the one that is claimed."""
        return tuple(sorted({*PERCENTILES, self.percentile}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trtexec(Protocol):
    """One query after the other, as NVIDIA's trtexec runs them.

    On a GPU a query is enqueued while the one before it runs, and timed by the GPU's clock. On a
    CPU a query is a call that the next one waits for.

    Attributes:
        duration: Seconds to measure at least.
        iterations: Queries to measure at least, in each stream.
        transfers: Whether inputs are copied to the GPU and outputs back for each query.
        unstable: Variation of the compute time, as a share, above which trtexec warns.
    """

    duration: float = 3.0
    iterations: int = 10
    transfers: bool
    unstable: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EndToEnd(Protocol):
    """One picture after the other, from the picture to the decoded result.

    Attributes:
        duration: Seconds to measure at least.
        iterations: Pictures to measure at least.
        source: Where a picture is when its time begins: on `disk`, as a file that must be read and
            decompressed, or in `memory`, as pixels.
        decode: What is made of the outputs: `top1`, the largest entry of each vector; `none`; or
            `python:MODULE:FUNCTION`, called with `{output name: array}`.
    """

    duration: float = 3.0
    iterations: int = 10
    source: str = "disk"
    decode: str = "top1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario(Protocol):
    """What LoadGen's scenarios have.

    Attributes:
        min_duration: Seconds that a valid run takes at least.
        min_queries: Queries of a valid run, at least.
    """

    min_duration: float = 10.0
    min_queries: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleStream(Scenario):
    """A query of one sample; the next one when it is done. Its figure is the percentile."""

    percentile: float = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiStream(Scenario):
    """A query of several samples; the next one when all of them are done.

    Attributes:
        samples_per_query: Samples in each; MLPerf's 8.
    """

    samples_per_query: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline(Scenario):
    """One query with all samples, 10 % more than `min_duration` should need. Samples per second.

    Its samples are what is counted: `min_queries` is 1.
    """

    min_queries: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(Scenario):
    """Queries of one sample, which arrive when they like: a Poisson process.

    The run is valid if the latency, from the arrival on, keeps to its bound at the percentile.

    Attributes:
        target_qps: Queries per second, on average.
        target_latency: The bound of the latency, in milliseconds.
        seed: Seed of the arrivals.
    """

    target_qps: float
    target_latency: float
    seed: int = 0


_CHANGES: dict[str, tuple[type[Protocol], dict[str, Any]]] = {
    "trtexec10": (Trtexec, {"transfers": True, "unstable": 0.01}),
    "trtexec11": (
        Trtexec,
        {"transfers": False, "cuda_graph": True, "spin": True, "unstable": 0.025},
    ),
    "end-to-end": (EndToEnd, {}),
    "single-stream": (SingleStream, {}),
    "multi-stream": (MultiStream, {}),
    "offline": (Offline, {}),
    "server": (Server, {}),
}

NAMES = tuple(_CHANGES)
"""The protocols, by name."""

_SHARES = ("unstable",)
_NUMBERS = ("duration", "min_duration", "target_qps", "target_latency")
_COUNTS = ("streams", "iterations", "min_queries", "samples_per_query")
_SWITCHES = ("cuda_graph", "spin", "transfers")


def protocol(name: str, given: Mapping[str, Any] | None = None) -> Protocol:
    """A protocol with its own settings, but for those that are given.

    Raises:
        ConfigError: There is no such protocol, it has no such setting, or not such a value.
    """
    if name not in _CHANGES:
        raise ConfigError(f"protocol is {name!r}; it must be one of {', '.join(NAMES)}.")
    kind, changes = _CHANGES[name]
    given = given or {}
    own = setting_names(name)
    for setting in given:
        if setting not in own:
            raise ConfigError(
                f"Protocol {name} has no setting {setting}; it has {', '.join(sorted(own))}."
            )
    wanted = {"target_qps", "target_latency"} & own
    for setting in sorted(wanted - given.keys()):
        unit = "queries per second" if setting == "target_qps" else "milliseconds"
        raise ConfigError(f"Protocol {name} needs {setting}, in {unit}.")
    return kind(name=name, **{**changes, **given})


def setting_names(name: str) -> frozenset[str]:
    """The settings that a protocol of `NAMES` has."""
    return frozenset(field.name for field in fields(_CHANGES[name][0])) - {"name"}


def _check(protocol: str, name: str, value: Any) -> None:
    number = type(value) in (int, float) and math.isfinite(value)
    wanted = ""
    if name in _SWITCHES and type(value) is not bool:
        wanted = "True or False"
    elif name in _COUNTS and (type(value) is not int or value < 1):
        wanted = "a whole number from 1 on"
    elif name in _NUMBERS and not (number and value > 0):
        wanted = "a number above 0"
    elif name in (*_SHARES, "warmup") and not (number and value >= 0):
        wanted = "a number from 0 on"
    elif name == "percentile" and not (number and 0 < value < 100):
        wanted = "above 0 and below 100"
    elif name == "seed" and (type(value) is not int or value < 0):
        wanted = "a whole number from 0 on"
    elif name == "source" and value not in ("disk", "memory"):
        wanted = "disk or memory"
    elif name == "decode" and not (
        value in ("top1", "none") or (isinstance(value, str) and value.count(":") == 2)
    ):
        wanted = "top1, none or python:MODULE:FUNCTION"
    if wanted:
        raise ConfigError(f"{name} of protocol {protocol} is {value!r}; it must be {wanted}.")
