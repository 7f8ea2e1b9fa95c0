"""Reading from ClickHouse: one query, which sees one snapshot, and rows as exact Arrow batches.

Here: the statement with columns and window pushed down, and the stream. Not here: how one type is read (`_clickhouse_types`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa

from dataflow_assets.batches import release, resize, trimmed
from dataflow_assets.connectors._clickhouse_session import CLICKHOUSE, Server, bound, driver_errors, translated
from dataflow_assets.connectors._clickhouse_types import ReadColumn, read_column
from dataflow_assets.connectors._sql import Wanted, chosen
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage import sql
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Query, TableName, WindowFilter


def _text_of(source: TableName | Query, *, final: bool) -> Statement:
    """What stands after FROM; a query's values are bound by the server."""
    if isinstance(source, TableName):
        return Statement(CLICKHOUSE.table(source) + (" FINAL" if final else ""))
    _, values = source.render(lambda _: "")
    text, _ = sql.derived_table(bound(values), source)
    return Statement(text, tuple(values))


@contextmanager
def stream(server: Server, source: TableName | Query, doing: str, wanted: Wanted, *, final: bool = False) -> Iterator[pa.RecordBatchReader]:
    """Stream a table, with `final` as it will be once its parts have merged, or a query."""
    with translated(doing, ReadFailed, port=server.options.port):
        selected, statement = select(server, source, doing, wanted, final=final)
        raw = server.stream(statement.text, statement.values)
    try:
        with translated(doing, ReadFailed):
            opened = pa.ipc.open_stream(raw)
        fields = [pa.field(item.name, item.kind or _plain(opened.schema.field(item.name).type)) for item in selected]
        schema = pa.schema(fields)
        with read_ahead(_restored(opened, selected, schema, doing, wanted.batch_rows), cancel=raw.close) as batches:
            yield pa.RecordBatchReader.from_batches(schema, batches)
    finally:
        with suppress(Exception):
            raw.close()  # not given back to the pool: what the server still wants to send would be read as the next answer
    release()


def select(server: Server, source: TableName | Query, doing: str, wanted: Wanted, *, final: bool) -> tuple[Sequence[ReadColumn], Statement]:
    """The columns, and the statement that reads them, with columns and window pushed down."""
    text = _text_of(source, final=final)
    described = _describe(server, text)
    selected = chosen(described, wanted.columns, doing=doing)
    return selected, _statement(text, selected, _predicate(described, wanted.window, first=len(text.values) + 1))


def _describe(server: Server, source: Statement) -> dict[str, ReadColumn]:
    """The columns of a source in their order. Raises ValueRefused when two share a name."""
    described = server.describe(source.text, source.values)
    names = [name for name, _ in described]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueRefused(f"the query returns column {twice[0]!r} more than once", hint="give each column a name of its own with AS")
    return {name: read_column(name, kind, zone=server.zone) for name, kind in described}


def _predicate(described: Mapping[str, ReadColumn], window: WindowFilter | None, *, first: int) -> Statement | None:
    if window is None:
        return None
    column = described.get(window.column)
    if column is None:
        raise ReadFailed(f"there is no event_time_column {window.column!r}", hint=f"the columns are {', '.join(described)}")
    return window_predicate(window, column.bounds or pa.string(), first=first)


def window_predicate(window: WindowFilter, kind: pa.DataType, *, first: int = 1) -> Statement:
    """The window as SQL. ClickHouse compares instants; a wall clock of a UTC server counts as UTC, whatever the session's clock."""
    bounds = window.bounds(kind)
    if pa.types.is_timestamp(kind):
        bounds = (window.window.start, window.window.end)
    return sql.window_predicate(bound(bounds, first=first), window.column, bounds, first=first)


def _statement(source: Statement, columns: Sequence[ReadColumn], predicate: Statement | None) -> Statement:
    """Filtered inside, cast outside: in ClickHouse the alias of a cast column would hide the column from WHERE."""
    values = (*source.values, *(predicate.values if predicate else ()))
    inner = sql.select(CLICKHOUSE, None, source.text, predicate)
    return Statement(
        sql.select(CLICKHOUSE, {item.name: item.expression(f"w.{CLICKHOUSE.quote(item.name)}") for item in columns}, f"({inner}) AS w"),
        values,
    )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _restored(raw: Any, columns: Sequence[ReadColumn], schema: pa.Schema, doing: str, rows: int) -> Iterator[pa.RecordBatch]:
    errors = driver_errors()
    try:
        for batch in resize(trimmed(raw), rows=rows):
            arrays = [item.restore(batch.column(position)) for position, item in enumerate(columns)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
    except (*errors, pa.ArrowException, OSError) as error:
        hint = "run the query in clickhouse-client to see whether it fails there"
        raise ReadFailed(f"{doing}: the result broke off: {error}", hint=hint, transient=True) from error
