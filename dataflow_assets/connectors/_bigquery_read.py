"""Reading from BigQuery: a query with columns and window pushed down, and the pages of its result as exact Arrow batches.

Here: the stream. Not here: what a type becomes (`_bigquery_types`), clients (`_bigquery_session`).

A query's result is a table of its own, which no later write changes: the pages of one job are one snapshot. The result's columns are
called c0, c1, ...: the Read API has rules of its own for names that are not plain.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dataflow_assets.batches import resize
from dataflow_assets.connectors._bigquery_errors import driver_errors, is_denied, translated
from dataflow_assets.connectors._bigquery_session import Session, Sessions
from dataflow_assets.connectors._bigquery_types import Column, read_expression, read_kind
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage import sql
from dataflow_assets.storage.casts import cast_exactly
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Bind, Query, TableName, WindowFilter

_STREAMS = 2
"""Streams of the Read API at one time, each with one message in memory."""


@dataclass(frozen=True)
class Wanted:
    """What of a source is read."""

    columns: Sequence[str] | None = None
    window: WindowFilter | None = None
    batch_rows: int = 65_536


@contextmanager
def stream(sessions: Sessions, source: TableName | Query, doing: str, wanted: Wanted) -> Iterator[pa.RecordBatchReader]:
    """Stream a table or query from the result of one job, which is one snapshot."""
    with sessions.use() as session:
        with translated(doing, ReadFailed):
            statement, schema = _statement(session, source, doing, wanted)
            rows = session.rows(statement, page_rows=wanted.batch_rows)
        with read_ahead(_exact(session, rows, schema, doing, wanted.batch_rows)) as batches:
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


def _exact(session: Session, rows: Any, schema: pa.Schema, doing: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
    with translated(doing, ReadFailed):
        yield from resize(_batches(_pages(session, rows), schema), rows=batch_rows)


def _pages(session: Session, rows: Any) -> Iterator[pa.RecordBatch]:
    """The result over the Storage Read API, or over REST where that cannot be had or is not allowed."""
    client = session.storage_client()
    if client is None:
        yield from rows.to_arrow_iterable()
        return
    with _closing(client):
        batches = rows.to_arrow_iterable(bqstorage_client=client, max_queue_size=_STREAMS, max_stream_count=_STREAMS)
        try:
            first = list(itertools.islice(batches, 1))
        except driver_errors() as error:
            if not is_denied(error):
                raise
            batches, first = rows.to_arrow_iterable(), []
        yield from itertools.chain(first, batches)


@contextmanager
def _closing(client: Any) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(Exception):
            client.transport.close()


def _batches(pages: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in pages:
        if batch.num_rows:
            columns = [cast_exactly(column, item.type, name=item.name) for column, item in zip(batch.columns, schema, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)
