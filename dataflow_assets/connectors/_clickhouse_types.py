"""Types between ClickHouse and Arrow: what a column becomes when read, and how a column travels when written.

Here: pure functions over type names. A type without a timezone is a wall clock where the server's clock is UTC, and an instant of
the server's timezone elsewhere, because that is what ClickHouse stores. Not here: queries and connections.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.connectors._clickhouse_session import CLICKHOUSE
from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.casts import cast_exactly, is_bytes, is_list, is_text, plain_type
from dataflow_assets.storage.feed import Route

_INTEGERS = {f"{sign}Int{bits}": pa.type_for_alias(f"{sign.lower()}int{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)}
_PLAIN = _INTEGERS | {"Float32": pa.float32(), "Float64": pa.float64(), "Bool": pa.bool_(), "String": pa.string(), "Date32": pa.date32()}
_WIDE = {"Int128": pa.decimal256(39, 0), "UInt128": pa.decimal256(39, 0), "Int256": pa.decimal256(76, 0), "UInt256": pa.decimal256(76, 0)}
_AS_TEXT = {"UUID", "IPv4", "IPv6", "Enum8", "Enum16", "JSON"}
_UNITS = {0: "s", 3: "ms", 6: "us", 9: "ns"}
_DIGITS = {unit: digits for digits, unit in _UNITS.items()}
_DECIMAL_BITS = {"Decimal32": 9, "Decimal64": 18, "Decimal128": 38, "Decimal256": 76}
_FIRST, _LAST = date(1900, 1, 1), date(2299, 12, 31)
_DAY_SECONDS = 86_400
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Kind:
    """A type as ClickHouse spells it, taken apart one level deep."""

    name: str
    arguments: tuple[str, ...] = ()

    def inner(self, position: int = 0) -> Kind:
        """The type that stands as an argument."""
        return parse(self.arguments[position])

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.arguments)})" if self.arguments else self.name


def parse(text: str) -> Kind:
    """`Array(Nullable(String))` as a Kind."""
    text = text.strip()
    opening = text.find("(")
    if opening < 0:
        return Kind(text)
    return Kind(text[:opening], tuple(_split(text[opening + 1 : -1])))


def _split(text: str) -> Iterator[str]:
    """The arguments between commas that stand neither in parentheses nor in quotes."""
    depth, start, position = 0, 0, 0
    while position < len(text):
        character = text[position]
        if character in "'`\"":
            position += 1
            while text[position] != character:
                position += 2 if text[position] == "\\" else 1
        elif character == "," and depth == 0:
            yield text[start:position].strip()
            start = position + 1
        else:
            depth += (character == "(") - (character == ")")
        position += 1
    if rest := text[start:].strip():
        yield rest


def bare(kind: Kind) -> Kind:
    """The type without LowCardinality, Nullable and SimpleAggregateFunction."""
    while kind.name in {"Nullable", "LowCardinality", "SimpleAggregateFunction"}:
        kind = kind.inner(1 if kind.name == "SimpleAggregateFunction" else 0)
    return kind


def holds_null(kind: Kind) -> bool:
    """Whether a column of this type keeps a null."""
    while kind.name in {"LowCardinality", "SimpleAggregateFunction"}:
        kind = kind.inner(1 if kind.name == "SimpleAggregateFunction" else 0)
    return kind.name == "Nullable" or kind.name in {"Dynamic", "Variant"}


def _members(kind: Kind) -> list[tuple[str | None, Kind]]:
    """Name (as quoted in the type) and type of each member of a Tuple."""
    found: list[tuple[str | None, Kind]] = []
    for argument in kind.arguments:
        named = re.match(r"(`(?:[^`\\]|\\.)*`|[A-Za-z_]\w*)\s+(?=[A-Za-z])", argument)
        found.append((named[1], parse(argument[named.end() :])) if named else (None, parse(argument)))
    return found


def _zone_of(kind: Kind) -> str | None:
    return kind.arguments[-1].strip("'") if kind.arguments and kind.arguments[-1].startswith("'") else None


def _digits_of(kind: Kind) -> int:
    return int(kind.arguments[0]) if kind.name in {"DateTime64", "Time64"} and kind.arguments else 0


def _unit(digits: int) -> str:
    return next(unit for most, unit in _UNITS.items() if digits <= most)


def _decimal(kind: Kind) -> tuple[int, int]:
    if kind.name in _DECIMAL_BITS:
        return _DECIMAL_BITS[kind.name], int(kind.arguments[0])
    return int(kind.arguments[0]), int(kind.arguments[1]) if len(kind.arguments) > 1 else 0


# -- reading


@dataclass(frozen=True)
class ReadColumn:
    """One column of a query: the type it is cast to so that it arrives exactly, and the Arrow type its rows get (None: as it is)."""

    name: str
    cast: str | None
    kind: pa.DataType | None = None
    bounds: pa.DataType | None = None
    """The Arrow type that a window bound is compared with."""
    is_text: bool = False
    """Whether bytes that are no UTF-8 could stand in it."""

    def expression(self, quoted: str) -> str:
        """What is selected for it."""
        return quoted if self.cast is None else f"CAST({quoted} AS {self.cast})"

    def restore(self, column: pa.Array) -> pa.Array:
        """The server's column as the type it is handed on with. Raises ValueRefused."""
        if self.is_text:
            self._require_text(column)
        if pa.types.is_time(column.type):
            self._require_clock(column)
        if self.kind is None or column.type == self.kind:
            return column
        values = self.kind.value_type if is_list(self.kind) else self.kind
        if pa.types.is_timestamp(values):
            return column.cast(self.kind)
        return cast_exactly(column, self.kind, name=self.name)

    def _require_text(self, column: pa.Array) -> None:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            hint = f"read it as text of its bytes: hex({CLICKHOUSE.quote(self.name)}) in the query"
            raise ValueRefused(f"column {self.name!r} holds bytes that are not UTF-8 text", hint=hint) from error

    def _require_clock(self, column: pa.Array) -> None:
        whole = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
        day = _DAY_SECONDS * 10 ** _DIGITS[column.type.unit]
        extremes = pc.min_max(whole)
        if len(whole) > whole.null_count and not 0 <= extremes["min"].as_py() <= extremes["max"].as_py() < day:
            raise ValueRefused(f"column {self.name!r} holds a time outside a day", hint="cast it to text in the query")


