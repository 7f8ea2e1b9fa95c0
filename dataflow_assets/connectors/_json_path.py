"""A small language for places inside a JSON document.

`data.items`, `$.data.items`, `["odd.key"]`, `pages[0].rows`, and `groups[*].rows`, which joins the lists of all groups.
Here: reading such a path and following it. Not here: reading JSON (`_json_reading`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_STEP = re.compile(
    r"""\.?(?P<key>[^.\[\]"'\s]+)|\[\s*(?P<quote>"(?:[^"\\]|\\.)*"|'[^']*')\s*\]|\[(?P<index>\d+)\]|(?P<every>\[\*\])""",
)


class Absent(LookupError):
    """Nothing is at a path; says which step failed and what there is instead."""


@dataclass(frozen=True)
class JsonPath:
    """The steps of a path: keys, list positions, None for every item of a list."""

    text: str
    steps: tuple[str | int | None, ...]

    @classmethod
    def parse(cls, text: str) -> JsonPath:
        """Raises ValueError for text that is no path."""
        rest = text.strip()
        if rest.startswith("$"):
            rest = rest[1:]
        steps: list[str | int | None] = []
        position = 0
        while position < len(rest):
            match = _STEP.match(rest, position)
            if match is None or (not steps and match[0] == "."):
                raise ValueError(f'{text!r} is not a path: write keys with dots, ["odd key"], [0] or [*], as in data.items')
            steps.append(_step(match))
            position = match.end()
        return cls(text, tuple(steps))

    def find(self, document: Any) -> Any:
        """The value at the path. Raises Absent."""
        if None in self.steps:
            raise ValueError(f"{self.text!r} has [*], which means several values")
        (value,) = self._follow([document])
        return value

    def find_rows(self, document: Any) -> list[Any]:
        """The list at the path, or the items of all lists that [*] leads to; null is an empty list. Raises Absent."""
        rows: list[Any] = []
        for value in self._follow([document]):
            if value is not None and not isinstance(value, list):
                raise Absent(f"{self.text or 'the document'} is {_kind(value)}, not a list")
            rows += value or []
        return rows

    def _follow(self, values: list[Any]) -> list[Any]:
        for step in self.steps:
            values = [found for value in values for found in _take(value, step)]
        return values


def _step(match: re.Match[str]) -> str | int | None:
    if match["every"]:
        return None
    if match["index"]:
        return int(match["index"])
    if quoted := match["quote"]:
        return str(json.loads(quoted)) if quoted[0] == '"' else quoted[1:-1]
    return match["key"]


def _take(value: Any, step: str | int | None) -> Iterator[Any]:
    if step is None:
        if not isinstance(value, list):
            raise Absent(f"[*] wants a list, there is {_kind(value)}")
        yield from value
    elif isinstance(step, int):
        if not isinstance(value, list) or step >= len(value):
            raise Absent(f"there is no item [{step}] in {_kind(value)}")
        yield value[step]
    else:
        if not isinstance(value, dict) or step not in value:
            raise Absent(f"there is no key {step!r} in {_kind(value)}")
        yield value[step]


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        keys = ", ".join(map(repr, list(value)[:10]))
        return f"an object with {keys or 'no keys'}{', ...' if len(value) > 10 else ''}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "null" if value is None else "a single value"
