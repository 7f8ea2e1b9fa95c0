"""Reading from DuckDB: the statement with columns and window pushed down, and rows as exact Arrow batches.

Here: the stream. Not here: how one type is read (`_duckdb_types`), opening the file (`_duckdb_session`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataflow_assets.batches import cut
from dataflow_assets.connectors._duckdb_session import DUCKDB, Database, Settings, translated
from dataflow_assets.connectors._duckdb_types import read_expression, refuse_infinity, wire_type
from dataflow_assets.connectors._sql import Wanted
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage import sql
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Query, TableName

if TYPE_CHECKING:
    import duckdb


@contextmanager
def stream(database: Database, settings: Settings, source: TableName | Query, doing: str, wanted: Wanted) -> Iterator[pa.RecordBatchReader]:
    """Stream a table or query from one snapshot."""
    if not database.path.exists():
        raise ReadFailed(f"{doing}: {database.path} does not exist", hint="check `database` of the connection", kind="configuration")
    with database.reading(settings) as connection:
        with translated(doing, ReadFailed):
            statement = select(connection, source, doing, wanted)
            raw = connection.sql(statement.text, params=list(statement.values) or None).to_arrow_reader(wanted.batch_rows)
            schema = plain_schema(raw.schema)
        with read_ahead(_checked(raw, schema, doing, wanted.batch_rows), cancel=connection.interrupt) as batches:
            yield pa.RecordBatchReader.from_batches(schema, batches)


def select(connection: duckdb.DuckDBPyConnection, source: TableName | Query, doing: str, wanted: Wanted) -> Statement:
    """The statement with columns and window pushed down."""
    if isinstance(source, TableName):
        text, values = DUCKDB.table(source), list[Any]()
    else:
        text, values = sql.derived_table(DUCKDB, source)
    window = wanted.window
    relation = connection.sql(sql.select(DUCKDB, None, text), params=values or None)
    kinds = dict(zip(relation.columns, relation.types, strict=True))
    if twice := sorted({name for name in relation.columns if relation.columns.count(name) > 1}):
        raise ValueRefused(f"the query returns column {twice[0]!r} more than once", hint="give each column a name of its own with AS")
    asked = [*(wanted.columns or ()), *([window.column] if window else ())]
    if missing := [name for name in asked if name not in kinds]:
        raise ReadFailed(f"{doing}: there is no column {missing[0]!r}", hint=f"the columns are {', '.join(kinds)}")
    selected = {name: read_expression(name, DUCKDB.quote(name), kinds[name]) for name in wanted.columns or kinds}
    predicate = None
    if window is not None:
        bounds = window.bounds(wire_type(str(kinds[window.column])) or pa.string())
        predicate = sql.window_predicate(DUCKDB, window.column, bounds, first=len(values) + 1)
    return Statement(sql.select(DUCKDB, selected, text, predicate), (*values, *(predicate.values if predicate else ())))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without extension types."""
    return pa.schema([pa.field(item.name, _plain(item.type)) for item in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _checked(raw: Any, schema: pa.Schema, doing: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
    with translated(doing, ReadFailed):
        for batch in cut(raw, rows=batch_rows):
            for name, column in zip(schema.names, batch.columns, strict=True):
                refuse_infinity(column, name=name)
            columns = [column.storage if isinstance(column, pa.ExtensionArray) else column for column in batch.columns]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)
