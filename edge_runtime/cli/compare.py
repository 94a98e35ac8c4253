"""`edge-runtime compare`: how far two models' outputs are apart on the same samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.cli import options, output
from edge_runtime.text import counted, number, percent, sqnr

if TYPE_CHECKING:
    from edge_runtime.comparison import Comparison
    from edge_runtime.metrics import Agreement

_HELP = """Run two models on the same samples on the CPU, and measure how far the second one's
outputs are from the first one's. Each is a bundle or an ONNX file, with the same inputs and
outputs.

SQNR is the signal to quantization noise ratio: 20 dB means that the error is a tenth of the
signal, 40 dB a hundredth. Top-1 is the share of vectors with the same largest entry.
"""

_EXAMPLES = """\b
Examples:
  edge-runtime build tests/data/digits.onnx -o digits.edge --precision fp16
  edge-runtime compare tests/data/digits.onnx digits.edge --data calibration.npz
  edge-runtime compare tests/data/digits.onnx digits.edge --data pictures/ \\
      --preprocess size=16,color=gray --fail-below 30
  edge-runtime build tests/data/digits.onnx -o fast.edge --precision int8 --cpu-mode fast \\
      --calibration-data calibration.npz
  edge-runtime compare fast.edge fast.edge --data calibration.npz --cpu-mode fast
"""


@click.command("compare", help=_HELP, epilog=_EXAMPLES)
@click.argument("reference", type=options.FILE)
@click.argument("other", type=options.FILE)
@click.option(
    "--data",
    type=options.FILE,
    metavar="PATH",
    required=True,
    help="Samples: a folder of pictures, an .npz or .npy file, or a folder of those.",
)
@options.preprocess_option
@options.limit_option
@click.option(
    "--device",
    type=click.Choice(("cpu", "openvino")),
    default="cpu",
    show_default=True,
    help="What the second one runs on; the first one runs on cpu.",
)
@click.option(
    "--cpu-mode",
    type=click.Choice(options.CPU_MODES),
    default="exact",
    show_default=True,
    help="How the second one runs, where it is an INT8 bundle; the first one runs in exact mode.",
)
@click.option(
    "--fail-below",
    metavar="DB",
    type=float,
    help="End with exit code 1 if the SQNR of an output is below this many dB.",
)
@options.quiet_option
@options.json_option
@click.pass_context
def command(
    ctx: click.Context,
    reference: Path,
    other: Path,
    data: Path,
    preprocess: str | None,
    limit: int | None,
    device: str,
    cpu_mode: str,
    fail_below: float | None,
) -> None:
    """Compares two models."""
    preprocessing = options.read_preprocessing(preprocess)
    from edge_runtime.comparison import compare

    with output.progress() as progress:
        result = compare(
            reference,
            other,
            data,
            preprocessing=preprocessing,
            limit=limit,
            device=device,
            cpu_mode=cpu_mode,
            progress=progress,
        )
    below = [
        name
        for name, agreement in result.outputs.items()
        if fail_below is not None and _decibels(agreement) < fail_below
    ]
    _emit(result, reference, other, below, fail_below)
    if below:
        ctx.exit(1)


def _decibels(agreement: Agreement) -> float:
    if agreement.equal:
        return math.inf
    return -math.inf if agreement.sqnr_db is None else agreement.sqnr_db


def _emit(
    result: Comparison, reference: Path, other: Path, below: list[str], wanted: float | None
) -> None:
    rows = [
        (
            name,
            sqnr(agreement.sqnr_db, equal=agreement.equal),
            number(agreement.max_error),
            number(agreement.mean_error),
            "-" if agreement.cosine is None else f"{agreement.cosine:.6f}",
            percent(agreement.top1),
        )
        for name, agreement in result.outputs.items()
    ]
    columns = ("output", ">SQNR", ">max error", ">mean error", ">cosine", ">same top-1")
    plain = {**result.to_json(), "fail_below": wanted, "below": below}
    last = [f"Below {wanted:g} dB: {', '.join(below)}"] if below else []
    output.emit(
        plain,
        f"{other} against {reference}, on {counted(result.samples, 'sample')}",
        output.table(columns, rows),
        *last,
    )
