"""`edge-runtime bench`: measures how fast a bundle runs, by a declared protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli import options, output
from edge_runtime.config import ShapeRange
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.files import atomic_write, check_writable
from edge_runtime.gpu_config import DRIVERS
from edge_runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edge_runtime.bench.harness import BenchConfig
    from edge_runtime.bench.result import BenchResult
    from edge_runtime.bench.verdict import Comparison

_WRITTEN = ("target", "export_times", "export_profile", "html")
"""Options that name a file to write."""

_PROTOCOLS = (
    *("trtexec10", "trtexec11", "end-to-end"),
    *("single-stream", "multi-stream", "offline", "server"),
)

_HELP = """Measure how fast a bundle runs, by a protocol that says all of what is measured.

trtexec10 and trtexec11 are NVIDIA's trtexec with the defaults of TensorRT 10 and 11: the first
times copies as well, the second leaves them out, replays a CUDA graph and waits with a busy core.
end-to-end goes from a picture to the decoded result. single-stream, multi-stream, offline and
server are the scenarios of MLPerf's LoadGen. Figures of different protocols do not compare.

On a CPU, what belongs to a GPU is not applicable. Percentiles are measured values, by trtexec's
rule; LoadGen's rule says whether the queries are enough for them.

Several bundles take turns, A B B A, and each is compared with the first: the surest way to see a
small difference. --compare judges a run by an older one's result.
"""

_EXAMPLES = """\b
Examples:
  edge-runtime build tests/data/digits.onnx -o digits.edge --precision fp16 \\
      --preprocess size=16,color=gray
  edge-runtime bench digits.edge
  edge-runtime bench digits.edge --protocol trtexec11 --batch 8 --output result.json \\
      --export-times times.json
  edge-runtime bench digits.edge --protocol end-to-end --data pictures/
  edge-runtime bench digits.edge --protocol server --target-qps 200 --target-latency 10 \\
      --duration 3
  edge-runtime bench digits.edge --compare result.json --protocol trtexec11 --batch 8 --force \
      --fail-if-slower 500% --html report.html
