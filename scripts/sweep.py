"""Measures bundles over batch sizes and streams, a process each, and writes a folder with an index.

Each case is one `edge-runtime bench`: its result stays as a JSON file, which `edge-runtime bench
--compare` takes, with a page of charts beside it. index.html and index.md are tables of all results
below the folder, with links to the pages.

    edge-runtime build net.onnx -o int8.edge --precision int8 --calibration-data pictures/
    edge-runtime build net.onnx -o fp16.edge --precision fp16
    python scripts/sweep.py int8.edge fp16.edge --batch 1,8 --streams 1,2 --output sweep
    python scripts/sweep.py int8.edge --protocol offline -- --device tensorrt --data pictures/
    python scripts/sweep.py int8.edge --dry-run         # print the commands only
    python scripts/sweep.py --index --output sweep      # write the index anew

What follows -- goes to `edge-runtime bench`. A case takes --duration (3 s) and some 2 s to start:
the first example 40 s. A case that cannot be measured, such as a batch of 8 where the model has a
fixed one, is in the index with its reason, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import html
import itertools
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.bench.result import BenchResult
from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.files import atomic_write

PROTOCOLS = ("trtexec10", "trtexec11", "single-stream", "multi-stream", "offline")
COLUMNS = (
    *("case", "precision", "backend", "power mode", "batch", "streams", "protocol"),
    *("median ms", "p99 ms", "queries/s", "samples/s", "J/query", "notes"),
)
NUMBERS = COLUMNS[7:12]
STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; }
body { margin: 1rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; } th, td { padding: .3rem .6rem; text-align: left; }
th { border-bottom: 2px solid; } td { border-bottom: 1px solid #8884; }
.n { text-align: right; font-variant-numeric: tabular-nums; } .bad { color: #c33; }
"""


@dataclass(frozen=True)
class Case:
    """One measurement: what it is called, and what `edge-runtime bench` is given for it."""

    name: str
    arguments: tuple[str, ...]


def cases(args: argparse.Namespace) -> Iterator[Case]:
    names = [path.stem for path in args.bundles]
    for path, batch, streams in itertools.product(args.bundles, args.batch, args.streams):
        stem = path.stem if names.count(path.stem) == 1 else f"{path.parent.name}-{path.stem}"
        sizes = {spec.shape[0] for spec in Bundle.open(path).inputs if spec.shape}
        asked = () if batch is None or sizes == {batch} else ("--batch", str(batch))
        name = f"{stem}-b{batch or 'usual'}-s{streams}"
        target = args.output / name
        yield Case(
            name,
            (
                *(str(path), "--protocol", args.protocol, "--streams", str(streams), *asked),
                *(
                    "--duration",
                    f"{args.duration:g}",
                    "--output",
                    str(args.output / f"{name}.json"),
                ),
                *("--html", f"{target}.html", "--quiet", *args.rest),
            ),
        )