def read_column(name: str, type_text: str, *, zone: str | None) -> ReadColumn:
    """How a column is read; `zone` is the server's timezone, None for UTC. Raises ValueRefused for a type without an exact form."""
    kind = parse(type_text)
    wanted, arrow = _readable(kind, zone=zone, name=name)
    cast = None if wanted.replace(" ", "") == type_text.replace(" ", "") else wanted
    inside = bare(kind)
    bounds = arrow if arrow is not None and pa.types.is_timestamp(arrow) else None
    if inside.name in {"Date", "Date32"}:
        bounds = pa.date32()
    elif inside.name in {"DateTime", "DateTime64"} and bounds is None:
        bounds = pa.timestamp(_unit(_digits_of(inside)), _zone_of(inside) or zone)
    return ReadColumn(name, cast, arrow, bounds, is_text="String" in wanted)


def natural_kind(type_text: str) -> pa.DataType:
    """The Arrow type of a column that arrives as it is; a list of text stands for every nested one."""
    kind = bare(parse(type_text))
    if kind.name in _PLAIN or kind.name == "FixedString":
        return _PLAIN.get(kind.name) or pa.binary(int(kind.arguments[0]))
    if kind.name == "Decimal" or kind.name in _DECIMAL_BITS:
        digits, scale = _decimal(kind)
        return pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)
    if kind.name == "DateTime64":
        return pa.timestamp(_unit(_digits_of(kind)), _zone_of(kind))
    if kind.name == "Time64":
        return pa.time64("us" if _digits_of(kind) <= 6 else "ns")
    return pa.null() if kind.name == "Nothing" else pa.list_(pa.string())


def _readable(kind: Kind, *, zone: str | None, name: str) -> tuple[str, pa.DataType | None]:
    """The type to cast to, and the Arrow type to restore where the server's own is another."""
    if kind.name in {"LowCardinality", "SimpleAggregateFunction"}:
        return _readable(kind.inner(1 if kind.name == "SimpleAggregateFunction" else 0), zone=zone, name=name)
    if kind.name == "Nullable":
        wanted, arrow = _readable(kind.inner(), zone=zone, name=name)
        return f"Nullable({wanted})", arrow
    if kind.name in _WIDE:
        return "String", _WIDE[kind.name]
    if kind.name in _AS_TEXT:
        return "String", None
    if kind.name in {"DateTime", "DateTime64"}:
        digits, own = _digits_of(kind), _zone_of(kind)
        naive = pa.timestamp(_unit(digits)) if own is None and zone is None else None
        return f"DateTime64({digits}, '{own or zone or 'UTC'}')", naive
    if kind.name == "Array":
        wanted, arrow = _readable(kind.inner(), zone=zone, name=name)
        return f"Array({wanted})", None if arrow is None else pa.list_(arrow)
    if kind.name in {"Tuple", "Map"}:
        return _readable_members(kind, zone=zone, name=name), None
    renamed = {"Date": "Date32", "BFloat16": "Float32", "Time": "Time64(0)", "Point": "Tuple(Float64, Float64)"}
    if kind.name in renamed:
        return renamed[kind.name], None
    if kind.name in _PLAIN or kind.name in {"FixedString", "Decimal", *_DECIMAL_BITS, "Time64", "Nothing"}:
        return str(kind), None
    raise ValueRefused(f"column {name!r} of type {kind} has no exact form in Arrow", hint="cast it in the query, for instance to String")


