"""Reading from Snowflake: the statement with columns and window pushed down, and its result chunks as exact Arrow batches.

Here: the stream. Not here: what a type becomes (`_snowflake_types`), connections and their errors (`_snowflake_session`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pyarrow as pa

from dataflow_assets.batches import resize
from dataflow_assets.connectors._snowflake_session import SNOWFLAKE, Described, Session, Sessions, translated
from dataflow_assets.connectors._snowflake_types import read_expression, source_kind
from dataflow_assets.connectors._sql import Wanted
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage import sql
from dataflow_assets.storage.casts import cast_exactly
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Query, TableName


@contextmanager
def stream(sessions: Sessions, source: TableName | Query, doing: str, wanted: Wanted) -> Iterator[pa.RecordBatchReader]:
    """Stream a table or query with one statement, which sees one snapshot."""
    with ExitStack() as stack:
        session = stack.enter_context(sessions.use())
        with translated(doing, ReadFailed):
            statement, schema = select(session, source, doing, wanted)
            chunks = stack.enter_context(session.stream(statement))
        batches = stack.enter_context(read_ahead(_exact(chunks, schema, doing, wanted.batch_rows)))
        yield pa.RecordBatchReader.from_batches(schema, batches)


def select(session: Session, source: TableName | Query, doing: str, wanted: Wanted) -> tuple[Statement, pa.Schema]:
    """The statement with columns and window pushed down, and the schema of its rows."""
    if isinstance(source, TableName):
        text, values = SNOWFLAKE.table(source), list[Any]()
    else:
        text, values = sql.derived_table(SNOWFLAKE, source)
    found = by_name(session.describe(Statement(sql.select(SNOWFLAKE, None, text), tuple(values))))
    window = wanted.window
    asked = [*(wanted.columns or ()), *([window.column] if window else ())]
    if missing := [name for name in asked if name not in found]:
        raise ReadFailed(f"{doing}: there is no column {missing[0]!r}", hint=f"the columns are {', '.join(found)}")
    chosen = [found[name] for name in wanted.columns or found]
    selected = {column.name: read_expression(column.family, SNOWFLAKE.quote(column.name)) for column in chosen}
    predicate = sql.window_predicate(SNOWFLAKE, window.column, window.bounds(_kind(found[window.column]))) if window else None
    statement = Statement(sql.select(SNOWFLAKE, selected, text, predicate), (*values, *(predicate.values if predicate else ())))
    return statement, pa.schema([pa.field(column.name, _kind(column)) for column in chosen])


def by_name(columns: Sequence[Described]) -> dict[str, Described]:
    """Name -> column. Raises ValueRefused when two share a name."""
    names = [column.name for column in columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueRefused(f"the query returns column {twice[0]!r} more than once", hint="give each column a name of its own with AS")
    return dict(zip(names, columns, strict=True))


def _kind(column: Described) -> pa.DataType:
    return source_kind(column.family, column.precision, column.scale, name=column.name)


def _exact(chunks: Iterator[pa.Table], schema: pa.Schema, doing: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
    with translated(doing, ReadFailed):
        yield from resize(_batches(chunks, schema), rows=batch_rows)


def _batches(chunks: Iterator[pa.Table], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Each chunk has the narrowest types that hold its own values."""
    for chunk in chunks:
        for batch in chunk.to_batches() if chunk.num_rows else ():
            columns = [_column(column, item) for column, item in zip(batch.columns, schema, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _column(column: pa.Array, item: pa.Field) -> pa.Array:
    if pa.types.is_date64(column.type):
        column = column.cast(pa.date32())
    return cast_exactly(column, item.type, name=item.name)
