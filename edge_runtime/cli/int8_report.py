"""What a bundle says of its INT8 layers: calibration, corrections, the accuracy guard, findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edge_runtime.guard_config import decibels
from edge_runtime.strict_json import Value
from edge_runtime.text import counted, few, number, percent

Row = tuple[str, str]

CURVE_COLUMNS = (">left out of INT8", ">drop or SQNR", ">95 % interval", ">estimated speed")


def share_rows(report: Mapping[str, Value]) -> Iterator[Row]:
    """How much of the layers with weights is what was asked."""
    if "weighted_layers" not in report:
        return
    asked = report["asked"].text() if "asked" in report else "as asked"
    counts = {name: value.integer(0) for name, value in report["weighted_layers"].members().items()}
    layers, values = counts.get("count", 0), counts.get("values", 0)
    if layers:
        text = f"{counts.get('as_asked', 0)} of {counted(layers, 'layer')} {asked.upper()}"
        if values:
            text += f", {percent(counts.get('values_as_asked', 0) / values)} of all weights"
        yield "with weights", text


def correction_rows(report: Mapping[str, Value]) -> Iterator[Row]:
    """What was done to the ranges, weights and biases."""
    if "methods" in report and report["methods"].members():
        counts = {name: value.integer(1) for name, value in report["methods"].members().items()}
        best = sorted(counts.items(), key=lambda item: -item[1])
        yield "ranges by", ", ".join(f"{name} {counted(count, 'tensor')}" for name, count in best)
    equalized, corrected = _names(report, "equalized"), _names(report, "bias_corrected")
    if equalized:
        yield "equalized", f"{counted(len(equalized), 'tensor')}: {few(equalized)}"
    if corrected:
        yield "bias corrected", counted(len(corrected), "layer")
    if "rounded" in report and report["rounded"].items():
        yield "rounded", f"{counted(len(report['rounded'].items()), 'layer')} with effort high"
    tried = report["tried"].members() if "tried" in report else {}
    if tried:
        levels = sorted(tried.items(), key=lambda item: -item[1].number())
        text = ", ".join(f"{name} {level.number():.1f} dB" for name, level in levels)
        yield "tried", f"{text}, on samples held out"


def note_rows(report: Mapping[str, Value]) -> Iterator[Row]:
    """What a user should know of the data or the model."""
    for finding in _names(report, "findings"):
        yield "note", finding


def guard_rows(report: Mapping[str, Value]) -> Iterator[Row]:
    """The accuracy guard's verdict; whatever it does not say is left out."""
    guard = _guard(report)
    if guard is None:
        return
    metric = guard["metric"].text() if "metric" in guard else "accuracy"
    is_noise = metric == "sqnr"
    parts = []
    if "drop" in guard:
        drop = f"{_loss(guard['drop'], metric)}{_interval(guard, metric)}"
        parts.append(drop if is_noise else f"loses {drop}")
    if "max_drop" in guard:
        budget = _loss(guard["max_drop"], metric)
        parts.append(f"{budget} asked" if is_noise else f"{budget} allowed")
    if "reference" in guard and "reached" in guard and not is_noise:
        ends = (_loss(guard[name], metric) for name in ("reference", "reached"))
        parts.append(" to ".join(ends))
    if "samples" in guard:
        parts.append(f"on {counted(guard['samples'].integer(0), 'sample')}")
    yield "guard", f"{metric}: {', '.join(parts)}" if parts else metric
    if "int8_layers" in guard and "layers" in guard:
        text = (
            f"{guard['int8_layers'].integer(0)} of {counted(guard['layers'].integer(0), 'layer')}"
        )
        kept = [name.text() for name in guard["kept"].items()] if "kept" in guard else []
        yield "guard", f"{text} in INT8{f'; left out: {few(kept)}' if kept else ''}"
    speed = guard["speed"].members() if "speed" in guard else {}
    if "estimate" in speed:
        text = f"{number(speed['estimate'].number())} times FP32's, an estimate"
        if "of_all_int8" in speed:
            text += f"; {percent(speed['of_all_int8'].number())} of all INT8's"
        yield "guard", f"speed {text}"


def guard_curve(report: Mapping[str, Value]) -> list[Sequence[str]]:
    """What was tried, a row each under `CURVE_COLUMNS`; empty where there was no guard."""
    guard = _guard(report)
    if guard is None or "curve" not in guard:
        return []
    metric = guard["metric"].text() if "metric" in guard else "accuracy"
    rows: list[Sequence[str]] = []
    for item in guard["curve"].items():
        point = item.members()
        rows.append(
            (
                str(point["kept"].integer(0)) if "kept" in point else "-",
                _loss(point["drop"], metric) if "drop" in point else "-",
                _interval(point, metric).strip(" ()") or "-",
                f"{point['speed'].number():.2f}x" if "speed" in point else "-",
            )
        )
    return rows


def _guard(report: Mapping[str, Value]) -> dict[str, Value] | None:
    guard = report.get("guard")
    return None if guard is None or guard.plain is None else guard.members()


def _names(report: Mapping[str, Value], key: str) -> list[str]:
    return [item.text() for item in report[key].items()] if key in report else []


def _interval(of: Mapping[str, Value], metric: str) -> str:
    if "interval" not in of or of["interval"].plain is None:
        return ""
    ends = [_loss(end, metric) for end in of["interval"].items()]
    # The most noise is the least SQNR.
    return f" ({' to '.join(reversed(ends) if metric == 'sqnr' else ends)})"


def _loss(value: Value, metric: str) -> str:
    """A score or a drop: per cent, the SQNR, or of the user's own metric the number itself."""
    if value.plain is None:
        return "-"
    loss = value.number()
    if metric == "sqnr":
        return decibels(loss)
    return number(loss) if metric.startswith("python:") else f"{100 * loss:.3g} %"
