"""Goes through a model once a sample, and from each INT8 layer and tensor on once more.

A probe quantizes one layer, or one tensor for all that read it in INT8, and runs what depends on it
in FP32 up to the outputs. It starts from the FP32 tensors that are alive at that place: nothing
before it runs again, and what it needs of branches beside it is kept from the sample's first pass.
So memory holds the live tensors of one sample, and a probe costs half a pass on average.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from edge_runtime.accuracy.noise import Noise, error, is_float, signal
from edge_runtime.errors import DataError, InferenceError
from edge_runtime.precision.observing.replay import Layer, Replay, fake_quantize
from edge_runtime.tensors import Array, Feeds

_WORKERS = min(os.cpu_count() or 1, 8)
"""Probes that run at a time, each with tensors of its own."""

_Values = dict[str, Array]


@dataclass
class Probe:
    """One thing that is quantized, and what came of it so far.

    Attributes:
        tensor: The tensor that is quantized, or the layer's output.
        layer: The layer that is quantized; None if it is a tensor.
        scale: The largest step of a tensor's levels; 0 for a layer.
        start: The piece from which on it makes a difference.
        after: The pieces that it makes a difference to, in order.
        local: The noise of `tensor`.
        inputs: The same with the layer's inputs alone quantized.
        weights: The same with its weights alone.
        errors: The error of each of the model's outputs that depends on it.
    """

    tensor: str
    layer: Layer | None
    scale: float
    start: int
    after: tuple[int, ...]
    local: Noise = field(default_factory=Noise)
    inputs: Noise = field(default_factory=Noise)
    weights: Noise = field(default_factory=Noise)
    errors: dict[str, float] = field(default_factory=dict)


class Sweep:
    """The probes of a model.

    Attributes:
        probes: One for each layer with INT8 weights and one for each tensor that is quantized.
    """

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._last_read = {
            name: place for place, piece in enumerate(replay.pieces) for name in piece.reads
        }
        self.probes = [*self._layer_probes(), *self._tensor_probes()]
        self._by_start: dict[int, list[Probe]] = {}
        for probe in self.probes:
            self._by_start.setdefault(probe.start, []).append(probe)
        self._ahead, self._needed_until = self._plan()
        self._signals = dict.fromkeys(replay.outputs, 0.0)
        self._floats: set[str] = set()
        self._total = dict.fromkeys(replay.outputs, 0.0)

    def add(self, feeds: Feeds, sample: int) -> Iterator[None]:
        """Runs a sample, and stops behind each probe for whoever counts them.

        Args:
            feeds: The model's inputs.
            sample: Its number, for messages.

        Raises:
            DataError: The model cannot run on it, or makes NaN or infinity.
        """
        try:
            yield from self._add(feeds, sample)
        except InferenceError as reason:
            raise DataError(f"The model could not run on sample {sample}. {reason}") from reason

    @property
    def total(self) -> float:
        """The noise at the outputs with every layer in INT8."""
        return self.output_noise(self._total)

    def output_noise(self, errors: Mapping[str, float]) -> float:
        """The largest noise of an output; of integers, the share that differs.

        Outputs that are not of floats count only in a model that has no others, and those that were
        always zero do not count at all.

        Raises:
            DataError: All outputs were always zero.
        """
        counted = [name for name, power in self._signals.items() if power]
        counted = [name for name in counted if name in self._floats] or counted
        if not counted:
            raise DataError(
                "All outputs of the model are zero on these samples, so there is nothing that an "
                "error can be measured by. Use other samples, or check their preprocessing."
            )
        return max(Noise(errors.get(name, 0.0), self._signals[name]).share for name in counted)

    def _layer_probes(self) -> list[Probe]:
        return [
            Probe(layer.fp32.makes[0], layer, 0.0, place, self._after(set(layer.fp32.makes), set()))
            for place, layer in self._replay.layers.items()
            if layer.has_weights
        ]

    def _tensor_probes(self) -> list[Probe]:
        readers: dict[str, dict[int, float]] = {}
        for place, layer in self._replay.layers.items():
            for edge in layer.edges.values():
                readers.setdefault(edge.tensor, {})[place] = float(edge.scale)
        return [
            Probe(tensor, None, max(scales.values()), min(scales), self._after(set(), set(scales)))
            for tensor, scales in readers.items()
        ]

    def _after(self, changed: set[str], places: set[int]) -> tuple[int, ...]:
        """The pieces that change if these tensors do and these pieces do."""
        found = []
        for place, piece in enumerate(self._replay.pieces):
            if place in places or not changed.isdisjoint(piece.reads):
                found.append(place)
                changed.update(piece.makes)
        return tuple(found)

    def _plan(self) -> tuple[set[str], dict[str, int]]:
        """The tensors that probes need before they are made, and the last place that needs each."""
        made_at = dict.fromkeys(self._replay.inputs, -1)
        for place, piece in enumerate(self._replay.pieces):
            made_at.update(dict.fromkeys(piece.makes, place))
        needed_until = dict(self._last_read)
        ahead = set()
        for probe in self.probes:
            changed = set(probe.layer.fp32.makes) if probe.layer is not None else set()
            for place in probe.after:
                for name in set(self._replay.pieces[place].reads) - changed:
                    needed_until[name] = max(needed_until[name], probe.start)
                    if made_at[name] > probe.start:
                        ahead.add(name)
                changed.update(self._replay.pieces[place].makes)
        return ahead, needed_until

    def _add(self, feeds: Feeds, sample: int) -> Iterator[None]:
        inputs = {name: feeds[name] for name in self._replay.inputs}
        first = self._pass(inputs, keep=self._ahead, int8=False)
        expected = {name: first[name] for name in self._replay.outputs}
        for name, array in expected.items():
            _check(name, array, sample)
            self._signals[name] += signal(array)
            if is_float(array):
                self._floats.add(name)
        int8 = self._pass(inputs, keep=set(), int8=True)
        for name, array in expected.items():
            self._total[name] += error(array, int8[name])
        del int8
        live = {**inputs, **{name: first[name] for name in self._ahead}}
        del first
        with ThreadPoolExecutor(_WORKERS, "edge-runtime-probe") as pool:
            yield from _ahead(self._submit(pool, live, expected, sample), _WORKERS)

    def _submit(
        self, pool: ThreadPoolExecutor, live: _Values, expected: _Values, sample: int
    ) -> Iterator[Future[None]]:
        """Goes through the pieces in FP32, and starts each probe where it begins."""
        for place, piece in enumerate(self._replay.pieces):
            live.update(piece.run(live))
            for probe in self._by_start.get(place, ()):
                yield pool.submit(self._probe, probe, dict(live), expected, sample)
            for name in [name for name in live if self._needed_until.get(name, -1) <= place]:
                del live[name]

    def _pass(self, inputs: _Values, *, keep: set[str], int8: bool) -> _Values:
        """The outputs and what is to be kept, all in FP32 or all in INT8."""
        live = dict(inputs)
        wanted = keep | set(self._replay.outputs)
        for place, piece in enumerate(self._replay.pieces):
            layer = self._replay.layers.get(place) if int8 else None
            live.update(
                piece.run(live) if layer is None else layer.run(live, inputs=True, weights=True)
            )
            self._drop(live, place, wanted)
        return live

    def _probe(self, probe: Probe, live: _Values, expected: _Values, sample: int) -> None:
        reference = live[probe.tensor]
        _check(probe.tensor, reference, sample)
        if probe.layer is None:
            changed: _Values = {}
            added = probe.local.add(
                reference, fake_quantize(reference, np.array(probe.scale, np.float32))
            )
        else:
            changed = probe.layer.run(live, inputs=True, weights=True)
            added = probe.local.add(reference, changed[probe.tensor])
            for noise, part in ((probe.inputs, True), (probe.weights, False)):
                made = probe.layer.run(live, inputs=part, weights=not part)
                noise.add(reference, made[probe.tensor])
        if not added:
            return  # As it was: so are the outputs.
        made = self._continue(probe, live, changed)
        for name in made.keys() & expected.keys():
            added = error(expected[name], made[name])
            probe.errors[name] = probe.errors.get(name, 0.0) + added

    def _continue(self, probe: Probe, live: _Values, changed: _Values) -> _Values:
        """What becomes of the outputs that depend on a probe."""
        outputs = set(self._replay.outputs)
        for place in probe.after:
            values = {**live, **changed}
            layer = self._replay.layers.get(place)
            if probe.layer is None and layer is not None:
                values.update(
                    {
                        edge.tensor: fake_quantize(values[edge.tensor], edge.scale)
                        for edge in layer.edges.values()
                        if edge.tensor == probe.tensor
                    }
                )
            changed.update(self._replay.pieces[place].run(values))
            self._drop(changed, place, outputs)
        return changed

    def _drop(self, values: _Values, place: int, keep: set[str]) -> None:
        """Forgets what nothing after `place` reads."""
        for name in [n for n in values if self._last_read.get(n, -1) <= place and n not in keep]:
            del values[name]


def _ahead(futures: Iterator[Future[None]], limit: int) -> Iterator[None]:
    """Waits for each in turn, with at most `limit` others begun: each holds tensors of its own."""
    running: deque[Future[None]] = deque()
    for future in futures:
        running.append(future)
        if len(running) > limit:
            yield running.popleft().result()
    for future in running:
        yield future.result()


def _check(name: str, array: Array, sample: int) -> None:
    if is_float(array) and not np.isfinite(array).all():
        raise DataError(
            f"Tensor {name!r} has NaN or infinite values on sample {sample}, in FP32. Check that "
            "sample, its preprocessing and the model: no error can be measured beside them."
        )
