"""`edge-runtime run`: runs a bundle once, says what came out and keeps it if asked."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli import options, output
from edge_runtime.cli.kinds import Kind, file_kind
from edge_runtime.config import CpuMode
from edge_runtime.errors import BundleError, DataError
from edge_runtime.files import atomic_write, check_writable
from edge_runtime.gpu_config import DRIVERS, DeviceErrorPolicy, GpuConfig
from edge_runtime.text import counted, number, shape

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle
    from edge_runtime.tensors import Array, Outputs

_HELP = """Run a bundle once on arrays or pictures, and show each output: its type, shape and
values, and the five largest entries of a vector. A picture becomes the input as the bundle says,
or --preprocess; an array is fed as it is, and refused if its type or shape is not the input's.
"""

_EXAMPLES = """\b
Examples:
  edge-runtime build tests/data/digits.onnx -o digits.edge --precision fp16 \\
      --preprocess size=16,color=gray
  edge-runtime run digits.edge --input pictures/one.png
  edge-runtime run digits.edge --input image=one.npy -o logits.npz
  edge-runtime run digits.edge --input image=one.npy --device cpu
  edge-runtime build tests/data/digits.onnx -o fast.edge --precision int8 --cpu-mode fast \\
      --calibration-data pictures/ --preprocess size=16,color=gray
  edge-runtime run fast.edge --input pictures/one.png --cpu-mode fast
