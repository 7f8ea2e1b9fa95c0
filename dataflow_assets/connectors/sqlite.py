"""SQLite as source and target: `kind: sqlite`.

Here: its options, and the connector. Not here: opening the file (`_sqlite_session`), the read stream (`_sqlite_read`), the publish
transaction (`_sqlite_publish`); these are imported when used, since they load Arrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import AliasChoices, Field, field_validator

from dataflow_assets.connectors._new_file import could_be_made
from dataflow_assets.connectors._sql import SqlConnector, Wanted
from dataflow_assets.connectors._sqlite_codes import ERROR_CODES
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
    import sqlite3

    import pyarrow as pa

    from dataflow_assets.connectors._sqlite_session import Records, Settings
    from dataflow_assets.storage.records import RecordForms


class SQLiteConnection(Model):
    """The keys of a SQLite connection."""

    database: str = Field(validation_alias=AliasChoices("database", "path"), description="a file; a relative path starts at the project")
    lock_timeout: str = Field("2min", description="how long to wait for another process that writes")
    wal: bool = Field(True, description="switch the file to write-ahead logging when it is written, so that nobody waits for a reader")

    @field_validator("database")
    @classmethod
    def _database_is_a_file(cls, value: str) -> str:
        if not value or value.startswith((":memory:", "file:")):
            raise ValueError("name a file: a database in memory ends with its connection, and a URI is not taken")
        return value

    @field_validator("lock_timeout")
    @classmethod
    def _lock_timeout_is_a_duration(cls, value: str) -> str:
        parse_duration(value)
        return value


class SQLiteSource(SqlSourceOptions):
    """A query, or a table."""

    column_types: dict[str, str] = Field(
        default_factory=dict, description="column -> int64, decimal(12,2), timestamp[UTC], ..., against the declared type"
    )


class SQLiteEndpoint(EndpointOptions):
    """A table, which is made when it is missing."""

    table: str = Field(description="the table")


class Connector(SqlConnector):
    """Reads in one snapshot; publishes in one transaction as the only writer of the file."""

    kind: ClassVar[str] = "sqlite"
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset(WriteMode), dialect="sqlite")
    error_codes: ClassVar[Codes] = ERROR_CODES
    Connection: ClassVar[type[SQLiteConnection]] = SQLiteConnection
    Source: ClassVar[type[SQLiteSource]] = SQLiteSource
    Endpoint: ClassVar[type[SQLiteEndpoint]] = SQLiteEndpoint
    example: ClassVar[str] = """\
pipeline_name: paid_orders
windows: {every: day, begin: 2024-01-01}
event_time_column: ordered_at
steps:
  - id: orders
    type: source
    source_type: sqlite
    connection: till
    config:
      query: SELECT id, ordered_at, amount FROM orders WHERE paid
      column_types: {amount: "decimal(12,2)"}
  - id: orders_table
    type: endpoint
    endpoint_type: sqlite
    connection: reports
    depends_on: [orders]
    config:
      table: paid_orders
