"""Builds plans with the TensorRT module that is handed in: one path for TensorRT 10, 11 and RTX."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge_runtime.backends.base import Plan, PlanKey
from edge_runtime.backends.onnx_graph import read_graph
from edge_runtime.backends.tensorrt.compat import network_flags, set_targets, target_names
from edge_runtime.backends.tensorrt.explain import explain, locate
from edge_runtime.backends.tensorrt.logger import Recording, recording
from edge_runtime.backends.tensorrt.measure import layer_milliseconds
from edge_runtime.backends.tensorrt.memory_guard import Limits, MemoryGuard
from edge_runtime.backends.tensorrt.monitor import watching
from edge_runtime.backends.tensorrt.options import apply_options, check_options
from edge_runtime.backends.tensorrt.parse import ParserFailure, parser_failures
from edge_runtime.backends.tensorrt.plan_header import read_plan_header
from edge_runtime.backends.tensorrt.profile import add_profiles
from edge_runtime.backends.tensorrt.timing_cache import TimingCacheFile
from edge_runtime.backends.tensorrt.verdict import (
    asked_precisions,
    assess,
    describe,
    read_inspector,
)
from edge_runtime.config import OptimizationProfile
from edge_runtime.cuda.device import Device
from edge_runtime.errors import BuildError, BundleError, ConfigError, DeviceError, InferenceError
from edge_runtime.gpu_config import GpuConfig, TensorRTConfig
from edge_runtime.progress import Progress, silent

_LOGGING = logging.getLogger("edge_runtime.tensorrt")
_NETWORK_NAME = "edge-runtime"  # Stored in the plan; fixed, so that it does not tell plans apart.
_SHOWN = 10  # Layers in a message.


class TensorRTBuilder:
    """The Builder of every TensorRT. Networks are strongly typed: precision is the graph's own."""

    def __init__(
        self,
        trt: Any,
        key: PlanKey,
        config: TensorRTConfig | None = None,
        *,
        timing_cache: TimingCacheFile | None = None,
        memory: MemoryGuard | None = None,
        device: Device | None = None,
    ) -> None:
        """Keeps what to build for.

        Args:
            trt: The module `tensorrt` or `tensorrt_rtx_bindings`.
            key: What plans are for. Only TensorRT-RTX can build for `compute_capabilities` other
                than those of the GPU it runs on.
            config: What the builder is told beside the graph; TensorRT's own choice without one,
                but for TF32, which is off.
            timing_cache: Where kernel timings are kept from build to build; nowhere without one.
            memory: Keeps the build within the machine's memory; nothing does without one.
            device: The GPU on which the layers of a plan are timed; they are not without one.
        """
        self._trt = trt
        self._key = key
        self._config = config or TensorRTConfig()
        self._timing_cache = timing_cache
        self._memory = memory
        self._device = device

    @property
    def key(self) -> PlanKey:
        """What `build` builds for."""
        return self._key

    def parser_failures(self, graph: bytes) -> tuple[ParserFailure, ...]:
        """What the parser has against a serialised ONNX model; nothing if it accepts it."""
        with recording(self._trt) as (logger, log):
            attempt = _Attempt(self._trt, self._key, logger, log)
            failures = parser_failures(attempt.parse(graph))
        nodes = read_graph(graph)
        return tuple(locate(failure, nodes) for failure in failures)

    def build(
        self,
        graph: bytes,
        profiles: Sequence[OptimizationProfile],
        progress: Progress = silent,
    ) -> Plan:
        """Builds a plan from a serialised ONNX model without external data.

        Args:
            graph: The model.
            profiles: Optimization profiles, in the order that they have in the engine; none where
                nothing is dynamic.
            progress: Told of every step, in percent; what it raises ends the build. Ctrl-C does so
                too, at the next step.

        Returns:
            The plan. Its verdict is what `tensorrt.verdict.assess` says; None where it cannot be
            had, as without a GPU that loads the plan.

        Raises:
            BuildError: The library refused, its ERROR lines are in the message; or there is not
                enough memory; or `strict` was asked for and a layer fell back.
            ConfigError: A profile does not fit the model's inputs, or this TensorRT or board lacks
                an option.
        """
        with recording(self._trt) as (logger, log):
            limits = Limits(self._config.workspace)
            if self._memory is not None:
                limits = self._memory.limits(len(graph), self._config.workspace)
            attempt = _Attempt(self._trt, self._key, logger, log)
            order = _Order(self._config, profiles, limits, self._timing_cache, progress)
            memory, asked = attempt.serialise(graph, order)
            del attempt  # It holds the weights twice; what follows may need that memory.
            data = bytes(memory)
            del memory
            self._check_header(data)
            text = _inspect(self._trt, logger, data, self._config)
            if text is None and self._key.backend == "tensorrt":
                raise _refusal(self._key, "cannot load the plan that it has built", log)
        plan = Plan(self._key, data)
        if text is None:
            self._insist(None)
            return plan
        times, notes = self._times(plan, graph, profiles)
        verdict = self._verdict(text, asked, times)
        verdict["notes"] += [*limits.notes, *notes]
        self._insist(verdict)
        return replace(plan, verdict=verdict)

    def _times(
        self, plan: Plan, graph: bytes, profiles: Sequence[OptimizationProfile]
    ) -> tuple[Mapping[str, float] | None, list[str]]:
        """The milliseconds of each layer; or none, and why not."""
        if self._device is None:
            return None, []
        gpu = GpuConfig(dla_core=self._config.dla_core or 0)
        device = self._device
        try:
            return layer_milliseconds(
                self._trt, device, plan, graph=graph, profiles=profiles, config=gpu
            ), []
        except (BundleError, DeviceError, InferenceError) as error:
            return None, [f"The layers were not timed: {error}"]

    def _check_header(self, data: bytes) -> None:
        try:
            header = read_plan_header(data)
        except BundleError as error:
            raise BuildError(f"{self._key} returned a broken plan. {error}") from error
        if header.kind != self._key.backend:
            raise BuildError(f"{self._key} returned a plan for {header.kind}.")

    def _verdict(
        self, text: str, asked: Mapping[str, str], times: Mapping[str, float] | None
    ) -> dict[str, Any]:
        layers = read_inspector(text)
        dla = self._config.dla_core is not None
        verdict = assess(layers or (), asked, dla=dla, milliseconds=times)
        if layers is None:
            verdict["notes"].append("The engine inspector's answer could not be read.")
        return verdict

    def _insist(self, verdict: Mapping[str, Any] | None) -> None:
        """Refuses what `strict` forbids."""
        if verdict is None:
            why = "a plan tells the precision of its layers only on a GPU that it is for"
            if self._config.strict:
                raise BuildError(
                    f"Strict precision cannot be kept here: {why}. Build there, or without it."
                )
            _LOGGING.info("There is no verdict on %s: %s.", self._key, why)
            return
        # A DLA's fallback to the GPU was allowed; it is no other precision.
        fell_back = [entry for entry in verdict["fell_back"] if entry["asked"] != "DLA"]
        if self._config.strict and fell_back:
            lines = [describe(entry) for entry in fell_back[:_SHOWN]]
            if len(fell_back) > _SHOWN:
                lines.append(f"... and {len(fell_back) - _SHOWN} more")
            raise BuildError(
                f"{self._key} built {len(fell_back)} layer(s) in a wider precision than the graph "
                "has, which strict precision forbids. Exclude them, or build without it.",
                log=tuple(lines),
            )
        if self._config.strict and not verdict["layers"]:
            raise BuildError(f"{self._key} does not tell its layers, so strict cannot be kept.")


