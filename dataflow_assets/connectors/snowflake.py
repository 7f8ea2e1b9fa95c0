"""Snowflake as source and target: `kind: snowflake`.

Here: the options of its steps, and the connector. Not here: the keys of a connection (`_snowflake_login`), sessions
(`_snowflake_session`), the read stream (`_snowflake_read`), the publish (`_snowflake_publish`); the last two are imported when used,
since they load Arrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dataflow_assets.connectors._snowflake_login import SnowflakeConnection, login, register_secrets
from dataflow_assets.connectors._snowflake_session import ERROR_CODES, RECORDS, SNOWFLAKE, Session, Sessions, translated
from dataflow_assets.connectors._sql import ComparingConnector, Wanted
from dataflow_assets.error_kinds import Codes
from dataflow_assets.errors import ConnectionFailed, ReadFailed, WriteFailed
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.spec.models import EndpointOptions, SqlSourceOptions
from dataflow_assets.storage import ledger, registry
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import (
    Claim,
    LedgerEntry,
    Published,
    PublishRequest,
    Query,
    SchemaVersion,
    TableName,
    Target,
    Unit,
    WriteMode,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from dataflow_assets.storage.digests import SqlRows
    from dataflow_assets.storage.records import RecordForms


class SnowflakeSource(SqlSourceOptions):
    """A query, or a table with its schema."""

    table: str | None = Field(None, description="a table, in place of a query; its case counts")
    table_schema: str | None = Field(None, description="the table's schema, its case counts; default: that of the connection")


class SnowflakeEndpoint(EndpointOptions):
    """A table with its schema, which is made when it is missing."""

    table: str = Field(description="the table; its case counts")
    table_schema: str | None = Field(None, description="its schema, made when it is missing; default: that of the connection")


class Connector(ComparingConnector):
    """Reads with one statement; publishes files through a temporary table, in one transaction with the ledger."""

    kind: ClassVar[str] = "snowflake"
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset(WriteMode), dialect="snowflake")
    error_codes: ClassVar[Codes] = ERROR_CODES
    Connection: ClassVar[type[SnowflakeConnection]] = SnowflakeConnection
    Source: ClassVar[type[SnowflakeSource]] = SnowflakeSource
    Endpoint: ClassVar[type[SnowflakeEndpoint]] = SnowflakeEndpoint
    example: ClassVar[str] = """\
pipeline_name: orders_to_snowflake
windows: {every: day, begin: 2024-01-01}
event_time_column: ordered_at
steps:
  - id: orders
    type: source
    source_type: postgres
    connection: shop
    config:
      query: SELECT id, ordered_at, amount FROM orders
  - id: raw_orders
    type: endpoint
    endpoint_type: snowflake
    connection: warehouse
    depends_on: [orders]
    config:
      table: ORDERS
      table_schema: RAW
"""

    def __init__(self, connection: SnowflakeConnection, context: ConnectionContext) -> None:
        self._name, self._registry = context.name, registry.Registry()
        register_secrets(connection)
        self._sessions = Sessions(lambda: login(connection, context), context.name)

    def probe(self) -> str:
        """Log in."""
        with self._sessions.use() as session, translated(f"connection {self._name!r}", ConnectionFailed):
            ((version,),) = session.fetch(Statement("SELECT CURRENT_VERSION()"))
        return f"Snowflake {version}"

    def close(self) -> None:
        """End the idle sessions."""
        self._sessions.close()

    @contextmanager
    def _stream(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> Iterator[pa.RecordBatchReader]:
        from dataflow_assets.connectors import _snowflake_read

        with _snowflake_read.stream(self._sessions, source, doing, wanted) as reader:
            yield reader

    @contextmanager
    def _compare(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> Iterator[SqlRows]:
        from dataflow_assets.connectors import _snowflake_compare

        with _snowflake_compare.compare(self._sessions, source, doing, wanted) as rows:
            yield rows

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        """Raise the unit's generation, in a transaction of its own."""
        doing = f"claiming {unit} in {target.table}"
        with self._sessions.use() as session, translated(doing, WriteFailed):
            self._require_ledger(session, target)
            session.begin()
            session.affected(ledger.merge_claim(SNOWFLAKE, target, unit, attempt=attempt))
            rows = session.fetch(ledger.fetch_unit(SNOWFLAKE, target, unit))
            if len(rows) != 1:  # primary keys are not enforced
                table = SNOWFLAKE.table(ledger.ledger_table(target.table))
                raise WriteFailed(f"{doing}: the ledger has {len(rows)} rows of it", hint=f"leave one of them in {table}")
            session.commit()
        return ledger.claimed(ledger.ledger_row(rows[0]), unit)

    def _require_ledger(self, session: Session, target: Target) -> None:
        """Create schema, ledger and registry where they are missing."""
        table, schemas = ledger.ledger_table(target.table), registry.registry_table(target.table)
        if not session.columns(table):
            if table.schema is not None:
                with self._sessions.once() as other:
                    other.fetch(Statement(f"CREATE SCHEMA IF NOT EXISTS {SNOWFLAKE.quote(table.schema)}"))
            session.fetch(ledger.create_ledger(SNOWFLAKE, table))
        if schemas not in self._registry.made:
            if not session.columns(schemas):
                session.fetch(registry.create_registry(SNOWFLAKE, schemas))
            self._registry.made.add(schemas)

    def publish(self, request: PublishRequest) -> Published:
        """Write the window and its ledger row in one transaction."""
        from dataflow_assets.connectors import _snowflake_publish

        return _snowflake_publish.publish(self._sessions, request, self._registry)

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        """The published units of a step; none when the table is gone, whatever was published into it."""
        with self._sessions.use() as session, translated(f"reading the ledger of {target.table}", ReadFailed):
            if not (session.columns(ledger.ledger_table(target.table)) and session.columns(target.table)):
                return []
            return ledger.published_entries(session.fetch(ledger.fetch_step(SNOWFLAKE, target, pipeline=pipeline, step=step)))

    def schemas(self, target: Target) -> list[SchemaVersion]:
        """The versions of the target's columns."""
        with self._sessions.use() as session, translated(f"reading the schemas of {target.table}", ReadFailed):
            if not session.columns(registry.registry_table(target.table)):
                return []
            return [registry.schema_version(row) for row in session.fetch(registry.fetch_versions(SNOWFLAKE, target.table))]

    def record_forms(self) -> RecordForms:
        """How records are written."""
        return RECORDS

    def read_records(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self._sessions.use() as session, translated(f"reading records of connection {self._name!r}", ReadFailed):
            found = session.fetch(statement)
            session.rollback()  # else the transaction stays open
            return found

    def write_records(self, statements: Sequence[Statement]) -> None:
        """Run the statements in one transaction."""
        with self._sessions.use() as session, translated(f"writing records of connection {self._name!r}", WriteFailed):
            for statement in statements:
                session.affected(statement)
            session.commit()
