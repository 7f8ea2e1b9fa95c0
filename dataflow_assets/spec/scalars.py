"""What a plain YAML scalar means.

Here: text -> null, boolean, number, date, datetime or text, by the rules of YAML 1.1 as PyYAML has them, with its traps taken
out: `12:30` and `007` stay text, and an unquoted NO that may be Norway is refused. `1e3` is text there too; a model that wants a
number takes it as one. Not here: quotes, tags, structure (`spec.yaml`).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN = {word: value for value, words in {True: "true True TRUE", False: "false False FALSE"}.items() for word in words.split()}
_SWITCH = {word: value for value, words in {True: "yes Yes on On", False: "no No off Off"}.items() for word in words.split()}
_SHOUTED = frozenset({"YES", "NO", "ON", "OFF"})
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)\Z")
_BASED = re.compile(r"[-+]?0(?:x[0-9a-fA-F_]+|b[01_]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?\Z")
_SPECIAL = re.compile(r"(?P<sign>[-+]?)\.(?:inf|Inf|INF)\Z|\.(?P<nan>nan|NaN|NAN)\Z")
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")
_DATETIME = re.compile(
    r"(?P<date>\d{4}-\d\d?-\d\d?)(?:[Tt]|[ \t]+)(?P<h>\d\d?):(?P<m>\d\d):(?P<s>\d\d)(?:\.(?P<fraction>\d*))?"
    r"(?:[ \t]*(?P<zone>Z|(?P<sign>[-+])(?P<zh>\d\d?)(?::(?P<zm>\d\d))?))?\Z"
)
_NUMERIC = frozenset("0123456789+-.")


class Ambiguous(ValueError):
    """A scalar that reads as one thing and may well mean another."""


def plain(text: str, *, in_list: bool = False) -> Any:
    """The value of an unquoted scalar.

    Raises Ambiguous for `NO`, `ON` and their kind (anywhere in capitals, in any spelling inside a list), ValueError for text in
    the form of a date or number that is none.
    """
    if text in _NULL:
        return None
    if text[0] in _NUMERIC:
        return _number_or_time(text)
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if text in _SHOUTED or (in_list and text in _SWITCH):
        raise Ambiguous(f"unquoted {text} would be read as {str(text.lower() in {'yes', 'on'}).lower()}")
    return _SWITCH.get(text, text)


def tagged(tag: str, text: str) -> Any:
    """The value of a scalar with an explicit core tag (`str`, `int`, `float`, `bool`, `null`, `timestamp`). Raises ValueError."""
    if tag == "str":
        return text
    value = plain(text)
    wanted: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool, "null": type(None), "timestamp": date}
    if tag not in wanted:
        raise ValueError(f"the tag !!{tag} is not supported")
    if not isinstance(value, wanted[tag]) or (isinstance(value, bool) and tag != "bool"):
        raise ValueError(f"{text!r} is not a value of type {tag}")
    return float(value) if isinstance(value, int) and tag == "float" else value


def _number_or_time(text: str) -> Any:
    if _INTEGER.match(text):
        return int(text.replace("_", ""))
    if _DATE.match(text):
        return date.fromisoformat(text)
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    if _BASED.match(text):
        return int(text.replace("_", ""), 0)
    if match := _DATETIME.match(text):
        return _datetime(match)
    if match := _SPECIAL.match(text):
        return float("nan") if match["nan"] else float(f"{match['sign']}inf")
    return text


def _datetime(match: re.Match[str]) -> datetime:
    year, month, day = map(int, match["date"].split("-"))
    micros = int((match["fraction"] or "")[:6].ljust(6, "0"))
    zone = None
    if match["zone"]:
        offset = timedelta(hours=int(match["zh"] or 0), minutes=int(match["zm"] or 0))
        zone = UTC if match["zone"] == "Z" else timezone(-offset if match["sign"] == "-" else offset)
    return datetime(year, month, day, int(match["h"]), int(match["m"]), int(match["s"]), micros, zone)
