"""Types between MySQL and Arrow: what a column becomes when read, and how a column travels when written.

Here: pure tables and functions over the codes of result fields and the names of column types. Not here: queries and connections,
the text of the rows (`_mysql_text`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.connectors._mysql_wire import Field
from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.agreement import HeldColumn
from dataflow_assets.storage.casts import cast_exactly, is_bytes, is_text, plain_type
from dataflow_assets.storage.feed import Route

INSTANT = pa.timestamp("us", "UTC")
NAIVE = pa.timestamp("us")
TIME = pa.time64("us")
KEY_CHARACTERS = 191

# -- reading

_UNSIGNED, _BINARY, _UNROUNDED = 32, 63, 31
_TINY, _FLOAT, _DOUBLE, _NULL, _BIT, _JSON, _STRING = 1, 4, 5, 6, 16, 245, 254
_INTEGERS = {
    1: (pa.int8(), pa.uint8()),
    2: (pa.int16(), pa.uint16()),
    3: (pa.int32(), pa.uint32()),
    8: (pa.int64(), pa.uint64()),
    9: (pa.int32(), pa.uint32()),
    13: (pa.uint16(), pa.uint16()),
}
_MOMENTS = {7: INSTANT, 10: pa.date32(), 11: TIME, 12: NAIVE, 14: pa.date32()}
_DECIMALS = {0, 246}
_NULLISH = {
    pa.date32(): "NULLIF({0}, 0)",
    NAIVE: "NULLIF({0}, 0)",
    INSTANT: "NULLIF({0}, 0)",
    TIME: "TIME_TO_SEC({0})",
    pa.bool_(): "{0} + 0",
}


@dataclass(frozen=True)
class ReadColumn:
    """One column of a query: the expression to select, and the Arrow type of its rows."""

    name: str
    expression: str
    kind: pa.DataType

    def restore(self, column: pa.Array) -> pa.Array:
        """The bytes that the server sent as values of `kind`. Raises ValueRefused for what Arrow cannot hold, as a zero date."""
        if is_bytes(self.kind):
            return column
        try:
            # text is held to UTF-8 by the cast; of numbers and moments, parsing takes nothing but ASCII
            text = column.cast(pa.string()) if self.kind == pa.string() else column.view(pa.string())
            return _parsed(text, self.kind, self.name)
        except pa.ArrowInvalid as error:
            raise self._refusal(error) from error

    def _refusal(self, error: pa.ArrowInvalid) -> ValueRefused:
        reason = str(error).splitlines()[0]
        better = _NULLISH.get(self.kind)
        hint = f"write {better.format(self.expression)} in the query" if better else "cast it in the query"
        if self.kind == pa.bool_():
            hint += ", or set tinyint1: integer on the connection"
        return ValueRefused(f"column {self.name!r} holds a value that {self.kind} cannot: {reason}", hint=hint)


def _parsed(text: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    if kind == pa.string():
        return text
    if kind == TIME:
        return pc.binary_join_element_wise("1970-01-01T", text, "").cast(NAIVE).cast(TIME)
    if kind == INSTANT:
        return text.cast(NAIVE).view(INSTANT)
    if pa.types.is_decimal(kind):
        return cast_exactly(text, kind, name=name)
    if kind == pa.float32():
        return cast_exactly(text.cast(pa.float64()), kind, name=name)
    return text.cast(kind)


def read_column(field: Field, quoted: str, *, tinyint_is_bool: bool) -> ReadColumn:
    """How the column is selected so that its values arrive exactly.

    FLOAT is printed with six digits and DOUBLE(m, d) with d: a product is printed in full. BIT comes as bytes, its sum as a number.
    """
    rounded = field.code == _FLOAT or (field.code == _DOUBLE and field.scale < _UNROUNDED)
    expression = f"{quoted} * 1e0" if rounded else f"{quoted} + 0" if field.code == _BIT else quoted
    return ReadColumn(field.name, expression, _kind(field, tinyint_is_bool=tinyint_is_bool))


def _kind(field: Field, *, tinyint_is_bool: bool) -> pa.DataType:
    unsigned = bool(field.flags & _UNSIGNED)
    if field.code == _TINY and field.length == 1 and not unsigned and tinyint_is_bool:
        return pa.bool_()
    if found := _INTEGERS.get(field.code):
        return found[unsigned]
    if field.code == _BIT:
        return pa.bool_() if field.length == 1 else pa.uint64()
    if field.code in _DECIMALS:
        precision = field.length - (field.scale > 0) - (not unsigned)
        return decimal_type(max(precision, field.scale, 1), field.scale)
    if found := _MOMENTS.get(field.code):
        return found
    if field.code in {_FLOAT, _DOUBLE}:
        return pa.float32() if field.code == _FLOAT else pa.float64()
    if field.code == _NULL or (field.code == _STRING and not field.length):
        return pa.string()  # NULL without a type comes as BINARY(0)
    return pa.binary() if field.charset == _BINARY and field.code != _JSON else pa.string()


def decimal_type(precision: int, scale: int) -> pa.DataType:
    """DECIMAL(p, s), of at most 65 digits."""
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


# -- making a table

_MADE = {
    "bool": "BOOLEAN",
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INT",
    "int64": "BIGINT",
    "uint8": "TINYINT UNSIGNED",
    "uint16": "SMALLINT UNSIGNED",
    "uint32": "INT UNSIGNED",
    "uint64": "BIGINT UNSIGNED",
    "halffloat": "FLOAT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "date32[day]": "DATE",
    "date64[ms]": "DATE",
    "null": "LONGTEXT",
}


def sql_type(kind: pa.DataType, *, name: str, key: bool = False) -> str:
    """The column type in a table made from the data; a `key` may be indexed. Raises ValueRefused for what has no exact place."""
    kind = plain_type(kind)
    if found := _MADE.get(str(kind)):
        return found
    if is_text(kind):
        return f"VARCHAR({KEY_CHARACTERS})" if key else "LONGTEXT"
    if is_bytes(kind):
        return f"VARBINARY({KEY_CHARACTERS})" if key else "LONGBLOB"
    if pa.types.is_timestamp(kind):
        # said in full: on servers without explicit_defaults_for_timestamp, the first one would set itself to the current time
        nullable = "NOT NULL DEFAULT '2000-01-01 00:00:00'" if key else "NULL DEFAULT NULL"
        return f"TIMESTAMP(6) {nullable}" if kind.tz else "DATETIME(6)"
    if pa.types.is_time(kind):
        return "TIME(6)"
    if pa.types.is_decimal(kind):
        return f"DECIMAL({max(kind.precision - min(kind.scale, 0), kind.scale)}, {max(kind.scale, 0)})"
    raise ValueRefused(
        f"column {name!r} of type {kind} has no exact place in a MySQL table", hint="cast it, for instance to JSON text, in a transform"
    )


# -- writing

_TYPE = re.compile(r"^(?P<name>[a-z0-9_]+)(?:\((?P<arguments>.*)\))?(?P<rest>.*)$", re.DOTALL)
_MEMBER = re.compile(r"'((?:[^']|'')*)'")
_WIRE = {"tinyint": 8, "smallint": 16, "mediumint": 32, "int": 32, "bigint": 64}
_TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "json", "enum", "set", "uuid", "inet4", "inet6"}
_BYTES = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
_SHAPES = {
    "geometry",
    "point",
    "linestring",
    "polygon",
    "multipoint",
    "multilinestring",
    "multipolygon",
    "geometrycollection",
    "geomcollection",
}
_CLOCKS = {"datetime": NAIVE, "timestamp": INSTANT, "time": TIME}


@dataclass(frozen=True)
class TargetColumn:
    """A column of an existing table, as SHOW FULL COLUMNS describes it."""

    name: str
    definition: str
    collation: str | None
    required: bool
    nullable: bool = True
    bare: bool = False
    """It has nothing that a change of its type would take away: no default, no index, no comment, nothing that it does by itself."""

    @property
    def parts(self) -> tuple[str, list[str], str]:
        """The type's name, its arguments, and what stands behind them, such as `unsigned`."""
        match = _TYPE.match(self.definition)
        assert match is not None, self.definition
        name, arguments = match["name"], match["arguments"] or ""
        if name in {"enum", "set"}:
            return name, [member.replace("''", "'") for member in _MEMBER.findall(arguments)], match["rest"]
        return name, [part.strip() for part in arguments.split(",") if part], match["rest"]


