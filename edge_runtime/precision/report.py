"""What became of each node of a model: the precision that was asked and the one it carries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from onnx import ModelProto

from edge_runtime.config import BuildConfig


def report_of(
    config: BuildConfig, proto: ModelProto, lowered: Iterable[str], kept: dict[str, str]
) -> dict[str, Any]:
    """What each node became. Those that `lowered` does not name compute in FP32 or on integers."""
    lowered = set(lowered)
    return {
        "asked": config.precision.value,
        "nodes": [
            {
                "name": node.name,
                "op": node.op_type,
                "precision": config.precision.value if node.name in lowered else "fp32",
            }
            for node in proto.graph.node
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Cast")
        ],
        "kept": dict(sorted(kept.items())),
    }
