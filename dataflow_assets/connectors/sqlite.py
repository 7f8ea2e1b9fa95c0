"""SQLite as source and target: `kind: sqlite`.

Here: its options, and the connector. Not here: opening the file (`_sqlite_session`), the read stream (`_sqlite_read`), the publish
transaction (`_sqlite_publish`); these are imported when used, since they load Arrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import AliasChoices, Field, field_validator

from dataflow_assets.connectors._new_file import could_be_made
from dataflow_assets.errors import ConnectionFailed, ReadFailed, WriteFailed
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.spec.models import EndpointOptions, Model, SqlSourceOptions
from dataflow_assets.storage import ledger
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import (
    Claim,
    LedgerEntry,
    Published,
    PublishRequest,
    Query,
    ReadRequest,
    TableName,
    Target,
    Unit,
    WindowFilter,
    WriteMode,
)
from dataflow_assets.windows import parse_duration

if TYPE_CHECKING:
    import pyarrow as pa

    from dataflow_assets.connectors._sqlite_session import Settings


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


class Connector:
    """Reads in one snapshot; publishes in one transaction as the only writer of the file."""

    kind: ClassVar[str] = "sqlite"
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset(WriteMode), dialect="sqlite")
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
        self._options, self._name = connection, context.name
        self._path = (context.project_dir / Path(connection.database).expanduser()).resolve()

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
        """Nothing is kept open."""

    def source_table(self, options: SQLiteSource) -> TableName | None:
        """The table that the options name."""
        return TableName(options.table) if options.table else None

    def target_table(self, options: SQLiteEndpoint) -> TableName:
        """The table that the options name."""
        return TableName(options.table)

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        """Stream a query or table from one snapshot."""
        from dataflow_assets.connectors import _sqlite_read
        from dataflow_assets.storage.type_names import column_types

        options: SQLiteSource = request.options
        table = self.source_table(options)
        wanted = _sqlite_read.Wanted(request.columns, request.window, request.batch_rows, column_types(options.column_types))
        source = table or request.query or Query.of(options.query or "")
        doing = f"reading {table or 'the query'} of connection {self._name!r}"
        with _sqlite_read.stream(self._settings, source, doing, wanted) as reader:
            yield reader

    @contextmanager
    def read_target(self, target: Target, window: WindowFilter | None) -> Iterator[pa.RecordBatchReader]:
        """Stream the target table."""
        from dataflow_assets.connectors import _sqlite_read

        wanted = _sqlite_read.Wanted(window=window)
        with _sqlite_read.stream(self._settings, target.table, f"reading {target.table}", wanted) as reader:
            yield reader

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        """Raise the unit's generation, in a transaction of its own."""
        from dataflow_assets.connectors._sqlite_session import SQLITE, rows, translated, writing

        with translated(f"claiming {unit} in {target.table}", WriteFailed), writing(self._settings) as connection:
            rows(connection, ledger.create_ledger(SQLITE, ledger.ledger_table(target.table)))
            rows(connection, ledger.claim_unit(SQLITE, target, unit, attempt=attempt))
            (row,) = rows(connection, ledger.fetch_unit(SQLITE, target, unit))
            connection.execute("COMMIT")
        return ledger.claimed(ledger.ledger_row(row), unit)

    def publish(self, request: PublishRequest) -> Published:
        """Write the window and its ledger row in one transaction."""
        from dataflow_assets.connectors import _sqlite_publish
        from dataflow_assets.connectors._sqlite_session import translated, writing

        with translated(f"publishing {request.claim.unit} into {request.target.table}", WriteFailed), writing(self._settings) as connection:
            return _sqlite_publish.publish(connection, request)

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        """The published units of a step; none when the table is gone, whatever was published into it."""
        from dataflow_assets.connectors._sqlite_session import SQLITE, reading, rows, translated

        if not self._path.exists():
            return []
        needed = (ledger.ledger_table(target.table).name, target.table.name)
        with translated(f"reading the ledger of {target.table}", ReadFailed), reading(self._settings) as connection:
            there = rows(
                connection, Statement("SELECT DISTINCT lower(name) FROM sqlite_master WHERE lower(name) IN (lower(?1), lower(?2))", needed)
            )
            if len(there) < len(needed):
                return []
            return ledger.published_entries(rows(connection, ledger.fetch_step(SQLITE, target, pipeline=pipeline, step=step)))