class Runner:
    """Runs one process after the other, and none any more once it was told to stop."""

    def __init__(self) -> None:
        self.stopped = False
        self._process: subprocess.Popen[str] | None = None

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Exit code, and what it said on stderr."""
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=quiet, stderr=subprocess.PIPE, text=True) as process:
            self._process = process
            try:
                if self.stopped:  # The signal came while the process was being started.
                    process.kill()
                said = process.communicate()[1]
            except BaseException:
                process.kill()
                raise
            self._process = None
        return process.returncode, said

    def stop(self, *_: object) -> None:
        """Takes a signal: whoever runs is ended."""
        self.stopped = True
        if self._process is not None:
            self._process.kill()


def measure(case: Case, folder: Path, runner: Runner) -> bool:
    """Runs a case; what it says where it fails is left beside the results."""
    failed = folder / f"{case.name}.error"
    for path in (failed, *(folder / f"{case.name}{kind}" for kind in (".json", ".html"))):
        path.unlink(missing_ok=True)
    code, said = runner.run([sys.executable, "-m", "edge_runtime", "bench", *case.arguments])
    if code == 0:
        return True
    lines = said.strip().splitlines() or [f"exit code {code}"]
    failed.write_text(lines[-1] + "\n")
    return False


def rows(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A row for each file below a folder, in the order of their names."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if path.suffix == ".error":
            yield path, {"case": name, "notes": path.read_text().strip()}
        elif path.suffix == ".json":
            page = path.with_suffix(".html")
            yield page if page.exists() else path, {"case": name, **row(BenchResult.load(path))}


def row(result: BenchResult) -> dict[str, str]:
    latency = result.summary("latency")
    assert latency is not None
    mode = (result.conditions.get("power_mode") or {}).get("name")
    joules = result.telemetry.get("joules_per_query")
    return {
        "precision": result.subject.precision,
        "backend": result.subject.backend,
        "power mode": mode or "",
        "batch": str(result.subject.batch),
        "streams": str(result.subject.streams),
        "protocol": result.protocol,
        "median ms": f"{latency.median:.4g}",
        "p99 ms": f"{latency.percentiles[99.0]:.4g}",
        "queries/s": f"{result.throughput:.5g}",
        "samples/s": f"{result.samples_per_second:.5g}",
        "J/query": "" if joules is None else f"{joules:.3g}",
        "notes": " ".join(result.warnings),
    }


def write_index(folder: Path) -> None:
    found = list(rows(folder))
    page = "".join(as_html(folder, found))
    table = "\n".join(as_markdown(folder, found)) + "\n"
    for name, text in (("index.html", page), ("index.md", table)):
        with atomic_write(folder / name) as file:
            file.write(text.encode())


def as_markdown(folder: Path, found: Iterable[tuple[Path, dict[str, str]]]) -> Iterator[str]:
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + "|".join("---:" if name in NUMBERS else "---" for name in COLUMNS) + "|"
    for path, cells in found:
        texts = {name: cells.get(name, "").replace("|", "\\|") for name in COLUMNS}
        texts["case"] = f"[{texts['case']}]({path.relative_to(folder).as_posix()})"
        yield "| " + " | ".join(texts.values()) + " |"


def as_html(folder: Path, found: Iterable[tuple[Path, dict[str, str]]]) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><meta charset="utf-8"><title>Sweep</title>'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<style>{STYLE}</style><h1>Sweep</h1><div class=wide><table><tr>"
    yield "".join(f"<th{_kind(name)}>{name}" for name in COLUMNS)
    for path, cells in found:
        link = html.escape(path.relative_to(folder).as_posix())
        bad = " class=bad" if path.suffix == ".error" else ""
        yield f'\n<tr{bad}><td><a href="{link}">{html.escape(cells["case"])}</a>'
        yield "".join(
            f"<td{_kind(name)}>{html.escape(cells.get(name, ''))}" for name in COLUMNS[1:]
        )
    yield "\n</table></div></html>\n"


def _kind(name: str) -> str:
    return " class=n" if name in NUMBERS else ""


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise ValueError(text)
    return numbers


def parser() -> argparse.ArgumentParser:
    lines = (__doc__ or "").splitlines()
    found = argparse.ArgumentParser(
        description=lines[0],
        epilog="\n".join(lines[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("bundles", type=Path, nargs="*", help="bundles, one for each precision")
    add("--batch", type=_numbers, default=[None], metavar="N,N", help="batch sizes (the usual one)")
    add("--streams", type=_numbers, default=[1], metavar="N,N", help="calls in flight (1)")
    add("--protocol", choices=PROTOCOLS, default="trtexec10")
    add("--duration", type=float, default=3.0, metavar="S", help="of each measurement (3)")
    add("--output", type=Path, default=Path("sweep"), metavar="DIR", help="the folder (sweep)")
    add("--index", action="store_true", help="measure nothing, write the index anew")
    add("--dry-run", action="store_true", help="print what would be run")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    args = parser().parse_args(given[:split])
    args.rest = given[split + 1 :]
    if args.index == bool(args.bundles):
        parser().error("name bundles to measure, or --index")
    try:
        failed = 0
        if not args.index:
            todo = list(cases(args))
            if args.dry_run:
                for case in todo:
                    print(shlex.join(["edge-runtime", "bench", *case.arguments]))
                return 0
            args.output.mkdir(parents=True, exist_ok=True)
            runner = Runner()
            before = signal.signal(signal.SIGTERM, runner.stop)
            for number, case in enumerate(todo, 1):
                print(f"{number} of {len(todo)}: {case.name} ...", file=sys.stderr)
                if not measure(case, args.output, runner):
                    failed += 1
                    print((args.output / f"{case.name}.error").read_text(), end="", file=sys.stderr)
                if runner.stopped:
                    return 128 + signal.SIGTERM
            signal.signal(signal.SIGTERM, before)
        write_index(args.output)
    except (EdgeRuntimeError, OSError) as error:
        print(f"scripts/sweep.py: {error}", file=sys.stderr)
        return 1
    print((args.output / "index.md").read_text(), end="")
    print(f"Wrote {args.output}{os.sep}index.html", file=sys.stderr)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
