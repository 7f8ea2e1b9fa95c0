"""Postgres as source and target: `kind: postgres`.

Here: its options, and the connector that reads snapshots and publishes windows. Not here: connections (`_postgres_session`), the
read stream (`_postgres_read`), the publish transaction (`_postgres_publish`); both are imported when used, since they load Arrow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from dataflow_assets.connectors._postgres_session import (
    ERROR_CODES,
    POSTGRES,
    RECORDS,
    CommitUnknown,
    Sessions,
    fetch,
    lock_key,
    translated,
    unit_lock,
)
from dataflow_assets.connectors._sql import ComparingConnector, Wanted
from dataflow_assets.error_kinds import Codes
from dataflow_assets.errors import ConnectionFailed, ReadFailed, WriteFailed
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.secrets import register_secret
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
)
from dataflow_assets.windows import parse_duration

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

    from dataflow_assets.storage.digests import SqlRows
    from dataflow_assets.storage.records import RecordForms

_SCHEMA = AliasChoices("pg_schema", "table_schema")
_DRIVER_SUFFIX = re.compile(r"^postgres(ql)?(\+\w+)?://")


class PostgresConnection(Model):
    """The keys of a Postgres connection: a `dsn`, or its parts. What neither says, libpq takes from PGHOST and its siblings."""

    host: str = Field("localhost", description="the server")
    port: int = Field(5432, description="its port")
    database: str | None = Field(None, validation_alias=AliasChoices("database", "dbname"), description="the database")
    user: str | None = Field(None, validation_alias=AliasChoices("user", "username"), description="the user")
    password: SecretStr | None = Field(None, description="best taken from the environment, with env_var")
    dsn: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("dsn", "url"),
        description="postgresql://user:password@host:port/database, or postgres://, such as ${DATABASE_URL}",
    )
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = Field(
        None, description="from require on the server must speak TLS, from verify-ca on with a certificate that is trusted; default: prefer"
    )
    sslrootcert: str | None = Field(
        None, description="for verify-ca and verify-full: the file of certificates to trust, relative to the project, or system"
    )
    lock_timeout: str = Field("10min", description="how long a publish waits for another one of the same window")

    @field_validator("dsn")
    @classmethod
    def _dsn_is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or _DRIVER_SUFFIX.match(value.get_secret_value()):
            return value
        raise ValueError("a dsn starts with postgresql://")

    @field_validator("lock_timeout")
    @classmethod
    def _lock_timeout_is_a_duration(cls, value: str) -> str:
        parse_duration(value)
        return value

    @model_validator(mode="after")
    def _dsn_or_parts(self) -> Self:
        if self.dsn is None:
            return self
        if self.model_fields_set & {"host", "port", "database", "user", "password"}:
            raise ValueError("write either dsn, or host, port, database, user and password")
        said = dict(parse_qsl(urlsplit(self.dsn.get_secret_value()).query))
        for name in ("sslmode", "sslrootcert"):
            if getattr(self, name) is not None and said.get(name, getattr(self, name)) != getattr(self, name):
                raise ValueError(f"the dsn says {name}={said[name]}, and the key {name} says {getattr(self, name)}: leave one of them out")
        return self


class PostgresSource(SqlSourceOptions):
    """A query, or a table with its schema."""

    table_schema: str = Field("public", validation_alias=_SCHEMA, description="the table's schema")


class PostgresEndpoint(EndpointOptions):
    """A table with its schema, which is made when it is missing."""

    table: str = Field(description="the table")
    table_schema: str = Field("public", validation_alias=_SCHEMA, description="its schema, made when it is missing")


class Connector(ComparingConnector):
    """Reads with COPY inside one read-only snapshot; publishes in one transaction with the ledger."""

    kind: ClassVar[str] = "postgres"
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset(WriteMode), dialect="postgres", publishes_early=True)
    error_codes: ClassVar[Codes] = ERROR_CODES
    Connection: ClassVar[type[PostgresConnection]] = PostgresConnection
    Source: ClassVar[type[PostgresSource]] = PostgresSource
    Endpoint: ClassVar[type[PostgresEndpoint]] = PostgresEndpoint
    example: ClassVar[str] = """\
pipeline_name: copy_orders
windows: {every: day, begin: 2024-01-01}
event_time_column: ordered_at
steps:
  - id: orders
    type: source
    source_type: postgres
    connection: shop
    config:
      query: SELECT id, ordered_at, amount FROM orders
  - id: warehouse_orders
    type: endpoint
    endpoint_type: postgres
    connection: warehouse
    depends_on: [orders]
    config:
      table: orders
      pg_schema: mart
