"""Any database that SQLAlchemy has a dialect for, as source and target: `kind: sqlalchemy`.

Here: its options, and the connector. Not here: the engine (`_sqlalchemy_session`), the read stream (`_sqlalchemy_read`), the publish
transaction (`_sqlalchemy_publish`); these are imported when used, since they load Arrow and SQLAlchemy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, SecretStr, field_validator

from dataflow_assets.connectors._sql import SqlConnector, Wanted
from dataflow_assets.connectors._sqlalchemy_session import ERROR_CODES, Session, Sessions, is_deadlock, no_upsert, records, translated
from dataflow_assets.error_kinds import Codes
from dataflow_assets.errors import ReadFailed, WriteFailed
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.secrets import register_secret
from dataflow_assets.spec.base import Model
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
from dataflow_assets.windows import parse_duration

if TYPE_CHECKING:
    import pyarrow as pa

    from dataflow_assets.storage.records import RecordForms

_URL = re.compile(r"^[A-Za-z][\w.-]*(\+[\w.-]+)?://")
_CLAIM_TRIES = 5


class SQLAlchemyConnection(Model):
    """The keys of a connection through SQLAlchemy."""

    url: SecretStr = Field(description="dialect+driver://user:password@host:port/database, as SQLAlchemy writes it")
    lock_timeout: str = Field("2min", description="how long a publish waits for another one, with SQLite, Postgres and MySQL")

    @field_validator("url")
    @classmethod
    def _url_has_a_dialect(cls, value: SecretStr) -> SecretStr:
        if not _URL.match(value.get_secret_value()):
            raise ValueError("a url begins with its dialect, such as postgresql+psycopg://")
        return value

    @field_validator("lock_timeout")
    @classmethod
    def _lock_timeout_is_a_duration(cls, value: str) -> str:
        parse_duration(value)
        return value


class SQLAlchemySource(SqlSourceOptions):
    """A query, or a table with its schema."""

    table_schema: str | None = Field(None, description="the table's schema; default: that of the connection")
    column_types: dict[str, str] = Field(
        default_factory=dict, description="column -> int64, decimal(12,2), timestamp[UTC], ..., where the database does not tell"
    )


class SQLAlchemyEndpoint(EndpointOptions):
    """A table with its schema; a missing table is made, a missing schema is not."""

    table: str = Field(description="the table")
    table_schema: str | None = Field(None, description="its schema, which must be there; default: that of the connection")


class Connector(SqlConnector):
    """Reads with one streamed statement; publishes in one transaction with the ledger."""

    kind: ClassVar[str] = "sqlalchemy"
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset(WriteMode), dialect="", exact_types=False)
    error_codes: ClassVar[Codes] = ERROR_CODES
    Connection: ClassVar[type[SQLAlchemyConnection]] = SQLAlchemyConnection
    Source: ClassVar[type[SQLAlchemySource]] = SQLAlchemySource
    Endpoint: ClassVar[type[SQLAlchemyEndpoint]] = SQLAlchemyEndpoint
    example: ClassVar[str] = """\
pipeline_name: stock_levels
steps:
  - id: stock
    type: source
    source_type: sqlalchemy
    connection: erp
    config:
      query: SELECT article, location, quantity FROM stock WHERE quantity > 0
  - id: stock_table
    type: endpoint
    endpoint_type: sqlalchemy
    connection: planning
    depends_on: [stock]
    config:
      table: stock_levels
      mode: upsert
      upsert_keys: [article, location]
