"""What a contract's word for a type means, and which type satisfies which.

Here: the words of SQL, of Arrow, of the systems that tables lie in and of the older projects, as families with a width. Not here: the
contract (`spec.contracts`), Arrow's own types of a stage (`checks.contract`).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache

_INTEGERS = {
    **dict.fromkeys(("tinyint", "int8", "byteint"), 8),
    **dict.fromkeys(("smallint", "int16", "int2", "smallserial"), 16),
    "mediumint": 24,
    **dict.fromkeys(("int", "integer", "int32", "int4", "serial"), 32),
    **dict.fromkeys(("bigint", "int64", "bigserial", "long"), 64),
    **dict.fromkeys(("hugeint", "int128"), 128),
    "int256": 256,
}
_UNSIGNED = {
    **dict.fromkeys(("uint8", "utinyint"), 8),
    **dict.fromkeys(("uint16", "usmallint"), 16),
    **dict.fromkeys(("uint32", "uinteger"), 32),
    **dict.fromkeys(("uint64", "ubigint"), 64),
    **dict.fromkeys(("uint128", "uhugeint"), 128),
    "uint256": 256,
}
_FLOATS = {
    **dict.fromkeys(("float16", "half", "halffloat"), 16),
    **dict.fromkeys(("real", "float32", "float4"), 32),
    **dict.fromkeys(("float", "double", "double precision", "float64", "float8"), 64),
}
_PLAIN = {
    "any": "any",
    **dict.fromkeys(("boolean", "bool", "bit"), "boolean"),
    **dict.fromkeys(("date", "date32", "date64"), "date"),
    **dict.fromkeys(("time", "time32", "time64", "time without time zone"), "time"),
    **dict.fromkeys(("binary", "varbinary", "bytea", "bytes", "blob", "large_binary", "longblob", "mediumblob", "tinyblob"), "binary"),
    **dict.fromkeys(("list", "large_list", "array", "repeated"), "list"),
    **dict.fromkeys(("struct", "tuple", "row", "record"), "struct"),
    "map": "map",
    "null": "null",
}
_SIZED = ("varchar", "char", "character", "character varying", "bpchar", "nvarchar", "nchar", "fixedstring", "string", "text")
_UNSIZED = ("str", "large_string", "string_view", "longtext", "mediumtext", "tinytext", "clob", "uuid", "json", "jsonb", "enum", "enum8")
_TEXT = frozenset({*_SIZED, *_UNSIZED, "enum16"})
_DECIMALS = frozenset({"decimal", "numeric", "number", "decimal32", "decimal64", "decimal128", "decimal256", "bignumeric", "decimal_text"})
_NAIVE = frozenset({"timestamp", "timestamp without time zone", "timestamp_ntz", "timestamp_s", "timestamp_ms", "timestamp_ns"})
_AWARE = frozenset({"timestamptz", "timestamptz_ns", "timestamp with time zone", "timestamp_tz", "timestamp_ltz", "datetimeoffset"})
_EITHER = frozenset({"datetime", "datetime64", "datetime2"})
_WRAPPED = re.compile(r"^(?:nullable|lowcardinality)\((.*)\)$")
_WORD = re.compile(r"^(?P<name>[a-z_][a-z0-9_]*(?: precision| varying)?)\s*(?P<arguments>[(\[<].*[)\]>])?\s*(?P<rest>[a-z ]*)$")
_OPEN_WIDTH = frozenset({"float", "real", "integer"})
EXPECTED = "bigint, int, double, decimal(18,2), text, varchar(50), boolean, date, timestamp, timestamptz, binary or any"


@dataclass(frozen=True)
class ColumnType:
    """A family of types with its width: bits of a number, digits of a decimal, characters of a text. None: any, or not known."""

    family: str
    width: int | None = None
    scale: int | None = None
    signed: bool = True
    zoned: bool | None = None
    """Of a timestamp: whether it is an instant; None accepts both."""

    def __str__(self) -> str:
        """The word to write in a contract."""
        if self.family == "integer":
            name = {8: "tinyint", 16: "smallint", 24: "mediumint", 32: "int", 64: "bigint"}.get(self.width or 64, f"int{self.width}")
            return name if self.signed else f"uint{self.width or 64}"
        if self.family == "float":
            return {16: "float16", 32: "real"}.get(self.width or 64, "double")
        if self.family == "decimal":
            return "decimal" if self.width is None else f"decimal({self.width},{self.scale or 0})"
        if self.family == "text":
            return "text" if self.width is None else f"varchar({self.width})"
        if self.family == "timestamp":
            return {None: "datetime", True: "timestamptz", False: "timestamp"}[self.zoned]
        return self.family


ANY = ColumnType("any")
UNKNOWN = ColumnType("other")


@lru_cache(maxsize=4096)
def parse_type(text: str) -> ColumnType:
    """The type that a user's word means. Raises ValueError, with the nearest word, for one that is not known."""
    found = _parsed(text)
    if found is None:
        words = [*_INTEGERS, *_UNSIGNED, *_FLOATS, *_PLAIN, *_TEXT, *_DECIMALS, *_NAIVE, *_AWARE, *_EITHER]
        word = _normal(text).partition("(")[0]
        near = [] if word in words else difflib.get_close_matches(word, words, n=1, cutoff=0.6)
        raise ValueError(f"{text!r} is not a column type: " + (f"did you mean {near[0]!r}?" if near else f"write {EXPECTED}"))
    return found