"""


@click.command("bench", help=_HELP, epilog=_EXAMPLES)
@click.argument("bundles", type=options.FILE, nargs=-1, required=True, metavar="BUNDLE...")
@click.option(
    "--protocol",
    type=click.Choice(_PROTOCOLS),
    default="trtexec10",
    show_default=True,
    help="What is measured, and how.",
)
@click.option("--duration", metavar="S", type=float, help="Seconds to measure at least.")
@click.option("--warmup", metavar="MS", type=float, help="Milliseconds before; 200 by default.")
@click.option("--iterations", metavar="N", type=int, help="Queries to measure at least.")
@click.option("--streams", metavar="N", type=int, help="Calls in flight at a time; 1 by default.")
@click.option(
    "--percentile", metavar="P", type=float, help="The percentile that the result claims."
)
@click.option(
    "--transfers/--no-transfers", default=None, help="trtexec: copy inputs and outputs each time."
)
@click.option(
    "--cuda-graph/--no-cuda-graph", default=None, help="On a GPU: replay the work as a CUDA graph."
)
@click.option("--spin/--no-spin", default=None, help="On a GPU: wait for it with a busy core.")
@click.option("--samples-per-query", metavar="N", type=int, help="multi-stream: 8 by default.")
@click.option("--target-qps", metavar="N", type=float, help="server: queries per second.")
@click.option("--target-latency", metavar="MS", type=float, help="server: bound of the latency.")
@click.option("--seed", metavar="N", type=int, help="server: seed of the arrivals; 0 by default.")
@click.option(
    "--source",
    type=click.Choice(("disk", "memory")),
    help="end-to-end: where a picture is when its time begins; disk by default.",
)
@click.option(
    "--decode",
    metavar="HOW",
    help="end-to-end: what is made of the outputs: top1, the default; none; or "
    "python:MODULE:FUNCTION, called with {name: array}.",
)
@click.option(
    "--data",
    type=options.FILE,
    metavar="PATH",
    help="What is fed: samples as calibration takes them; without any, random arrays. end-to-end: "
    "a picture or a folder of pictures.",
)
@options.preprocess_option
@click.option("--batch", metavar="N", type=int, help="Samples in one call of a dynamic model.")
@click.option(
    "--shape",
    "shapes",
    metavar="NAME=SIZES",
    multiple=True,
    help="Shape of an input, such as x=1x3x64x64; may be repeated. Without one, the plan's usual "
    "shape, or 1 for each dynamic dimension.",
)
@options.device_option
@click.option(
    "--cpu-mode",
    type=click.Choice(options.CPU_MODES),
    default="exact",
    show_default=True,
    help="How a CPU runs an INT8 bundle.",
)
@click.option(
    "--threads", metavar="N", type=click.IntRange(min=0), help="CPU threads; one a core by default."
)
@click.option("--driver", type=click.Choice(DRIVERS), help="Python's binding of CUDA.")
@click.option(
    "--telemetry/--no-telemetry",
    default=True,
    show_default=True,
    help="Read power, heat, clocks and load while it runs.",
)
@click.option(
    "-o", "--output", "target", type=options.FILE, metavar="FILE.json", help="Keep the result."
)
@click.option(
    "--export-times",
    type=options.FILE,
    metavar="FILE.json",
    help="Write each query's times as trtexec --exportTimes does.",
)
@click.option(
    "--export-profile",
    type=options.FILE,
    metavar="FILE.json",
    help="Time each layer too, and write it as trtexec --exportProfile does.",
)
@click.option("--layers", is_flag=True, help="Time each layer too, and keep it in the result.")
@click.option(
    "--html",
    type=options.FILE,
    metavar="FILE.html",
    help="Write a page with charts, in one file; of several bundles, that of the last.",
)
@click.option(
    "--compare",
    type=options.FILE,
    metavar="OLD.json",
    help="Compare with an older result that --output has kept.",
)
@click.option(
    "--fail-if-slower",
    metavar="PERCENT",
    help="End with exit code 1 if it surely takes this much more time than what it is compared "
    "with, such as 5%.",
)
@click.option(
    "--force", is_flag=True, help="Compare though it was measured differently, and say how."
)
@options.quiet_option
@options.json_option
@click.pass_context
def command(ctx: click.Context, /, bundles: tuple[Path, ...], protocol: str, **flags: Any) -> None:
    """Measures bundles."""
    _check(bundles, flags)
    from edge_runtime.bench.export import check_exportable
    from edge_runtime.bench.harness import BenchConfig
    from edge_runtime.bench.protocols import protocol as declared

    if flags["export_times"] is not None:
        check_exportable(protocol)
    config = BenchConfig(
        protocol=declared(protocol, _settings(protocol, flags)),
        device=flags["device"],
        cpu_mode=flags["cpu_mode"],
        threads=flags["threads"] or 0,
        driver=flags["driver"] or "auto",
        batch=flags["batch"],
        shapes=_shapes(flags["shapes"]),
        data=flags["data"],
        preprocessing=options.read_preprocessing(flags["preprocess"]),
        interval=0.2 if flags["telemetry"] else None,
    )
    from edge_runtime.cli.bench_compare import is_too_slow, read_percent

    several = len(bundles) > 1
    comparisons = _turns(bundles, config, flags) if several else _one(bundles[0], config, flags)
    if is_too_slow(comparisons, read_percent(flags["fail_if_slower"])):
        ctx.exit(1)


def _one(bundle: Path, config: BenchConfig, flags: dict[str, Any]) -> list[Comparison]:
    """Measures a bundle, and compares it with an older result if there is one."""
    from edge_runtime.bench.bounds import layer_rows
    from edge_runtime.bench.compare import compare
    from edge_runtime.bench.export import export_times
    from edge_runtime.bench.harness import Bench
    from edge_runtime.bench.layers import export_profile
    from edge_runtime.bench.result import BenchResult
    from edge_runtime.cli.bench_report import report

    old = None if flags["compare"] is None else BenchResult.load(flags["compare"])
    profile = None
    with _announced() as progress, Bench(bundle, config) as opened:
        result = opened.measure(progress)
        if flags["layers"] or flags["export_profile"] is not None:
            profile = opened.profile(progress)
            result = replace(result, layers=layer_rows(profile, threads=config.threads))
    if flags["target"] is not None:  # Before it may turn out that they cannot be compared.
        result.save(flags["target"])
    if flags["export_times"] is not None:
        export_times(result, flags["export_times"])
    if profile is not None and flags["export_profile"] is not None:
        text = json.dumps(export_profile(profile), indent=1, allow_nan=False)
        with atomic_write(flags["export_profile"], error=DataError) as file:
            file.write(text.encode())
    found = [] if old is None else [compare(old, result, force=flags["force"])]
    plain = result.to_json()
    if old is not None:
        plain = {**plain, "comparison": found[0].to_json()}
    _finish(plain, report(result), [result], found, flags)
    return found


def _turns(
    bundles: tuple[Path, ...], config: BenchConfig, flags: dict[str, Any]
) -> list[Comparison]:
    """Lets bundles take turns, and compares each with the first."""
    from edge_runtime.bench.interleave import interleaved
    from edge_runtime.cli.bench_report import report

    with _announced() as progress:
        found = interleaved(bundles, config, force=flags["force"], progress=progress)
    plain = {
        "results": [result.to_json() for result in found.results],
        "comparisons": [comparison.to_json() for comparison in found.comparisons],
    }
    lines = [line for result in found.results for line in (*report(result), "")]
    _finish(plain, lines[:-1], list(found.results), list(found.comparisons), flags)
    return list(found.comparisons)


def _finish(
    plain: dict[str, Any],
    lines: list[str],
    results: list[BenchResult],
    comparisons: list[Comparison],
    flags: dict[str, Any],
) -> None:
    """Writes the page and prints all."""
    from edge_runtime.bench.report_page import write_page
    from edge_runtime.cli.bench_compare import comparison_lines, read_percent

    if flags["html"] is not None:
        last = comparisons[-1] if comparisons else None
        write_page(flags["html"], results[-1], comparison=last)
    limit = read_percent(flags["fail_if_slower"])
    lines += [line for found in comparisons for line in comparison_lines(found, limit)]
    written = [flags[name] for name in _WRITTEN if flags[name] is not None]
    output.emit_lines(plain, [*lines, *(f"Wrote {path}" for path in written)])


def _check(bundles: tuple[Path, ...], flags: dict[str, Any]) -> None:
    """Refuses before anything is measured what could not be done after it."""
    from edge_runtime.cli.bench_compare import read_percent

    for name in _WRITTEN:
        if flags[name] is not None:
            options.keep_apart(flags[name], flags["compare"], *bundles)
            check_writable(flags[name], error=DataError)
    read_percent(flags["fail_if_slower"])
    if len(bundles) > 1:
        alone = ("compare", "export_times", "export_profile", "duration", "iterations")
        names = {name: flags[name] for name in alone}
        names |= {"output": flags["target"], "layers": flags["layers"] or None}
        options.refuse("is for one bundle; several take turns.", **names)
    elif flags["compare"] is None:
        names = {"fail_if_slower": flags["fail_if_slower"], "force": flags["force"] or None}
        options.refuse("needs --compare, or several bundles.", **names)


def _settings(protocol: str, flags: dict[str, Any]) -> dict[str, Any]:
    """The settings of the protocol that were given, by its own names."""
    from edge_runtime.bench.protocols import setting_names

    own = setting_names(protocol)
    warmup = flags["warmup"]
    named = {
        "duration": flags["duration"],
        "iterations": flags["iterations"],
        "warmup": None if warmup is None else warmup / 1000,
        **{
            name: flags[name]
            for name in (
                *("streams", "percentile", "transfers", "cuda_graph", "spin", "seed", "source"),
                *("samples_per_query", "target_qps", "target_latency", "decode"),
            )
        },
    }
    scenario = {"duration": "min_duration", "iterations": "min_queries"}
    given = {}
    for name, value in named.items():
        if value is None:
            continue
        field = name if name in own else scenario.get(name, name)
        if field not in own:
            raise click.UsageError(
                f"--{name.replace('_', '-')} does nothing with --protocol {protocol}."
            )
        given[field] = value
    return given


def _shapes(texts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        if not equals or not name or "," in sizes:
            raise click.BadParameter(
                f"{text!r} is not NAME=SIZES, such as x=1x3x64x64.", param_hint="--shape"
            )
        if name in shapes:
            raise ConfigError(f"--shape {text}: input {name!r} has a shape already.")
        shapes[name] = ShapeRange.parse(sizes).opt
    return shapes


@contextmanager
def _announced() -> Iterator[Progress]:
    """A line when it begins. A bar that moves would take time from what is measured."""
    if options.wants_json() or options.is_quiet():
        yield silent
        return

    def say(what: str, done: int, _: int) -> None:
        if not done:
            click.echo(f"{what} ...", err=True)

    yield say
