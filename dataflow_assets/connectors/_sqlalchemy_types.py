"""Types between SQLAlchemy and Arrow: what a reflected or described column becomes, and how a column travels when written.

Here: functions over types and a dialect. Not here: queries and connections, values (`_row_values`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.casts import is_bytes, is_text, plain_type
from dataflow_assets.storage.feed import Route

if TYPE_CHECKING:
    import sqlalchemy as sa

INSTANT, NAIVE, TIME = pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.time64("us")
UNCONSTRAINED = pa.decimal128(38, 9)
_FLOAT_DIGITS = 15
_WIDENED_DIGITS = 38
_MOST_DIGITS = {"postgresql": 1_000, "sqlite": 15, "mysql": 65, "mariadb": 65}
_MYSQL = {"mysql", "mariadb"}
FLOATS_FOR_DECIMALS = {"sqlite"}
"""The dialects that keep a decimal as a float; SQLAlchemy's own flag for that says nothing of Postgres."""

# OIDs of pg_type that never change; the description of a query's columns has them, whatever the driver
_POSTGRES: dict[int, pa.DataType] = {
    16: pa.bool_(),
    **dict.fromkeys((20, 21, 23, 26), pa.int64()),
    700: pa.float32(),
    701: pa.float64(),
    **dict.fromkeys((18, 19, 25, 1042, 1043), pa.string()),
    17: pa.binary(),
    1082: pa.date32(),
    1083: TIME,
    1114: NAIVE,
    1184: INSTANT,
}
_NUMERIC = 1700


@dataclass(frozen=True)
class PlainTypes:
    """SQLAlchemy's types without the limits that MySQL gives them by default: 64 kB of text, whole seconds."""

    text: Any
    binary: Any
    moment: Any
    time: Any


@cache
def plain_types() -> PlainTypes:
    """The types in which tables are made."""
    import sqlalchemy as sa
    from sqlalchemy.dialects import mysql

    return PlainTypes(
        text=sa.Text().with_variant(mysql.LONGTEXT(), *_MYSQL),
        binary=sa.LargeBinary().with_variant(mysql.LONGBLOB(), *_MYSQL),
        moment=sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *_MYSQL),
        time=sa.Time().with_variant(mysql.TIME(fsp=6), *_MYSQL),
    )


