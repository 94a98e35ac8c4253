"""What a page of ours holds, read strictly; and names that a stranger's file may have."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from typing import Any

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'onload='alert(1)",
    "]]><!-- &lt;b&gt; --></style></svg>",
    "a\nb\x1b[31m\u202e",
    "conv" * 60,
)

WORDS = ("99 %", "1, 5 and 15 min")
"""Figures in a page's own sentences: LoadGen's confidence, the intervals of a load average."""

_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "b", "i", "ul", "li"),
    *("div", "section", "figure", "figcaption", "table", "caption", "thead", "tbody", "tr", "th"),
    *("td", "span", "a", "pre", "code", "data", "input", "label", "script"),
    *("svg", "g", "desc", "line", "rect", "circle", "path", "text"),
}
_VOID = {"meta", "input"}


class Page(HTMLParser):
    """A page whose elements are of the kinds that ours have, and whose tags match.

    Attributes:
        attributes: Element, name and value of each.
        ids: All of them.
        heads: Texts of the headings.
        figures: Value and shown text of each `data` element.
        text: What is to be read, but for what is in a drawing.
        drawn: What is in a drawing.
        data: What is in a script.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.heads: list[str] = []
        self.figures: list[tuple[str, str]] = []
        self.text = self.drawn = self.data = ""
        self.feed(text)
        self.close()
        assert self.stack == []
        assert len(self.ids) == len(set(self.ids))

    @property
    def plain(self) -> Any:
        """The JSON in its script."""
        return json.loads(self.data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS, tag
        for name, value in attrs:
            assert not name.startswith("on"), name
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
        if tag == "data":
            self.figures.append((dict(attrs)["value"] or "", ""))
        if tag in ("h1", "h2"):
            self.heads.append("")
        if tag not in _VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        inner = self.stack[-1] if self.stack else ""
        if inner == "script":
            self.data += data
        elif "svg" in self.stack:
            self.drawn += f"{data} "
        elif inner not in ("style", "data"):
            self.text += f"{data} "
        if inner == "data":
            value, shown = self.figures[-1]
            self.figures[-1] = value, shown + data
        if inner in ("h1", "h2"):
            self.heads[-1] += data


def leaves(plain: Any) -> list[Any]:
    """All values of a JSON document, and the keys of its objects."""
    if isinstance(plain, dict):
        return [*plain, *(leaf for value in plain.values() for leaf in leaves(value))]
    if isinstance(plain, list):
        return [leaf for value in plain for leaf in leaves(value)]
    return [plain]


def check_figures(found: Page, *documents: object) -> None:
    """Each figure is one of the documents', and shown as what it is."""
    known = [leaf for document in documents for leaf in leaves(json.loads(json.dumps(document)))]
    numbers = {float(leaf) for leaf in known if type(leaf) in (int, float)}
    texts = " ".join(str(leaf) for leaf in known)
    assert found.figures
    for value, shown in found.figures:
        assert float(value) in numbers, (value, shown)
        digits = re.match(r"-?[\d,]*\.?\d+(e[-+]?\d+)?", shown)
        assert digits, shown
        seen = float(digits[0].replace(",", ""))
        factors = (1, 100, 1e-3, 1e-6, 1e-9)
        assert any(math.isclose(seen, float(value) * f, rel_tol=0.02) for f in factors), shown
    left = found.text
    for words in WORDS:
        left = left.replace(words, "")
    for figure in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)", left):
        assert figure in texts or float(figure) in {round(n) for n in numbers}, figure
