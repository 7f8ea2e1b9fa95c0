"""Reading from SQLite: the statement with columns and window pushed down, and rows as exact Arrow batches.

Here: the stream. Not here: what a declared type means (`_sqlite_types`), text for moments (`_sqlite_times`), opening the file
(`_sqlite_session`).
"""

# ruff: noqa: S608 - identifiers pass Dialect.quote, values are placeholders

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from dataflow_assets.batches import resize
from dataflow_assets.connectors import _sqlite_times as times
from dataflow_assets.connectors._row_values import Misfit, array_of, shown
from dataflow_assets.connectors._sql import Wanted
from dataflow_assets.connectors._sqlite_session import SQLITE, Settings, reading, rows, translated
from dataflow_assets.connectors._sqlite_types import declared_kind, kind_by_values
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage import sql
from dataflow_assets.storage.casts import is_bytes, is_text
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Query, TableName

FETCH_ROWS = 512  # rows of a megabyte stay in bounds, and tuples in the processor's cache
_ARRAY_ROWS, _ARRAY_CHARS = 4_096, 1 << 20  # measured: arrays of 4,096 rows take a third less time to read than arrays of 512
_QUERY = "_dataflow_query"
_COLUMNS = "SELECT name, type FROM pragma_table_xinfo(?1) WHERE hidden <> 1"
_CLASSES = ("integer", "real", "text", "blob")
_ROW_IDS = ("rowid", "_rowid_", "oid")


@dataclass(frozen=True)
class Source:
    """A table or query: the text after FROM with its values, and each column's declared type."""

    text: str
    values: tuple[Any, ...]
    declared: Mapping[str, str]
    table: TableName | None = None


@contextmanager
def stream(settings: Settings, source: TableName | Query, doing: str, wanted: Wanted) -> Iterator[pa.RecordBatchReader]:
    """Stream a table or query from one snapshot."""
    if not settings.path.exists():
        raise ReadFailed(f"{doing}: {settings.path} does not exist", hint="check `database` of the connection", kind="configuration")
    with ExitStack() as stack:
        with translated(doing, ReadFailed):
            connection = stack.enter_context(reading(settings))
            found = _table(connection, source, doing) if isinstance(source, TableName) else _query(connection, source)
            reader = _Reader(connection, found, doing, wanted)
            cursor = reader.open()
        with read_ahead(reader.batches(cursor), cancel=connection.interrupt) as batches:
            yield pa.RecordBatchReader.from_batches(reader.schema, batches)


def _table(connection: sqlite3.Connection, table: TableName, doing: str) -> Source:
    declared = dict(rows(connection, Statement(_COLUMNS, (table.name,))))
    if not declared:
        there = [name for (name,) in rows(connection, Statement("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"))]
        raise ReadFailed(f"{doing}: there is no table {table.name!r}", hint=f"the tables are {', '.join(there) or 'none'}")
    return Source(SQLITE.table(table), (), declared, table)


def _query(connection: sqlite3.Connection, query: Query) -> Source:
    """A view tells the declared types of a query's columns; it may hold no parameters, and they change no type."""
    shape, _ = sql.derived_table(replace(SQLITE, placeholder=lambda _: "NULL"), query)
    connection.execute(f"CREATE TEMP VIEW {SQLITE.quote(_QUERY)} AS SELECT * FROM {shape}")
    declared = dict(rows(connection, Statement(_COLUMNS, (_QUERY,))))
    for name in declared:
        numbered = re.fullmatch(r"(.*):\d+", name, re.DOTALL)  # SQLite's own name for a second column of the same name
        if numbered and numbered[1] in declared:
            raise ValueRefused(
                f"the query returns column {numbered[1]!r} more than once", hint="give each column a name of its own with AS"
            )
    text, values = sql.derived_table(SQLITE, query)
    return Source(text, tuple(values), declared)


def _length(values: Sequence[Any]) -> int:
    """Characters and bytes of a column of text; another value, of which the column's type will complain, counts for nothing."""
    try:
        return sum(map(len, filter(None, values)))
    except TypeError:
        return 0


