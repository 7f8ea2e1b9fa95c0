"""One window into SQLite, in one transaction of the only writer; a table that it creates is part of it.

Here: what SQLite says of its tables, and the transaction. Not here: the order of the statements (`_row_publish`), opening the file
(`_sqlite_session`).
"""

from __future__ import annotations

import sqlite3
from typing import Any

import pyarrow as pa

from dataflow_assets.connectors import _sqlite_times as times
from dataflow_assets.connectors._row_publish import RowPublication, TargetColumn
from dataflow_assets.connectors._sqlite_session import SQLITE, rows, translated
from dataflow_assets.connectors._sqlite_types import parameters, route, sql_type
from dataflow_assets.errors import WriteFailed
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage import ledger
from dataflow_assets.storage.feed import Route, WindowBounds
from dataflow_assets.storage.registry import Registry
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Published, PublishRequest

_COLUMNS = """SELECT name, type, dflt_value IS NOT NULL, pk, hidden, "notnull" FROM pragma_table_xinfo(?1) WHERE hidden <> 1"""
_INDEXES = """
SELECT i.name, x.name FROM pragma_index_list(?1) AS i, pragma_index_info(i.name) AS x WHERE i."unique" AND NOT i.partial
"""


def publish(connection: sqlite3.Connection, request: PublishRequest, registry: Registry) -> Published:
    """Publish over a connection inside a transaction of the only writer, and commit it."""
    publication = _Publication(connection, request, registry)
    with translated(f"publishing {request.claim.unit} into {request.target.table}", WriteFailed):
        if (done := ledger.settled(publication.ledger_row(), request)) is not None:
            return done
        failpoint("publish.begin")
        if not publication.columns():
            publication.create()
        publication.agree()
        result = publication.write()
        publication.record()
        failpoint("publish.before_commit")
        connection.execute("COMMIT")
    failpoint("publish.after_commit")
    return result


class _Publication(RowPublication):
    """SQLite's side of a publish."""

    def __init__(self, connection: sqlite3.Connection, request: PublishRequest, registry: Registry) -> None:
        super().__init__(SQLITE, request, registry)
        self._connection = connection
        self.parameters = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)

    def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        return rows(self._connection, statement)

    def affected(self, statement: Statement) -> int:
        return self._connection.execute(statement.text, statement.values).rowcount

    def columns(self) -> dict[str, TargetColumn]:
        found = self.fetch(Statement(_COLUMNS, (self.table.name,)))
        keys = [kind for _, kind, _, key, *_ in found if key]
        numbered = keys if len(keys) == 1 and keys[0].upper() == "INTEGER" else []  # another name of the rowid, which SQLite gives
        return {
            name: TargetColumn(
                name, kind, required=not (default or hidden or (key and numbered)), writable=not hidden, nullable=not filled, shown=kind
            )
            for name, kind, default, key, hidden, filled in found
        }

    def sql_type(self, kind: pa.DataType, *, name: str) -> str:
        return sql_type(kind, name=name)

    def route(self, kind: pa.DataType, column: TargetColumn) -> Route:
        return route(column.name, kind, column.declared)

    def values(self, fitted: pa.Array, column: TargetColumn) -> list[Any]:
        return parameters(fitted, column.declared, name=column.name)

    def unique_keys(self) -> list[set[str]]:
        found: dict[str, set[str]] = {}
        for index, column in self.fetch(Statement(_INDEXES, (self.table.name,))):
            found.setdefault(index, set()).add(column)
        primary = {name for name, _, _, key, *_ in self.fetch(Statement(_COLUMNS, (self.table.name,))) if key}
        return [*found.values(), primary]

    def window(self, bounds: WindowBounds) -> Statement:
        return times.target_window(self.fetch, SQLITE, self.table, bounds.column, (bounds.start.as_py(), bounds.end.as_py()))
