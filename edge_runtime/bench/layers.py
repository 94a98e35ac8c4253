"""Which layers are the time: how long each takes, what it computes and what it moves.

Times are the backend's own, layer by layer, and their sum is more than an inference takes. Work is
counted on the graph that runs, at the sizes of the inputs: multiply-accumulates, and the bytes of
the tensors that a layer reads and writes, each once and in the type that the graph gives it. What
passes between nodes that run as one layer never leaves it and does not count. So an INT8 layer
moves INT8 where the backend runs it together with its Q/DQ nodes, as a GPU does or `fast` on a CPU,
and FP32 where they run by themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from statistics import fmean, median
from typing import Any

from edge_runtime.backends.base import LayerTime
from edge_runtime.backends.registry import CPU_BACKENDS
from edge_runtime.bench.work import GraphWork, GroupWork, graph_work
from edge_runtime.bundle import Bundle
from edge_runtime.config import CpuMode
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.session import Session
from edge_runtime.strict_json import Value
from edge_runtime.tensors import Feeds

_WARM_UP = 3
_LAYER_FIELDS = (
    *("name", "op", "nodes", "total_ms", "mean_ms", "median_ms", "macs", "weight_bytes"),
    *("activation_bytes", "precision"),
)

FOLDED = "depends on constants only, and was computed when the graph was loaded"
"""Why a node has no time where ONNX Runtime runs the graph."""

UNKNOWN = "fused or removed, and the backend does not say where"
"""Why a node has no time that one could name."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as the backend ran it.

    Attributes:
        name: What the backend calls it.
        op: The operator that stands for it; empty where it has no nodes of the graph.
        nodes: Names of the graph's nodes that it computes. Empty for what only the backend has,
            such as a change of layout.
        total_ms: Its time over all runs.
        mean_ms: Its mean time in an inference.
        median_ms: Its median time in an inference.
        macs: Its multiply-accumulates; None where they are not known.
        weight_bytes: Size of the constants that it reads; None where it is not known.
        activation_bytes: Size of the other tensors that it reads and writes; None as above.
        precision: In which it multiplies, such as `int8` or `fp32`; None where it does not.
    """

    name: str
    op: str
    nodes: tuple[str, ...]
    total_ms: float
    mean_ms: float
    median_ms: float
    macs: int | None
    weight_bytes: int | None
    activation_bytes: int | None
    precision: str | None

    @property
    def bytes(self) -> int | None:
        """All that it moves; None where that is not known."""
        if self.weight_bytes is None or self.activation_bytes is None:
            return None
        return self.weight_bytes + self.activation_bytes

    @property
    def intensity(self) -> float | None:
        """Operations for each byte, a multiply-accumulate as two; None where not known."""
        return None if self.macs is None or not self.bytes else 2 * self.macs / self.bytes

    def to_json(self) -> dict[str, Any]:
        """The layer as plain JSON values."""
        return {**asdict(self), "nodes": list(self.nodes)}

    @classmethod
    def from_json(cls, plain: object, *, where: str = "layer") -> Layer:
        """The inverse of `to_json`.

        Raises:
            DataError: Names what is missing, unknown or of the wrong kind, and its path.
        """
        return _layer(Value(plain, where, DataError))


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """The layers of a bundle on one backend.

    Attributes:
        backend: What ran them.
        runs: Over how many inferences.
        layers: The layers, in the order in which they ran.
        absent: Nodes of the graph that no layer is known to compute, and why: `FOLDED` or
            `UNKNOWN`.
    """

    backend: str
    runs: int
    layers: tuple[Layer, ...]
    absent: Mapping[str, str]

    @property
    def milliseconds(self) -> float:
        """The sum of the layers' median times."""
        return sum(layer.median_ms for layer in self.layers)

    def share(self, layer: Layer) -> float:
        """A layer's part of that sum, from 0 to 1; 0 where nothing took any time."""
        total = self.milliseconds
        return layer.median_ms / total if total else 0.0

    def to_json(self) -> dict[str, Any]:
        """The profile as plain JSON values."""
        layers = [layer.to_json() for layer in self.layers]
        return {**asdict(self), "layers": layers, "absent": dict(self.absent)}

    @classmethod
    def from_json(cls, plain: object, *, where: str = "layer profile") -> LayerProfile:
        """The inverse of `to_json`.

        Raises:
            DataError: Names what is missing, unknown or of the wrong kind, and its path.
        """
        got = Value(plain, where, DataError).fields("backend", "runs", "layers", "absent")
        absent = {name: reason.text() for name, reason in got["absent"].members().items()}
        return cls(
            backend=got["backend"].text(),
            runs=got["runs"].integer(1),
            layers=tuple(_layer(item) for item in got["layers"].items()),
            absent=absent,
        )


def profile(
    session: Session,
    bundle: Bundle,
    feeds: Feeds,
    *,
    runs: int = 20,
    cpu_mode: CpuMode | str = CpuMode.EXACT,
) -> LayerProfile:
    """Times the layers of a bundle and counts their work.

    Args:
        session: The bundle, opened; it stays the caller's and as fast as it was.
        bundle: The same bundle.
        feeds: The inputs of the inference, as numpy arrays. They stay the caller's.
        runs: How many inferences to measure, after a few that are not.
        cpu_mode: The mode in which the session was opened, where a CPU runs it.

    Raises:
        BundleError: The bundle is damaged or was replaced.
        ConfigError: `runs` is below 1.
        FeedError: As `Session.run`.
        InferenceError: As `Session.run`.
        DeviceError: The GPU failed.
    """
    if runs < 1:
        raise ConfigError(f"runs is {runs}; a profile needs at least 1.")
    times = session.layer_times(feeds, runs=_WARM_UP + runs)
    plan = session.backend not in CPU_BACKENDS
    work = graph_work(bundle, feeds, plan=plan, cpu_mode=CpuMode(cpu_mode))
    groups = {time.name: time.nodes for time in times}
    if plan:
        groups = _with_quantization(work, {name: _named(work, name) for name in groups})
    absent = _absent(work, groups.values(), folds=session.backend == "cpu")
    unplaced = {label for label, reason in absent.items() if reason != FOLDED}
    layers = tuple(_join(time, groups[time.name], work, unplaced) for time in times)
    return LayerProfile(session.backend, runs, layers, absent)


