"""`edge-runtime check`: what TensorRT will have against a model, and what to do about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.cli import options, output
from edge_runtime.cli.kinds import Kind, file_kind
from edge_runtime.errors import ModelError
from edge_runtime.text import counted, few

if TYPE_CHECKING:
    from edge_runtime.preflight import CheckReport, Finding

_HELP = """Say what TensorRT will have against an ONNX model, and what to do about it. Nothing is
run, and no GPU is needed: lints look at the graph, and where TensorRT-RTX is installed, NVIDIA's
own parser and builder try it too.

The exit code is 1 if there are errors, which stop a build or make its numbers wrong.
"""

_EXAMPLES = """\b
Examples:
  edge-runtime check tests/data/digits.onnx
  edge-runtime check tests/data/digits.onnx --target sm87 --no-build
  edge-runtime check tests/data/digits.onnx --shape image=1x1x16x16,8x1x16x16,32x1x16x16
"""


@click.command("check", help=_HELP, epilog=_EXAMPLES)
@click.argument("model", type=options.FILE)
@options.target_option
@options.shape_option
@click.option("--no-build", is_flag=True, help="Only parse: build no plan to throw away.")
@options.json_option
@click.pass_context
def command(
    ctx: click.Context,
    model: Path,
    targets: tuple[str, ...],
    shapes: tuple[str, ...],
    no_build: bool,
) -> None:
    """Checks a model."""
    if file_kind(model) is Kind.BUNDLE:
        raise ModelError(f"{model} is a bundle; check the ONNX model that it was built from.")
    profiles = options.read_shapes(shapes)
    from edge_runtime.preflight import check_model

    report = check_model(model, targets=targets, profiles=profiles, build=not no_build)
    _emit(report)
    if not report.ok:
        ctx.exit(1)


def _emit(report: CheckReport) -> None:
    alike: dict[Finding, list[str]] = defaultdict(list)
    for finding in report.findings:
        where = f"{finding.node} ({finding.op})" if finding.op else finding.node or "the model"
        alike[replace(finding, node="", op="")].append(where)
    rows: list[tuple[str, str]] = []
    for finding, nodes in alike.items():
        apart = [("", "")] if rows else []
        rows += [*apart, (finding.severity.value, "\n".join(_lines(finding, nodes)))]
    severities = Counter(finding.severity.value for finding in report.findings)
    counts = [counted(severities[severity], severity) for severity in ("error", "warning", "note")]
    parts = [output.table(("severity", "where, why, and what to do"), rows)] if rows else []
    run = report.run
    last = f"{run.builder}: {run.detail}" if run.builder else run.detail
    output.emit(report.to_json(), f"{report.model}: {', '.join(counts)}", *parts, last)


def _lines(finding: Finding, nodes: list[str]) -> Iterator[str]:
    yield few(nodes)
    yield finding.message
    yield finding.hint
    only = ", not for a Jetson's TensorRT" if finding.scope.value == "tensorrt-rtx" else ""
    yield f"[{finding.rule}; for {finding.scope.value}{only}]"
