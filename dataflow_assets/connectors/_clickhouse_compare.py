"""Comparing rows inside ClickHouse: canonical text and digests in its words.

Here: the dialect, and opening a table or query to be compared. Not here: the queries (`storage.digests`). There is no snapshot over
several queries: rows that are written meanwhile are seen by the later ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from dataflow_assets.canonical import NAN_BITS, Family
from dataflow_assets.connectors import _clickhouse_read
from dataflow_assets.connectors._clickhouse_session import CLICKHOUSE, Server, translated
from dataflow_assets.connectors._clickhouse_types import natural_kind
from dataflow_assets.connectors._sql import Wanted
from dataflow_assets.errors import ReadFailed
from dataflow_assets.storage.digests import DigestDialect, SqlRows
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Query, TableName


def _text(value: str, _: pa.DataType) -> str:
    return f"toString({value})"


def _decimal(value: str, _: pa.DataType) -> str:
    """Whether a decimal is printed with its zeros is a setting."""
    text = f"toString({value})"
    return f"if(position({text}, '.') > 0, trim(TRAILING '.' FROM trim(TRAILING '0' FROM {text})), {text})"


def _bits(value: str, _: pa.DataType) -> str:
    return f"toString(if(isNaN({value}), toInt64({NAN_BITS}), reinterpretAsInt64(toFloat64({value}) + 0.0)))"


def _instant(value: str, kind: pa.DataType) -> str:
    """A cast to fewer digits would round towards zero."""
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        nanoseconds = f"toUnixTimestamp64Nano(toDateTime64({value}, 9, 'UTC'))"
        return f"toString(intDiv({nanoseconds} - positiveModulo({nanoseconds}, 1000), 1000))"
    return f"toString(toUnixTimestamp64Micro(toDateTime64({value}, 6, 'UTC')))"


DIGESTS = DigestDialect(
    texts={
        Family.INTEGER: _text,
        Family.DECIMAL: _decimal,
        Family.BOOLEAN: lambda value, _: f"toString(toUInt8({value}))",
        Family.FLOAT: _bits,
        Family.INSTANT: _instant,
        Family.DATE: lambda value, _: f"toString(toInt32({value}))",
        Family.TEXT: _text,
        Family.BYTES: lambda value, _: f"lower(hex({value}))",
    },
    octets=lambda text: f"toString(length({text}))",
    md5=lambda text: f"lower(hex(MD5({text})))",
    total=lambda digits: f"sum(reinterpretAsUInt64(reverse(unhex({digits}))))",  # a sum of UInt64 wraps around
    concat=lambda parts: f"concat({', '.join(parts)})",
    whole=lambda text: f"toInt64OrNull({text})",  # a CAST refuses nulls
)


@contextmanager
def compare(server: Server, source: TableName | Query, doing: str, wanted: Wanted, *, final: bool) -> Iterator[SqlRows]:
    """Open a table, with `final` as it will be once its parts have merged, or a query."""

    def ask(statement: Statement) -> Sequence[Sequence[Any]]:
        with translated(doing, ReadFailed, port=server.options.port):
            return server.rows(statement.text, statement.values, use_database=True)

    with translated(doing, ReadFailed, port=server.options.port):
        columns, select = _clickhouse_read.select(server, source, doing, wanted, final=final)
        described = dict(server.describe(f"({select.text})", select.values))
    schema = pa.schema([pa.field(column.name, column.kind or natural_kind(described[column.name])) for column in columns])
    yield SqlRows(DIGESTS, CLICKHOUSE.quote, schema, select, ask)
