"""What a bundle says about itself, in rows for people; shared by `build` and `inspect`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from edge_runtime.cli import int8_report
from edge_runtime.cli.plan_report import Row, plan_rows
from edge_runtime.errors import BundleError
from edge_runtime.strict_json import Value
from edge_runtime.text import counted, few, number, percent, short_digest, sqnr

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle

_SHOWN_REASONS = 5
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_CPU_GRAPH = "cpu.onnx"
_CPU_ITSELF = "graph.onnx, the very graph that plans are built from"
_CPU_TWIN = (
    "cpu.onnx, its twin: ONNX Runtime has no {type} kernels for the CPU, so that the twin computes "
    "in FP32 and rounds to {type} after each node"
)


@dataclass(frozen=True, slots=True)
class Layer:
    """What became of a node of the model: the precision that was asked and the one it carries."""

    name: str
    op: str
    asked: str
    precision: str
    kept: str


def layers(bundle: Bundle) -> list[Layer]:
    """Every node, in the graph's order.

    Raises:
        BundleError: The manifest's report is not of the form that edge_runtime writes.
    """
    report = _report(bundle)
    kept, full = _reasons(report, "kept"), _reasons(report, "kept_full")
    rest = _rest(bundle)
    found = []
    for item in report["nodes"].items():
        node = item.fields("name", "op", "precision")
        name, op = node["name"].text(), node["op"].text()
        is_layer = op in _PRODUCTS or name in kept
        asked = bundle.precision.value if is_layer else rest
        why = "; ".join(reasons[name] for reasons in (kept, full) if name in reasons)
        found.append(Layer(name, op, asked, node["precision"].text(), why))
    return found


def guard_curve(bundle: Bundle) -> list[Sequence[str]]:
    """What the accuracy guard tried; see `int8_report.guard_curve`.

    Raises:
        BundleError: As `layers`.
    """
    return int8_report.guard_curve(_report(bundle))


def summary(bundle: Bundle) -> Iterator[Row]:
    """The precision, the calibration, the agreement with the model and the plans.

    Raises:
        BundleError: As `layers`.
    """
    report = _report(bundle)
    yield from _precision_rows(bundle)
    yield from _calibration_rows(bundle)
    yield from int8_report.correction_rows(report)
    yield from _agreement_rows(bundle)
    yield from int8_report.guard_rows(report)
    yield from int8_report.note_rows(report)
    yield from plan_rows(bundle)
    if not bundle.plans:
        reason = _report(bundle)["no_plan"]
        yield "plan", "none" if reason.plain is None else f"none: {reason.text()}"


def cpu_row(bundle: Bundle) -> Row:
    """Which of its graphs the CPU runs, and why."""
    if any(entry.name == _CPU_GRAPH for entry in bundle.manifest.entries):
        return "CPU runs", _CPU_TWIN.format(type=_rest(bundle).upper())
    return "CPU runs", _CPU_ITSELF


def preprocessing_text(plain: Mapping[str, Any]) -> str:
    """A preprocessing as `--preprocess` takes it, without settings of other ways to resize.

    Raises:
        ConfigError: These are not the settings of a preprocessing.
    """
    from edge_runtime.vision.preprocess import Preprocessing

    declared = Preprocessing.from_json(plain)
    parts = []
    for field in fields(declared):
        value = getattr(declared, field.name)
        if field.name in ("pad", "multiple", "short_side") and value == field.default:
            continue
        if isinstance(value, tuple):
            value = ("x" if field.name == "size" else "/").join(f"{part:g}" for part in value)
        elif isinstance(value, float):
            value = number(value)
        parts.append(f"{field.name}={value}")
    return ", ".join(parts)


def _report(bundle: Bundle) -> dict[str, Value]:
    """The manifest's report; what it leaves out is empty."""
    where = f"{bundle.path}: manifest.json: precision"
    empty: dict[str, Any] = {
        "nodes": [],
        "kept": {},
        "kept_full": {},
        "agreement": {},
        "no_plan": None,
        "always_zero": [],
    }
    return Value({**empty, **bundle.manifest.precision}, where, BundleError).members()


