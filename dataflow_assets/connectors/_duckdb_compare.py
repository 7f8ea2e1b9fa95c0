"""Comparing rows inside a DuckDB file, over one snapshot.

Here: opening a table or query to be compared. Not here: DuckDB's words for the canonical form (`storage.local_digests`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dataflow_assets.connectors import _duckdb_read
from dataflow_assets.connectors._duckdb_session import DUCKDB, Database, Settings, rows, translated
from dataflow_assets.connectors._sql import Wanted
from dataflow_assets.errors import ReadFailed
from dataflow_assets.storage.digests import SqlRows
from dataflow_assets.storage.local_digests import DUCKDB_DIGESTS
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Query, TableName

_PRIMARY_KEY = """
SELECT unnest(constraint_column_names) FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'
AND database_name = current_database() AND schema_name = $1 AND table_name = $2
"""


@contextmanager
def compare(database: Database, settings: Settings, source: TableName | Query, doing: str, wanted: Wanted) -> Iterator[SqlRows]:
    """Open a table or query; every answer comes from one snapshot."""
    if not database.path.exists():
        raise ReadFailed(f"{doing}: {database.path} does not exist", hint="check `database` of the connection", kind="configuration")
    with database.reading(settings) as connection:

        def ask(statement: Statement) -> Sequence[Sequence[Any]]:
            with translated(doing, ReadFailed):
                return rows(connection, statement)

        with translated(doing, ReadFailed):
            connection.begin()
            select = _duckdb_read.select(connection, source, doing, wanted)
            nothing = connection.sql(f"SELECT * FROM ({select.text}) LIMIT 0", params=list(select.values) or None)  # noqa: S608
            schema = _duckdb_read.plain_schema(nothing.to_arrow_reader(1).schema)

        def primary_key() -> list[str]:
            if not isinstance(source, TableName):
                return []
            return [name for (name,) in ask(Statement(_PRIMARY_KEY, (source.schema or "main", source.name)))]

        yield SqlRows(DUCKDB_DIGESTS, DUCKDB.quote, schema, select, ask, primary_key)
        connection.rollback()
