"""A model in its precision, as bytes with a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from edge_runtime.model import Model
from edge_runtime.precision.graphs.validate import validate
from edge_runtime.precision.observing.reference import Reference
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from edge_runtime.tensors import Array


@dataclass(frozen=True)
class Rewritten:
    """A model in its precision.

    Attributes:
        graph: The serialised graph that devices build from.
        cpu_graph: What the CPU runs instead, where it has no kernels for the graph's types.
        report: What became of the layers, as plain JSON.
        cache: The calibration that the graph was written with; INT8 only.
        fast_graph: What the CPU runs in the mode `fast`, where that was asked; INT8 only.
        reference: What the model makes of samples, where that was needed; INT8 only.
        outputs: What the graph makes of these, where it was run already.
    """

    graph: bytes
    cpu_graph: bytes | None
    report: dict[str, Any]
    cache: CalibrationCache | None = None
    fast_graph: bytes | None = None
    reference: Reference | None = None
    outputs: Sequence[Sequence[Array]] | None = None


def serialise(proto: ModelProto, model: Model) -> bytes:
    """The bytes of a rewritten model, the same each time.

    Raises:
        ModelError: The graph breaks a rule that TensorRT sets.
    """
    validate(proto, model.name)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data
