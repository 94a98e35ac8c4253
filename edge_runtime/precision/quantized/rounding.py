"""Chooses the INT8 levels of a layer's weights together, so that its outputs come out best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from onnx import ModelProto

from edge_runtime.data import Samples
from edge_runtime.data.samples import spread
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import Placement
from edge_runtime.precision.observing.calibrator import Observer
from edge_runtime.precision.quantized.layer_rows import LayerRows, layer_rows
from edge_runtime.precision.quantized.reconstruction import round_matrix
from edge_runtime.precision.quantized.weights import (
    QuantizedWeight,
    WeightKey,
    Weights,
    along,
    scale_of,
)
from edge_runtime.precision.ranging.ranges import LEVELS
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import Array

_MOST_SAMPLES = 64
_MOST_COLUMNS = 1536  # More are rounded in blocks, as if one knew nothing of the others.
_PASS_BYTES = 128 << 20  # What the moments of the layers of one pass over the samples may take.
_LEAST_ROWS = 4096  # Of each layer, from all samples; more where it has many columns.
_HELD = 4  # Every fourth sample is not for the fit but to judge it; of few, every fourth row.


def round_weights(
    proto: ModelProto,
    placement: Placement,
    amax: Mapping[str, float],
    weights: Weights,
    samples: Samples,
    progress: Progress = silent,
) -> dict[WeightKey, QuantizedWeight]:
    """Rounds the weights of a prepared, equalized model on samples (`--effort high`).

    A layer is given what it reads in the FP32 model, in the levels of its own INT8 range. One whose
    outputs come out no better than with the nearest levels, on rows that were not used to choose,
    keeps these.

    Args:
        proto: The model for which `placement` was made; it is not changed.
        placement: What becomes INT8.
        amax: The range of each of `placement.tensors`.
        weights: The nearest rounding, whose scales are kept.
        samples: What the layers' outputs are judged on; at most 64 of them, evenly spread, are run.
        progress: Told of every layer.

    Returns:
        All weights; those that stay at their nearest levels are the very objects given.

    Raises:
        DataError: A sample cannot be run, or makes NaN or infinity.
    """
    graph = Graph(proto)
    result = dict(weights)
    jobs = _jobs(graph, placement, amax)
    done = 0
    progress("Rounding weights", done, len(jobs))
    for part in _passes(jobs):
        _observe(proto, part, samples, _at(progress, done, len(jobs)))
        for job in part:
            weight = graph.constant(job.key[0])
            assert weight is not None
            result[job.key] = job.round(weight, weights[job.key])
            done += 1
            progress("Rounding weights", done, len(jobs))
    return result


def _at(progress: Progress, done: int, total: int) -> Progress:
    """Tells of every sample that so many layers are done."""
    return lambda *_: progress("Rounding weights", done, total)


class _Job:
    """The rounding of one weight, which several layers may read."""

    def __init__(self, key: WeightKey, rows: LayerRows) -> None:
        """Makes a job without moments; `rows` is how its first layer is read."""
        self.key = key
        self.shape = rows.matrix_shape
        self._blocks = -(-self.shape[2] // _MOST_COLUMNS)
        self.readers: list[tuple[str, LayerRows, float]] = []  # Tensor, its rows, its INT8 step.
        self._rows = rows
        self._fit = self._held = np.zeros((), dtype=np.float32)

    @property
    def bytes(self) -> int:
        """What the moments take."""
        return 2 * 4 * self._groups * self._columns**2

    @property
    def wanted_rows(self) -> int:
        """How many rows should be seen of every reader."""
        return max(_LEAST_ROWS, 2 * self._columns)

    @property
    def _groups(self) -> int:
        return self.shape[0] * self._blocks

    @property
    def _columns(self) -> int:
        return -(-self.shape[2] // self._blocks)

    def start(self) -> None:
        """Makes room for the moments."""
        self._fit = np.zeros((self._groups, self._columns, self._columns), dtype=np.float32)
        self._held = np.zeros_like(self._fit)

    def add(self, rows: Array, *, held: bool) -> None:
        """Counts rows, float32 [groups, rows, columns]."""
        rows = self._cut(rows)
        moments = self._held if held else self._fit
        moments += np.swapaxes(rows, 1, 2) @ rows

    def round(self, weight: Array, nearest: QuantizedWeight) -> QuantizedWeight:
        """The better levels, or `nearest` itself; the moments are dropped."""
        scale = nearest.scale
        if nearest.axis is not None:
            scale = scale.reshape(along(weight.ndim, nearest.axis))
        steps = self._rows.matrix(np.broadcast_to(scale, weight.shape))[:, :, :1]
        levels = round_matrix(
            self._cut(self._rows.matrix(weight)),
            np.repeat(steps, self._blocks, axis=0),
            self._cut(self._rows.matrix(nearest.levels)),
            self._fit,
            self._held,
            levels=LEVELS,
        )
        self._fit = self._held = np.zeros((), dtype=np.float32)
        if levels is None:
            return nearest
        groups, channels, columns = self.shape
        levels = levels.reshape(groups, self._blocks, channels, -1).swapaxes(1, 2)
        levels = levels.reshape(groups, channels, -1)[:, :, :columns]
        return QuantizedWeight(self._rows.weight(levels), nearest.scale, nearest.axis)

    def _cut(self, values: Array) -> Array:
        """[groups, any, columns] with each block of columns as a group of its own."""
        if self._blocks == 1:
            return values
        missing = self._blocks * self._columns - values.shape[2]
        padded = np.pad(values, ((0, 0), (0, 0), (0, missing)))  # Columns of zeros stay zero.
        split = padded.reshape(*values.shape[:2], self._blocks, self._columns)
        return split.swapaxes(1, 2).reshape(self._groups, values.shape[1], self._columns)


class _Readers:
    """A `Counter` of one tensor: hands rows of it to the jobs whose weights multiply them."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._seen = 0
        self._jobs: list[tuple[_Job, LayerRows, float]] = []

    def join(self, job: _Job, rows: LayerRows, step: float) -> None:
        """Adds a job that reads the tensor with this INT8 step."""
        self._jobs.append((job, rows, step))

    def add(self, values: Array) -> None:
        """Takes rows of one sample; see `Counter`."""
        if not np.isfinite(values).all():
            raise ValueError("a value is infinite or NaN")
        index, self._seen = self._seen, self._seen + 1
        for job, layer, step in self._jobs:
            random = np.random.default_rng(index)  # The same rows each time a model is rounded.
            rows = layer.rows(values, -(-job.wanted_rows // self._samples), random)
            rows /= step
            np.clip(np.rint(rows, out=rows), -LEVELS, LEVELS, out=rows)
            rows *= step / job.readers[0][2]  # In steps of the first: no square overflows.
            if self._samples >= 2 * _HELD:
                job.add(rows, held=index % _HELD == _HELD - 1)
            else:
                is_held = np.arange(rows.shape[1]) % _HELD == _HELD - 1
                job.add(rows[:, ~is_held], held=False)
                job.add(rows[:, is_held], held=True)


def _jobs(graph: Graph, placement: Placement, amax: Mapping[str, float]) -> list[_Job]:
    """A job for each weight that can be rounded so, in the graph's order."""
    nodes = {node.name: node for node in graph.nodes}
    read = {entry.node: entry for entry in placement.activations if entry.index == 0}
    jobs: dict[WeightKey, _Job] = {}
    odd = set()
    for entry in placement.weights:
        key = (entry.tensor, entry.axis)
        dims = tuple(graph.initializers[entry.tensor].dims)
        rows = layer_rows(nodes[entry.node], dims)
        if rows is None:
            odd.add(key)
            continue
        job = jobs.setdefault(key, _Job(key, rows))
        if job.shape != rows.matrix_shape:  # Two layers that cut one weight into different groups.
            odd.add(key)
        activation = read[entry.node]
        step = float(scale_of(amax[activation.range_of]))
        job.readers.append((activation.tensor, rows, step))
    return [job for key, job in jobs.items() if key not in odd]


def _passes(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Cuts the jobs into parts whose moments fit into memory together."""
    part: list[_Job] = []
    size = 0
    for job in jobs:
        if part and size + job.bytes > _PASS_BYTES:
            yield part
            part, size = [], 0
        part.append(job)
        size += job.bytes
    if part:
        yield part


def _observe(proto: ModelProto, jobs: Sequence[_Job], samples: Samples, progress: Progress) -> None:
    """Runs the samples and gives each job the moments of its rows."""
    chosen = spread(len(samples), _MOST_SAMPLES)
    counters: dict[str, _Readers] = {}
    for job in jobs:
        job.start()
        for tensor, rows, step in job.readers:
            counters.setdefault(tensor, _Readers(len(chosen))).join(job, rows, step)
    observer = Observer(proto, counters.keys())
    observer.run(samples.take(chosen), counters, total=len(chosen), progress=progress)