"""

_TOP = 5
_SHOWN_ROWS = 5


@click.command("run", help=_HELP, epilog=_EXAMPLES)
@click.argument("bundle", type=options.FILE)
@click.option(
    "--input",
    "inputs",
    metavar="[NAME=]FILE",
    multiple=True,
    required=True,
    help="An .npy, .npz or picture for an input; the name may be left out where there is one "
    "input. May be repeated.",
)
@options.preprocess_option
@options.device_option
@click.option(
    "--cpu-mode",
    type=click.Choice(options.CPU_MODES),
    help="How a CPU runs an INT8 bundle: exact, the default, computes what a GPU does; fast takes "
    "the second graph of a bundle that was built with --cpu-mode fast.",
)
@click.option(
    "-o", "--output", "target", type=options.FILE, metavar="FILE.npz", help="Keep the outputs."
)
@click.option(
    "--driver",
    type=click.Choice(DRIVERS),
    help="Python's binding of CUDA on a GPU; auto, the default, takes the first that is installed.",
)
@click.option(
    "--cuda-graphs",
    is_flag=True,
    default=None,
    help="On a GPU: capture the inference in a CUDA graph, as a program that repeats it would.",
)
@click.option(
    "--on-device-error",
    type=click.Choice([policy.value for policy in DeviceErrorPolicy]),
    help="When the GPU fails: raise its error (the default), or go on on the CPU and say so.",
)
@options.json_option
def command(
    bundle: Path,
    inputs: tuple[str, ...],
    preprocess: str | None,
    device: str,
    cpu_mode: str | None,
    target: Path | None,
    **gpu: Any,
) -> None:
    """Runs a bundle."""
    given = {name: value for name, value in gpu.items() if value is not None}
    if device in ("cpu", "openvino"):
        options.refuse(f"is for a GPU; it does nothing with --device {device}.", **given)
    if target is not None:
        if target.suffix != ".npz":
            raise click.UsageError(f"--output {target}: outputs are kept in an .npz; name one.")
        options.keep_apart(target, bundle, *(Path(text.rpartition("=")[2]) for text in inputs))
        check_writable(target, error=DataError)
    if file_kind(bundle) is Kind.MODEL:
        raise BundleError(
            f"{bundle} is not a bundle; make one of an ONNX model with: edge-runtime build "
            f"{bundle} --precision fp32"
        )
    from edge_runtime.backends import registry
    from edge_runtime.bundle import Bundle
    from edge_runtime.cli.feeds import read_feeds
    from edge_runtime.session import load

    opened = Bundle.open(bundle)
    preprocessing = options.read_preprocessing(preprocess) or _declared(opened)
    feeds = read_feeds(inputs, opened.inputs, preprocessing)
    settings = GpuConfig(**given)
    mode = CpuMode(cpu_mode or CpuMode.EXACT)
    passed_over = registry.choose(opened, device, settings, mode).passed_over
    with load(opened, device=device, gpu=settings, cpu_mode=mode) as session:
        outputs = session.run(feeds)
        backend = session.backend
    if target is not None:
        _save(outputs, target)
    _emit(outputs, backend, list(passed_over) if opened.plans else [], target)


def _declared(bundle: Bundle) -> Any:
    from edge_runtime.vision.preprocess import Preprocessing

    plain = bundle.manifest.preprocessing
    return None if plain is None else Preprocessing.from_json(plain)


def _save(outputs: Outputs, target: Path) -> None:
    """Writes an .npz; numpy.savez does not take every name of a tensor."""
    import numpy as np

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    with atomic_write(target, error=DataError) as file:
        file.write(buffer.getbuffer())


def _emit(outputs: Outputs, backend: str, passed_over: list[str], target: Path | None) -> None:
    figures = {name: _figures(array) for name, array in outputs.items()}
    plain = {
        "device": backend,
        "passed_over": passed_over,
        "outputs": figures,
        "written": None if target is None else str(target),
    }
    rows, tops = [], []
    for name, entry in figures.items():
        values = ("-" if entry[k] is None else number(entry[k]) for k in ("min", "max", "mean"))
        rows.append((name, entry["dtype"], shape(entry["shape"]), *values))
        tops += _top_rows(name, entry["top"])
        if entry["not_finite"]:
            tops.append((name, f"NaN or infinite: {counted(entry['not_finite'], 'value')}"))
    parts = [output.table(("output", "type", "shape", ">min", ">max", ">mean"), rows)]
    if tops:
        parts.append(output.facts(tops))
    first = output.facts([("device", backend), *(("device", reason) for reason in passed_over)])
    last = [f"Wrote {target}"] if target is not None else []
    output.emit(plain, first, *parts, *last)


def _figures(array: Array) -> dict[str, Any]:
    """Plain JSON values; statistics are those of the finite values, None where there are none."""
    import numpy as np

    plain: dict[str, Any] = {"dtype": array.dtype.name, "shape": list(array.shape)}
    numbers = array.astype(np.float64) if array.dtype.kind in "biuf" else np.empty(0)
    finite = numbers[np.isfinite(numbers)]
    for key, statistic in (("min", np.min), ("max", np.max), ("mean", np.mean)):
        plain[key] = float(statistic(finite)) if finite.size else None
    plain["not_finite"] = numbers.size - finite.size
    plain["top"] = _top(numbers) if finite.size == numbers.size else []
    return plain


def _top(numbers: Array) -> list[list[dict[str, float]]]:
    """The largest entries of each vector; nothing where the array is none and no list of some."""
    if numbers.ndim == 0 or numbers.shape[-1] < 2 or numbers.ndim > 2:
        return []
    rows = numbers.reshape(-1, numbers.shape[-1])
    order = (-rows).argsort(axis=-1, kind="stable")[:, :_TOP]
    return [
        [{"index": int(i), "value": float(row[i])} for i in best]
        for row, best in zip(rows, order, strict=True)
    ]


def _top_rows(name: str, top: list[list[dict[str, float]]]) -> list[tuple[str, str]]:
    """The largest entries of the first vectors, a line each."""
    rows = []
    for index, best in enumerate(top[:_SHOWN_ROWS]):
        label = f"{name}[{index}]" if len(top) > 1 else name
        entries = (f"{entry['index']} ({number(entry['value'])})" for entry in best)
        rows.append((label, f"top {len(best)}: {', '.join(entries)}"))
    if len(top) > _SHOWN_ROWS:
        rows.append((name, f"and {counted(len(top) - _SHOWN_ROWS, 'row')} more"))
    return rows
