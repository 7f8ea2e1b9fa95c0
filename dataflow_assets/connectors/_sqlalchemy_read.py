"""Reading through SQLAlchemy: the statement with columns and window pushed down, and rows as exact Arrow batches.

Here: the stream. Not here: what a type becomes (`_sqlalchemy_types`), the values (`_row_values`), connections (`_sqlalchemy_session`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataflow_assets.batches import resize
from dataflow_assets.connectors import _sqlite_times as times
from dataflow_assets.connectors._row_values import Misfit, array_of, kind_of, shown
from dataflow_assets.connectors._sql import Wanted
from dataflow_assets.connectors._sqlalchemy_session import Session, Sessions, translated
from dataflow_assets.connectors._sqlalchemy_types import described_kind, reflected_kind
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage import sql
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Query, TableName, WindowFilter

if TYPE_CHECKING:
    import sqlalchemy as sa

_FEWEST, _MOST, _FETCH_BYTES = 200, 5_000, 4 * 1024 * 1024
"""Rows of one fetch: few at first, then as many as fill so many bytes."""
Bounds = tuple[datetime | date, datetime | date]


@dataclass(frozen=True)
class Column:
    """One column of a source: the expression to select, and its Arrow type; None where the first rows tell."""

    name: str
    expression: str
    kind: pa.DataType | None


@contextmanager
def stream(sessions: Sessions, source: TableName | Query, doing: str, wanted: Wanted) -> Iterator[pa.RecordBatchReader]:
    """Stream a table or query with one statement, which sees one snapshot."""
    with ExitStack() as stack:
        session = stack.enter_context(sessions.reading())
        with translated(doing, ReadFailed):
            reader = _Reader(session, source, doing, wanted)
            stack.callback(reader.close)
            batches = reader.open()
        with read_ahead(batches) as ahead:
            yield pa.RecordBatchReader.from_batches(reader.schema, ahead)


def reflect(connection: sa.Connection, table: TableName) -> dict[str, Any]:
    """Name -> what SQLAlchemy's inspector tells of a column; empty when there is no such table."""
    import sqlalchemy as sa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sa.exc.SAWarning)  # a type that it does not know is read as text
        try:
            return {column["name"]: column for column in sa.inspect(connection).get_columns(table.name, schema=table.schema)}
        except sa.exc.NoSuchTableError:
            return {}


def as_text(expression: str, dialect: sa.Dialect) -> str:
    """The expression cast to text, as the dialect writes that."""
    import sqlalchemy as sa

    return str(sa.cast(sa.literal_column("x"), sa.Text()).compile(dialect=dialect)).replace("x", expression, 1)