def _readable_members(kind: Kind, *, zone: str | None, name: str) -> str:
    parts = []
    for member, inside in _members(kind) if kind.name == "Tuple" else [(None, kind.inner(0)), (None, kind.inner(1))]:
        wanted, arrow = _readable(inside, zone=zone, name=name)
        if arrow is not None and not pa.types.is_timestamp(arrow):
            raise ValueRefused(
                f"column {name!r} of type {kind} has no exact form in Arrow", hint="cast the inner type to String in the query"
            )
        parts.append(f"{member} {wanted}" if member else wanted)
    return f"{kind.name}({', '.join(parts)})"


# -- writing


def sql_type(kind: pa.DataType, *, name: str, nullable: bool = True) -> str:
    """The column type in a table made from the data. Raises ValueRefused for what ClickHouse has no exact place for."""
    kind = plain_type(kind)
    if is_list(kind):
        return f"Array({sql_type(kind.value_type, name=name)})"
    if pa.types.is_map(kind):
        return f"Map({sql_type(kind.key_type, name=name, nullable=False)}, {sql_type(kind.item_type, name=name)})"
    if pa.types.is_struct(kind):
        return "Tuple({})".format(", ".join(f"{CLICKHOUSE.quote(item.name)} {sql_type(item.type, name=name)}" for item in kind))
    found = _scalar_type(kind)
    if found is None:
        hint = "cast it in a transform: bytes to hexadecimal or base64 text, others to text"
        raise ValueRefused(f"column {name!r} of type {kind} has no exact place in a ClickHouse table", hint=hint)
    return f"Nullable({found})" if nullable else found


def _scalar_type(kind: pa.DataType) -> str | None:
    same = {str(arrow): name for name, arrow in _PLAIN.items()} | {"halffloat": "Float32", "date64[ms]": "Date32", "null": "String"}
    if found := same.get(str(kind)):
        return found
    if is_text(kind):
        return "String"
    if pa.types.is_fixed_size_binary(kind):
        return f"FixedString({kind.byte_width})"
    if pa.types.is_timestamp(kind):
        zone = f", '{kind.tz if '/' in kind.tz else 'UTC'}'" if kind.tz else ""
        return f"DateTime64({_DIGITS[kind.unit]}{zone})"
    if pa.types.is_time(kind):
        return f"Time64({_DIGITS[kind.unit]})"
    if pa.types.is_decimal(kind) and kind.scale >= 0:
        return f"Decimal({kind.precision}, {kind.scale})"
    return None


@dataclass(frozen=True)
class ColumnRoute(Route):
    """A route that knows what the server would do silently: drop nulls, pad, and wrap around."""

    width: int | None = None
    """Bytes of a FixedString(n)."""
    target: Kind | None = None
    """The target's type, for its nulls and the range of its values."""

    def fit(self, column: pa.Array) -> pa.Array:
        """The column as `wire`. Raises ValueRefused where the target would keep something else."""
        fitted = super().fit(column)
        if self.width is not None and not pc.all(pc.equal(pc.binary_length(fitted), self.width), min_count=0).as_py():
            self._refuse(f"holds values that are not exactly {self.width} bytes long")
        if self.target is not None:
            self._require_kept(fitted, self.target)
        return fitted

    def _require_kept(self, column: pa.Array, kind: Kind) -> None:
        """Nulls and ranges, also of what is inside: the server would make an empty list of a null one."""
        if column.null_count and not holds_null(kind):
            self._refuse(f"is null in some rows, which {kind} cannot keep")
        kind = bare(kind)
        if pa.types.is_map(column.type):
            self._require_kept(column.keys, kind.inner(0))
            self._require_kept(column.items, kind.inner(1))
        elif is_list(column.type):
            self._require_kept(column.flatten(), kind.inner())
        elif pa.types.is_struct(column.type):
            for values, (_, inside) in zip(column.flatten(), _members(kind), strict=True):
                self._require_kept(values, inside)
        elif (limits := _range_of(kind, column.type)) is not None and len(column) > column.null_count:
            self._require_between(column, limits, kind)

    def _require_between(self, column: pa.Array, limits: tuple[int, int, int], kind: Kind) -> None:
        numbers = column
        if pa.types.is_temporal(column.type):
            numbers = column.cast(pa.int64()) if column.type.bit_width == 64 else column.cast(pa.int32()).cast(pa.int64())
        least, most, step = limits
        extremes = pc.min_max(numbers)
        if not least <= int(extremes["min"].as_py()) <= int(extremes["max"].as_py()) <= most:
            self._refuse(f"holds values outside the range of {kind}")
        if step > 1 and not pc.all(pc.equal(pc.multiply(pc.divide(numbers, step), step), numbers), min_count=0).as_py():
            self._refuse(f"has finer seconds than {kind} keeps")


