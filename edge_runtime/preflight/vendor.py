"""Asks NVIDIA's own parser and builder, those of TensorRT-RTX, which need no GPU."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto

from edge_runtime.backends import registry
from edge_runtime.backends.tensorrt.builder import TensorRTBuilder
from edge_runtime.backends.tensorrt.parse import ParserFailure
from edge_runtime.config import OptimizationProfile, ShapeRange
from edge_runtime.errors import BuildError, ConfigError
from edge_runtime.model import Model
from edge_runtime.preflight.findings import BuilderRun, Finding, Outcome, Scope, Severity
from edge_runtime.preflight.operators import RTX_GAPS

# What the builder says of an operator that it reads and cannot build, while TensorRT can.
_BUILD_GAPS = {
    "NonMaxSuppression": "has no runners that implement it",
    "If": "graphScope.cpp",
    "Attention": "not supported by a dedicated kernel",
}
_PARSER_HINT = "Change or leave out this node when exporting."
_BUILDER_HINT = (
    "Change the node or shape that it names; if it names none, build on the Jetson to compare."
)


def ask_vendor(
    model: Model, *, targets: Sequence[str], profiles: Sequence[OptimizationProfile], build: bool
) -> tuple[BuilderRun, tuple[Finding, ...]]:
    """Parses the model and, if `build`, builds a plan of it that is thrown away.

    Of `targets` those count that TensorRT-RTX has. If it has none of them, as for a Jetson's, the
    model is built for Ampere and newer: parser and most of the builder are the same code.

    Returns:
        What ran, and its errors. What only TensorRT-RTX lacks is an error only if one of its own
        targets was asked for.
    """
    available = next(entry for entry in registry.availability() if entry.name == "tensorrt-rtx")
    if not available.can_build:
        detail = f"Only the lints ran, not NVIDIA's own parser and builder: {available.reason}."
        return BuilderRun(Outcome.NOT_RUN, "", detail), ()
    from edge_runtime.backends import tensorrt_rtx

    own = [target for target in targets if target in tensorrt_rtx.TARGETS]
    builder = tensorrt_rtx.create_builder(own)
    return _Interview(model, builder, Severity.ERROR if own else Severity.NOTE).run(profiles, build)


class _Interview:
    """One model, one builder, and how bad it is that TensorRT-RTX alone lacks something."""

    def __init__(self, model: Model, builder: TensorRTBuilder, gap: Severity) -> None:
        self._model = model
        self._builder = builder
        self._gap = gap
        self._name = f"{builder.key.backend} {builder.key.version}"

    def run(
        self, profiles: Sequence[OptimizationProfile], build: bool
    ) -> tuple[BuilderRun, tuple[Finding, ...]]:
        graph = self._model.proto.SerializeToString()
        try:
            failures = self._builder.parser_failures(graph)
        except BuildError as error:
            return self._outcome(Outcome.REFUSED, "It cannot read the model."), self._lines(error)
        if failures:
            findings = tuple(self._of_parser(failure) for failure in failures)
            detail = "Its parser refused the model."
            if all(finding.scope is Scope.RTX for finding in findings):
                detail = (
                    "Its parser stopped at an operator that only TensorRT-RTX lacks; the lints saw "
                    "the nodes after it, the parser did not."
                )
            return self._outcome(Outcome.REFUSED, detail), findings
        if not build:
            return self._outcome(Outcome.PARSED, "It read the model; no plan was asked for."), ()
        return self._build(graph, profiles)

    def _build(
        self, graph: bytes, profiles: Sequence[OptimizationProfile]
    ) -> tuple[BuilderRun, tuple[Finding, ...]]:
        completed, guess = _complete(self._model, profiles)
        try:
            self._builder.build(graph, completed)
        except ConfigError as error:
            detail = f"It read the model; no plan was built, as shapes are missing. {error}"
            return self._outcome(Outcome.PARSED, detail), ()
        except BuildError as error:
            return self._outcome(Outcome.REFUSED, "Its builder refused the model."), self._lines(
                error
            )
        targets = ", ".join(self._builder.key.compute_capabilities) or "Ampere and newer"
        return self._outcome(Outcome.BUILT, f"It built a plan for {targets}{guess}."), ()

    def _outcome(self, outcome: Outcome, detail: str) -> BuilderRun:
        return BuilderRun(outcome, self._name, detail)

    def _of_parser(self, failure: ParserFailure) -> Finding:
        gap = failure.op in RTX_GAPS
        return Finding(
            severity=self._gap if gap else Severity.ERROR,
            rule="parser",
            node=_label(self._model.proto, failure),
            op=failure.op,
            message=f"{self._name}: {failure.reason}",
            hint="A Jetson's TensorRT has this operator." if gap else _PARSER_HINT,
            scope=Scope.RTX if gap else Scope.TENSORRT,
        )

    def _lines(self, error: BuildError) -> tuple[Finding, ...]:
        ops = {node.op_type for node in self._model.proto.graph.node}
        findings = []
        for line in error.log or (str(error),):  # Too little memory here is no line of NVIDIA's.
            op = next((o for o, text in _BUILD_GAPS.items() if text in line and o in ops), "")
            hint = f"A Jetson's TensorRT may well build this {op}." if op else _BUILDER_HINT
            findings.append(
                Finding(
                    severity=self._gap if op else Severity.ERROR,
                    rule="builder",
                    node="",
                    op=op,
                    message=f"{self._name}: {line}",
                    hint=hint,
                    scope=Scope.RTX if op else Scope.TENSORRT,
                )
            )
        return tuple(findings)


def _complete(
    model: Model, profiles: Sequence[OptimizationProfile]
) -> tuple[list[OptimizationProfile], str]:
    """The profiles with batch size 1 for inputs of which only the first axis is dynamic.

    Returns:
        The profiles, and in words what was added. Other inputs that lack a range still lack it.
    """
    single = {}
    for spec in model.inputs:
        if spec.shape[:1] == (-1,) and -1 not in spec.shape[1:]:
            sizes = (1, *spec.shape[1:])
            single[spec.name] = ShapeRange(sizes, sizes, sizes)
    profiles = profiles or ({},)
    added = [
        f"{name}={shapes}"
        for name, shapes in single.items()
        if any(name not in profile for profile in profiles)
    ]
    guess = f", with {', '.join(added)} for want of --shape" if added else ""
    return [{**single, **profile} for profile in profiles], guess


def _label(proto: ModelProto, failure: ParserFailure) -> str:
    """The name that the lints give the node, which is its first output where it has no name."""
    if failure.node or failure.path or not 0 <= failure.index < len(proto.graph.node):
        return failure.node
    return next(iter(proto.graph.node[failure.index].output), "")
