"""Reading from Postgres: one read-only snapshot, COPY, and rows as exact Arrow batches.

Here: the statement with columns and window pushed down, and the stream. Not here: how one type is read (`_postgres_types`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataflow_assets.batches import cut, release
from dataflow_assets.connectors._postgres_session import POSTGRES, Sessions, fetch, literal, literals, run, stream_failure, translated
from dataflow_assets.connectors._postgres_types import ReadColumn, read_column
from dataflow_assets.connectors._sql import Wanted, chosen
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage import sql
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Bind, Query, TableName, WindowFilter

if TYPE_CHECKING:
    import psycopg

_SETTINGS = {"TimeZone": "UTC", "IntervalStyle": "iso_8601", "DateStyle": "ISO"}
TEXT_SETTINGS = Statement("SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in _SETTINGS.items()))
"""Says, for one transaction, how Postgres prints what is read as its text."""
_FETCH_BYTES = 7 * 512 * 1024  # half a stage's batch of common rows: measured, less costs time and more only memory


def _text_of(source: TableName | Query, connection: psycopg.Connection[Any]) -> str:
    """What stands after FROM; a query's values are written by the driver."""
    if isinstance(source, TableName):
        return POSTGRES.table(source)
    values = [literal(part.value, connection) for part in source.parts if isinstance(part, Bind)]
    return sql.derived_table(literals(values), source)[0]


@contextmanager
def stream(sessions: Sessions, source: TableName | Query, doing: str, wanted: Wanted) -> Iterator[pa.RecordBatchReader]:
    """Stream a table or query from one read-only snapshot."""
    with sessions.sql() as connection, translated(doing, ReadFailed):
        selected, statement = select(connection, source, doing, wanted)
    with sessions.bulk() as bulk, bulk.cursor() as cursor:
        with translated(doing, ReadFailed):
            _begin_snapshot(bulk)
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_FETCH_BYTES)})
            cursor.execute(statement)
            raw = cursor.fetch_record_batch()
        schema = pa.schema([pa.field(column.name, column.kind or raw.schema.field(column.name).type) for column in selected])
        with read_ahead(_restored(bulk, raw, selected, schema, doing, wanted.batch_rows), depth=1, cancel=cursor.adbc_cancel) as batches:
            yield pa.RecordBatchReader.from_batches(schema, batches)
    # Arrow's pool keeps what was freed: 30 to 60 MB that whoever comes next would add to.
    release()


def select(
    connection: psycopg.Connection[Any], source: TableName | Query, doing: str, wanted: Wanted, *, to_compare: bool = False
) -> tuple[Sequence[ReadColumn], str]:
    """The columns, and the statement that reads them, with columns and window pushed down."""
    text = _text_of(source, connection)
    described = _describe(connection, text)
    selected = chosen(described, wanted.columns, doing=doing)
    predicate = _predicate(described, wanted.window, connection) if wanted.window else None
    expressions = {column.name: (to_compare and column.compared) or column.expression for column in selected}
    return selected, sql.select(POSTGRES, expressions, text, predicate)


def _describe(connection: psycopg.Connection[Any], source: str) -> dict[str, ReadColumn]:
    """The columns of a source in their order. Raises ValueRefused when two share a name."""
    cursor = connection.execute((sql.select(POSTGRES, None, source) + " LIMIT 0").encode())
    result = cursor.pgresult
    if result is None:
        raise ReadFailed("the query returns no rows")
    fields = [((result.fname(i) or b"").decode(), result.ftype(i), result.fmod(i)) for i in range(result.nfields)]
    names = [name for name, _, _ in fields]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueRefused(f"the query returns column {twice[0]!r} more than once", hint="give each column a name of its own with AS")
    arrays = {
        oid
        for (oid,) in fetch(
            connection,
            Statement("SELECT oid::int8 FROM pg_type WHERE typcategory = 'A' AND oid = ANY ($1)", ([oid for _, oid, _ in fields],)),
        )
    }
    return {
        name: read_column(name, POSTGRES.quote(name), oid=oid, modifier=modifier, is_array=oid in arrays) for name, oid, modifier in fields
    }


def _predicate(described: Mapping[str, ReadColumn], window: WindowFilter, connection: psycopg.Connection[Any]) -> Statement:
    """The window as SQL with the driver's literals."""
    column = described.get(window.column)
    if column is None:
        raise ReadFailed(f"there is no event_time_column {window.column!r}", hint=f"the columns are {', '.join(described)}")
    bounds = window.bounds(column.bounds or pa.string())
    dialect = literals([literal(bound, connection) for bound in bounds])
    return Statement(sql.window_predicate(dialect, window.column, bounds).text)


def _begin_snapshot(bulk: Any) -> None:
    run(bulk, Statement("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    run(bulk, TEXT_SETTINGS)


def _restored(
    bulk: Any, raw: pa.RecordBatchReader, columns: Sequence[ReadColumn], schema: pa.Schema, doing: str, rows: int
) -> Iterator[pa.RecordBatch]:
    try:
        for batch in cut(raw, rows=rows):
            yield pa.RecordBatch.from_arrays([column.restore(batch.column(i)) for i, column in enumerate(columns)], schema=schema)
    except OSError as error:
        raise stream_failure(bulk, error, doing) from error