class _Reader:
    """One source being read."""

    def __init__(self, connection: sqlite3.Connection, source: Source, doing: str, wanted: Wanted) -> None:
        self._connection, self._source, self._doing, self._wanted = connection, source, doing, wanted
        window = wanted.window
        self._names = list(wanted.columns or source.declared)
        needed = [*self._names, *([window.column] if window and window.column not in self._names else []), *(wanted.types or {})]
        if missing := [name for name in needed if name not in source.declared]:
            raise ReadFailed(f"{doing}: there is no column {missing[0]!r}", hint=f"the columns are {', '.join(source.declared)}")
        self._selected = list(dict.fromkeys(needed[: len(needed) - len(wanted.types or {})]))
        self._kinds = self._decide()
        self._bounds: tuple[datetime | date, datetime | date] | None = window.bounds(self._kinds[window.column]) if window else None
        self.schema = pa.schema([pa.field(name, self._kinds[name]) for name in self._names])

    def _decide(self) -> dict[str, pa.DataType]:
        """The type of each column: said, else declared, else that of all its values."""
        kinds = {name: (self._wanted.types or {}).get(name) or declared_kind(self._source.declared[name]) for name in self._selected}
        if unknown := [name for name, kind in kinds.items() if kind is None]:
            kinds |= self._by_values(unknown)
        return kinds

    def _by_values(self, names: Sequence[str]) -> dict[str, pa.DataType]:
        """One pass over the source: the first rows alone would not tell."""
        flags = [f"max(typeof({SQLITE.quote(name)}) = '{storage}')" for name in names for storage in _CLASSES]
        text = f"SELECT {', '.join(flags)} FROM {self._source.text}"
        (found,) = rows(self._connection, Statement(text, self._source.values))
        kinds = {}
        for number, name in enumerate(names):
            classes = {storage for storage, there in zip(_CLASSES, found[number * 4 : number * 4 + 4], strict=True) if there}
            kind = kind_by_values(classes)
            if kind is None:
                raise ValueRefused(
                    f"{self._doing}: column {name!r} has no declared type and holds {' and '.join(sorted(classes))} values",
                    hint=f"CAST it in a query, or say its type: column_types: {{{name}: string}}",
                )
            kinds[name] = kind
        return kinds

    def open(self) -> sqlite3.Cursor:
        """Run the statement."""
        predicate = None
        if self._bounds is not None and self._wanted.window is not None:
            predicate = self._predicate(self._wanted.window.column, self._bounds)
        text = sql.select(SQLITE, {name: SQLITE.quote(name) for name in self._selected}, self._source.text, predicate)
        return self._connection.execute(text, self._source.values + (predicate.values if predicate else ()))

    def _predicate(self, column: str, bounds: tuple[datetime | date, datetime | date]) -> Statement:
        """The window, and what no window could place, so that it is refused instead of missed.

        A table is asked for its lowest and highest value, which an index finds at once and all that is no date lies beside. A
        query has no index: there each value is looked at.
        """
        rough = times.rough_window(SQLITE, column, bounds, first=len(self._source.values) + 1)
        if self._source.table is None:
            return Statement(f"({rough.text}) OR {times.strange(SQLITE, column)}", rough.values)
        quoted = SQLITE.quote(column)
        ends = ", ".join(f"(SELECT {end}({quoted}) FROM {self._source.text})" for end in ("min", "max"))
        for value in rows(self._connection, Statement(f"SELECT {ends}"))[0]:
            self._array([value], column)
        return rough

    def batches(self, cursor: sqlite3.Cursor) -> Iterator[pa.RecordBatch]:
        """The rows, fitted to their types and held to the window."""
        with translated(self._doing, ReadFailed):
            yield from resize(self._fetched(cursor), rows=self._wanted.batch_rows)

    def _fetched(self, cursor: sqlite3.Cursor) -> Iterator[pa.RecordBatch]:
        for columns in self._columns(cursor):
            arrays = {name: self._array(values, name) for name, values in zip(self._selected, columns, strict=True)}
            batch = pa.RecordBatch.from_arrays([arrays[name] for name in self._names], schema=self.schema)
            if self._bounds is not None and self._wanted.window is not None:
                batch = batch.filter(times.within(arrays[self._wanted.window.column], self._bounds))
            yield batch

    def _columns(self, cursor: sqlite3.Cursor) -> Iterator[list[list[Any]]]:
        """The values by column, of many rows at a time, of few where texts or blobs are long."""
        texts = [position for position, name in enumerate(self._selected) if is_text(self._kinds[name]) or is_bytes(self._kinds[name])]
        held: list[list[Any]] = [[] for _ in self._selected]
        size = 0
        while found := cursor.fetchmany(FETCH_ROWS):
            columns = list(zip(*found, strict=True))
            for values, more in zip(held, columns, strict=True):
                values.extend(more)
            size += sum(_length(columns[position]) for position in texts)
            if len(held[0]) >= _ARRAY_ROWS or size >= _ARRAY_CHARS:
                yield held
                held, size = [[] for _ in self._selected], 0
        if held[0]:
            yield held

    def _array(self, values: Sequence[Any], name: str) -> pa.Array:
        try:
            return array_of(values, self._kinds[name])
        except Misfit as error:
            declared = self._source.declared[name] or "without a type"
            said = "as column_types says" if name in (self._wanted.types or {}) else f"though the column is declared {declared}"
            raise ValueRefused(
                f"{self._doing}: column {name!r}{self._place(name, error.value)} holds {shown(error.value)}, no {error.kind}, {said}",
                hint=f"correct the value, CAST it in a query, or say how to read it: column_types: {{{name}: string}}",
            ) from error

    def _place(self, name: str, value: Any) -> str:
        """` in rowid 5`, the first row with this value; nothing for a query, a view or a table without rowids."""
        row_id = next((item for item in _ROW_IDS if item not in {column.lower() for column in self._source.declared}), None)
        if self._source.table is None or row_id is None:
            return ""
        text = f"SELECT {row_id} FROM {self._source.text} WHERE {SQLITE.quote(name)} IS ?1 AND typeof({SQLITE.quote(name)}) = typeof(?1)"
        try:
            found = rows(self._connection, Statement(f"{text} LIMIT 1", (value,)))
        except sqlite3.OperationalError:
            return ""
        return f" in rowid {found[0][0]}" if found else ""
