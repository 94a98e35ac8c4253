"""Links in the documents lead somewhere, and the change log has its form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCUMENTS = ("*.md", "jetson/*.md", "engines/**/*.md")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(text)
    }


def test_links_lead_to_files_and_headings_that_exist(root: Path) -> None:
    documents = [path for pattern in DOCUMENTS for path in root.glob(pattern)]
    assert root / "README.md" in documents
    dead = []
    for document in documents:
        for link in LINK.findall(CODE.sub("", document.read_text())):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = document.parent / name if name else document
            if not target.exists() or (anchor and anchor not in anchors(target)):
                dead.append(f"{document.relative_to(root)}: {link}")
    assert dead == []


def test_the_change_log_keeps_its_form(root: Path) -> None:
    text = (root / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n")
    releases = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert releases[0] == "[Unreleased]"
    for release in releases[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", release)
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= SECTIONS


@pytest.mark.parametrize(
    "name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"]
)
def test_the_document_is_there(root: Path, name: str) -> None:
    assert (root / name).stat().st_size > 0