"""

    def __init__(self, connection: SQLiteConnection, context: ConnectionContext) -> None:
        self._options, self._name, self._registry = connection, context.name, registry.Registry()
        self._path = (context.project_dir / Path(connection.database).expanduser()).resolve()
        self._records: Records | None = None

    @property
    def _settings(self) -> Settings:
        from dataflow_assets.connectors._sqlite_session import Settings

        seconds = parse_duration(self._options.lock_timeout).total_seconds()
        return Settings(self._name, self._path, seconds, self._options.wal)

    def probe(self) -> str:
        """Open the file, as a reader; a missing one is not made."""
        from dataflow_assets.connectors._sqlite_session import reading, rows, translated

        if not self._path.exists():
            return f"SQLite, {could_be_made(self._path, name=self._name)}"
        with translated(f"connection {self._name!r}: opening {self._path}", ConnectionFailed), reading(self._settings) as connection:
            ((version,),) = rows(connection, Statement("SELECT sqlite_version()"))
            rows(connection, Statement("SELECT count(*) FROM sqlite_master"))
        return f"SQLite {version}"

    def close(self) -> None:
        """Close what records are kept through; nothing else stays open."""
        if self._records is not None:
            self._records.close()

    def horizon(self) -> Horizon:
        """Now, while nobody writes: SQLite has one writer at a time, and does not say since when."""
        from dataflow_assets.connectors._sqlite_session import is_written, translated

        now = utc_now()
        with translated(f"connection {self._name!r}: looking for an open transaction", ReadFailed):
            held = is_written(self._settings)
        return Horizon(now, held="a transaction writes into it, and nobody knows since when" if held else "")

    def _table(self, options: Any) -> TableName:
        return TableName(options.table)

    @contextmanager
    def _stream(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> Iterator[pa.RecordBatchReader]:
        from dataflow_assets.connectors import _sqlite_read
        from dataflow_assets.storage.type_names import column_types

        if options is not None:
            wanted = replace(wanted, types=column_types(options.column_types))
        with _sqlite_read.stream(self._settings, source, doing, wanted) as reader:
            yield reader

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        """Raise the unit's generation, in a transaction of its own."""
        from dataflow_assets.connectors._sqlite_session import SQLITE, rows, translated, writing

        with translated(f"claiming {unit} in {target.table}", WriteFailed), writing(self._settings) as connection:
            rows(connection, ledger.create_ledger(SQLITE, ledger.ledger_table(target.table)))
            rows(connection, registry.create_registry(SQLITE, registry.registry_table(target.table)))
            rows(connection, ledger.claim_unit(SQLITE, target, unit, attempt=attempt))
            (row,) = rows(connection, ledger.fetch_unit(SQLITE, target, unit))
            connection.execute("COMMIT")
        return ledger.claimed(ledger.ledger_row(row), unit)

    def publish(self, request: PublishRequest) -> Published:
        """Write the window and its ledger row in one transaction."""
        from dataflow_assets.connectors import _sqlite_publish
        from dataflow_assets.connectors._sqlite_session import translated, writing

        with translated(f"publishing {request.claim.unit} into {request.target.table}", WriteFailed), writing(self._settings) as connection:
            return _sqlite_publish.publish(connection, request, self._registry)

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        """The published units of a step; none when the table is gone, whatever was published into it."""
        from dataflow_assets.connectors._sqlite_session import SQLITE, rows

        with self._asking(f"reading the ledger of {target.table}", ledger.ledger_table(target.table), target.table) as connection:
            if connection is None:
                return []
            return ledger.published_entries(rows(connection, ledger.fetch_step(SQLITE, target, pipeline=pipeline, step=step)))

    def schemas(self, target: Target) -> list[SchemaVersion]:
        """The versions of the target's columns."""
        from dataflow_assets.connectors._sqlite_session import SQLITE, rows

        with self._asking(f"reading the schemas of {target.table}", registry.registry_table(target.table)) as connection:
            found = [] if connection is None else rows(connection, registry.fetch_versions(SQLITE, target.table))
        return [registry.schema_version(row) for row in found]

    def record_forms(self) -> RecordForms:
        """How records are written."""
        from dataflow_assets.connectors._sqlite_session import RECORDS

        return RECORDS

    def read_records(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self._keeping.read(statement)

    def write_records(self, statements: Sequence[Statement]) -> None:
        """Run the statements in one transaction."""
        self._keeping.write(statements)

    @property
    def _keeping(self) -> Records:
        from dataflow_assets.connectors._sqlite_session import Records

        if self._records is None:
            self._records = Records(self._settings)
        return self._records

    @contextmanager
    def _asking(self, doing: str, *tables: TableName) -> Iterator[sqlite3.Connection | None]:
        """A connection to read with; None unless all of the tables are there."""
        from dataflow_assets.connectors._sqlite_session import SQLITE, reading, rows, translated

        if not self._path.exists():
            yield None
            return
        marks = ", ".join(f"lower({SQLITE.placeholder(position)})" for position in range(1, len(tables) + 1))
        wanted = Statement(
            f"SELECT DISTINCT lower(name) FROM sqlite_master WHERE lower(name) IN ({marks})",  # noqa: S608 - placeholders
            tuple(table.name for table in tables),
        )
        with translated(doing, ReadFailed), reading(self._settings) as connection:
            yield connection if len(rows(connection, wanted)) == len(tables) else None