"""

    def __init__(self, connection: PostgresConnection, context: ConnectionContext) -> None:
        self._options, self._context, self._name = connection, context, context.name
        for secret in (connection.password, connection.dsn):
            if secret is not None:
                register_secret(secret.get_secret_value())
        self._sessions = Sessions(self._conninfo, context.name)
        self._registry = registry.Registry()

    def _conninfo(self) -> str:
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        options = self._options
        if options.dsn is not None:
            given: dict[str, Any] = conninfo_to_dict(_DRIVER_SUFFIX.sub("postgresql://", options.dsn.get_secret_value()))
        else:
            password = options.password.get_secret_value() if options.password else None
            given = {"host": options.host, "port": options.port, "dbname": options.database, "user": options.user, "password": password}
        if secret := given.get("password"):
            register_secret(str(secret))
        trusted = options.sslrootcert
        if trusted and trusted != "system":
            trusted = str(self._context.project_dir / trusted)
        given = {"sslmode": options.sslmode, "sslrootcert": trusted} | given
        defaults = {"application_name": "dataflow", "connect_timeout": "10"}
        return make_conninfo(**{name: value for name, value in {**defaults, **given}.items() if value is not None})

    def probe(self) -> str:
        """Reach the server."""
        with self._sessions.sql() as connection, translated(f"connection {self._name!r}", ConnectionFailed):
            ((version,),) = fetch(connection, Statement("SELECT current_setting('server_version')"))
        return f"PostgreSQL {version}"

    def close(self) -> None:
        """Close the idle connections."""
        self._sessions.close()

    def horizon(self) -> Horizon:
        """The oldest open transaction of the database."""
        from dataflow_assets.connectors import _postgres_horizon

        return _postgres_horizon.horizon(self._sessions, self._name)

    @contextmanager
    def _stream(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> Iterator[pa.RecordBatchReader]:
        from dataflow_assets.connectors import _postgres_read

        with _postgres_read.stream(self._sessions, source, doing, wanted) as reader:
            yield reader

    @contextmanager
    def _compare(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> Iterator[SqlRows]:
        from dataflow_assets.connectors import _postgres_compare

        with _postgres_compare.compare(self._sessions, source, doing, wanted) as rows:
            yield rows

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        """Raise the unit's generation, in a transaction of its own."""
        with self._sessions.sql() as connection, translated(f"claiming {unit} in {target.table}", WriteFailed):
            self._require_ledger(connection, target)
            with connection.transaction():
                fetch(connection, ledger.claim_unit(POSTGRES, target, unit, attempt=attempt))
                (row,) = fetch(connection, ledger.fetch_unit(POSTGRES, target, unit))
        return ledger.claimed(ledger.ledger_row(row), unit)

    def _require_ledger(self, connection: psycopg.Connection[Any], target: Target) -> None:
        """Create schema, ledger and registry where they are missing; CREATE IF NOT EXISTS fails when two do it at once, hence the lock."""
        table, schemas = ledger.ledger_table(target.table), registry.registry_table(target.table)
        if _exist(connection, table, schemas):
            return
        with connection.transaction():
            fetch(connection, Statement("SELECT pg_advisory_xact_lock($1)", (lock_key("ledger", str(table)),)))
            if not fetch(connection, Statement("SELECT 1 FROM pg_namespace WHERE nspname = $1", (table.schema,))):
                fetch(connection, Statement(f"CREATE SCHEMA {POSTGRES.quote(table.schema or 'public')}"))
            fetch(connection, ledger.create_ledger(POSTGRES, table))
            fetch(connection, registry.create_registry(POSTGRES, schemas))

    def publish(self, request: PublishRequest) -> Published:
        """Write the window and its ledger row in one transaction."""
        from dataflow_assets.connectors import _postgres_publish

        seconds = parse_duration(self._options.lock_timeout).total_seconds()
        try:
            with self._sessions.bulk() as bulk:
                return _postgres_publish.publish(bulk, request, lock_seconds=seconds, registry=self._registry)
        except CommitUnknown:
            if not self._committed(request, seconds):
                raise
            return Published(request.rows, request.claim.generation, note="the reply to COMMIT was lost; the ledger shows that it happened")

    def _committed(self, request: PublishRequest, seconds: float) -> bool:
        """Whether the ledger shows the publish, asked once the broken session has let go of the unit's lock."""
        claim, target = request.claim, request.target
        with (
            self._sessions.sql() as connection,
            translated(f"asking the ledger about {claim.unit}", ConnectionFailed),
            connection.transaction(),
        ):
            fetch(connection, Statement("SELECT set_config('lock_timeout', $1, true)", (f"{int(seconds * 1000)}ms",)))
            fetch(connection, Statement("SELECT pg_advisory_xact_lock($1)", (unit_lock(target, claim.unit),)))
            rows = fetch(connection, ledger.fetch_unit(POSTGRES, target, claim.unit))
        return ledger.recorded(ledger.ledger_row(rows[0]) if rows else None, claim)

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        """The published units of a step; none when the table is gone, whatever was published into it."""
        with self._sessions.sql() as connection, translated(f"reading the ledger of {target.table}", ReadFailed):
            if not _exist(connection, ledger.ledger_table(target.table), target.table):
                return []
            return ledger.published_entries(fetch(connection, ledger.fetch_step(POSTGRES, target, pipeline=pipeline, step=step)))

    def schemas(self, target: Target) -> list[SchemaVersion]:
        """The versions of the target's columns."""
        with self._sessions.sql() as connection, translated(f"reading the schemas of {target.table}", ReadFailed):
            if not _exist(connection, registry.registry_table(target.table)):
                return []
            return [registry.schema_version(row) for row in fetch(connection, registry.fetch_versions(POSTGRES, target.table))]

    def record_forms(self) -> RecordForms:
        """How records are written."""
        return RECORDS

    def read_records(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self._sessions.sql() as connection, translated(f"reading records of connection {self._name!r}", ReadFailed):
            return fetch(connection, statement)

    def write_records(self, statements: Sequence[Statement]) -> None:
        """Run the statements in one transaction."""
        doing = f"writing records of connection {self._name!r}"
        with self._sessions.sql() as connection, translated(doing, WriteFailed), connection.transaction():
            for statement in statements:
                fetch(connection, statement)


def _exist(connection: psycopg.Connection[Any], *tables: TableName) -> bool:
    there = " AND ".join(f"to_regclass(${position}) IS NOT NULL" for position in range(1, len(tables) + 1))
    return bool(fetch(connection, Statement(f"SELECT 1 WHERE {there}", tuple(POSTGRES.table(table) for table in tables))))
