"""DuckDB as source and target: `kind: duckdb`.

Here: its options, and the connector. Not here: opening the file (`_duckdb_session`), the read stream
(`_duckdb_read`), the publish transaction (`_duckdb_publish`); both are imported when used, since they load Arrow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import AliasChoices, Field, field_validator

from dataflow_assets.connectors._duckdb_session import DUCKDB, ERROR_CODES, RECORDS, Settings, database, rows, translated
from dataflow_assets.connectors._new_file import could_be_made
from dataflow_assets.connectors._sql import ComparingConnector, Wanted
from dataflow_assets.error_kinds import Codes
from dataflow_assets.errors import ConnectionFailed, ReadFailed, WriteFailed
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.spec.base import Model
from dataflow_assets.spec.models import EndpointOptions, SqlSourceOptions
from dataflow_assets.storage import ledger, registry
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import (
    Claim,
    Horizon,
    LedgerEntry,
    Published,
    PublishRequest,
    Query,
    SchemaVersion,
    TableName,
    Target,
    Unit,
    WriteMode,
    utc_now,
)
from dataflow_assets.windows import parse_duration

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from dataflow_assets.storage.digests import SqlRows
    from dataflow_assets.storage.records import RecordForms


class DuckDBConnection(Model):
    """The keys of a DuckDB connection."""

    database: str = Field(validation_alias=AliasChoices("database", "path"), description="a file; a relative path starts at the project")
    memory_limit: str = Field("64MB", description="what DuckDB may keep in memory; the rest goes to temporary files beside the database")
    threads: int = Field(
        default_factory=lambda: min(os.cpu_count() or 1, 4),
        ge=1,
        description="threads of DuckDB; default: the machine's processors, at most 4",
    )
    lock_timeout: str = Field("30s", description="how long to wait for another process that has the file open")

    @field_validator("database")
    @classmethod
    def _database_is_a_file(cls, value: str) -> str:
        if not value or value.startswith(":memory:"):
            raise ValueError("a database in memory ends with its connection: name a file")
        return value

    @field_validator("lock_timeout")
    @classmethod
    def _lock_timeout_is_a_duration(cls, value: str) -> str:
        parse_duration(value)
        return value


class DuckDBSource(SqlSourceOptions):
    """A query, or a table with its schema."""

    table_schema: str = Field("main", description="the table's schema")


class DuckDBEndpoint(EndpointOptions):
    """A table with its schema, which is made when it is missing."""

    table: str = Field(description="the table")
    table_schema: str = Field("main", description="its schema, made when it is missing")


_RELATIONS = """
SELECT schema_name, table_name FROM duckdb_tables() WHERE schema_name = $1 AND database_name = current_database()
UNION ALL
SELECT schema_name, view_name FROM duckdb_views() WHERE schema_name = $1 AND database_name = current_database()
"""


class Connector(ComparingConnector):
    """Reads in one snapshot; publishes as the only writer of the file."""

    kind: ClassVar[str] = "duckdb"
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset(WriteMode), dialect="duckdb")
    error_codes: ClassVar[Codes] = ERROR_CODES
    Connection: ClassVar[type[DuckDBConnection]] = DuckDBConnection
    Source: ClassVar[type[DuckDBSource]] = DuckDBSource
    Endpoint: ClassVar[type[DuckDBEndpoint]] = DuckDBEndpoint
    example: ClassVar[str] = """\
pipeline_name: daily_totals
steps:
  - id: totals
    type: source
    source_type: duckdb
    connection: warehouse
    config:
      query: SELECT origin, count(*) AS flights FROM flights GROUP BY origin
  - id: totals_table
    type: endpoint
    endpoint_type: duckdb
    connection: warehouse
    depends_on: [totals]
    config:
      table: totals
      mode: replace
