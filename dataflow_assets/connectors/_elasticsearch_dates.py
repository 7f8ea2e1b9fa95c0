"""Dates as Elasticsearch writes them into documents: text of the mapping's formats, or numbers since 1970.

Here: from the `format` of a date field to a reader of its values, in nanoseconds since 1970, UTC. The pattern letters are those of
Java's DateTimeFormatter. Not here: which Arrow type the values get (`_elasticsearch_types`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache

DEFAULT = "strict_date_optional_time||epoch_millis"
_NAMED = {
    "date": "yyyy-MM-dd",
    "basic_date": "yyyyMMdd",
    "date_hour": "yyyy-MM-dd'T'HH",
    "date_hour_minute": "yyyy-MM-dd'T'HH:mm",
    "date_hour_minute_second": "yyyy-MM-dd'T'HH:mm:ss",
    "date_hour_minute_second_fraction": "yyyy-MM-dd'T'HH:mm:ss.SSS",
    "date_hour_minute_second_millis": "yyyy-MM-dd'T'HH:mm:ss.SSS",
    "date_time": "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "date_time_no_millis": "yyyy-MM-dd'T'HH:mm:ssXXX",
    "basic_date_time": "yyyyMMdd'T'HHmmss.SSSX",
    "basic_date_time_no_millis": "yyyyMMdd'T'HHmmssX",
    "year": "yyyy",
    "year_month": "yyyy-MM",
    "year_month_day": "yyyy-MM-dd",
    "date_optional_time": "yyyy[-MM[-dd['T'[HH[:mm[:ss[.S][,S]]]][XXX]]]]",
    "date_optional_time_nanos": "yyyy[-MM[-dd['T'[HH[:mm[:ss[.S][,S]]]][XXX]]]]",
    "iso8601": "yyyy[-MM[-dd['T'[HH[:mm[:ss[.S][,S]]]][XXX]]]]",
}
_EPOCH = {"epoch_millis": 1_000_000, "epoch_second": 1_000_000_000}
_TOKEN = re.compile(r"'(?P<text>(?:[^']|'')*)'|(?P<letters>([A-Za-z])\3*)|(?P<other>[^A-Za-z'])")
_OFFSET = r"(?P<offset>Z|[+-]\d\d(?::?\d\d)?)"
_FIELDS = {"y": "year", "u": "year", "M": "month", "d": "day", "H": "hour", "m": "minute", "s": "second"}
_1970 = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Dates:
    """A reader of the values of one field. `days`: no format has a time of day."""

    readers: tuple[Callable[[str], int | None], ...]
    days: bool

    def read(self, text: str) -> int | None:
        """Nanoseconds since 1970, None for text that no format fits."""
        return next((found for reader in self.readers if (found := reader(text)) is not None), None)


@lru_cache(maxsize=512)
def dates(formats: str) -> Dates | None:
    """The reader for a mapping's formats, None when one of them has letters that are not known here."""
    readers, days = [], True
    for written in formats.split("||"):
        name = written.strip().removeprefix("8")
        if name in _EPOCH:
            readers.append(_epoch_reader(_EPOCH[name]))
            days = False
            continue
        pattern = _NAMED.get(name.removeprefix("strict_"), name)
        expression = _expression(pattern)
        if expression is None:
            return None
        readers.append(_text_reader(expression))
        days = days and not set("HmsSXxZ") & set(re.sub(r"'[^']*'", "", pattern))
    return Dates(tuple(readers), days)


def _epoch_reader(factor: int) -> Callable[[str], int | None]:
    def read(text: str) -> int | None:
        try:
            value = Decimal(text) * factor
        except InvalidOperation:
            return None
        return int(value) if value.is_finite() and value == value.to_integral_value() else None

    return read


def _expression(pattern: str) -> re.Pattern[str] | None:
    """The regular expression of a pattern, None for one with letters that are not known here."""
    parts: list[str] = []
    for token in _TOKEN.finditer(pattern):
        if letters := token["letters"]:
            part = _letters(letters)
            if part is None:
                return None
            parts.append(part)
        elif (other := token["other"]) is not None:
            parts.append({"[": "(?:", "]": ")?"}.get(other, re.escape(other)))
        else:
            parts.append(re.escape(token["text"].replace("''", "'") or "'"))
    try:
        return re.compile(_numbered("".join(parts)), re.ASCII)
    except re.error:
        return None


def _letters(letters: str) -> str | None:
    letter, count = letters[0], len(letters)
    if letter in "yu":
        return rf"(?P<year>\d{{{count if count == 4 else '1,4'}}})" if count != 2 else None
    if letter in _FIELDS and count <= 2:
        return rf"(?P<{_FIELDS[letter]}>\d{{{'1,2' if count == 1 else '2'}}})"
    if letter == "S":
        return r"(?P<fraction>\d{1,9})"
    return _OFFSET if letter in "XxZ" and count <= 3 else None


def _numbered(text: str) -> str:
    """A field that may stand in two places gets a number for each, since names must be unique."""
    seen: dict[str, int] = {}

    def name(match: re.Match[str]) -> str:
        seen[match[1]] = seen.get(match[1], -1) + 1
        return f"(?P<{match[1]}{seen[match[1]]}>"

    return re.sub(r"\(\?P<(\w+)>", name, text)


def _text_reader(expression: re.Pattern[str]) -> Callable[[str], int | None]:
    def read(text: str) -> int | None:
        match = expression.fullmatch(text)
        if match is None:
            return None
        found = {name.rstrip("0123456789"): value for name, value in match.groupdict().items() if value is not None}
        try:
            moment = datetime(
                int(found["year"]),
                int(found.get("month", 1)),
                int(found.get("day", 1)),
                int(found.get("hour", 0)),
                int(found.get("minute", 0)),
                int(found.get("second", 0)),
                tzinfo=UTC,
            )
        except (ValueError, KeyError):
            return None
        seconds = (moment - _1970) // _SECOND - _offset_seconds(found.get("offset", "Z"))
        return seconds * 1_000_000_000 + int(found.get("fraction", "0").ljust(9, "0"))

    return read


_SECOND = datetime(1, 1, 1, 0, 0, 1) - datetime(1, 1, 1)


def _offset_seconds(text: str) -> int:
    if text == "Z":
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    return (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * (-1 if text[0] == "-" else 1)
