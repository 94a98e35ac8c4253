"""The product: one file with a graph, its calibration and its plans."""

from edge_runtime.bundle.bundle import Bundle, add_plans, write_bundle
from edge_runtime.bundle.manifest import Manifest, PlanKey

__all__ = ["Bundle", "Manifest", "PlanKey", "add_plans", "write_bundle"]
