"""Values of the reports: from Google's text to types, without loss.

Here: dates in both of the forms that the reports have, numbers with thousands separators, `NA` for none in columns that are no text.
Not here: which column is of which kind (`_google_play_reports`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.connectors._google_play_reports import Kind
from dataflow_assets.connectors._text_types import INSTANT, Unfit, parse

MONEY = pa.decimal128(38, 9)
TYPES: dict[Kind, pa.DataType] = {
    "date": pa.date32(),
    "instant": INSTANT,
    "epoch": INSTANT,
    "integer": pa.int64(),
    "decimal": MONEY,
    "float": pa.float64(),
    "text": pa.string(),
}
NAMES: dict[Kind, str] = {
    "date": "a date such as 2024-01-31 or Jan 31, 2024",
    "instant": "a time such as 2024-01-31T10:00:00Z",
    "epoch": "a number of seconds since 1970",
    "integer": "a whole number",
    "decimal": "a number with at most 9 digits after the point",
    "float": "a number",
}
_GROUPED = r"^-?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?$"
_WHOLE = r"^-?[0-9]{1,18}$"
_NUMBER = r"^-?[0-9]{1,18}(\.[0-9]{1,18})?([eE]-[0-9]{1,2})?$"
_ISO = re.compile(r"\d{4}-\d\d-\d\d")
_SPELLED = re.compile(r"([A-Z][a-z]{2}) (\d{1,2}), (\d{4})")
_MONTHS = {name: number for number, name in enumerate(("Jan", "Feb", "Mar", "Apr", "May", "Jun"), 1)} | {
    name: number for number, name in enumerate(("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 7)
}


def values(column: pa.Array, kind: Kind) -> pa.Array:
    """The values of a column of text. Raises Unfit for text that is none."""
    if kind == "text":
        return column
    if pc.any(pc.equal(column, "NA"), min_count=0).as_py():
        column = pc.if_else(pc.equal(column, "NA"), pa.scalar(None, pa.string()), column)
    return _PARSERS[kind](column)


def _date(column: pa.Array) -> pa.Array:
    """By the different texts, of which a file has about thirty."""
    coded = column.dictionary_encode()
    try:
        days = pa.array([_day(text) for text in coded.dictionary.to_pylist()], pa.date32())
    except _NoDate as error:
        raise Unfit(pc.index(column, error.text).as_py(), error.text) from None
    return days.take(coded.indices)


class _NoDate(Exception):
    """The text is no date."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


def _day(text: str) -> date:
    try:
        if _ISO.fullmatch(text):
            return date.fromisoformat(text)
        if spelled := _SPELLED.fullmatch(text):
            return date(int(spelled[3]), _MONTHS[spelled[1]], int(spelled[2]))
    except (ValueError, KeyError):
        pass
    raise _NoDate(text)


def _numbers(pattern: str, kind: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    def parsed(column: pa.Array) -> pa.Array:
        if pc.any(pc.match_substring(column, ","), min_count=0).as_py():
            plain = pc.replace_substring(column, ",", "")
            column = pc.if_else(pc.match_substring_regex(column, _GROUPED), plain, column)
        good = pc.match_substring_regex(column, pattern)
        if not pc.all(good, min_count=0).as_py():
            index = pc.index(good, False).as_py()
            raise Unfit(index, column[index].as_py())
        return parse(column, kind, strict=False)

    return parsed


def _epoch(column: pa.Array) -> pa.Array:
    seconds = _numbers(_WHOLE, pa.int64())(column)
    try:
        return seconds.cast(pa.timestamp("s", "UTC")).cast(INSTANT)
    except pa.ArrowInvalid:
        index = pc.index(pc.equal(pc.abs(seconds), pc.max(pc.abs(seconds))), True).as_py()
        raise Unfit(index, column[index].as_py()) from None


_PARSERS: dict[Kind, Callable[[pa.Array], pa.Array]] = {
    "date": _date,
    "instant": lambda column: parse(column, INSTANT, strict=False),
    "epoch": _epoch,
    "integer": _numbers(_WHOLE, pa.int64()),
    "decimal": _numbers(_NUMBER, MONEY),
    "float": _numbers(_NUMBER, pa.float64()),
}