"""

    def __init__(self, connection: DuckDBConnection, context: ConnectionContext) -> None:
        self._name = context.name
        seconds = parse_duration(connection.lock_timeout).total_seconds()
        self._settings = Settings(context.name, connection.memory_limit, connection.threads, seconds)
        self._registry = registry.Registry()
        self._database = database((context.project_dir / Path(connection.database).expanduser()).resolve())

    def probe(self) -> str:
        """Open the file; a missing one is not made."""
        if not self._database.path.exists():
            return f"DuckDB, {could_be_made(self._database.path, name=self._settings.name)}"
        with self._writing("opening the database") as connection:
            ((version,),) = rows(connection, Statement("SELECT version()"))
        return f"DuckDB {version}"

    def close(self) -> None:
        """Let go of the file at once."""
        self._database.close()

    def horizon(self) -> Horizon:
        """Now: while a file can be opened to be read, no other process writes into it."""
        with self._database.reading(self._settings):
            return Horizon(utc_now(), held="another thread of this process writes into it" if self._database.is_written else "")

    @contextmanager
    def _writing(self, doing: str) -> Iterator[duckdb.DuckDBPyConnection]:
        with (
            translated(f"connection {self._settings.name!r}: {doing}", ConnectionFailed),
            self._database.writing(self._settings) as connection,
        ):
            yield connection

    @contextmanager
    def _stream(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> Iterator[pa.RecordBatchReader]:
        from dataflow_assets.connectors import _duckdb_read

        with _duckdb_read.stream(self._database, self._settings, source, doing, wanted) as reader:
            yield reader

    @contextmanager
    def _compare(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> Iterator[SqlRows]:
        from dataflow_assets.connectors import _duckdb_compare

        with _duckdb_compare.compare(self._database, self._settings, source, doing, wanted) as rows:
            yield rows

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        """Raise the unit's generation, in a transaction of its own."""
        with self._database.writing(self._settings) as connection, translated(f"claiming {unit} in {target.table}", WriteFailed):
            rows(connection, Statement(f"CREATE SCHEMA IF NOT EXISTS {DUCKDB.quote(target.table.schema or 'main')}"))
            rows(connection, ledger.create_ledger(DUCKDB, ledger.ledger_table(target.table)))
            rows(connection, registry.create_registry(DUCKDB, registry.registry_table(target.table)))
            rows(connection, ledger.claim_unit(DUCKDB, target, unit, attempt=attempt))
            (row,) = rows(connection, ledger.fetch_unit(DUCKDB, target, unit))
        return ledger.claimed(ledger.ledger_row(row), unit)

    def publish(self, request: PublishRequest) -> Published:
        """Write the window and its ledger row in one transaction."""
        from dataflow_assets.connectors import _duckdb_publish

        with self._database.writing(self._settings) as connection:
            return _duckdb_publish.publish(connection, request, self._registry)

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        """The published units of a step; none when the table is gone, whatever was published into it."""
        table = ledger.ledger_table(target.table)
        with self._asking(f"reading the ledger of {target.table}", table, target.table) as connection:
            if connection is None:
                return []
            return ledger.published_entries(rows(connection, ledger.fetch_step(DUCKDB, target, pipeline=pipeline, step=step)))

    def schemas(self, target: Target) -> list[SchemaVersion]:
        """The versions of the target's columns."""
        with self._asking(f"reading the schemas of {target.table}", registry.registry_table(target.table)) as connection:
            found = [] if connection is None else rows(connection, registry.fetch_versions(DUCKDB, target.table))
        return [registry.schema_version(row) for row in found]

    def record_forms(self) -> RecordForms:
        """How records are written."""
        return RECORDS

    def read_records(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        doing = f"reading records of connection {self._settings.name!r}"
        if not self._database.path.exists():
            raise ReadFailed(f"{doing}: {self._database.path} does not exist")
        with self._database.reading(self._settings) as connection, translated(doing, ReadFailed):
            return rows(connection, statement)

    def write_records(self, statements: Sequence[Statement]) -> None:
        """Run the statements in one transaction."""
        doing = f"writing records of connection {self._settings.name!r}"
        with self._database.writing(self._settings) as connection, translated(doing, WriteFailed):
            connection.begin()  # closing the connection undoes what was not committed
            for statement in statements:
                rows(connection, statement)
            connection.commit()

    @contextmanager
    def _asking(self, doing: str, *tables: TableName) -> Iterator[duckdb.DuckDBPyConnection | None]:
        """A connection to read with; None unless all of the tables, which share a schema, are there."""
        if not self._database.path.exists():
            yield None
            return
        with self._database.reading(self._settings) as connection, translated(doing, ReadFailed):
            there = {(schema, name) for schema, name in rows(connection, Statement(_RELATIONS, (tables[0].schema,)))}
            yield connection if {(table.schema, table.name) for table in tables} <= there else None
