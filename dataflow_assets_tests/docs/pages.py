"""What stands in the pages of the documentation: code blocks, links, headings, command lines.

Here: reading Markdown. Not here: what must be true of it (the tests), generated blocks (`generate`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataflow_assets_tests.docs.generate import ROOT, pages, slug

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_SPAN = re.compile(r"`(dataflow [a-z-][^`]*)`")
_PROMPT = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(dataflow .*)$")
_TEMPLATE = ROOT / "dataflow_assets" / "cli" / "template" / "README.md"


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str, page: str = "") -> list[Block]:
    """The blocks of these languages, of one page or of all."""
    found = []
    for path in [ROOT / page] if page else pages():
        text = path.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if match["language"] in languages:
                found.append(Block(path, text.count("\n", 0, match.start()) + 1, match["language"], match["text"]))
    return found


def links(page: Path) -> list[str]:
    """The targets of a page's links that lie in this repository."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [match["target"] for match in _LINK.finditer(text) if "://" not in match["target"]]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return {slug(line.lstrip("#")) for line in text.splitlines() if re.match(r"#{1,6} ", line)}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `dataflow` command line, with where it stands and its arguments."""
    for page in [*pages(), _TEMPLATE]:
        shown = page.relative_to(ROOT).as_posix()
        text = page.read_text(encoding="utf-8")
        lines = [match[1] for match in _SPAN.finditer(_FENCE.sub("", text))]
        for fence in _FENCE.finditer(text):
            if fence["language"] in {"sh", "text", ""}:
                lines += [
                    match[1] for line in fence["text"].splitlines() for part in line.split("&&") if (match := _PROMPT.match(part.strip()))
                ]
        for line in lines:
            words = shlex.split(line.replace("\\|", "|"), comments=True)
            arguments = words[1 : words.index(">") if ">" in words else None]
            yield f"{shown}: {line}", [word for word in arguments if not word.startswith("[")]
