"""Reading from MySQL: one read-only snapshot, and rows as exact Arrow batches.

Here: the statement with columns and window pushed down, and the stream. Not here: how one type is read (`_mysql_types`), packets
(`_mysql_wire`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataflow_assets.batches import release, resize, trimmed
from dataflow_assets.connectors import _mysql_wire as wire
from dataflow_assets.connectors._mysql_session import MYSQL, Sessions, fetch, translated, with_literals
from dataflow_assets.connectors._mysql_types import ReadColumn, read_column
from dataflow_assets.connectors._sql import Wanted, chosen
from dataflow_assets.errors import ReadFailed
from dataflow_assets.storage import sql
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Query, TableName, WindowFilter

if TYPE_CHECKING:
    import pymysql


def _text_of(source: TableName | Query) -> Statement:
    """What stands after FROM, with its values."""
    if isinstance(source, TableName):
        return Statement(MYSQL.table(source))
    text, values = sql.derived_table(MYSQL, source)
    return Statement(text, tuple(values))


@contextmanager
def stream(
    sessions: Sessions, source: TableName | Query, doing: str, wanted: Wanted, *, tinyint_is_bool: bool
) -> Iterator[pa.RecordBatchReader]:
    """Stream a table or query from one read-only snapshot."""
    with sessions.reading() as connection:
        with translated(doing, ReadFailed):
            selected, statement = select_in_snapshot(connection, source, doing, wanted, tinyint_is_bool=tinyint_is_bool)
            _, blocks = wire.query(connection, statement)
        schema = pa.schema([pa.field(column.name, column.kind) for column in selected])
        with read_ahead(_restored(blocks, selected, schema, doing, wanted.batch_rows), cancel=lambda: sessions.end(connection)) as batches:
            yield pa.RecordBatchReader.from_batches(schema, batches)
    release()


def select_in_snapshot(
    connection: pymysql.Connection[Any], source: TableName | Query, doing: str, wanted: Wanted, *, tinyint_is_bool: bool
) -> tuple[Sequence[ReadColumn], str]:
    """Begin a read-only snapshot; the columns, and the statement that reads them, with columns and window pushed down."""
    text = with_literals(connection, _text_of(source))
    fetch(connection, Statement("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    fetch(connection, Statement("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"))
    described = _describe(connection, text, tinyint_is_bool=tinyint_is_bool)
    selected = chosen(described, wanted.columns, doing=doing)
    predicate = _predicate(described, wanted.window, connection) if wanted.window else None
    return selected, sql.select(MYSQL, {column.name: column.expression for column in selected}, text, predicate)


def _describe(connection: pymysql.Connection[Any], source: str, *, tinyint_is_bool: bool) -> dict[str, ReadColumn]:
    """The columns of a source in their order; the server does not look for rows when none are wanted."""
    fields, blocks = wire.query(connection, sql.select(MYSQL, None, source) + " LIMIT 0")
    for _ in blocks:
        pass
    return {field.name: read_column(field, MYSQL.quote(field.name), tinyint_is_bool=tinyint_is_bool) for field in fields}


def _predicate(described: Mapping[str, ReadColumn], window: WindowFilter, connection: pymysql.Connection[Any]) -> Statement:
    column = described.get(window.column)
    if column is None:
        raise ReadFailed(f"there is no event_time_column {window.column!r}", hint=f"the columns are {', '.join(described)}")
    bounds = window.bounds(column.kind)
    return Statement(with_literals(connection, sql.window_predicate(MYSQL, window.column, bounds)))


def _restored(
    blocks: Iterator[list[pa.Array]], columns: Sequence[ReadColumn], schema: pa.Schema, doing: str, rows: int
) -> Iterator[pa.RecordBatch]:
    def batches() -> Iterator[pa.RecordBatch]:
        for block in blocks:
            arrays = [column.restore(values) for column, values in zip(columns, block, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    with translated(doing, ReadFailed):
        yield from resize(trimmed(batches(), every=64), rows=rows)
