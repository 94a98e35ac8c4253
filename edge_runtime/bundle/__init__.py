"""The product: one file with a graph, its calibration and its plans."""

from edge_runtime.bundle.bundle import Bundle, add_plans, is_bundle, write_bundle
from edge_runtime.bundle.container import CPU_FAST_GRAPH, CPU_GRAPH, GRAPH
from edge_runtime.bundle.manifest import Manifest, PlanKey

__all__ = [
    "CPU_FAST_GRAPH",
    "CPU_GRAPH",
    "GRAPH",
    "Bundle",
    "Manifest",
    "PlanKey",
    "add_plans",
    "is_bundle",
    "write_bundle",
]
