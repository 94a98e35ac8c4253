"""Runs a model over samples and counts its tensors' values, one sample and a few layers at a time.

The graph is cut into segments that each hold a few of the wanted tensors. A segment's activations
are counted and dropped before the next one runs, so memory depends neither on the number of samples
nor on the depth of the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from onnx import ModelProto, NodeProto
from onnx.helper import make_tensor_type_proto, make_value_info

from edge_runtime.backends.cpu import CpuSession, open_session, run_session
from edge_runtime.errors import DataError, InferenceError
from edge_runtime.precision.graph import Graph, reads
from edge_runtime.precision.heap import release_memory
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import Array, Feeds

_OBSERVED = 8  # Wanted tensors in a segment.


@dataclass(frozen=True)
class _Segment:
    """A run of nodes: what it reads, what later ones or the histograms need of it."""

    session: CpuSession
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    observed: tuple[str, ...]
    dead: frozenset[str]


class Counter(Protocol):
    """What is kept of a tensor, such as a histogram of its values."""

    def add(self, values: Array) -> None:
        """Counts an FP32 array, which stays as it is.

        Raises:
            ValueError: A value is infinite or NaN.
        """


_Counter = TypeVar("_Counter", bound=Counter)


class Observer(Generic[_Counter]):
    """A model cut into segments, ready to run samples.

    It holds ONNX Runtime's copy of the weights; whoever made it may drop the model.

    Attributes:
        counters: What was counted so far, by tensor.
    """

    def __init__(self, proto: ModelProto, counters: Mapping[str, _Counter]) -> None:
        """Cuts a prepared model, which is not changed.

        Args:
            proto: The model.
            counters: What counts each tensor: FP32 ones of the main graph, inputs included.
        """
        self.counters = dict(counters)
        self._inputs = [value.name for value in proto.graph.input]
        self._segments = _segments(Graph(proto), set(self.counters))

    def run(
        self,
        samples: Iterable[Feeds],
        *,
        total: int,
        progress: Progress = silent,
        numbers: Sequence[int] | None = None,
    ) -> dict[str, _Counter]:
        """Counts the values of the tensors over all samples.

        Args:
            samples: One mapping from input name to array for each inference.
            total: How many samples there are; for the progress only.
            progress: Told of every sample.
            numbers: What messages call each sample, where they are not all there are; 1, 2, 3 ...
                without.

        Returns:
            The counters.

        Raises:
            DataError: There is no sample, the model cannot run on one, or it makes NaN or infinity.
        """
        count = 0
        with ThreadPoolExecutor(1, "edge-runtime-count") as worker:
            for feeds in samples:
                count += 1
                self._run_one(feeds, numbers[count - 1] if numbers else count, worker)
                progress("Calibrating", count, total)
        if not count:
            raise DataError("There is no calibration sample; at least one is needed.")
        return self.counters

    def _run_one(self, feeds: Feeds, sample: int, worker: ThreadPoolExecutor) -> None:
        live = {name: feeds[name] for name in self._inputs}
        pending = worker.submit(_count, self.counters, live.copy(), sample)
        for segment in self._segments:
            made = _run(segment, live, sample)
            pending.result()  # At most one segment's activations wait to be counted.
            observed = {name: made[name] for name in segment.observed}
            pending = worker.submit(_count, self.counters, observed, sample)
            live.update(made)
            for name in segment.dead:
                del live[name]
        pending.result()


def _count(counters: Mapping[str, Counter], arrays: Feeds, sample: int) -> None:
    for name, array in arrays.items():
        if name in counters:
            try:
                counters[name].add(array)
            except ValueError:
                raise DataError(
                    f"Tensor {name!r} has NaN or infinite values on sample {sample}. Check that "
                    "sample, its preprocessing and the model: no range can be chosen from it."
                ) from None


def _run(segment: _Segment, live: dict[str, Array], sample: int) -> dict[str, Array]:
    feeds = {name: live[name] for name in segment.inputs}
    try:
        arrays = run_session(segment.session, segment.outputs, feeds)
    except InferenceError as error:
        raise DataError(f"The model could not run on sample {sample}. {error}") from error
    return dict(zip(segment.outputs, arrays, strict=True))


def _segments(graph: Graph, wanted: set[str]) -> list[_Segment]:
    """Cuts the graph behind every few wanted tensors, up to the last one that is wanted."""
    last_read = {name: i for i, node in enumerate(graph.nodes) for name in reads(node)}
    ends = [i for i, node in enumerate(graph.nodes) if not wanted.isdisjoint(node.output)]
    segments: list[_Segment] = []
    live = {value.name for value in graph.proto.graph.input}
    start = 0
    for end in _cuts(graph, ends, last_read):
        nodes = graph.nodes[start : end + 1]
        made = {name for node in nodes for name in node.output if name}
        later = {name for name in made if last_read.get(name, -1) > end and end != ends[-1]}
        live |= later | (made & wanted)
        dead = {name for name in live if last_read.get(name, -1) <= end or end == ends[-1]}
        segments.append(_segment(graph, nodes, sorted(later | (made & wanted)), wanted, dead))
        live -= dead
        start = end + 1
    return segments


def _cuts(graph: Graph, ends: Sequence[int], last_read: dict[str, int]) -> list[int]:
    """Last nodes of the segments; only tensors of known type may pass from one to the next."""
    cuts = []
    unknown_until = -1
    next_cut = iter(ends[_OBSERVED - 1 :: _OBSERVED])
    due = next(next_cut, None)
    for index, node in enumerate(graph.nodes[: ends[-1] if ends else 0]):
        for name in node.output:
            if name and not graph.elem_type(name):
                unknown_until = max(unknown_until, last_read.get(name, -1))
        if due is not None and index >= due and unknown_until <= index:
            cuts.append(index)
            while due is not None and due <= index:
                due = next(next_cut, None)
    return [*cuts, *ends[-1:]]


def _segment(
    graph: Graph, nodes: list[NodeProto], outputs: list[str], wanted: set[str], dead: set[str]
) -> _Segment:
    proto = graph.proto
    model = ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    model.graph.name = "segment"
    model.graph.node.extend(nodes)
    made = {name for node in nodes for name in node.output}
    read = dict.fromkeys(name for node in nodes for name in reads(node) if name not in made)
    inputs = [name for name in read if name not in graph.initializers]
    model.graph.initializer.extend(graph.initializers[n] for n in read if n in graph.initializers)
    for name in inputs:
        kind = make_tensor_type_proto(graph.elem_type(name), None)
        model.graph.input.append(make_value_info(name, kind))
    for name in outputs:
        kind = make_tensor_type_proto(graph.elem_type(name), None)
        model.graph.output.append(make_value_info(name, kind))
    session = open_session(model.SerializeToString(), lean=True)
    del model
    release_memory()  # Else the copies of one segment stay in pieces beside those of the next.
    return _Segment(
        session,
        tuple(inputs),
        tuple(outputs),
        tuple(name for name in outputs if name in wanted),
        frozenset(dead),
    )