def export_profile(profile: LayerProfile) -> list[dict[str, Any]]:
    """The profile as `trtexec --exportProfile` writes it: the count of runs, then each layer.

    The names are those of NVIDIA's `samples/common/sampleReporting.cpp`: timeMs is over all runs,
    averageMs and medianMs of one, percentage of the sum of all layers.
    """
    total = sum(layer.total_ms for layer in profile.layers)
    layers = [
        {
            "name": layer.name,
            "timeMs": layer.total_ms,
            "averageMs": layer.mean_ms,
            "medianMs": layer.median_ms,
            "percentage": 100 * layer.total_ms / total if total else 0.0,
        }
        for layer in profile.layers
    ]
    return [{"count": profile.runs}, *layers]


def by_time(profile: LayerProfile) -> list[int]:
    """Indices of the layers, that of the longest by its median first."""
    return sorted(range(len(profile.layers)), key=lambda i: -profile.layers[i].median_ms)


def table(profile: LayerProfile) -> list[dict[str, Any]]:
    """A row for each layer, the longest by its median first.

    `share` is its part of the sum of medians, and `cumulative` that of all rows down to it.
    """
    layers = [profile.layers[index] for index in by_time(profile)]
    shares = [profile.share(layer) for layer in layers]
    return [
        {
            "name": layer.name,
            "op": layer.op,
            "precision": layer.precision,
            "mean_ms": layer.mean_ms,
            "median_ms": layer.median_ms,
            "share": share,
            "cumulative": min(cumulative, 1.0),
            "macs": layer.macs,
            "bytes": layer.bytes,
            "intensity": layer.intensity,
        }
        for layer, share, cumulative in zip(layers, shares, accumulate(shares), strict=True)
    ]


def _join(
    time: LayerTime, nodes: tuple[str, ...], work: GraphWork, unplaced: Collection[str]
) -> Layer:
    measured = time.milliseconds[_WARM_UP:]
    found = work.of(nodes, unplaced) if nodes else GroupWork(None, None, None, None)
    return Layer(
        name=time.name,
        op=work.operator(nodes),
        nodes=nodes,
        total_ms=sum(measured),
        mean_ms=fmean(measured),
        median_ms=median(measured),
        macs=found.macs,
        weight_bytes=found.weight_bytes,
        activation_bytes=found.activation_bytes,
        precision=(time.precision or found.precision) if found.macs else None,
    )


def _named(work: GraphWork, name: str) -> tuple[str, ...]:
    """The graph's nodes in the name that TensorRT gives a layer: it joins them with a plus."""
    parts = {part.strip() for part in name.split(" + ")}
    return tuple(node.label for node in work.graph.nodes if node.label in parts)


def _with_quantization(
    work: GraphWork, groups: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """The groups with the Q/DQ nodes that TensorRT fuses and names in no layer.

    It quantizes where a tensor is made and dequantizes where it is read, as its documentation of
    explicit quantization says.
    """
    layer = {node: name for name, nodes in groups.items() for node in nodes}
    added: dict[str, list[str]] = {name: list(nodes) for name, nodes in groups.items()}
    makers = {name: node.label for node in work.graph.nodes for name in node.outputs}
    for node in work.graph.nodes:
        if node.label in layer:
            continue
        if node.op == "QuantizeLinear":
            neighbours = [makers.get(node.inputs[0], "")]
        elif node.op == "DequantizeLinear":
            neighbours = [n.label for n in work.graph.nodes if node.outputs[0] in n.inputs]
        else:
            continue
        for name in dict.fromkeys(layer[label] for label in neighbours if label in layer):
            added[name].append(node.label)
    return {name: tuple(nodes) for name, nodes in added.items()}


def _absent(work: GraphWork, groups: Iterable[Sequence[str]], *, folds: bool) -> dict[str, str]:
    """Nodes in no group, and why; `folds` if the backend says what it does to each constant."""
    there = {label for nodes in groups for label in nodes}
    return {
        node.label: FOLDED if folds and work.is_constant(node) else UNKNOWN
        for node in work.graph.nodes
        if node.label not in there
    }


def _layer(value: Value) -> Layer:
    got = value.fields(*_LAYER_FIELDS)
    return Layer(
        name=got["name"].text(r".*", "text"),
        op=got["op"].text(r".*", "text"),
        nodes=tuple(node.text(r".*", "text") for node in got["nodes"].items()),
        total_ms=_time(got["total_ms"]),
        mean_ms=_time(got["mean_ms"]),
        median_ms=_time(got["median_ms"]),
        macs=_count(got["macs"]),
        weight_bytes=_count(got["weight_bytes"]),
        activation_bytes=_count(got["activation_bytes"]),
        precision=None if got["precision"].plain is None else got["precision"].text(),
    )


def _time(value: Value) -> float:
    milliseconds = value.number()
    if milliseconds < 0:
        value.fail(f"is {milliseconds}; a time is not negative")
    return milliseconds


def _count(value: Value) -> int | None:
    return None if value.plain is None else value.integer(0)
