"""engines/accuracy.json as tables of Markdown, between two markers of engines/README.md."""

from __future__ import annotations

import textwrap
from typing import Any

from accuracy.comparison import MEASURES

BEGIN = "<!-- accuracy: begin; made by scripts/accuracy_benchmark.py -->"
END = "<!-- accuracy: end -->"
NONE = "-"


def inserted(page: str, text: str) -> str:
    """The page with `text` between its markers.

    Raises:
        ValueError: The page does not have the markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page needs the lines {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def recipe_table(row: dict[str, Any]) -> str:
    """FP32 beside INT8 as it is by default: what a recipe's own page shows."""
    line = next(line for line in row["tools"] if line["default"])
    if line["error"] is not None:
        return f"INT8 failed: {_cell(line['error'])}\n"
    result = line["result"]
    lines = [
        f"| {row['about']} | FP32 | INT8 |",
        "|---|---|---|",
        f"| {row['measure']} | {_value(row, 'score', row['fp32']['score'])} "
        f"| {_value(row, 'score', result['score'])} |",
    ]
    if not _is_cosine(row):
        low, high = (100 * end for end in result["change_interval"])
        change = f"{100 * result['change']:+.2f} ({low:+.2f} to {high:+.2f})"
        lines.append(f"| change in points, 95 % interval | | {change} |")
        lines.append(f"| as FP32 | | {result['same']:.2%} |")
    if "character_errors" in result:
        errors = [one["character_errors"] for one in (row["fp32"], result)]
        lines.append(f"| character errors | {errors[0]:.2%} | {errors[1]:.2%} |")
    lines.append(f"| signal to quantization noise | | {result['sqnr']:.1f} dB |")
    return "\n".join(lines) + "\n"


def tables(results: dict[str, Any]) -> str:
    """The overview, then a table for each row, then the conditions."""
    rows = results["rows"].values()
    parts = [_overview([row for row in rows if row.get("comparison")])]
    parts += [_timing(row) if row["timed_only"] else _table(row) for row in rows]
    return "\n\n".join(part for part in (*parts, _conditions(results["conditions"])) if part) + "\n"


