"""The preflight: says, without a GPU, what TensorRT will have against a model, and what to do."""

from edge_runtime.preflight.findings import (
    BuilderRun,
    CheckReport,
    Finding,
    Outcome,
    Scope,
    Severity,
)
from edge_runtime.preflight.preflight import check_model

__all__ = [
    "BuilderRun",
    "CheckReport",
    "Finding",
    "Outcome",
    "Scope",
    "Severity",
    "check_model",
]