def compiled(kind: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> str:
    """The type as the dialect writes it."""
    return str(kind.compile(dialect=dialect))


def has_zones(dialect: sa.Dialect) -> bool:
    """Whether the dialect has a type for instants; elsewhere they are kept as wall-clock times in UTC."""
    import sqlalchemy as sa

    return compiled(sa.DateTime(timezone=True), dialect) != compiled(sa.DateTime(), dialect)


def reflected_kind(kind: Any, dialect: sa.Dialect, *, name: str) -> pa.DataType | None:
    """The Arrow type of a reflected column; None for one that is read as the text that the database makes of it. Raises ValueRefused."""
    import sqlalchemy as sa

    if isinstance(kind, sa.Boolean) or (type(kind).__name__ == "TINYINT" and getattr(kind, "display_width", None) == 1):
        return pa.bool_()  # TINYINT(1) is what MySQL makes of BOOLEAN
    if isinstance(kind, sa.Integer):
        return pa.uint64() if getattr(kind, "unsigned", False) else pa.int64()
    if isinstance(kind, sa.Float):
        return _float(kind, dialect, name=name)
    if isinstance(kind, sa.Numeric):
        return decimal_type(kind.precision, kind.scale, name=name)
    if isinstance(kind, sa.String):
        return pa.string()
    if isinstance(kind, sa.types._Binary):
        return pa.binary()
    if isinstance(kind, sa.DateTime):
        return INSTANT if kind.timezone else NAIVE
    if isinstance(kind, sa.Date):
        return pa.date32()
    return TIME if isinstance(kind, sa.Time) and not kind.timezone else None


def widened_kind(kind: Any, dialect: sa.Dialect, *, name: str) -> pa.DataType | None:
    """The Arrow type that a reflected column holds, where ALTER TABLE is known to give it a wider one: numbers of Postgres."""
    import sqlalchemy as sa

    if dialect.name != "postgresql":
        return None
    if isinstance(kind, sa.Integer):
        return pa.int16() if isinstance(kind, sa.SmallInteger) else pa.int64() if isinstance(kind, sa.BigInteger) else pa.int32()
    if isinstance(kind, sa.Float):
        return pa.float32() if isinstance(kind, sa.REAL) else pa.float64()
    if not isinstance(kind, sa.Numeric) or not kind.precision or kind.precision > _WIDENED_DIGITS:
        return None
    return decimal_type(kind.precision, kind.scale, name=name)


def _float(kind: Any, dialect: sa.Dialect, *, name: str) -> pa.DataType:
    import sqlalchemy as sa

    if dialect.name in _MYSQL and type(kind).__name__ == "FLOAT":
        raise ValueRefused(f"column {name!r}: MySQL shows only six digits of a FLOAT", hint="CAST it to double in a query")
    return pa.float32() if isinstance(kind, sa.REAL) and dialect.name not in {"sqlite", *_MYSQL} else pa.float64()


def decimal_type(precision: int | None, scale: int | None, *, name: str) -> pa.DataType:
    """A decimal of these digits; of 38 with 9 after the point where none are said. Raises ValueRefused above 76."""
    if not precision:
        return UNCONSTRAINED
    scale = scale or 0
    precision = max(precision - min(scale, 0), scale)
    if precision > 76:
        raise ValueRefused(
            f"column {name!r} has {precision} digits, more than the 76 that Arrow keeps", hint="cast it to text in the query"
        )
    return pa.decimal128(precision, max(scale, 0)) if precision <= 38 else pa.decimal256(precision, max(scale, 0))


def described_kind(column: Any, *, name: str) -> pa.DataType | None:
    """The Arrow type of a column of a Postgres query, from its description; None for one that is read as text."""
    code = column[1]
    if code != _NUMERIC:
        return _POSTGRES.get(code)
    return decimal_type(column[4], column[5], name=name)


def new_type(kind: pa.DataType, dialect: sa.Dialect, *, name: str, is_key: bool) -> str:
    """The column type in a table made from the data. Raises ValueRefused for what the dialect has no exact place for."""
    import sqlalchemy as sa

    kind, plain = plain_type(kind), plain_types()
    found: Any = None
    if pa.types.is_boolean(kind):
        found = sa.Boolean()
    elif pa.types.is_integer(kind):
        found = _integer(kind, dialect)
    elif pa.types.is_floating(kind):
        found = sa.Double() if kind == pa.float64() or dialect.name in _MYSQL else sa.REAL()
    elif is_text(kind) or pa.types.is_null(kind):
        found = sa.String(190) if is_key and dialect.name not in {"sqlite", "postgresql"} else plain.text
    elif is_bytes(kind):
        found = plain.binary
    elif pa.types.is_date(kind):
        found = sa.Date()
    elif pa.types.is_time(kind):
        found = plain.time
    elif pa.types.is_timestamp(kind):
        found = sa.DateTime(timezone=True) if kind.tz and has_zones(dialect) else plain.moment
    elif pa.types.is_decimal(kind):
        found = _decimal(kind, dialect, name=name)
    if found is None:
        hint = "cast it, for instance to JSON text, in a transform"
        raise ValueRefused(f"column {name!r} of type {kind} has no exact place in a table of dialect {dialect.name}", hint=hint)
    return compiled(found, dialect)


def _integer(kind: pa.DataType, dialect: sa.Dialect) -> Any:
    import sqlalchemy as sa

    if kind in (pa.int8(), pa.uint8(), pa.int16()):
        return sa.SmallInteger()
    if kind in (pa.uint16(), pa.int32()):
        return sa.Integer()
    return sa.Numeric(20, 0) if kind == pa.uint64() and dialect.name not in FLOATS_FOR_DECIMALS else sa.BigInteger()


def _decimal(kind: pa.DataType, dialect: sa.Dialect, *, name: str) -> Any:
    import sqlalchemy as sa

    precision, scale = max(kind.precision - min(kind.scale, 0), kind.scale), max(kind.scale, 0)
    if dialect.name in FLOATS_FOR_DECIMALS and precision > _FLOAT_DIGITS:
        raise ValueRefused(
            f"column {name!r}: dialect {dialect.name} keeps decimals as floats, of at most {_FLOAT_DIGITS} digits",
            hint="use the connector of the system itself where there is one (kind: sqlite), or cast to text",
        )
    if precision > _MOST_DIGITS.get(dialect.name, 38):
        raise ValueRefused(f"column {name!r} has {precision} digits, more than a decimal of {dialect.name} has", hint="cast it to text")
    return sa.Numeric(precision, scale)


def route(name: str, kind: pa.DataType, column: Any, dialect: sa.Dialect) -> Route:
    """The way of a column of Arrow type `kind` into a reflected column."""
    import sqlalchemy as sa

    kind, target = plain_type(kind), reflected_kind(column, dialect, name=name)
    if target is None:
        if is_text(kind) or pa.types.is_null(kind):
            return Route(name, pa.string())
        hint = "cast it to text in the query, or change the target column's type"
        raise ValueRefused(f"column {name!r} of type {kind} does not fit {column!r}", hint=hint)
    if target == UNCONSTRAINED and isinstance(column, sa.Numeric) and not column.precision:
        target = kind if pa.types.is_decimal(kind) else target
    if target == NAIVE and pa.types.is_timestamp(kind) and kind.tz and not has_zones(dialect):
        target = INSTANT
    longest = column.length if isinstance(column, sa.String) and not isinstance(column, sa.Enum) and dialect.name != "sqlite" else None
    return Route(name, target, longest=longest, fraction=_fraction(column, dialect))


def _fraction(column: Any, dialect: sa.Dialect) -> int | None:
    """Digits of a second that a timestamp or time column keeps, where they are fewer than six."""
    import sqlalchemy as sa

    if not isinstance(column, sa.DateTime | sa.Time):
        return None
    digits = (getattr(column, "fsp", None) or 0) if dialect.name in _MYSQL else getattr(column, "precision", None)
    return digits if digits is not None and digits < 6 else None
