"""The tools and their settings: each is a line in every table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accuracy.rows import Row
from edge_runtime.config import CalibrationConfig, CalibrationMethod


@dataclass(frozen=True)
class Variant:
    """A tool with its settings.

    Attributes:
        tool: `ours`, or the peer's environment.
        name: What stands in the table.
        script: The script of `accuracy/quantizers`.
        options: What that script is told.
        default: Whether this is what a user of ours gets who sets nothing.
        timed: Whether it is also run where only time and memory count.
    """

    tool: str
    name: str
    script: str
    options: dict[str, Any]
    default: bool = False
    timed: bool = False


def variants_for(row: Row) -> list[Variant]:
    """All variants that a row is run with."""
    found = [*_ours(), *_onnx_runtime(), *_modelopt(), *_nncf(row), *_aimet()]
    return [variant for variant in found if variant.timed or not row.timed_only]


def _ours() -> list[Variant]:
    default = CalibrationConfig().method
    found = []
    for method in CalibrationMethod:
        is_default = method is default
        name = f"edge_runtime {method.value}" + (" (default)" if is_default else "")
        timed = is_default or method is CalibrationMethod.AUTO
        options = {"method": method.value}
        found.append(Variant("ours", name, "ours.py", options, is_default, timed))
    high = {"method": default.value, "effort": "high"}
    return [*found, Variant("ours", "edge_runtime, high effort", "ours.py", high)]


def _onnx_runtime() -> list[Variant]:
    found = [
        Variant(
            "onnx_runtime",
            f"ONNX Runtime {method}",
            "onnx_runtime.py",
            {"tensorrt": True, "method": method},
            timed=method != "Percentile",
        )
        for method in ("MinMax", "Entropy", "Percentile")
    ]
    plain = {"tensorrt": False, "method": "MinMax"}
    return [*found, Variant("onnx_runtime", "ONNX Runtime default", "onnx_runtime.py", plain)]


def _modelopt() -> list[Variant]:
    return [
        Variant("modelopt", f"ModelOpt {method}", "modelopt_ptq.py", {"method": method}, timed=True)
        for method in ("max", "entropy")
    ]


def _nncf(row: Row) -> list[Variant]:
    options = {"transformer": row.transformer}
    return [Variant("nncf", "NNCF", "nncf_ptq.py", options, timed=True)]


def _aimet() -> list[Variant]:
    script = "aimet_ptq.py"
    return [
        Variant("aimet", "AIMET min-max", script, {"scheme": "min_max"}, timed=True),
        Variant("aimet", "AIMET SQNR", script, {"scheme": "tf_enhanced"}),
    ]