def _overview(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    lines = [
        "| network | by | FP32 | ours by default | ours at best | best peer | default beside it |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for measure in (name for name in MEASURES if name in row["comparison"]):
            one = row["comparison"][measure]
            lines.append(
                f"| {row['title']} | {_measure_name(row, measure)} "
                f"| {_value(row, measure, row['fp32'].get(measure))} "
                f"| {_value(row, measure, one['default']['value'])} "
                f"| {_value(row, measure, one['best']['value'])} ({_short(one['best']['name'])}) "
                f"| {_value(row, measure, one['peer']['value'])} ({one['peer']['name']}) "
                f"| {_verdict(row, measure, one['default'])} |"
            )
    return "\n".join(lines)


def _verdict(row: dict[str, Any], measure: str, one: dict[str, Any]) -> str:
    low, high = one["interval"]
    if measure == "sqnr":
        return f"**{one['verdict']}** ({low:+.1f} to {high:+.1f} dB)"
    if _is_cosine(row):
        return f"**{one['verdict']}** ({low:+.5f} to {high:+.5f})"
    return f"**{one['verdict']}** ({100 * low:+.2f} to {100 * high:+.2f} points)"


def _table(row: dict[str, Any]) -> str:
    cosine, errors = _is_cosine(row), "character_errors" in row["fp32"]
    extra = ["lowest 5 % below"] if cosine else ["as FP32"]
    if errors:
        extra.append("character errors")
    head = [
        row["measure"],
        "change, 95 % interval",
        *extra,
        "SQNR, dB",
        "CPU s",
        "MiB",
        "TensorRT-RTX",
    ]
    lines = [
        f"### {row['title']}",
        "",
        f"{row['about'][0].upper()}{row['about'][1:]}.",
        "",
        f"| tool | {' | '.join(head)} |",
        f"|---{'|---' * len(head)}|",
        f"| FP32 | {' | '.join(_result(row, row['fp32'], set()))} | | | |",
    ]
    best = _best(row)
    for line in row["tools"]:
        if line["error"] is not None:
            lines.append(f"| {line['name']} | {_cell(line['error'])} |{' |' * (len(head) - 1)}")
            continue
        cells = _result(row, line["result"], best.get(line["name"], set()))
        cost = [f"{line['cpu_seconds']:.1f}", f"{line['peak_mib']:.0f}", _taken(line)]
        lines.append(f"| {line['name']} | {' | '.join((*cells, *cost))} |")
        read = line.get("as_onnx_runtime_reads_it")
        if read:
            cells = _result(row, read, set())
            lines.append(f"| {line['name']}, read as uint8 | {' | '.join(cells)} | | | not so |")
    return "\n".join(lines)


def _result(row: dict[str, Any], result: dict[str, Any], best: set[str]) -> list[str]:
    low, high = result["change_interval"]
    exact = result is row["fp32"]
    cells = [_bold(_value(row, "score", result["score"]), "score" in best)]
    if exact:
        low, high = result["score_interval"]
        form = "{:.5f} to {:.5f}" if _is_cosine(row) else "{:.2%} to {:.2%}"
        cells.append(form.format(low, high) if not _is_cosine(row) else NONE)
    elif _is_cosine(row):
        low, high = result["score_interval"]
        cells.append(f"{low:.5f} to {high:.5f}")
    else:
        cells.append(f"{100 * result['change']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})")
    if _is_cosine(row):
        cells.append(NONE if exact else f"{result['low_score']:.5f}")
    else:
        cells.append(NONE if exact else f"{result['same']:.2%}")
    if "character_errors" in row["fp32"]:
        cells.append(f"{result['character_errors']:.2%}")
    cells.append(NONE if "sqnr" not in result else _bold(f"{result['sqnr']:.1f}", "sqnr" in best))
    return cells


def _best(row: dict[str, Any]) -> dict[str, set[str]]:
    """Which figures of which line are the best among those that TensorRT takes."""
    best: dict[str, set[str]] = {}
    taken = [line for line in row["tools"] if line.get("result") and line["refusal"] is None]
    for measure in ("score", "sqnr"):
        values = {line["name"]: line["result"].get(measure, float("inf")) for line in taken}
        for name, value in values.items():
            if value == max(values.values()):
                best.setdefault(name, set()).add(measure)
    return best


def _timing(row: dict[str, Any]) -> str:
    lines = [
        f"### {row['title']}",
        "",
        f"{row['about'][0].upper()}{row['about'][1:]}.",
        "",
        "| tool | CPU s | MiB | TensorRT-RTX |",
        "|---|---|---|---|",
    ]
    for line in row["tools"]:
        if line["error"] is not None:
            lines.append(f"| {line['name']} | {_cell(line['error'])} | | |")
            continue
        cells = [f"{line['cpu_seconds']:.1f}", f"{line['peak_mib']:.0f}", _taken(line)]
        lines.append(f"| {line['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _taken(line: dict[str, Any]) -> str:
    if line["refusal"] is not None:
        return f"no: {_cell(textwrap.shorten(line['refusal'], 70, placeholder=' ...'))}"
    return f"yes, {line['unsigned']} tensors at half their range" if line["unsigned"] else "yes"


def _conditions(conditions: dict[str, Any]) -> str:
    versions = ", ".join(conditions["versions"])
    return (
        f"Measured on {conditions['cpu']}, {conditions['cores']} cores, Python "
        f"{conditions['python']}, {versions}; revision {conditions['revision']}."
    )


def _value(row: dict[str, Any], measure: str, value: float | None) -> str:
    if value is None:
        return NONE
    if measure == "sqnr":
        return f"{value:.1f} dB"
    return f"{value:.5f}" if _is_cosine(row) else f"{value:.2%}"


def _measure_name(row: dict[str, Any], measure: str) -> str:
    return {"score": row["measure"], "same": "as FP32", "sqnr": "SQNR"}[measure]


def _is_cosine(row: dict[str, Any]) -> bool:
    return str(row["measure"]).startswith("cosine")


def _bold(text: str, wanted: bool) -> str:
    return f"**{text}**" if wanted else text


def _short(name: str) -> str:
    return name.removeprefix("edge_runtime").strip(" ,")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
