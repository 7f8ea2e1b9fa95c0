"""The canonical form of a row: what two systems must agree on to call two rows equal.

Here: families of types, which columns of two tables can be compared and as what, tallies (count and order-free checksum), and
canonical text as a value again. Not here: the SQL that makes the form in a database (`storage.digests`), making it from Arrow
(`storage.local_digests`), the checksum of stages, which never leaves this program and is faster (`batches`).

Form: a null is `~`. A number, a count of days or of microseconds is its decimal digits without needless zeros. Text is its length in
UTF-8 bytes, `:`, and the text. Columns are joined by `,`. A row's digest is the first 64 bits of the MD5 (RFC 1321) of that, big-endian; a
checksum is the sum of digests modulo 2^64. Not XOR: equal pairs cancel.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

NULL_MARK = "~"
UNREADABLE = "?"
"""Stands before the text of a value that could not be read as what the other side has there."""
NAN_BITS = 0x7FF8 << 48
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OWN_COLUMNS = "_dataflow"


class Family(enum.StrEnum):
    """Types whose values have one canonical text, whatever their width or system."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    """1 or 0."""
    FLOAT = "float"
    """The bits of the IEEE 754 double, as a signed integer; minus zero is zero, and there is one NaN."""
    INSTANT = "instant"
    """Microseconds since 1970-01-01 in UTC; a time without a zone is read as UTC, nanoseconds are rounded down."""
    DATE = "date"
    """Days since 1970-01-01."""
    TIME = "time"
    """Microseconds since midnight."""
    TEXT = "text"
    BYTES = "bytes"
    """Hexadecimal, lower case."""
    NESTED = "nested"
    """JSON; made locally only."""
    NULL = "null"
    """A column without any value, whose type nobody knows."""


NUMBERS = frozenset({Family.INTEGER, Family.DECIMAL, Family.BOOLEAN})
"""Families whose texts are equal where their values are."""
SPELLED = frozenset({Family.TEXT, Family.NESTED})
"""Families whose texts may hold anything and need their length before them."""


def family_of(kind: pa.DataType) -> Family | None:
    """The family of an Arrow type, None for one without a canonical form (durations, unions)."""
    import pyarrow as pa

    if isinstance(kind, pa.DictionaryType):
        return family_of(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return family_of(kind.storage_type)
    types = pa.types
    tests = (
        (types.is_null, Family.NULL),
        (types.is_boolean, Family.BOOLEAN),
        (types.is_integer, Family.INTEGER),
        (types.is_floating, Family.FLOAT),
        (types.is_decimal, Family.DECIMAL),
        (types.is_timestamp, Family.INSTANT),
        (types.is_date, Family.DATE),
        (types.is_time, Family.TIME),
        (lambda item: types.is_string(item) or types.is_large_string(item) or types.is_string_view(item), Family.TEXT),
        (lambda item: types.is_binary(item) or types.is_large_binary(item) or types.is_binary_view(item), Family.BYTES),
        (types.is_fixed_size_binary, Family.BYTES),
        (lambda item: types.is_nested(item) and not types.is_union(item), Family.NESTED),
    )
    return next((family for test, family in tests if test(kind)), None)


@dataclass(frozen=True)
class CanonicalColumn:
    """One column as both sides compare it; `kind` is the Arrow type that text on either side is read as."""

    name: str
    family: Family
    kind: pa.DataType

    def fits(self, own: Family | None) -> bool:
        """Whether a side whose column is of family `own` needs no cast."""
        return own == self.family or (own in NUMBERS and self.family in NUMBERS)


@dataclass(frozen=True)
class Tally:
    """Count and order-free checksum of rows."""

    rows: int = 0
    checksum: int = 0

    def __str__(self) -> str:
        return f"{self.rows}:{self.checksum:016x}"


@dataclass(frozen=True)
class Agreed:
    """What two tables can be compared by. `left_out`: a sentence for each column that is not compared."""

    columns: tuple[CanonicalColumn, ...]
    left_out: tuple[str, ...] = ()

    def named(self, names: Sequence[str]) -> tuple[int, ...]:
        """The positions of these columns. Raises KeyError for one that is not compared."""
        positions = {column.name: position for position, column in enumerate(self.columns)}
        return tuple(positions[name] for name in names)


def agree(left: pa.Schema, right: pa.Schema, *, names: tuple[str, str], ignore: Collection[str] = ()) -> Agreed:
    """The columns that both have, each as its joint family; `names` are those of the two sides, for the sentences."""
    columns: list[CanonicalColumn] = []
    left_out = [_only_in(name, names[0]) for name in left.names if name not in right.names and not _is_own(name)]
    left_out += [_only_in(name, names[1]) for name in right.names if name not in left.names and not _is_own(name)]
    for item in left:
        if item.name not in right.names:
            continue
        other = right.field(item.name)
        if item.name in ignore:
            left_out.append(f"{item.name}: ignored")
        elif found := _joint(item.type, other.type):
            columns.append(CanonicalColumn(item.name, *found))
        else:
            left_out.append(f"{item.name}: {item.type} in {names[0]} and {other.type} in {names[1]} have no common form")
    return Agreed(tuple(columns), tuple(left_out))


def _is_own(name: str) -> bool:
    return name.startswith(_OWN_COLUMNS)


def _only_in(name: str, side: str) -> str:
    return f"{name}: only in {side}"


def _joint(left: pa.DataType, right: pa.DataType) -> tuple[Family, pa.DataType] | None:
    """The family in which both are compared, and the type that tells how text is read; the later of a pair's table wins."""
    one, two = family_of(left), family_of(right)
    if one is None or two is None:
        return None
    if one == two:
        return one, left
    pair = {one: left, two: right}
    if set(pair) <= NUMBERS:
        return Family.DECIMAL, pair.get(Family.DECIMAL, left)
    for weak in (Family.NULL, Family.TEXT):
        if weak in pair:
            ((family, kind),) = [(family, kind) for family, kind in pair.items() if family != weak]
            return None if family is Family.NESTED and weak is Family.TEXT else (family, kind)
    if Family.FLOAT in pair and set(pair) - {Family.FLOAT} <= NUMBERS:
        return Family.FLOAT, pair[Family.FLOAT]
    return (Family.INSTANT, pair[Family.INSTANT]) if set(pair) == {Family.INSTANT, Family.DATE} else None


def value_of(family: Family, text: str | None) -> Any:
    """The canonical text as a Python value, to be shown; text where no value can be made of it."""
    if text is None or text.startswith(UNREADABLE) or family not in _VALUES:
        return text
    try:
        return _VALUES[family](text)
    except (ValueError, ArithmeticError, OverflowError, struct.error):
        return text


_VALUES: Mapping[Family, Any] = {
    Family.INTEGER: int,
    Family.DECIMAL: Decimal,
    Family.BOOLEAN: lambda text: bool(int(text)),
    Family.FLOAT: lambda text: struct.unpack("<d", struct.pack("<q", int(text)))[0],
    Family.INSTANT: lambda text: _EPOCH + timedelta(microseconds=int(text)),
    Family.DATE: lambda text: date(1970, 1, 1) + timedelta(days=int(text)),
    Family.TIME: lambda text: (datetime.min + timedelta(microseconds=int(text))).time(),
}