@lru_cache(maxsize=4096)
def spoken_type(text: str) -> ColumnType:
    """The type that a system's word for a column means; `UNKNOWN` for a word that is not known.

    What the word does not settle is left open, because systems differ: the width of a `float`, and in SQLite that of `real` and
    `integer`; the zone of a `timestamp`.
    """
    word = _normal(text)
    found = _parsed(text)
    if found is None:
        return UNKNOWN
    if word in _OPEN_WIDTH:
        return ColumnType(found.family)
    if found.family == "timestamp" and word.partition("(")[0].strip() in {"timestamp", *_EITHER} and found.zoned is not True:
        return ColumnType("timestamp")
    return found


def _normal(text: str) -> str:
    return " ".join(text.strip().lower().split())


def _parsed(text: str) -> ColumnType | None:
    word = _normal(text)
    while match := _WRAPPED.match(word):
        word = match[1].strip()
    if word.endswith("[]"):
        return ColumnType("list")
    match = _WORD.match(word)
    if match is None:
        return None
    name, rest = match["name"], match["rest"].strip()
    arguments = (match["arguments"] or "")[1:-1].strip()
    if name == "dictionary":
        return _parsed(arguments.removeprefix("values=").split(",")[0])
    if rest in {"unsigned", "unsigned zerofill"} and name in _INTEGERS:
        return ColumnType("integer", _INTEGERS[name], signed=False)
    return _named(f"{name} {rest}".strip(), arguments)


def _named(name: str, arguments: str) -> ColumnType | None:
    numbers = [int(item) for item in re.findall(r"\d+", arguments)]
    if name == "tinyint" and numbers[:1] == [1]:
        return ColumnType("boolean")
    if name in _INTEGERS or name in _UNSIGNED:
        return ColumnType("integer", {**_INTEGERS, **_UNSIGNED}[name], signed=name in _INTEGERS)
    if name in _FLOATS:
        return ColumnType("float", _FLOATS[name])
    if name in _DECIMALS:
        return _decimal(numbers)
    if name in _TEXT:
        return ColumnType("text", numbers[0] if numbers and name in _SIZED else None)
    if name in _NAIVE | _AWARE | _EITHER:
        return ColumnType("timestamp", zoned=_zoned(name, arguments))
    family = _PLAIN.get(name)
    return ColumnType(family) if family else None


def _decimal(numbers: list[int]) -> ColumnType | None:
    if not numbers:
        return ColumnType("decimal")
    precision, scale = numbers[0], numbers[1] if len(numbers) > 1 else 0
    return ColumnType("decimal", precision, scale) if precision >= 1 and scale <= precision else None


def _zoned(name: str, arguments: str) -> bool | None:
    """Arrow writes `timestamp[us, tz=UTC]`, ClickHouse `DateTime64(6, 'UTC')`; a bare `datetime` says nothing."""
    if name in _AWARE or re.search(r"[a-z]{3,}|'", arguments.replace("tz=", "")):
        return True
    return False if name in _NAIVE else None


def satisfies(actual: ColumnType, wanted: ColumnType) -> bool:
    """Whether every value of `actual` is one of `wanted`, as far as the types tell: an int satisfies bigint, not the reverse.

    Whole numbers are decimals too, where these have enough digits before the point.
    """
    if wanted.family in {"any", "other"} or actual.family in {"other", "null"}:
        return True
    if actual.family == "integer" and wanted.family == "decimal":
        return wanted.width is None or _digits(actual) <= wanted.width - (wanted.scale or 0)
    if actual.family != wanted.family:
        return False
    if actual.family == "integer":
        return _integer_fits(actual, wanted)
    if actual.family == "decimal":
        return _decimal_fits(actual, wanted)
    if actual.family == "timestamp":
        return wanted.zoned is None or actual.zoned is None or actual.zoned == wanted.zoned
    return wanted.width is None or actual.width is None or actual.width <= wanted.width


def _integer_fits(actual: ColumnType, wanted: ColumnType) -> bool:
    if actual.width is None or wanted.width is None:
        return True
    if actual.signed == wanted.signed:
        return actual.width <= wanted.width
    return wanted.signed and actual.width < wanted.width


def holds(column: ColumnType, promised: ColumnType) -> bool:
    """Whether a column of a table has room for every promised value, and is of their kind or made for it by a system without it."""
    return satisfies(promised, column)


def _digits(kind: ColumnType) -> int:
    """The digits of the largest whole number of this width."""
    return len(str(2 ** ((kind.width or 64) - kind.signed)))


def _decimal_fits(actual: ColumnType, wanted: ColumnType) -> bool:
    if wanted.width is None or actual.width is None:
        return True
    scale, wanted_scale = actual.scale or 0, wanted.scale or 0
    return scale <= wanted_scale and actual.width - scale <= wanted.width - wanted_scale


def is_narrower(new: ColumnType, old: ColumnType) -> bool:
    """Whether `new` admits less than `old`; unlike `satisfies`, a width that is not said counts as without limit."""
    return _within(new, old) and not _within(old, new)


def is_wider(new: ColumnType, old: ColumnType) -> bool:
    """Whether `new` admits all that `old` did, and more."""
    return is_narrower(old, new)


def _within(inner: ColumnType, outer: ColumnType) -> bool:
    if outer.family == "any":
        return True
    if inner.family != outer.family:
        return False
    if inner.family == "timestamp":
        return outer.zoned is None or inner.zoned == outer.zoned
    if inner.width is None:
        return outer.width is None
    return satisfies(inner, outer)