@dataclass(frozen=True)
class MySQLColumn(HeldColumn):
    """A column with the collation that it keeps when its type is changed."""

    collation: str | None = None


def changed_type(kind: pa.DataType, column: HeldColumn) -> str:
    """The type of a column that is added or changed."""
    collation = column.collation if isinstance(column, MySQLColumn) and is_text(kind) else None
    return sql_type(kind, name=column.name) + (f" COLLATE {collation}" if collation else "")


def held_column(column: TargetColumn) -> HeldColumn:
    """The column, as the agreement with the data wants it. TINYINT(1) is a boolean, and stays one."""
    kind, longest = None, None
    base, arguments, rest = column.parts
    if column.bare and base in _WIRE and rest.strip() in {"", "unsigned"} and (base, arguments) != ("tinyint", ["1"]):
        kind = _integer(pa.null(), base, arguments, unsigned="unsigned" in rest)
    elif column.bare and base == "decimal" and not rest.strip():
        kind = decimal_type(int(arguments[0]), int(arguments[1]))
    elif column.bare and base in {"float", "double"} and not arguments and not rest.strip():
        kind = pa.float32() if base == "float" else pa.float64()
    elif column.bare and base == "varchar":
        longest = int(arguments[0])
    filled, nullable = not column.required, column.nullable
    return MySQLColumn(
        column.name, column.definition, filled=filled, nullable=nullable, kind=kind, longest=longest, collation=column.collation
    )


