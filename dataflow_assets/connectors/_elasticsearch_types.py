"""Types of fields: from a mapping to Arrow types, and from values in documents to values of these, exactly.

Here: one converter for each type; a document may hold a number as text, and one value as a list of one, as Elasticsearch takes them.
Not here: finding a field in a document (`_elasticsearch_fields`), the formats of dates (`_elasticsearch_dates`).
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from dataflow_assets.connectors._elasticsearch_dates import DEFAULT, Dates, dates
from dataflow_assets.connectors._json_reading import Number, as_json

_INTEGERS = {"byte": pa.int8(), "short": pa.int16(), "integer": pa.int32(), "long": pa.int64(), "unsigned_long": pa.uint64()}
_FLOATS = frozenset({"double", "float", "half_float"})
_TEXTS = frozenset({"keyword", "text", "constant_keyword", "wildcard", "match_only_text", "ip", "version", "search_as_you_type"})
_EXACT_LENGTH = 15
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NANOSECONDS = 1_000_000_000
_DAY = 86_400 * _NANOSECONDS
Convert = Callable[[Any], Any]


class Unfit(ValueError):
    """A value that is none of its type; the text says why, where there is more to say."""


@dataclass(frozen=True)
class Kind:
    """How the values of a field become values of an Arrow type. `whole`: a list is one value, as JSON text has it."""

    arrow: pa.DataType
    convert: Convert
    whole: bool = False


def kind_of(mapping: Mapping[str, Any]) -> Kind:
    """The kind of a field, from its entry in the mapping."""
    name = mapping.get("type", "object")
    if name in _INTEGERS:
        return Kind(_INTEGERS[name], integer_of(_INTEGERS[name]))
    if name in _FLOATS:
        return Kind(pa.float64(), exact_float)
    if name == "scaled_float":
        return _scaled(Decimal(str(mapping.get("scaling_factor", "1"))))
    if name == "boolean":
        return Kind(pa.bool_(), boolean)
    if name in {"date", "date_nanos"}:
        return _date(name, mapping)
    if name == "binary":
        return Kind(pa.binary(), decoded)
    return Kind(pa.string(), text) if name in _TEXTS else Kind(pa.string(), json_or_text, whole=True)


def declared(kind: pa.DataType, mapping: Mapping[str, Any]) -> Kind:
    """The kind of a column whose type the user gave. Raises ValueError for a type that no document holds."""
    for test, make in _DECLARED:
        if test(kind):
            return Kind(kind, make(kind, mapping), whole=pa.types.is_string(kind))
    raise ValueError(f"no field can be read as {kind}")


def _date(name: str, mapping: Mapping[str, Any]) -> Kind:
    """Without a time of day a date, else an instant; text where the format is not known here."""
    reader = dates(str(mapping.get("format") or DEFAULT))
    if reader is None:
        return Kind(pa.string(), text)
    if reader.days:
        return Kind(pa.date32(), _days_of(reader))
    unit = "ns" if name == "date_nanos" else "us"
    return Kind(pa.timestamp(unit, "UTC"), instant_of(reader, unit))


def _scaled(factor: Decimal) -> Kind:
    """A scaled_float by a power of ten is a decimal; by another factor it is a float."""
    scale = factor.adjusted() if factor > 0 and factor == Decimal(10) ** factor.adjusted() else -1
    if not 0 <= scale <= 19:
        return Kind(pa.float64(), exact_float)
    kind = pa.decimal128(19, scale)
    return Kind(kind, decimal_of(kind))


# -- converters: from a parsed JSON value, whose numbers are text, to a Python value that pyarrow takes; they raise Unfit


def _number(value: Any) -> Decimal:
    if type(value) not in (Number, str):
        raise Unfit
    try:
        found = Decimal(value)
    except InvalidOperation:
        raise Unfit from None
    if not found.is_finite():
        raise Unfit
    return found


def integer_of(kind: pa.DataType) -> Convert:
    """Whole numbers of an Arrow integer type; 5.0 is one, 5.5 is none."""
    signed = pa.types.is_signed_integer(kind)
    low = -(2 ** (kind.bit_width - 1)) if signed else 0
    high = 2 ** (kind.bit_width - 1) - 1 if signed else 2**kind.bit_width - 1

    def convert(value: Any) -> int:
        number = _number(value)
        if number != number.to_integral_value():
            raise Unfit("it has a fraction, which the index has cut off")
        if not low <= number <= high:
            raise Unfit
        return int(number)

    return convert


def exact_float(value: Any) -> float:
    """A float whose shortest text is the same number as the text in the document."""
    number = _number(value)
    found = float(number)
    if math.isinf(found) or (len(value) > _EXACT_LENGTH and Decimal(repr(found)) != number):
        raise Unfit("it has more digits than a float keeps")
    return found


def decimal_of(kind: pa.DataType) -> Convert:
    """Decimals that need not be rounded."""

    def convert(value: Any) -> Decimal:
        number = _number(value)
        _, digits, exponent = number.as_tuple()
        assert isinstance(exponent, int)
        while exponent < -kind.scale and digits and digits[-1] == 0:
            digits, exponent = digits[:-1], exponent + 1
        if number and (exponent < -kind.scale or len(digits) + exponent > kind.precision - kind.scale):
            raise Unfit(f"it has more digits than {kind} keeps")
        return number

    return convert


def boolean(value: Any) -> bool:
    """true and false, also as text; the empty text is false."""
    if isinstance(value, bool):
        return value
    try:
        return {"true": True, "false": False, "": False}[value]
    except (KeyError, TypeError):
        raise Unfit from None


def text(value: Any) -> str:
    """Text, and the text of a number or truth value, as a keyword takes them."""
    if isinstance(value, dict | list):
        raise Unfit
    return str(value) if isinstance(value, str) else as_json(value)


def json_or_text(value: Any) -> str:
    """Text as it is, everything else as JSON."""
    return value if type(value) is str else as_json(value)


def decoded(value: Any) -> bytes:
    """The bytes of base64 text."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Unfit from None


