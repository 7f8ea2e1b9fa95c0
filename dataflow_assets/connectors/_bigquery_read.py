"""Reading from BigQuery: a query with columns and window pushed down, and the pages of its result as exact Arrow batches.

Here: the stream. Not here: what a type becomes (`_bigquery_types`), clients (`_bigquery_session`).

A query's result is a table of its own, which no later write changes: the pages of one job are one snapshot. The result's columns are
called c0, c1, ...: the Read API has rules of its own for names that are not plain.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from dataflow_assets.batches import resize
from dataflow_assets.connectors._bigquery_errors import driver_errors, is_denied, translated
from dataflow_assets.connectors._bigquery_session import Result, Session, Sessions
from dataflow_assets.connectors._bigquery_types import Column, read_expression, read_kind
from dataflow_assets.connectors._sql import Wanted
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage import sql
from dataflow_assets.storage.casts import cast_exactly
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Bind, Query, TableName

_INLINE_ROWS = 1_000
"""Rows that come with the job's reply; the Read API is asked when there are more."""


@contextmanager
def stream(sessions: Sessions, source: TableName | Query, doing: str, wanted: Wanted) -> Iterator[pa.RecordBatchReader]:
    """Stream a table or query from the result of one job, which is one snapshot."""
    with sessions.use() as session:
        with translated(doing, ReadFailed):
            statement, schema = _statement(session, source, doing, wanted)
            client = session.storage_client()
            result = session.result(statement, page_rows=_INLINE_ROWS if client is not None else wanted.batch_rows)
        with read_ahead(_exact(_pages(session, result), schema, doing, wanted.batch_rows)) as batches:
            yield pa.RecordBatchReader.from_batches(schema, batches)


def _statement(session: Session, source: TableName | Query, doing: str, wanted: Wanted) -> tuple[Statement, pa.Schema]:
    """The statement with columns and window pushed down, and the schema of its rows."""
    dialect = session.dialect
    if isinstance(source, TableName):
        text, values = dialect.table(source), list[Any]()
        described = list(session.columns(source).values())
        if not described:
            hint = "check project, dataset and table, their upper and lower case, and the rights of the account"
            raise ReadFailed(f"{doing}: there is no table {text}", hint=hint)
    else:
        text, values = sql.derived_table(dialect, _without_nulls(source))
        described = session.describe(Statement(sql.select(dialect, None, text), tuple(values)))
    found, window = by_name(described), wanted.window
    asked = [*(wanted.columns or ()), *([window.column] if window else ())]
    if missing := [name for name in asked if name not in found]:
        raise ReadFailed(f"{doing}: there is no column {missing[0]!r}", hint=f"the columns are {', '.join(found)}")
    chosen = [found[name] for name in wanted.columns or found]
    selected = {f"c{number}": read_expression(column, dialect.quote(column.name)) for number, column in enumerate(chosen)}
    predicate = None
    if window is not None:
        bounds = window.bounds(read_kind(found[window.column]))
        predicate = sql.window_predicate(dialect, window.column, bounds, first=len(values) + 1)
    statement = Statement(sql.select(dialect, selected, text, predicate), (*values, *(predicate.values if predicate else ())))
    return statement, pa.schema([pa.field(column.name, read_kind(column)) for column in chosen])


def _without_nulls(query: Query) -> Query:
    """A null in place of a value is written out: bound, it would need a type."""
    return Query(tuple("NULL" if isinstance(part, Bind) and part.value is None else part for part in query.parts))


def by_name(columns: Sequence[Column]) -> dict[str, Column]:
    """Name -> column. Raises ValueRefused when two share a name."""
    names = [column.name for column in columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueRefused(f"the query returns column {twice[0]!r} more than once", hint="give each column a name of its own with AS")
    return dict(zip(names, columns, strict=True))


def _exact(pages: Iterator[pa.RecordBatch], schema: pa.Schema, doing: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
    with translated(doing, ReadFailed):
        yield from resize(_batches(pages, schema), rows=batch_rows)


def _pages(session: Session, result: Result) -> Iterator[pa.RecordBatch]:
    """The result over the Storage Read API, or over REST where it is small, or that API cannot be had or is not allowed."""
    client = session.storage_client()
    if client is None or result.rows.total_rows <= _INLINE_ROWS:
        yield from result.rows.to_arrow_iterable()
        return
    batches = _streamed(client, session.connection.project, result)
    try:
        first = list(itertools.islice(batches, 1))
    except driver_errors() as error:
        if not is_denied(error):
            raise
        first, batches = [], result.rows.to_arrow_iterable()
    yield from itertools.chain(first, batches)


def _streamed(client: Any, project: str, result: Result) -> Iterator[pa.RecordBatch]:
    """The result's table over the Storage Read API: one stream, one message in memory. The client takes up a stream that broke off."""
    from google.cloud.bigquery_storage_v1 import types

    codec = types.ArrowSerializationOptions.CompressionCodec.LZ4_FRAME
    options = types.ReadSession.TableReadOptions(arrow_serialization_options={"buffer_compression": codec})
    asked = types.ReadSession(table=result.table.to_bqstorage(), data_format=types.DataFormat.ARROW, read_options=options)
    session = client.create_read_session(parent=f"projects/{project}", read_session=asked, max_stream_count=1)
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    for stream_ in session.streams:
        for message in client.read_rows(stream_.name):
            yield pa.ipc.read_record_batch(pa.py_buffer(message.arrow_record_batch.serialized_record_batch), schema)


def _batches(pages: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in pages:
        if batch.num_rows:
            columns = [cast_exactly(column, item.type, name=item.name) for column, item in zip(batch.columns, schema, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)
