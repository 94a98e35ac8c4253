"""Prints the demo's figures for a reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text


class Steps:
    """A live list of what is being done, one bar a step; use it in a `with` statement."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Steps:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Shows that `done` of `total` parts of a step are done."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)

    def step(self, what: str, work: Callable[[], Any]) -> Any:
        """Does `work` and shows it as one step."""
        self(what, 0, 1)
        result = work()
        self(what, 1, 1)
        return result


def print_report(figures: dict[str, Any], console: Console) -> None:
    """Prints the text that was read and tables of latency, agreement and bundles."""
    for title, table in (
        ("The page, read by the INT8 detector and the FP16 recogniser", _text(figures["text"])),
        ("Agreement with FP32", _agreement(figures["agreement"], figures["accuracy"])),
        ("Latency on this CPU", _latency(figures["latency_ms"])),
        ("Bundles, beside the picture", _bundles(figures["bundles"])),
    ):
        console.print(f"\n[bold]{title}[/bold]")
        console.print(table)
    console.print(f"\nBoxes and text drawn: {figures['picture']}", soft_wrap=True)


def _text(text: dict[str, list[str]]) -> Table:
    table = Table.grid(padding=(0, 1))
    for line in text["bundles"]:
        table.add_row(Text(line), "" if line in text["fp32"] else "[yellow]not as FP32[/yellow]")
    return table


def _agreement(agreement: dict[str, Any], accuracy: dict[str, float]) -> Table:
    boxes = agreement["boxes"]
    iou = "-" if boxes["mean_iou"] is None else f"{boxes['mean_iou']:.3f}"
    table = Table.grid(padding=(0, 2))
    table.add_row(
        "Boxes, INT8 detector",
        f"{boxes['matched']} of {boxes['fp32']} found ({boxes['int8']} in all), mean IoU {iou}",
    )
    for title, name in (
        ("Text in FP32's boxes, FP16 recogniser", "recogniser_alone"),
        ("Text, both bundles", "both_bundles"),
    ):
        lines = agreement[name]
        table.add_row(
            title,
            f"{lines['identical_lines']} of {lines['lines']} lines identical, "
            f"character error rate {lines['character_error_rate']:.2%}",
        )
    table.add_row(
        "Character error rate on the page itself",
        f"FP32 {accuracy['fp32']:.2%}, both bundles {accuracy['bundles']:.2%}",
    )
    return table


def _latency(latency: dict[str, Any]) -> Table:
    table = Table(
        "network",
        "input",
        "FP32 model in\nONNX Runtime",
        "bundle on\nthe CPU",
        caption=(
            f"ms, median of {latency['rounds']} runs, {latency['cores']} cores, ONNX Runtime "
            f"{latency['onnxruntime']}. On a CPU a bundle computes with its INT8 and FP16 values "
            "exactly, in FP32: that is to check its answers, not to be fast. Its speed is on a "
            "GPU, and no GPU ran here."
        ),
        caption_justify="left",
    )
    for network, bundle, what in (
        ("detector", "int8_bundle_cpu", "the page"),
        ("recogniser", "fp16_bundle_cpu", "all its lines"),
    ):
        times = latency[network]
        table.add_row(
            f"{network}, {bundle[:4].upper()}\n{what}",
            "\n".join("x".join(map(str, shape)) for shape in times["inputs"]),
            f"{times['fp32_onnxruntime']:.1f}",
            f"{times[bundle]:.1f}",
        )
    return table


def _bundles(bundles: dict[str, dict[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for facts in bundles.values():
        table.add_row(
            Path(facts["path"]).name,
            f"{facts['megabytes']} MB, {facts['precision']} (model: {facts['model_megabytes']} MB)",
        )
        for plan in facts["plans"]:
            table.add_row("", f"plan: {plan}, by NVIDIA's builder; no GPU ran it here")
        if facts["no_plan"]:
            table.add_row("", Text(f"no plan: {facts['no_plan']}"))
    return table