"""

    def __init__(self, connection: SQLAlchemyConnection, context: ConnectionContext) -> None:
        self._name, self._registry = context.name, registry.Registry()
        register_secret(connection.url.get_secret_value())
        seconds = parse_duration(connection.lock_timeout).total_seconds()
        self._sessions = Sessions(context.name, connection.url.get_secret_value(), context.project_dir, seconds)

    def probe(self) -> str:
        """Reach the database."""
        with self._sessions.reading() as session:
            dialect = session.connection.dialect
            version = ".".join(map(str, getattr(dialect, "server_version_info", None) or ()))
            return f"{dialect.name} {version} through {dialect.driver}".replace("  ", " ")

    def close(self) -> None:
        """Close the idle connections."""
        self._sessions.close()

    @contextmanager
    def _stream(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> Iterator[pa.RecordBatchReader]:
        from dataflow_assets.connectors import _sqlalchemy_read
        from dataflow_assets.storage.type_names import column_types

        if options is not None:
            wanted = replace(wanted, types=column_types(options.column_types))
        with _sqlalchemy_read.stream(self._sessions, source, doing, wanted) as reader:
            yield reader

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        """Raise the unit's generation, in a transaction of its own. Raises WriteFailed for a mode that the dialect cannot."""
        from dataflow_assets.connectors._sqlalchemy_publish import require_mode

        with translated(f"claiming {unit} in {target.table}", WriteFailed):
            require_mode(target, self._sessions.dialect)
            self._require_ledger(target)
            for _ in range(_CLAIM_TRIES):
                with self._sessions.writing() as session:
                    if (row := self._claimed(session, target, unit, attempt)) is not None:
                        return ledger.claimed(ledger.ledger_row(row), unit)
        raise WriteFailed(f"claiming {unit} in {target.table}: others claim it at the same time", transient=True)

    def _claimed(self, session: Session, target: Target, unit: Unit, attempt: str) -> tuple[Any, ...] | None:
        """The ledger row after the claim; None when somebody else claimed it at the same moment."""
        import sqlalchemy as sa

        dialect = session.dialect
        try:
            there = dialect.conflict is no_upsert and session.affected(ledger.reclaim_unit(dialect, target, unit, attempt=attempt))
            if not there:
                session.affected(ledger.claim_unit(dialect, target, unit, attempt=attempt))
        except sa.exc.DBAPIError as error:
            if isinstance(error, sa.exc.IntegrityError) or is_deadlock(error):
                return None
            raise
        (row,) = session.fetch(ledger.fetch_unit(dialect, target, unit))
        session.commit()
        return row

    def _require_ledger(self, target: Target) -> None:
        """Create ledger and registry where they are missing."""
        table, schemas = ledger.ledger_table(target.table), registry.registry_table(target.table)
        with self._sessions.writing() as session:
            self._make(session, table, ledger.create_ledger(session.dialect, table))
            if schemas not in self._registry.made:
                self._make(session, schemas, registry.create_registry(session.dialect, schemas))
                self._registry.made.add(schemas)

    @staticmethod
    def _make(session: Session, table: TableName, statement: Statement) -> None:
        """Create a table unless it is there; somebody else may be quicker."""
        import sqlalchemy as sa

        if _exists(session, table):
            return
        try:
            session.affected(statement)
            session.commit()
        except sa.exc.DBAPIError:
            session.rollback()
            if not _exists(session, table):
                raise

    def publish(self, request: PublishRequest) -> Published:
        """Write the window and its ledger row in one transaction."""
        from dataflow_assets.connectors import _sqlalchemy_publish

        return _sqlalchemy_publish.publish(self._sessions, request, self._registry)

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        """The published units of a step; none when the table is gone, whatever was published into it."""

        with translated(f"reading the ledger of {target.table}", ReadFailed), self._sessions.reading() as session:
            if not (_exists(session, ledger.ledger_table(target.table)) and _exists(session, target.table)):
                return []
            return ledger.published_entries(session.fetch(ledger.fetch_step(session.dialect, target, pipeline=pipeline, step=step)))

    def schemas(self, target: Target) -> list[SchemaVersion]:
        """The versions of the target's columns."""
        with translated(f"reading the schemas of {target.table}", ReadFailed), self._sessions.reading() as session:
            if not _exists(session, registry.registry_table(target.table)):
                return []
            return [registry.schema_version(row) for row in session.fetch(registry.fetch_versions(session.dialect, target.table))]

    def record_forms(self) -> RecordForms:
        """How records are written."""
        return records(self._sessions.dialect)

    def read_records(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with translated(f"reading records of connection {self._name!r}", ReadFailed), self._sessions.reading() as session:
            return session.fetch(statement)

    def write_records(self, statements: Sequence[Statement]) -> None:
        """Run the statements in one transaction."""
        with translated(f"writing records of connection {self._name!r}", WriteFailed), self._sessions.writing() as session:
            for statement in statements:
                session.affected(statement)
            session.commit()


def _exists(session: Session, table: TableName) -> bool:
    import sqlalchemy as sa

    return bool(sa.inspect(session.connection).has_table(table.name, schema=table.schema))
