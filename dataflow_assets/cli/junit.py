"""JUnit XML, which every CI shows: cases in suites, passed, failed, in error or skipped.

Here: the document. Not here: what a case is (`cli.verdicts`, `cli.testing`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.secrets import mask

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
    output: str = ""
    """What it printed."""
    file: str = ""
    line: int = 0
    """Where it is written, both empty when unknown."""


def write_junit(path: Path, cases: Iterable[Case], *, name: str) -> None:
    """Write the cases, grouped by suite, as JUnit XML; the folder is made, secrets are masked. Raises UsageFailed."""
    from xml.etree import ElementTree

    suites: dict[str, list[Case]] = {}
    for case in cases:
        suites.setdefault(case.suite, []).append(case)
    root = ElementTree.Element("testsuites", {"name": _legal(name), **_counts([case for held in suites.values() for case in held])})
    for suite, held in suites.items():
        element = ElementTree.SubElement(root, "testsuite", {"name": _legal(suite), **_counts(held)})
        for case in held:
            one = ElementTree.SubElement(element, "testcase", _attributes(case))
            if case.outcome != "passed":
                ElementTree.SubElement(one, case.outcome, message=_legal(case.message)).text = _legal(case.text) or None
            if case.output.strip():
                ElementTree.SubElement(one, "system-out").text = _legal(case.output)
    ElementTree.indent(root)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise UsageFailed(
            f"{path} cannot be written: {error.strerror}", hint="give --junit a file in a folder that can be written"
        ) from error


def _attributes(case: Case) -> dict[str, str]:
    known = {"classname": _legal(case.classname), "name": _legal(case.name), "time": f"{case.seconds:.3f}"}
    return known | ({"file": case.file} if case.file else {}) | ({"line": str(case.line)} if case.line else {})


def _counts(cases: list[Case]) -> dict[str, str]:
    return {
        "tests": str(len(cases)),
        "failures": str(sum(case.outcome == "failure" for case in cases)),
        "errors": str(sum(case.outcome == "error" for case in cases)),
        "skipped": str(sum(case.outcome == "skipped" for case in cases)),
        "time": f"{sum(case.seconds for case in cases):.3f}",
    }


def _legal(text: str) -> str:
    """The text without what XML 1.0 cannot hold, which includes most control characters, and with secrets masked."""
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", mask(text))
