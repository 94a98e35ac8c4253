"""`edge-runtime inspect`: what is in a bundle, a model or a calibration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType

from edge_runtime.cli import options, output, report
from edge_runtime.cli.int8_report import CURVE_COLUMNS
from edge_runtime.cli.kinds import Kind, file_kind
from edge_runtime.errors import CalibrationCacheError
from edge_runtime.files import read_file
from edge_runtime.text import counted, file_size, number, short_digest, tensorrt_version

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle
    from edge_runtime.model import Model

_HELP = """Show what is in a file: a bundle, an ONNX model, a calibration or TensorRT's calibration
cache. Which it is, its content says, not its name; of a bundle, every byte is verified.
"""

_EXAMPLES = """\b
Examples:
  edge-runtime inspect tests/data/digits.onnx
  edge-runtime build tests/data/digits.onnx -o digits.edge --precision fp16
  edge-runtime inspect digits.edge --layers
"""

_View = tuple[dict[str, Any], list[RenderableType]]


@click.command("inspect", help=_HELP, epilog=_EXAMPLES)
@click.argument("file", type=options.FILE)
@click.option(
    "--layers",
    is_flag=True,
    help="List every node and what the guard tried, or every tensor of a calibration.",
)
@options.json_option
def command(file: Path, layers: bool) -> None:
    """Shows a file."""
    kind = file_kind(file)
    plain, parts = _VIEWS[kind](file, layers)
    size = file.stat().st_size
    first = f"{file}: {_TITLES[kind]}, {file_size(size)}"
    output.emit({"path": str(file), "kind": kind.value, "size": size, **plain}, first, *parts)


def _bundle(path: Path, layers: bool) -> _View:
    from edge_runtime.bundle import Bundle

    bundle = Bundle.open(path)
    bundle.verify()
    plain = {"digest": bundle.digest, "manifest": bundle.manifest.to_json()}
    rows = [*report.source_rows(bundle), *report.summary(bundle), report.cpu_row(bundle)]
    rows.append(("digest", f"{short_digest(bundle.digest)}; every byte is verified"))
    entries = [
        (entry.name, file_size(entry.size), short_digest(f"sha256:{entry.sha256}"))
        for entry in bundle.manifest.entries
    ]
    parts = [output.facts(rows), output.table(("file", ">size", "digest"), entries)]
    curve = report.guard_curve(bundle) if layers else []
    if curve:
        parts.append(output.table(CURVE_COLUMNS, curve))
    return plain, [*parts, _layer_table(bundle) if layers else _operator_table(bundle)]


def _operator_table(bundle: Bundle) -> RenderableType:
    """How many nodes of each operator carry which precision."""
    counts = Counter((layer.op, layer.precision) for layer in report.layers(bundle))
    precisions = report.narrow_first({precision for _, precision in counts})
    operators = dict.fromkeys(op for op, _ in counts)
    return output.table(
        ("operator", *(f">{precision.upper()}" for precision in precisions)),
        (
            (op, *(str(counts[op, precision] or "-") for precision in precisions))
            for op in operators
        ),
    )


def _layer_table(bundle: Bundle) -> RenderableType:
    return output.table(
        ("node", "operator", "asked", "carries", "why"),
        (
            (layer.name, layer.op, layer.asked.upper(), layer.precision.upper(), layer.kept)
            for layer in report.layers(bundle)
        ),
    )


def _model(path: Path, layers: bool) -> _View:
    from edge_runtime.model import read_model

    model = read_model(path)
    nodes = model.proto.graph.node
    operators = Counter(node.op_type for node in nodes)
    weights = _weights(model)
    quantized = any("QuantizeLinear" in op for op in operators)
    plain = {
        "digest": model.digest,
        "opset": model.opset,
        "inputs": [_spec(spec) for spec in model.inputs],
        "outputs": [_spec(spec) for spec in model.outputs],
        "nodes": len(nodes),
        "operators": dict(operators.most_common()),
        "parameters": dict(weights),
        "quantized": quantized,
    }
    stored = ", ".join(f"{count:,} {dtype}" for dtype, count in weights.most_common())
    rows = [
        *(("input", f"{spec.name}: {spec}") for spec in model.inputs),
        *(("output", f"{spec.name}: {spec}") for spec in model.outputs),
        ("opset", str(model.opset)),
        ("nodes", f"{len(nodes):,}"),
        ("parameters", stored or "none"),
        ("quantized", "yes, it has Q/DQ nodes" if quantized else "no, it has no Q/DQ nodes"),
        ("digest", short_digest(model.digest)),
    ]
    if layers:
        listed = ((node.name or node.output[0], node.op_type) for node in nodes)
        return plain, [output.facts(rows), output.table(("node", "operator"), listed)]
    counts = ((op, str(count)) for op, count in operators.most_common())
    return plain, [output.facts(rows), output.table(("operator", ">nodes"), counts)]


def _weights(model: Model) -> Counter[str]:
    """How many values the initialisers and constants of the main graph have, by type."""
    from edge_runtime.model import dtype_name

    graph = model.proto.graph
    constants = [node for node in graph.node if node.op_type == "Constant"]
    stored = [a.t for node in constants for a in node.attribute if a.HasField("t")]
    counts: Counter[str] = Counter()
    for tensor in [*graph.initializer, *stored]:
        counts[dtype_name(tensor.data_type)] += prod(tensor.dims)
    return counts


def _spec(spec: Any) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _calibration(path: Path, layers: bool) -> _View:
    from edge_runtime.precision.ranging.calibration_cache import CalibrationCache

    cache = CalibrationCache.load(path)
    samples = counted(cache.samples, "sample") if cache.samples else "unknown data"
    data = f", {short_digest(cache.data_digest)}" if cache.data_digest else ""
    rows = [
        ("model", short_digest(cache.model_digest)),
        ("method", f"{cache.method}, on {samples}{data}"),
        ("made with", f"edge-runtime {cache.tool}"),
        ("ranges", counted(len(cache.ranges), "tensor")),
    ]
    if cache.equalization:
        rows.append(("equalized", counted(len(cache.equalization), "tensor")))
    if cache.peaks:
        rows.append(("largest values", f"of {counted(len(cache.peaks), 'tensor')} more, for half"))
    rows.extend(("note", finding) for finding in cache.findings)
    plain = {
        "model_digest": cache.model_digest,
        "method": cache.method,
        "samples": cache.samples,
        "data_digest": cache.data_digest,
        "tool": cache.tool,
        **_plain_ranges(cache.ranges),
    }
    return plain, [output.facts(rows), *_range_table(cache.ranges, layers)]


def _tensorrt_cache(path: Path, layers: bool) -> _View:
    from edge_runtime.precision.ranging.calibration_cache import MAX_BYTES
    from edge_runtime.precision.ranging.trt_cache import TrtCache

    data = read_file(path, limit=MAX_BYTES, error=CalibrationCacheError)
    cache = TrtCache.parse(data, where=str(path))
    ranges = cache.to_ranges()
    rows = [
        ("TensorRT", f"{tensorrt_version(cache.version)}, {cache.algorithm}"),
        ("model", "it does not say"),
        ("ranges", counted(len(ranges), "tensor")),
    ]
    plain = {"version": cache.version, "algorithm": cache.algorithm, **_plain_ranges(ranges)}
    return plain, [output.facts(rows), *_range_table(ranges, layers)]


def _plain_ranges(ranges: Any) -> dict[str, Any]:
    return {"ranges": {name: bounds.amax for name, bounds in ranges.items()}}


def _range_table(ranges: Any, layers: bool) -> Iterator[RenderableType]:
    if layers:
        rows = (
            (name, number(bounds.amax), number(bounds.observed)) for name, bounds in ranges.items()
        )
        yield output.table(("tensor", ">range", ">largest seen"), rows)


_VIEWS: dict[Kind, Callable[[Path, bool], _View]] = {
    Kind.BUNDLE: _bundle,
    Kind.MODEL: _model,
    Kind.CALIBRATION: _calibration,
    Kind.TENSORRT_CACHE: _tensorrt_cache,
}
_TITLES = {
    Kind.BUNDLE: "a bundle",
    Kind.MODEL: "an ONNX model",
    Kind.CALIBRATION: "a calibration",
    Kind.TENSORRT_CACHE: "TensorRT's calibration cache",
}
