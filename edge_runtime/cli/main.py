"""The `edge-runtime` command: finds the module of a command, and says in one line what went wrong.

Exit codes: 0 done; 1 it cannot be done, or what was checked or compared is not good enough; 2 the
command line itself is wrong; 130 interrupted. An error is one line on stderr, `Error: <message>`.
With --json, stdout then holds `{"error": {"type": ..., "message": ...}}`, so that it is one JSON
document whatever happens; a command line that is wrong is not run, and leaves stdout empty.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import click

from edge_runtime.cli.options import wants_json
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.text import printable
from edge_runtime.version import __version__

COMMANDS = {
    "bench": "Measure how fast a bundle runs, by a declared protocol.",
    "build": "Make a bundle of an ONNX model, or add this machine's plan to one.",
    "calibrate": "Choose the INT8 ranges of a model, once, for many builds.",
    "check": "Say what TensorRT will have against a model, without a GPU.",
    "compare": "Measure how far a bundle is from its model.",
    "doctor": "Say what this machine can build and run.",
    "inspect": "Show what is in a bundle, a model or a calibration.",
    "run": "Run a bundle once on your input.",
    "sensitivity": "Find the layers and tensors that INT8 costs accuracy.",
}
"""Each command's line in `--help`. Its module has its name, and is loaded when it is called."""

_EXTRAS = {"onnx": "build", "pydantic": "build", "tomli": "build", "cv2": "vision"}

_EXAMPLES = """\b
Examples:
  edge-runtime check model.onnx
  edge-runtime build model.onnx -o model.edge --precision fp16
  edge-runtime inspect model.edge

Exit codes: 0 done; 1 it cannot be done, or what was checked or compared is not good enough; 2 the
command line is wrong; 130 interrupted.
"""


class _Commands(click.Group):
    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"edge_runtime.cli.{cmd_name}").command
        return command

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        from edge_runtime.cli.log import warnings_shown  # logging is slow to load for --help.

        try:
            with warnings_shown(ctx):
                return super().invoke(ctx)
        except EdgeRuntimeError as error:
            _fail(ctx, type(error).__name__, str(error))
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get(error.name or "")
            if extra is None:
                raise
            message = (
                f"This needs {error.name}, which is not installed: "
                f"pip install 'edge-runtime[{extra}]'"
            )
            _fail(ctx, "MissingExtra", message)
        except KeyboardInterrupt:
            # Files are replaced as a whole or not at all; see edge_runtime.files.
            click.echo("Interrupted; no file was left half-written.", err=True)
            ctx.exit(130)


@click.command(
    cls=_Commands,
    help="INT8, FP16 and BF16 networks in one file, NAME.edge: build it anywhere, run it anywhere.",
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="edge-runtime")
def cli() -> None:
    """Only the subcommands do anything."""


def main() -> None:
    """Runs the command line and exits."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # A file's name may be any bytes.
    cli(prog_name="edge-runtime")


def _fail(ctx: click.Context, kind: str, message: str) -> NoReturn:
    with suppress(OSError):  # It may be stdout that failed.
        if wants_json():
            click.echo(json.dumps({"error": {"type": kind, "message": message}}, indent=2))
    click.echo(f"Error: {printable(message)}", err=True)
    ctx.exit(1)
