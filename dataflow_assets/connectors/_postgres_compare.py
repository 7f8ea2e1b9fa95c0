"""Comparing rows inside Postgres: canonical text and digests in its words, over one read-only snapshot.

Here: the dialect, and opening a table or query to be compared. Not here: the queries (`storage.digests`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa

from dataflow_assets.canonical import NAN_BITS, Family
from dataflow_assets.connectors import _postgres_read
from dataflow_assets.connectors._postgres_session import POSTGRES, Sessions, fetch, translated
from dataflow_assets.connectors._postgres_types import UNCONSTRAINED
from dataflow_assets.connectors._sql import Wanted
from dataflow_assets.errors import ReadFailed
from dataflow_assets.storage.digests import DigestDialect, SqlRows, trimmed_decimal
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Query, TableName


def _decimal(text: str, kind: pa.DataType) -> str:
    """A numeric is selected as text; one without a scale of its own may have no point at all."""
    return f"trim_scale(({text})::numeric)::text" if kind == UNCONSTRAINED else trimmed_decimal(text, kind)


def _microseconds(value: str, _: pa.DataType) -> str:
    return f"((EXTRACT(epoch FROM {value}) * 1000000)::int8)::text"


def _bits(value: str, _: pa.DataType) -> str:
    number = f"('x' || encode(float8send(({value})::float8 + 0), 'hex'))::bit(64)::int8"
    return f"(CASE WHEN {value} = 'NaN' THEN {NAN_BITS} ELSE {number} END)::text"


DIGESTS = DigestDialect(
    texts={
        Family.INTEGER: lambda value, _: f"({value})::text",
        Family.DECIMAL: _decimal,
        Family.BOOLEAN: lambda value, _: f"({value})::int::text",
        Family.FLOAT: _bits,
        Family.INSTANT: _microseconds,
        Family.DATE: lambda value, _: f"({value} - DATE '1970-01-01')::text",
        Family.TIME: _microseconds,
        Family.TEXT: lambda value, _: f"({value})::text",
        Family.BYTES: lambda value, _: f"encode({value}, 'hex')",
    },
    octets=lambda text: f"octet_length({text})::text",
    md5=lambda text: f"md5({text})",
    total=lambda digits: f"SUM(('x' || {digits})::bit(64)::int8)",
)
IN_OTHER_ENCODINGS = replace(
    DIGESTS,
    octets=lambda text: f"octet_length(convert_to({text}, 'UTF8'))::text",
    md5=lambda text: f"md5(convert_to({text}, 'UTF8'))",
)
"""For databases that do not keep text as UTF-8."""


_PRIMARY_KEY = """
SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indisprimary AND i.indrelid = to_regclass($1) ORDER BY array_position(i.indkey::int2[], a.attnum)
"""


@contextmanager
def compare(sessions: Sessions, source: TableName | Query, doing: str, wanted: Wanted) -> Iterator[SqlRows]:
    """Open a table or query; every answer comes from one snapshot."""
    with sessions.sql() as connection:

        def ask(statement: Statement) -> Sequence[Sequence[Any]]:
            with translated(doing, ReadFailed):
                return fetch(connection, statement)

        ask(Statement("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        ask(_postgres_read.TEXT_SETTINGS)
        with translated(doing, ReadFailed):
            columns, text = _postgres_read.select(connection, source, doing, wanted, to_compare=True)
        schema = pa.schema([pa.field(column.name, column.kind or column.arrives or pa.string()) for column in columns])
        is_utf8 = connection.info.parameter_status("server_encoding") == "UTF8"

        def primary_key() -> list[str]:
            return [name for (name,) in ask(Statement(_PRIMARY_KEY, (POSTGRES.table(source),)))] if isinstance(source, TableName) else []

        yield SqlRows(DIGESTS if is_utf8 else IN_OTHER_ENCODINGS, POSTGRES.quote, schema, Statement(text), ask, primary_key)
        ask(Statement("ROLLBACK"))
