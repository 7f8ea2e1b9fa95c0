"""The place of a word within a longer text of a pipeline file, such as a column within SQL.

Here: from the place of a value and a line within it to line and column of the file. Not here: the places of values (`spec.project`).
"""

from __future__ import annotations

import re

from dataflow_assets.errors import Place
from dataflow_assets.spec.project import Path_, Places


def place_of_word(places: Places, path: Path_, word: str, *, line: int = 0) -> Place:
    """Where `word` stands in the value at `path`: on line `line` of its text (from 1) where that is known, else where it is first met.

    The place of the value itself when the word is not found, as in text with escapes.
    """
    start = places.at(path)
    if not 0 < start.line <= len(places.lines):
        return start
    is_block = places.lines[start.line - 1][start.column - 1 : start.column] in {"|", ">"}
    pattern = re.compile(rf"(?<![\w$]){re.escape(word)}(?![\w$])", re.IGNORECASE)
    lines = _lines_of(places, start, is_block=is_block)
    likely = start.line + is_block + line - 1 if line else 0
    for number in ([likely] if likely in lines else []) + list(lines):
        begin = start.column - 1 if number == start.line and not is_block else 0
        if match := pattern.search(places.lines[number - 1], begin):
            return Place(start.file, number, match.start() + 1)
    return start


def _lines_of(places: Places, start: Place, *, is_block: bool) -> range:
    """The lines of the value that begins at `start`: up to the next value of the file."""
    following = [place.line for place in places.known.values() if place.line > start.line]
    first = start.line + is_block
    return range(first, max(min(following, default=len(places.lines) + 1), first + 1 if first <= len(places.lines) else first))