@dataclass(frozen=True)
class MySQLRoute(Route):
    """A route whose target would change some values without a word."""

    form: str = ""
    """`hex` for bytes and `bits` for numbers in a BIT column, which the server turns back; else as text."""
    exact_bytes: int | None = None
    """BINARY(n) fills up with zero bytes."""
    trims: bool = False
    """CHAR(n) drops blanks at the end."""
    members: tuple[str, ...] = ()
    """ENUM and SET compare by collation, and take a number for a position."""
    many: bool = False

    def fit(self, column: pa.Array) -> pa.Array:
        """The column as `wire`. Raises ValueRefused where a value would change."""
        fitted = super().fit(column)
        if pa.types.is_floating(fitted.type) and not pc.all(pc.is_finite(fitted), min_count=0).as_py():
            self._refuse("holds NaN or infinity, which no MySQL number can", hint="make null of it, or drop such rows")
        if self.exact_bytes is not None and not pc.all(pc.equal(pc.binary_length(fitted), self.exact_bytes), min_count=0).as_py():
            self._refuse(f"holds values that are not {self.exact_bytes} bytes long, which its target column would fill up")
        if self.trims and pc.any(pc.ends_with(fitted, " "), min_count=0).as_py():
            self._refuse("ends in blanks, which its CHAR column drops", hint="make it VARCHAR")
        if self.members:
            self._check_members(fitted)
        return fitted

    def _check_members(self, column: pa.Array) -> None:
        for value in pc.unique(column.drop_null()).to_pylist():
            chosen = value.split(",") if self.many else [value]
            kept = ",".join(member for member in self.members if member in chosen) if self.many else value
            if kept != value or (value and any(item not in self.members for item in chosen)) or (not value and not self._takes_empty):
                self._refuse(
                    f"holds {value!r}, which is not as its column spells it: {', '.join(self.members)}", hint="change it in the query"
                )

    @property
    def _takes_empty(self) -> bool:
        return self.many or "" in self.members

    def _refuse(self, reason: str, *, hint: str = "widen the target column") -> None:
        raise ValueRefused(f"column {self.name!r} {reason}", hint=hint)


def route(name: str, kind: pa.DataType, column: TargetColumn) -> MySQLRoute:
    """The way of a column of Arrow type `kind` into `column`."""
    kind = plain_type(kind)
    base, arguments, rest = column.parts
    if base in _WIRE:
        return MySQLRoute(name, _integer(kind, base, arguments, unsigned="unsigned" in rest))
    if base == "decimal":
        return MySQLRoute(name, decimal_type(int(arguments[0]), int(arguments[1])))
    if base in {"float", "double"} and not arguments:
        return MySQLRoute(name, pa.float32() if base == "float" else pa.float64())
    if base in _TEXTS:
        return _text_route(name, base, arguments)
    if base in _BYTES | _SHAPES:
        return MySQLRoute(name, pa.binary(), form="hex", exact_bytes=int(arguments[0]) if base == "binary" else None)
    if base == "date":
        return MySQLRoute(name, pa.date32())
    if base in _CLOCKS:
        return MySQLRoute(name, _CLOCKS[base], fraction=int(arguments[0]) if arguments else 0)
    if base == "year":
        return MySQLRoute(name, pa.uint16())
    if base == "bit":
        return MySQLRoute(name, pa.bool_() if pa.types.is_boolean(kind) and arguments == ["1"] else pa.uint64(), form="bits")
    raise ValueRefused(
        f"column {name!r}: values cannot be written exactly into a column of type {column.definition}",
        hint="FLOAT and DOUBLE with digits round: drop the digits, or use DECIMAL",
    )


def _integer(kind: pa.DataType, base: str, arguments: Sequence[str], *, unsigned: bool) -> pa.DataType:
    if pa.types.is_boolean(kind) and base == "tinyint" and arguments == ["1"]:
        return pa.bool_()
    return pa.type_for_alias(f"{'u' if unsigned else ''}int{_WIRE[base]}")


def _text_route(name: str, base: str, arguments: Sequence[str]) -> MySQLRoute:
    if base in {"enum", "set"}:
        return MySQLRoute(name, pa.string(), members=tuple(arguments), many=base == "set")
    longest = int(arguments[0]) if base in {"char", "varchar"} else None
    return MySQLRoute(name, pa.string(), longest=longest, trims=base == "char")
