"""JUnit XML, which every CI shows: cases in suites, passed, failed, in error or skipped.

Here: the document. Not here: what a case is (`cli.check`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Outcome = Literal["passed", "failure", "error", "skipped"]


@dataclass(frozen=True)
class Case:
    """One case. `message` is a line, `text` what there is to read beneath it; `seconds` of wall time."""

    suite: str
    classname: str
    name: str
    outcome: Outcome = "passed"
    message: str = ""
    text: str = ""
    seconds: float = 0.0


def write_junit(path: Path, cases: Iterable[Case], *, name: str) -> None:
    """Write the cases, grouped by suite, as JUnit XML; the folder is made. Characters that XML has not are replaced."""
    from xml.etree import ElementTree

    root = ElementTree.Element("testsuites", name=name)
    suites: dict[str, list[Case]] = {}
    for case in cases:
        suites.setdefault(case.suite, []).append(case)
    for suite, held in suites.items():
        element = ElementTree.SubElement(root, "testsuite", {"name": _legal(suite), **_counts(held)})
        for case in held:
            one = ElementTree.SubElement(
                element, "testcase", classname=_legal(case.classname), name=_legal(case.name), time=f"{case.seconds:.3f}"
            )
            if case.outcome != "passed":
                ElementTree.SubElement(one, case.outcome, message=_legal(case.message)).text = _legal(case.text) or None
            elif case.text:
                ElementTree.SubElement(one, "system-out").text = _legal(case.text)
    for key, value in _counts([case for held in suites.values() for case in held]).items():
        root.set(key, value)
    ElementTree.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _counts(cases: list[Case]) -> dict[str, str]:
    return {
        "tests": str(len(cases)),
        "failures": str(sum(case.outcome == "failure" for case in cases)),
        "errors": str(sum(case.outcome == "error" for case in cases)),
        "skipped": str(sum(case.outcome == "skipped" for case in cases)),
        "time": f"{sum(case.seconds for case in cases):.3f}",
    }


def _legal(text: str) -> str:
    """The text without what XML 1.0 cannot hold, which includes most control characters."""
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
