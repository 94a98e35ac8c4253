"""`edge-runtime check`: what TensorRT will have against a model, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.cli import options, output
from edge_runtime.cli.kinds import Kind, file_kind
from edge_runtime.cli.text import counted
from edge_runtime.errors import ModelError

if TYPE_CHECKING:
    from edge_runtime.check import CheckReport

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
    profile = options.read_shapes(shapes)
    from edge_runtime.check import check_model

    report = check_model(model, targets=targets, profile=profile, build=not no_build)
    _emit(report)
    if not report.ok:
        ctx.exit(1)


def _emit(report: CheckReport) -> None:
    rows = []
    for finding in report.findings:
        where = f"{finding.node}\n{finding.op}" if finding.op else finding.node or "the model"
        words = f"{finding.message}\n{finding.hint}"
        rows.append((finding.severity.value, where, words, finding.scope.value, finding.rule))
    columns = ("severity", "node, operator", "why, and what to do", "scope", "rule")
    counts = [
        counted(sum(row[0] == severity for row in rows), severity)
        for severity in ("error", "warning", "note")
    ]
    parts = [output.table(columns, rows)] if rows else []
    run = report.run
    last = f"{run.builder}: {run.detail}" if run.builder else run.detail
    output.emit(report.to_json(), f"{report.model}: {', '.join(counts)}", *parts, last)
