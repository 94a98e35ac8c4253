"""The table of all lints, and the function that runs them over a model."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto

from edge_runtime.config import OptimizationProfile
from edge_runtime.preflight import hardware, interface, operators, quantization
from edge_runtime.preflight.findings import Finding
from edge_runtime.preflight.graph import GraphView

RULES = (*interface.RULES, *operators.RULES, *quantization.RULES, *hardware.RULES)


def run_lints(
    proto: ModelProto,
    *,
    targets: Sequence[str] = (),
    profiles: Sequence[OptimizationProfile] = (),
) -> tuple[Finding, ...]:
    """What the lints have against a valid model: in the order of the table, then of the model.

    Args:
        proto: The model, its weights inline.
        targets: GPU architectures to build for, such as `sm86`; may be empty.
        profiles: The shape ranges that are known so far, by input, of each profile.

    Raises:
        ModelError: The shapes in the model contradict each other.
    """
    view = GraphView(proto, targets, profiles)
    return tuple(finding for rule in RULES for finding in rule.findings(view))