class _Reader:
    """One source being read."""

    def __init__(self, session: Session, source: TableName | Query, doing: str, wanted: Wanted) -> None:
        self._session, self._doing, self._wanted = session, doing, wanted
        self._dialect = session.connection.dialect
        if isinstance(source, TableName):
            self._text, self._values = session.dialect.table(source), tuple[Any, ...]()
            described = self._reflected(source)
        else:
            self._text, values = sql.derived_table(session.dialect, source)
            self._values = tuple(values)
            described = self._described()
        window = wanted.window
        self._names = list(wanted.columns or described)
        said = wanted.types or {}
        if missing := [name for name in [*self._names, *([window.column] if window else []), *said] if name not in described]:
            raise ReadFailed(f"{doing}: there is no column {missing[0]!r}", hint=f"the columns are {', '.join(described)}")
        columns = {name: described[name] for name in dict.fromkeys([*self._names, *([window.column] if window else [])])}
        self._columns = [Column(item.name, item.expression, said.get(item.name, item.kind)) for item in columns.values()]
        self._kinds = {column.name: column.kind for column in self._columns}
        self._bounds = self._window_bounds(window) if window else None
        self._result: sa.CursorResult[Any] | None = None

    def close(self) -> None:
        """Close the driver's cursor, which a reader that was left early has open."""
        import sqlalchemy as sa

        if self._result is not None:
            with suppress(sa.exc.SQLAlchemyError):  # its connection may be gone
                self._result.close()

    @property
    def schema(self) -> pa.Schema:
        """The columns asked for; known once the stream is open."""
        return pa.schema([pa.field(name, self._kinds[name]) for name in self._names])

    def _reflected(self, table: TableName) -> dict[str, Column]:
        found = reflect(self._session.connection, table)
        if not found:
            raise ReadFailed(f"{self._doing}: there is no table {str(table)!r}", hint="check table and table_schema")
        return {name: self._column(name, reflected_kind(item["type"], self._dialect, name=name)) for name, item in found.items()}

    def _described(self) -> dict[str, Column]:
        """The columns of a query. Raises ValueRefused when two share a name."""
        result = self._session.run(Statement(f"SELECT * FROM {self._text} WHERE 1 = 0", self._values))  # noqa: S608 - the user's own query
        description = list(result.cursor.description or ()) if result.cursor else []
        result.close()
        names = [column[0] for column in description]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueRefused(f"the query returns column {twice[0]!r} more than once", hint="give each column a name of its own with AS")
        if self._dialect.name != "postgresql":
            return {name: Column(name, self._session.dialect.quote(name), None) for name in names}
        return {column[0]: self._column(column[0], described_kind(column, name=column[0])) for column in description}

    def _column(self, name: str, kind: pa.DataType | None) -> Column:
        quoted = self._session.dialect.quote(name)
        said = name in (self._wanted.types or {})
        return Column(name, quoted if kind is not None or said else as_text(quoted, self._dialect), kind or pa.string())

    def _window_bounds(self, window: WindowFilter) -> Bounds:
        kind = self._kinds[window.column]
        if kind is None:
            hint = f"say it: column_types: {{{window.column}: timestamp[UTC]}}"
            raise ValueRefused(f"{self._doing}: the type of column {window.column!r} is not known before its rows", hint=hint)
        return window.bounds(kind)

    def _predicate(self) -> Statement | None:
        if self._bounds is None or self._wanted.window is None:
            return None
        dialect, name, first = self._session.dialect, self._wanted.window.column, len(self._values) + 1
        if self._dialect.name != "sqlite":
            return sql.window_predicate(dialect, name, self._bounds, first=first)
        rough = times.rough_window(dialect, name, self._bounds, first=first)
        return Statement(f"({rough.text}) OR {times.strange(dialect, name)}", rough.values)

    def open(self) -> Iterator[pa.RecordBatch]:
        """Run the statement and look at its first rows; their batches and all that follow."""
        predicate = self._predicate()
        text = sql.select(self._session.dialect, {column.name: column.expression for column in self._columns}, self._text, predicate)
        result = self._result = self._session.run(Statement(text, self._values + (predicate.values if predicate else ())))
        first = result.fetchmany(_FEWEST)
        columns = list(zip(*first, strict=True)) if first else [()] * len(self._columns)
        for column, values in zip(self._columns, columns, strict=True):
            if column.kind is None:
                self._kinds[column.name] = self._shown(column.name, values)
        return self._batches(result, first)

    def _shown(self, name: str, values: Sequence[Any]) -> pa.DataType:
        try:
            return kind_of(values) or pa.string()
        except Misfit as error:
            hint = f"cast it in the query, or say its type: column_types: {{{name}: string}}"
            raise ValueRefused(
                f"{self._doing}: column {name!r} holds {shown(error.value)}, which shows no single type", hint=hint
            ) from error

    def _batches(self, result: sa.CursorResult[Any], first: Sequence[Any]) -> Iterator[pa.RecordBatch]:
        with translated(self._doing, ReadFailed):
            yield from resize(self._fetched(result, first), rows=self._wanted.batch_rows)

    def _fetched(self, result: sa.CursorResult[Any], first: Sequence[Any]) -> Iterator[pa.RecordBatch]:
        found, schema = first, self.schema
        while found:
            columns = zip(self._columns, zip(*found, strict=True), strict=True)
            arrays = {column.name: self._array(values, column.name) for column, values in columns}
            batch = pa.RecordBatch.from_arrays([arrays[name] for name in self._names], schema=schema)
            size = max(_FEWEST, min(_MOST, _FETCH_BYTES * batch.num_rows // max(batch.nbytes, 1)))
            if self._bounds is not None and self._wanted.window is not None:
                batch = batch.filter(times.within(arrays[self._wanted.window.column], self._bounds))
            yield batch
            found = result.fetchmany(size)

    def _array(self, values: Sequence[Any], name: str) -> pa.Array:
        try:
            return array_of(values, self._kinds[name])
        except Misfit as error:
            raise ValueRefused(
                f"{self._doing}: column {name!r} holds {shown(error.value)}, no {error.kind}",
                hint=f"cast it in a query, or say how to read it: column_types: {{{name}: string}}",
            ) from error