def instant_of(reader: Dates, unit: str) -> Convert:
    """Moments as numbers since 1970, in `unit`."""
    step = _NANOSECONDS // _PER_SECOND[unit]

    def convert(value: Any) -> int:
        found = _moment(reader, value)
        if found % step:
            raise Unfit(f"a timestamp in {unit} does not keep its last digits")
        if unit == "ns" and not -(2**63) <= found < 2**63:
            raise Unfit("nanoseconds reach from 1677 to 2262")
        return found // step

    return convert


def _moment(reader: Dates, value: Any) -> int:
    found = reader.read(value) if isinstance(value, str) else None
    if found is None:
        raise Unfit
    return found


def _days_of(reader: Dates) -> Convert:
    def convert(value: Any) -> int:
        found = _moment(reader, value)
        if found % _DAY:
            raise Unfit("it has a time of day")
        return found // _DAY

    return convert


def _time_of(kind: pa.DataType) -> Convert:
    reader = dates("yyyy-MM-dd'T'HH:mm[:ss[.S]]")
    assert reader is not None
    convert = instant_of(reader, kind.unit)
    return lambda value: convert(f"1970-01-01T{value}") if isinstance(value, str) else convert(None)


def _nothing(value: Any) -> None:
    raise Unfit


def _reader_of(mapping: Mapping[str, Any]) -> Dates:
    """The formats of a date field; of others, what a date field takes by default."""
    found = dates(str(mapping.get("format") or DEFAULT))
    if found is None:
        raise ValueError(f"dates of the format {mapping.get('format')!r} cannot be read; take string")
    return found


_DECLARED: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType, Mapping[str, Any]], Convert]], ...] = (
    (pa.types.is_integer, lambda kind, _: integer_of(kind)),
    (pa.types.is_float64, lambda *_: exact_float),
    (pa.types.is_float32, lambda *_: lambda value: float(_number(value))),
    (pa.types.is_decimal, lambda kind, _: decimal_of(kind)),
    (pa.types.is_boolean, lambda *_: boolean),
    (pa.types.is_timestamp, lambda kind, mapping: instant_of(_reader_of(mapping), kind.unit)),
    (pa.types.is_date32, lambda _, mapping: _days_of(_reader_of(mapping))),
    (pa.types.is_time, lambda kind, _: _time_of(kind)),
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), lambda *_: json_or_text),
    (pa.types.is_binary, lambda *_: decoded),
    (pa.types.is_null, lambda *_: _nothing),
)
