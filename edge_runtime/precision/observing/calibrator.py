"""Runs a model over samples and counts its tensors' values, one sample and a few layers at a time.

The graph is cut into segments that each hold a few of the wanted tensors. A segment's activations
are counted and dropped before the next one runs, so memory depends neither on the number of samples
nor on the depth of the network. Several samples may be on their way at a time, one behind the
other: each tensor still meets them in their order, so that what is counted is always the same.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from onnx import ModelProto, NodeProto
from onnx.helper import make_tensor_type_proto, make_value_info

from edge_runtime.backends.cpu import CpuSession, open_session, run_session
from edge_runtime.errors import DataError, InferenceError
from edge_runtime.precision.graphs.graph import Graph, reads
from edge_runtime.precision.graphs.heap import release_memory
from edge_runtime.precision.observing.parallel import threads_for
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import Array, Feeds

_OBSERVED = 8  # Wanted tensors in a segment.


@dataclass(frozen=True)
class _Segment:
    """A run of nodes: what it reads, what later ones or the counters need of it."""

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


class Observer:
    """A model cut into segments, ready to run samples.

    It holds ONNX Runtime's copy of the weights; whoever made it may drop the model.
    """

    def __init__(self, proto: ModelProto, wanted: Collection[str], *, workers: int = 1) -> None:
        """Cuts a prepared model, which is not changed.

        Args:
            proto: The model.
            wanted: Tensors to count: FP32 ones of the main graph, inputs included.
            workers: Samples on their way at a time. With more than one, `Counter`s of different
                tensors are called at the same time and must not share anything.
        """
        self._inputs = [value.name for value in proto.graph.input]
        self._workers = workers
        self._segments = _segments(Graph(proto), set(wanted), threads_for(workers))

    def run(
        self,
        samples: Iterable[Feeds],
        counters: Mapping[str, Counter],
        *,
        total: int,
        progress: Progress = silent,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Counts the values of tensors over all samples.

        Args:
            samples: One mapping from input name to array for each inference.
            counters: What counts each tensor; only of those that were wanted.
            total: How many samples there are; for the progress only.
            progress: Told of every sample.
            numbers: What messages call each sample, where they are not all there are; 1, 2, 3 ...
                without.

        Raises:
            DataError: There is no sample, the model cannot run on one, or it makes NaN or infinity.
        """
        turns = _Turns(len(self._segments) + 1)
        left: deque[Future[None]] = deque()
        count = 0
        with ThreadPoolExecutor(self._workers, "edge-runtime-count") as pool:
            for feeds in samples:
                live = {name: feeds[name] for name in self._inputs}
                if self._workers > 1:  # The source may use its arrays again for the next sample.
                    live = {name: array.copy() for name, array in live.items()}
                number = numbers[count] if numbers else count + 1
                left.append(pool.submit(self._run_one, live, number, counters, turns.of(count)))
                count += 1
                if len(left) == self._workers:
                    left.popleft().result()
                    progress("Calibrating", count - len(left), total)
            while left:
                left.popleft().result()
                progress("Calibrating", count - len(left), total)
        if not count:
            raise DataError("There is no calibration sample; at least one is needed.")

    def _run_one(
        self, live: dict[str, Array], sample: int, counters: Mapping[str, Counter], turns: _Place
    ) -> None:
        with turns.all():
            with turns.next():
                _count(counters, live, sample)
            for segment in self._segments:
                made = _run(segment, live, sample)
                with turns.next():
                    _count(counters, {name: made[name] for name in segment.observed}, sample)
                live.update(made)
                for name in segment.dead:
                    del live[name]


class _Abandoned(Exception):  # noqa: N818 - no error: it ends what nobody waits for any more
    """A sample before this one failed."""


class _Turns:
    """Lets samples count each segment in their order."""

    def __init__(self, segments: int) -> None:
        self.next = [0] * segments
        self.changed = threading.Condition()
        self.failed: int | None = None

    def of(self, index: int) -> _Place:
        return _Place(self, index)


class _Place:
    """One sample's place among all: its turn comes at every segment once."""

    def __init__(self, turns: _Turns, index: int) -> None:
        self._turns, self._index = turns, index
        self._segment = 0

    @contextmanager
    def all(self) -> Iterator[None]:
        """Around all of a sample's work: those behind it end early if it fails."""
        try:
            yield
        except BaseException:
            with self._turns.changed:
                failed = self._turns.failed
                self._turns.failed = self._index if failed is None else min(failed, self._index)
                self._turns.changed.notify_all()
            raise

    @contextmanager
    def next(self) -> Iterator[None]:
        """Waits for the turn at the next segment, and gives it on.

        Raises:
            _Abandoned: A sample before this one failed.
        """
        turns = self._turns
        with turns.changed:
            turns.changed.wait_for(lambda: self._is_over or self._is_due)
            if self._is_over:
                raise _Abandoned
        yield
        with turns.changed:
            turns.next[self._segment] += 1
            turns.changed.notify_all()
        self._segment += 1

    @property
    def _is_over(self) -> bool:
        failed = self._turns.failed
        return failed is not None and failed < self._index

    @property
    def _is_due(self) -> bool:
        return self._turns.next[self._segment] == self._index


def _count(counters: Mapping[str, Counter], arrays: Feeds, sample: int) -> None:
    for name, array in arrays.items():
        if name in counters:
            try:
                counters[name].add(array)
            except ValueError:
                raise DataError(
                    f"Tensor {name!r} has NaN or infinite values on sample {sample}. Check that "
                    "sample, its preprocessing and the model: nothing can be chosen by it."
                ) from None


def _run(segment: _Segment, live: dict[str, Array], sample: int) -> dict[str, Array]:
    feeds = {name: live[name] for name in segment.inputs}
    try:
        arrays = run_session(segment.session, segment.outputs, feeds)
    except InferenceError as error:
        raise DataError(f"The model could not run on sample {sample}. {error}") from error
    return dict(zip(segment.outputs, arrays, strict=True))


def _segments(graph: Graph, wanted: set[str], threads: int) -> list[_Segment]:
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
        outputs = [n for node in nodes for n in node.output if n in later or n in made & wanted]
        cut = _Cut(nodes, tuple(outputs), frozenset(dead))
        segments.append(_segment(graph, cut, wanted, threads))
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


@dataclass(frozen=True)
class _Cut:
    """What a segment is made of."""

    nodes: list[NodeProto]
    outputs: tuple[str, ...]
    dead: frozenset[str]


def _segment(graph: Graph, cut: _Cut, wanted: set[str], threads: int) -> _Segment:
    nodes, outputs = cut.nodes, cut.outputs
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
    session = open_session(model.SerializeToString(), threads=threads, lean=True)
    del model
    release_memory()  # Else the copies of one segment stay in pieces beside those of the next.
    return _Segment(
        session,
        tuple(inputs),
        outputs,
        tuple(name for name in outputs if name in wanted),
        cut.dead,
    )
