"""Builds plans with the TensorRT module that is handed in: one path for TensorRT 10, 11 and RTX."""

from __future__ import annotations

from typing import Any

from edge_runtime.backends.base import Plan, PlanKey
from edge_runtime.backends.tensorrt.compat import network_flags, set_targets
from edge_runtime.backends.tensorrt.logger import Recording, recording
from edge_runtime.backends.tensorrt.parse import ParserFailure, parser_failures
from edge_runtime.backends.tensorrt.plan_header import read_plan_header
from edge_runtime.backends.tensorrt.profile import add_profile
from edge_runtime.config import OptimizationProfile
from edge_runtime.errors import BuildError, BundleError

_NETWORK_NAME = "edge-runtime"  # Stored in the plan; fixed, so that it does not tell plans apart.


class TensorRTBuilder:
    """The Builder of every TensorRT. Networks are strongly typed: precision is the graph's own."""

    def __init__(self, trt: Any, key: PlanKey) -> None:
        """Keeps what to build for.

        Args:
            trt: The module `tensorrt` or `tensorrt_rtx_bindings`.
            key: What plans are for. Only TensorRT-RTX can build for `compute_capabilities` other
                than those of the GPU it runs on.
        """
        self._trt = trt
        self._key = key

    @property
    def key(self) -> PlanKey:
        """What `build` builds for."""
        return self._key

    def parser_failures(self, graph: bytes) -> tuple[ParserFailure, ...]:
        """What the parser has against a serialised ONNX model; nothing if it accepts it."""
        with recording(self._trt) as (logger, log):
            attempt = _Attempt(self._trt, self._key, logger, log)
            return parser_failures(attempt.parse(graph))

    def build(self, graph: bytes, profile: OptimizationProfile) -> Plan:
        """Builds a plan from a serialised ONNX model without external data.

        Raises:
            BuildError: The library refused; its ERROR lines are in the message.
            ConfigError: The profile does not fit the model's inputs.
        """
        with recording(self._trt) as (logger, log):
            attempt = _Attempt(self._trt, self._key, logger, log)
            return Plan(key=self._key, data=attempt.serialise(graph, profile))


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
        try:
            self._builder = trt.Builder(logger)
        except TypeError as error:  # How the bindings report that there is no GPU, or no memory.
            raise self._refusal("cannot start") from error
        self._network = self._made(self._builder.create_network(network_flags(trt)))
        self._network.name = _NETWORK_NAME

    def parse(self, graph: bytes) -> Any:
        """Fills the network. Returns the parser with its errors."""
        parser = self._made(self._trt.OnnxParser(self._network, self._logger))
        parsed = parser.parse(graph)
        if not parsed and not parser.num_errors:
            raise self._refusal("cannot read the graph")
        if parsed and not self._network.num_outputs:
            # The parser takes no bytes, and text, for a model with nothing in it.
            raise BuildError(f"{self._key} found no outputs in the graph; is it an ONNX model?")
        return parser

    def serialise(self, graph: bytes, profile: OptimizationProfile) -> bytes:
        """Parses the graph and builds the plan."""
        parser = self.parse(graph)
        failures = parser_failures(parser)
        if failures:
            raise self._refusal("cannot read the graph", failures)
        config = self._made(self._builder.create_builder_config())
        set_targets(self._trt, config, self._targets())
        add_profile(self._builder, config, self._network, profile)
        memory = self._builder.build_serialized_network(self._network, config)
        if memory is None:
            raise self._refusal("cannot build the graph")
        data = bytes(memory)
        try:
            header = read_plan_header(data)
        except BundleError as error:
            raise BuildError(f"{self._key} returned a broken plan. {error}") from error
        if header.kind != self._key.backend:
            raise BuildError(f"{self._key} returned a plan for {header.kind}.")
        return data

    def _targets(self) -> tuple[str, ...]:
        return self._key.compute_capabilities if self._key.backend == "tensorrt-rtx" else ()

    def _made(self, thing: Any) -> Any:
        if thing is None:
            raise self._refusal("cannot start")
        return thing

    def _refusal(self, what: str, failures: tuple[ParserFailure, ...] = ()) -> BuildError:
        """The error with TensorRT's own lines, those of the parser in their readable form."""
        lines = [str(failure) for failure in failures]
        for message in self._log.errors:
            line = "; ".join(message.splitlines())
            # The parser logs its errors too, over several lines; they are in `failures` already.
            if failures and line.startswith("ModelImporter.cpp:"):
                continue
            if not any(line in failure.reason or failure.reason in line for failure in failures):
                lines.append(line)
        if not lines:
            lines.append("It gave no reason; something else in this process has its only logger.")
        return BuildError(f"{self._key} {what}.", log=tuple(dict.fromkeys(lines)))
