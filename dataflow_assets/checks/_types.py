"""Types as rules name them: families such as `integer` or `text`, and exact types of Arrow and SQL.

Here: reading such a name and comparing it with a column's Arrow type. Not here: the rule (`checks._dataset`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

import pyarrow as pa

from dataflow_assets.checks._facts import plain_type
from dataflow_assets.storage.type_names import arrow_type

_WIDTH = re.compile(r"^(varchar|char|character|character varying|nvarchar|nchar|string|text|varbinary)\s*\(\s*\d+\s*\)$")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


FAMILIES: dict[str, Callable[[pa.DataType], bool]] = {
    "integer": pa.types.is_integer,
    "float": pa.types.is_floating,
    "decimal": pa.types.is_decimal,
    "number": _is_number,
    "text": _is_text,
    "boolean": pa.types.is_boolean,
    "date": pa.types.is_date,
    "timestamp": pa.types.is_timestamp,
    "timestamptz": lambda kind: pa.types.is_timestamp(kind) and kind.tz is not None,
    "time": pa.types.is_time,
    "duration": pa.types.is_duration,
    "temporal": pa.types.is_temporal,
    "binary": _is_binary,
    "list": lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind),
    "struct": pa.types.is_struct,
    "map": pa.types.is_map,
}
_OTHER_NAMES = {
    "int": "integer",
    "numeric": "number",
    "str": "text",
    "string": "text",
    "varchar": "text",
    "char": "text",
    "character": "text",
    "character varying": "text",
    "nvarchar": "text",
    "nchar": "text",
    "uuid": "text",
    "double": "float64",
    "double precision": "float64",
    "bool": "boolean",
    "datetime": "timestamp",
    "timestamp with time zone": "timestamptz",
    "bytes": "binary",
    "blob": "binary",
    "bytea": "binary",
    "varbinary": "binary",
    "interval": "duration",
}


def refuse_bad_type(names: list[str] | None) -> list[str] | None:
    """`names` when each is a family or a type. Raises ValueError with near ones."""
    for name in names or ():
        _test(name)
    return names


def is_of_type(kind: pa.DataType, name: str) -> bool:
    """Whether a column of type `kind` is what `name` asks for; dictionaries and extensions count as the values they hold."""
    return _test(name)(plain_type(kind))


def _test(name: str) -> Callable[[pa.DataType], bool]:
    folded = " ".join(name.strip().lower().split())
    if width := _WIDTH.match(folded):
        folded = width[1]
    folded = _OTHER_NAMES.get(folded, folded)
    if folded in FAMILIES:
        return FAMILIES[folded]
    try:
        wanted = arrow_type(name if "[" in name else folded)
    except ValueError as error:
        near = difflib.get_close_matches(folded, [*FAMILIES, *_OTHER_NAMES, "int64", "int32", "float64", "bigint"], n=1)
        hint = f"did you mean {near[0]}?" if near else f"write one of {', '.join(FAMILIES)}, or a type such as int64 or decimal(12,2)"
        raise ValueError(f"{name!r} is not a type: {hint}") from error
    return lambda kind: bool(kind.equals(wanted))
