"""Comparing rows inside MySQL and MariaDB: canonical text and digests in their words, over one read-only snapshot.

Here: the dialect, and opening a table or query to be compared. Not here: the queries (`storage.digests`). Floats are missing: no function
gives their bits or all their digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from dataflow_assets.canonical import Family
from dataflow_assets.connectors import _mysql_read
from dataflow_assets.connectors._mysql_session import MYSQL, Sessions, fetch, translated
from dataflow_assets.connectors._sql import Wanted
from dataflow_assets.errors import ReadFailed
from dataflow_assets.storage.digests import DigestDialect, SqlRows
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Query, TableName


def _integer(value: str, _: pa.DataType) -> str:
    return f"CAST({value} + 0 AS CHAR)"  # the sum has no ZEROFILL


def _decimal(value: str, kind: pa.DataType) -> str:
    text = f"CAST({value} AS CHAR)"
    return f"TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {text}))" if pa.types.is_decimal(kind) and kind.scale > 0 else text


def _clock(value: str, _: pa.DataType) -> str:
    """TIME_TO_SEC keeps fractions in MariaDB only."""
    seconds = f"HOUR({value}) * 3600 + MINUTE({value}) * 60 + SECOND({value})"
    return f"CAST(({seconds}) * 1000000 + MICROSECOND({value}) AS CHAR)"


DIGESTS = DigestDialect(
    texts={
        Family.INTEGER: _integer,
        Family.DECIMAL: _decimal,
        Family.BOOLEAN: _integer,
        Family.INSTANT: lambda value, _: f"CAST(TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', {value}) AS CHAR)",
        Family.DATE: lambda value, _: f"CAST(DATEDIFF({value}, '1970-01-01') AS CHAR)",
        Family.TIME: _clock,
        Family.TEXT: lambda value, _: f"CONVERT({value} USING utf8mb4)",
        Family.BYTES: lambda value, _: f"LOWER(HEX({value}))",
    },
    octets=lambda text: f"CAST(LENGTH({text}) AS CHAR)",
    md5=lambda text: f"MD5({text})",
    total=lambda digits: f"SUM(CAST(CONV({digits}, 16, 10) AS UNSIGNED))",
    concat=lambda parts: f"CONCAT({', '.join(parts)})",
    whole=lambda text: f"CAST({text} AS SIGNED)",
)


@contextmanager
def compare(sessions: Sessions, source: TableName | Query, doing: str, wanted: Wanted, *, tinyint_is_bool: bool) -> Iterator[SqlRows]:
    """Open a table or query; every answer comes from one snapshot, as far as the table's engine has snapshots."""
    with sessions.reading() as connection:

        def ask(statement: Statement) -> Sequence[Sequence[Any]]:
            with translated(doing, ReadFailed):
                return fetch(connection, statement)

        with translated(doing, ReadFailed):
            columns, text = _mysql_read.select_in_snapshot(connection, source, doing, wanted, tinyint_is_bool=tinyint_is_bool)
        schema = pa.schema([pa.field(column.name, column.kind) for column in columns])

        def primary_key() -> list[str]:
            if not isinstance(source, TableName):
                return []
            return [str(row[4]) for row in ask(Statement(f"SHOW KEYS FROM {MYSQL.table(source)} WHERE Key_name = 'PRIMARY'"))]

        yield SqlRows(DIGESTS, MYSQL.quote, schema, Statement(text), ask, primary_key)