@dataclass(frozen=True, slots=True)
class _Order:
    """One build's settings."""

    config: TensorRTConfig
    profiles: Sequence[OptimizationProfile]
    limits: Limits
    timing_cache: TimingCacheFile | None
    progress: Progress


class _Attempt:
    """One network and what it needs.

    It outlives the parsers it makes, as it must: a parser whose network is gone crashes. A parser
    owns the network's weights, so `serialise` holds its own until the plan is built.
    """

    def __init__(self, trt: Any, key: PlanKey, logger: Any, log: Recording) -> None:
        self._trt = trt
        self._key = key
        self._logger = logger
        self._log = log
        self._model = b""
        try:
            self._builder = trt.Builder(logger)
        except TypeError as error:  # How the bindings report that there is no GPU, or no memory.
            raise self._refusal("cannot start") from error
        self._network = self._made(self._builder.create_network(network_flags(trt)))
        self._network.name = _NETWORK_NAME

    def parse(self, graph: bytes) -> Any:
        """Fills the network. Returns the parser with its errors."""
        self._model = graph
        parser = self._made(self._trt.OnnxParser(self._network, self._logger))
        parsed = parser.parse(graph)
        if not parsed and not parser.num_errors:
            raise self._refusal("cannot read the graph")
        if parsed and not self._network.num_outputs:
            # The parser takes no bytes, and text, for a model with nothing in it.
            raise BuildError(f"{self._key} found no outputs in the graph; is it an ONNX model?")
        return parser

    def serialise(self, graph: bytes, order: _Order) -> tuple[Any, dict[str, str]]:
        """Parses the graph and builds the plan.

        Returns:
            The plan in memory of TensorRT's, and the precision that each node was asked in.
        """
        check_options(self._trt, self._builder, order.config)
        parser = self.parse(graph)
        failures = parser_failures(parser)
        if failures:
            raise self._refusal("cannot read the graph", failures)
        asked = asked_precisions(self._trt, self._network)
        if order.config.dla_core is not None and set(asked.values()) <= {"FP32"}:
            raise ConfigError(
                "A DLA computes in FP16 and INT8, and nothing in this graph does: build with "
                "precision fp16 or int8, or leave dla_core out."
            )
        config = self._made(self._builder.create_builder_config())
        targets = self._key.compute_capabilities if target_names(self._trt) else ()
        set_targets(self._trt, config, targets)
        apply_options(self._trt, config, order.config, order.limits)
        add_profiles(self._builder, config, self._network, order.profiles)
        return self._built(config, order), asked

    def _built(self, config: Any, order: _Order) -> Any:
        cache = order.timing_cache.attach(config) if order.timing_cache else None
        what = f"Building the {self._key.backend} plan"
        with watching(self._trt, what, order.progress) as (monitor, watch):
            config.progress_monitor = monitor
            memory = self._builder.build_serialized_network(self._network, config)
        if memory is None:
            raise self._refusal("cannot build the graph")
        if order.timing_cache:
            order.timing_cache.save(config, cache)
        watch.complete()
        return memory

    def _made(self, thing: Any) -> Any:
        if thing is None:
            raise self._refusal("cannot start")
        return thing

    def _refusal(self, what: str, failures: tuple[ParserFailure, ...] = ()) -> BuildError:
        return _refusal(self._key, what, self._log, failures, self._model)


def _inspect(trt: Any, logger: Any, data: bytes, config: TensorRTConfig) -> str | None:
    """The inspector's JSON of a plan that was built just now; None where it cannot be loaded."""
    runtime = trt.Runtime(logger)
    if config.version_compatible:
        runtime.engine_host_code_allowed = True  # Such a plan carries its own runtime.
    if config.dla_core is not None:
        runtime.DLA_core = config.dla_core
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _refusal(
    key: PlanKey,
    what: str,
    log: Recording,
    failures: tuple[ParserFailure, ...] = (),
    model: bytes = b"",
) -> BuildError:
    """The error with TensorRT's own lines, those of the parser in their readable form."""
    graph = read_graph(model)
    lines = [str(locate(failure, graph)) for failure in failures]
    for message in log.errors:
        line = "; ".join(message.splitlines())
        # The parser logs its errors too, over several lines; they are in `failures` already.
        if failures and line.startswith("ModelImporter.cpp:"):
            continue
        if not any(line in failure.reason or failure.reason in line for failure in failures):
            lines.append(explain(line, graph))
    if not lines:
        lines.append("It gave no reason; something else in this process has its only logger.")
    return BuildError(f"{key} {what}.", log=tuple(dict.fromkeys(lines)))
