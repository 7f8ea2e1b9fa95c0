"""What became of a test: passed or not, and why.

Here: the outcome as data, its lines, JUnit XML. Not here: how it came about (`testing.judging`, `testing.transformations`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dataflow_assets.errors import Place
from dataflow_assets.secrets import mask

Status = Literal["passed", "failed", "error", "skipped"]
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Outcome:
    """`failed`: what came is not what was expected. `error`: it could not be run. `group`: the pipeline, or the file's folder."""

    name: str
    group: str
    place: Place
    status: Status
    lines: tuple[str, ...] = ()
    seconds: float = 0.0
    output: str = ""
    """What the user's own code printed."""

    @property
    def ok(self) -> bool:
        """Whether it is no reason to worry."""
        return self.status in {"passed", "skipped"}

    @property
    def text(self) -> str:
        """Where and why, for a reader."""
        lines = [f"{self.name} ({self.place}): {self.status}", *(f"  {line}" for text in self.lines for line in text.splitlines())]
        if self.output.strip() and not self.ok:
            lines += ["  printed by the code under test:", *(f"    {line}" for line in self.output.strip().splitlines())]
        return mask("\n".join(lines))


def junit_xml(outcomes: Sequence[Outcome], *, suite: str, seconds: float) -> str:
    """The outcomes as JUnit XML, one test case each."""
    from xml.etree import ElementTree as Xml

    count = {status: sum(item.status == status for item in outcomes) for status in ("failed", "error", "skipped")}
    numbers = {"tests": len(outcomes), "failures": count["failed"], "errors": count["error"], "skipped": count["skipped"]}
    attributes = {name: str(number) for name, number in numbers.items()} | {"time": f"{seconds:.3f}"}
    root = Xml.Element("testsuites", {"name": _plain(suite), **attributes})
    holder = Xml.SubElement(root, "testsuite", {"name": _plain(suite), **attributes})
    for item in outcomes:
        case = {"classname": _plain(item.group), "name": _plain(item.name), "time": f"{item.seconds:.3f}", "file": item.place.shown_file}
        element = Xml.SubElement(holder, "testcase", {**case, **({"line": str(item.place.line)} if item.place.line else {})})
        if item.status != "passed":
            tag = {"failed": "failure", "error": "error", "skipped": "skipped"}[item.status]
            Xml.SubElement(element, tag, {"message": _plain(next(iter(item.lines), item.status))}).text = _plain(item.text)
        if item.output.strip():
            Xml.SubElement(element, "system-out").text = _plain(item.output)
    Xml.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _plain(text: str) -> str:
    """The text with what XML cannot hold blanked, and secrets masked."""
    return _FORBIDDEN.sub(" ", mask(text))
