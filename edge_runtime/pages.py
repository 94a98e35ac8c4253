"""What the project's HTML pages share: each is one file that needs no network, on any screen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from edge_runtime.text import printable

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1c2330; --soft: #5b6575;
  --line: #d9dee6; --bar: #8fb3e0; --worst: #c7372a; --dot: #1c2330; --mark: #fff3cd; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ground: #14181f; --text: #e6eaf0; --soft: #9aa5b5; --line: #333b47; --bar: #3f6ea8;
    --worst: #f0705f; --dot: #f2f4f7; --mark: #453a12; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1040px; padding: 16px; background: var(--ground);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 28px 0 8px; }
p, li { max-width: 46em; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
code { font: 0.88em ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: color-mix(in srgb, var(--line) 40%, transparent); border-radius: 6px;
  padding: 10px 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
.chart { display: flex; border: 1px solid var(--line); border-radius: 6px; padding: 8px 0; }
.chart svg { display: block; flex: none; }
.scroll { overflow-x: auto; flex: 1; min-width: 0; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); text-anchor: middle; }
.axis text { text-anchor: end; }
.grid { stroke: var(--line); }
.hit { fill: transparent; }
.bar { fill: var(--bar); }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; padding: 0; list-style: none; }
.key svg { vertical-align: -1px; margin-right: 6px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
caption { text-align: left; color: var(--soft); padding: 0 6px 4px; }
caption span { display: inline-block; position: sticky; left: 6px; max-width: calc(100vw - 60px); }
th, td { padding: 5px 6px; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; white-space: normal; }
td.name, th.name { text-align: left; white-space: normal; overflow-wrap: anywhere; width: 40%;
  min-width: 8.5em; }
td.name span, th.name span { color: var(--soft); }
tbody th.name { color: var(--text); font-weight: 400; }
@media print {
  body { max-width: none; padding: 0; font-size: 11pt; }
  .chart, figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  .wide, .scroll { overflow: visible; }
  table { font-size: 8pt; }
  * { print-color-adjust: exact; }
}
"""


def document(title: str, body: str, *, style: str = "") -> str:
    """A whole page, which loads nothing and runs nothing.

    Args:
        title: Its title, escaped.
        body: What is in its body, as HTML.
        style: CSS beside that which all pages have.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{_STYLE}{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def plain_text(text: str) -> str:
    """Text that is nothing but text: names are those of a stranger's file."""
    return escape(printable(text))


def shortened(text: str, limit: int = 160) -> str:
    """The same, with the middle left out where it is longer than anyone reads."""
    if len(text) > limit:
        text = f"{text[: limit // 2]} ... {text[-limit // 2 :]}"
    return plain_text(text)


def rounded(value: float) -> str:
    """Four significant digits, and all that are before the point, as in `1,638`."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"


def datum(value: float, shown: str) -> str:
    """A figure as it is shown, with the value itself for programs."""
    return f'<data value="{value!r}">{shown}</data>'


def table(columns: Sequence[str], rows: Iterable[str], *, caption: str = "") -> str:
    """A table, which scrolls by itself where it is wider than the page.

    Args:
        columns: Heads, escaped; one with `<` before it is that of names, at the left. May be empty.
        rows: `tr` elements. A name's cell has the class `name`.
        caption: What it shows, escaped.
    """
    heads = "".join(
        f'<th scope="col" class="name">{head[1:]}</th>'
        if head.startswith("<")
        else f'<th scope="col">{head}</th>'
        for head in columns
    )
    head = f"<thead><tr>{heads}</tr></thead>\n" if columns else ""
    said = f"<caption><span>{caption}</span></caption>" if caption else ""
    body = "\n".join(rows)
    return f'<div class="wide"><table>{said}{head}<tbody>{body}</tbody></table></div>'


def embedded(plain: Mapping[str, Any]) -> str:
    """An element `data` with JSON that cannot end it."""
    text = json.dumps(plain, allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return f'<script type="application/json" id="data">{text}</script>'