def _rest(bundle: Bundle) -> str:
    """What was asked of the nodes that are not INT8 layers."""
    if bundle.precision.value != "int8":
        return bundle.precision.value
    return str(bundle.manifest.precision.get("high_precision", "fp32"))


def _reasons(report: Mapping[str, Value], key: str) -> dict[str, str]:
    return {name: reason.text() for name, reason in report[key].members().items()}


def _precision_rows(bundle: Bundle) -> Iterator[Row]:
    counts = Counter(layer.precision for layer in layers(bundle))
    shown = [f"{counted(counts[name], 'node')} {name.upper()}" for name in narrow_first(counts)]
    asked = bundle.precision.value.upper()
    yield "precision", f"{asked}: {', '.join(shown)}" if shown else asked
    yield from int8_report.share_rows(_report(bundle))
    reasons = defaultdict(list)
    for layer in layers(bundle):
        if layer.kept:
            is_int8 = layer.precision == "int8"  # It has a reason for what is around it.
            label = "INT8 amid FP32" if is_int8 else f"kept {layer.precision.upper()}"
            reasons[label, layer.kept].append(layer.name)
    for (label, reason), names in list(reasons.items())[:_SHOWN_REASONS]:
        yield label, f"{few(names)}: {reason}"
    left = sum(len(names) for names in list(reasons.values())[_SHOWN_REASONS:])
    if left:
        yield "kept", f"and {counted(left, 'node')} more: edge-runtime inspect --layers"


def _calibration_rows(bundle: Bundle) -> Iterator[Row]:
    report, data = _report(bundle), bundle.manifest.data
    source = data.description if data is not None else "data that nobody recorded"
    if "calibration" in report:
        calibration = report["calibration"].fields("method", "samples")
        effort = bundle.manifest.config.get("calibration", {}).get("effort", "default")
        how = f"{calibration['method'].text()}, on {source}"
        yield "calibration", how if effort == "default" else f"{how}; weights by effort {effort}"
    if "ranges_checked_on" in report:
        if report["ranges_checked_on"].integer(0):
            yield "ranges", f"those of activations were checked on {source}"
        elif "calibration" in report:
            rest = _rest(bundle)
            yield "ranges", f"not all were checked: calibrate with --high-precision {rest}"
        else:
            yield "ranges", "those of activations were not checked: give --calibration-data"
    zeros = [name.text() for name in report["always_zero"].items()]
    if zeros:
        yield "always zero", f"{counted(len(zeros), 'tensor')} in calibration: {few(zeros)}"


def _agreement_rows(bundle: Bundle) -> Iterator[Row]:
    for name, value in _report(bundle)["agreement"].members().items():
        figures = value.fields("max_error", "mean_error", "sqnr_db", "cosine", "top1", "equal")
        equal, top1 = figures["equal"].plain is True, figures["top1"]
        signal = figures["sqnr_db"]
        text = sqnr(None if signal.plain is None else signal.number(), equal=equal)
        if not equal:
            text += f" SQNR, largest error {number(figures['max_error'].number())}"
        if top1.plain is not None:
            text += f", same top-1 in {percent(top1.number())}"
        yield "agreement", f"{name}: {text} (with the model, on calibration samples)"


def narrow_first(precisions: Iterable[str]) -> list[str]:
    """Precisions from INT8 to FP64, and those of nodes that have none."""
    order = ("int8", "fp16", "bf16", "fp32", "fp64", "unknown", "integer")
    return sorted(precisions, key=lambda name: order.index(name) if name in order else len(order))


def source_rows(bundle: Bundle) -> Iterator[Row]:
    """What a bundle was made from, and with what."""
    manifest = bundle.manifest
    yield "model", f"{manifest.model.name}, {short_digest(manifest.model.digest)}"
    for kind, specs in (("input", manifest.inputs), ("output", manifest.outputs)):
        for spec in specs:
            yield kind, f"{spec.name}: {spec}"
    if manifest.preprocessing is not None:
        yield "pictures", preprocessing_text(manifest.preprocessing)
    if manifest.data is not None:
        yield "data", f"{manifest.data.description}, {short_digest(manifest.data.digest)}"
    yield "made with", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