def _range_of(kind: Kind, wire: pa.DataType) -> tuple[int, int, int] | None:
    """Least and greatest number that the type holds, in the unit of `wire`, and the step between them; None when all fit."""
    if kind.name in {"UInt128", "UInt256"}:
        return 0, 2**128 - 1 if kind.name == "UInt128" else 2**256 - 1, 1
    if kind.name == "Int128":
        return -(2**127), 2**127 - 1, 1
    if kind.name == "Date":
        return 0, 2**16 - 1, 1
    if kind.name == "Date32":
        return (_FIRST - _EPOCH).days, (_LAST - _EPOCH).days, 1
    if kind.name == "DateTime":
        return 0, 2**32 - 1, 1
    if kind.name in {"DateTime64", "Time64"}:
        unit, step = 10 ** _DIGITS[wire.unit], 10 ** (_DIGITS[wire.unit] - _digits_of(kind))
        if kind.name == "Time64":
            return 0, _DAY_SECONDS * unit - 1, step
        return (_FIRST - _EPOCH).days * _DAY_SECONDS * unit, ((_LAST - _EPOCH).days + 1) * _DAY_SECONDS * unit - 1, step
    return None


def widened_kind(type_text: str) -> pa.DataType | None:
    """The Arrow type that a number column holds, whose type can be changed in place; None for every other one."""
    kind = parse(type_text)
    kind = kind.inner() if kind.name == "Nullable" else kind
    if kind.name in _INTEGERS or kind.name in {"Float32", "Float64"}:
        return _PLAIN[kind.name]
    if kind.name not in {"Decimal", *_DECIMAL_BITS}:
        return None
    precision, scale = _decimal(kind)
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def route(name: str, kind: pa.DataType, type_text: str, *, zone: str | None) -> ColumnRoute:
    """The way of a column of Arrow type `kind` into a column of type `type_text`. Raises ValueRefused when there is none."""
    target, kind = parse(type_text), plain_type(kind)
    inside = bare(target)
    wire = _wire(kind, inside, zone=zone)
    if wire is None:
        hint = "cast it in the query, or change the target column's type"
        raise ValueRefused(f"column {name!r} of type {kind} does not fit {type_text}", hint=hint)
    width = int(inside.arguments[0]) if inside.name == "FixedString" else None
    return ColumnRoute(name, wire, width=width, target=target)


def _wire(kind: pa.DataType, target: Kind, *, zone: str | None) -> pa.DataType | None:
    """The Arrow type that the server puts into `target` without changing a value."""
    if target.name in {"String", "FixedString"}:
        return pa.binary() if is_bytes(kind) else pa.string()
    if target.name in _PLAIN:
        return _PLAIN[target.name]
    if target.name in _AS_TEXT:
        return pa.string() if is_text(kind) or pa.types.is_null(kind) else None
    if target.name in _WIDE:
        return pa.decimal128(38, 0) if target.name.endswith("128") else pa.decimal256(76, 0)
    if target.name in {"Decimal", *_DECIMAL_BITS}:
        precision, scale = _decimal(target)
        return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    if target.name == "Date":
        return pa.date32()
    if target.name in {"DateTime", "DateTime64"}:
        return pa.timestamp(_unit(_digits_of(target)), "UTC" if _zone_of(target) or zone else None)
    if target.name == "Time64":
        digits = _digits_of(target)
        return pa.time32(_unit(digits)) if digits <= 3 else pa.time64(_unit(digits))
    return _nested_wire(kind, target, zone=zone)


def _nested_wire(kind: pa.DataType, target: Kind, *, zone: str | None) -> pa.DataType | None:
    if target.name == "Array" and is_list(kind):
        inside = _wire(plain_type(kind.value_type), bare(target.inner()), zone=zone)
        return None if inside is None or bare(target.inner()).name == "FixedString" else pa.list_(inside)
    if target.name == "Map" and pa.types.is_map(kind):
        parts = [(kind.key_type, target.inner(0)), (kind.item_type, target.inner(1))]
        same = all(_wire(plain_type(arrow), bare(inside), zone=zone) == arrow for arrow, inside in parts)
        return kind if same else None
    if target.name == "Tuple" and pa.types.is_struct(kind):
        members = _members(target)
        names = [CLICKHOUSE.quote(item.name) for item in kind]
        given = [name if name is None or name.startswith("`") else f"`{name}`" for name, _ in members]
        fits = len(members) == len(names) and all(name in {None, own} for name, own in zip(given, names, strict=True))
        same = fits and all(_wire(item.type, bare(inside), zone=zone) == item.type for item, (_, inside) in zip(kind, members, strict=True))
        return kind if same else None
    return None
