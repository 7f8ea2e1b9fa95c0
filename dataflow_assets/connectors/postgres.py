"""Postgres as source and target: `kind: postgres`.

Here: its options, and the connector that reads snapshots and publishes windows. Not here: connections (`_postgres_session`), types
(`_postgres_types`), the publish transaction (`_postgres_publish`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pyarrow as pa
from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from dataflow_assets.batches import resize
from dataflow_assets.connectors import _postgres_publish
from dataflow_assets.connectors._postgres_session import POSTGRES, Sessions, fetch, literal, literals, run, stream_failure, translated
from dataflow_assets.connectors._postgres_types import ReadColumn, read_column
from dataflow_assets.errors import ConnectionFailed, ReadFailed, ValueRefused, WriteFailed
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.secrets import register_secret
from dataflow_assets.spec.models import EndpointOptions, Model, SourceOptions, SqlText
from dataflow_assets.storage import ledger, sql
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import (
    Bind,
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
    import psycopg

_FETCH_BYTES = 4 * 1024 * 1024
_SCHEMA = AliasChoices("pg_schema", "table_schema")
_DRIVER_SUFFIX = re.compile(r"^postgres(ql)?(\+\w+)?://")


class PostgresConnection(Model):
    """The keys of a Postgres connection: a `dsn`, or its parts. What neither says, libpq takes from PGHOST and its siblings."""

    host: str = "localhost"
    port: int = 5432
    database: str | None = Field(None, validation_alias=AliasChoices("database", "dbname"))
    user: str | None = Field(None, validation_alias=AliasChoices("user", "username"))
    password: SecretStr | None = None
    sslmode: str | None = Field(None, description="disable, prefer, require, verify-ca or verify-full")
    dsn: SecretStr | None = Field(
        None, validation_alias=AliasChoices("dsn", "url"), description="postgresql://user:password@host:port/database"
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
        if self.dsn is not None and self.model_fields_set & {"host", "port", "database", "user", "password", "sslmode"}:
            raise ValueError("write either dsn, or host, port, database, user, password and sslmode")
        return self


class PostgresSource(SourceOptions):
    """A query, or a table with its schema."""

    query: SqlText | None = None
    table: str | None = None
    table_schema: str = Field("public", validation_alias=_SCHEMA)

    @model_validator(mode="after")
    def _query_or_table(self) -> Self:
        if (self.query is None) == (self.table is None):
            raise ValueError("write either query or table")
        return self


class PostgresEndpoint(EndpointOptions):
    """A table with its schema, which is made when it is missing."""

    table: str
    table_schema: str = Field("public", validation_alias=_SCHEMA)


class Connector:
    """Reads with COPY inside one read-only snapshot; publishes in one transaction with the ledger."""

    kind: ClassVar[str] = "postgres"
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset(WriteMode), dialect="postgres")
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
        self._options, self._context = connection, context
        for secret in (connection.password, connection.dsn):
            if secret is not None:
                register_secret(secret.get_secret_value())
        self._sessions = Sessions(self._conninfo, context.name)
        self._ledgers: set[TableName] = set()

    def _conninfo(self) -> str:
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        options = self._options
        if options.dsn is not None:
            given: dict[str, Any] = conninfo_to_dict(_DRIVER_SUFFIX.sub("postgresql://", options.dsn.get_secret_value()))
        else:
            password = options.password.get_secret_value() if options.password else None
            given = {
                "host": options.host,
                "port": options.port,
                "dbname": options.database,
                "user": options.user,
                "password": password,
                "sslmode": options.sslmode,
            }
        if secret := given.get("password"):
            register_secret(str(secret))
        defaults = {"application_name": "dataflow", "connect_timeout": "10"}
        return make_conninfo(**{name: value for name, value in {**defaults, **given}.items() if value is not None})

    def probe(self) -> str:
        """Reach the server."""
        with self._sessions.sql() as connection, translated(f"connection {self._context.name!r}", ConnectionFailed):
            ((version,),) = fetch(connection, Statement("SELECT current_setting('server_version')"))
        return f"PostgreSQL {version}"

    def close(self) -> None:
        """Close the idle connections."""
        self._sessions.close()

    def source_table(self, options: PostgresSource) -> TableName | None:
        """The table that the options name."""
        return TableName(options.table, options.table_schema) if options.table else None

    def target_table(self, options: PostgresEndpoint) -> TableName:
        """The table that the options name."""
        return TableName(options.table, options.table_schema)

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        """Stream a query or table from one snapshot."""
        table = self.source_table(request.options)
        query = request.query or Query.of(request.options.query or "")
        source = _from_table(table) if table else lambda connection: _with_literals(query, connection)
        doing = f"reading {table or 'the query'} of connection {self._context.name!r}"
        with self._stream(source, doing, columns=request.columns, window=request.window, rows=request.batch_rows) as reader:
            yield reader

    @contextmanager
    def read_target(self, target: Target, window: WindowFilter | None) -> Iterator[pa.RecordBatchReader]:
        """Stream the target table."""
        with self._stream(_from_table(target.table), f"reading {target.table}", window=window) as reader:
            yield reader

    @contextmanager
    def _stream(
        self,
        source: Callable[[psycopg.Connection[Any]], str],
        doing: str,
        *,
        columns: Sequence[str] | None = None,
        window: WindowFilter | None = None,
        rows: int = 65_536,
    ) -> Iterator[pa.RecordBatchReader]:
        with self._sessions.sql() as connection, translated(doing, ReadFailed):
            text = source(connection)
            described = _describe(connection, text)
            selected = _select(described, columns, doing=doing)
            predicate = _predicate(described, window, connection) if window else None
            statement = sql.select(POSTGRES, {column.name: column.expression for column in selected}, text, predicate)
        with self._sessions.bulk() as bulk, bulk.cursor() as cursor:
            with translated(doing, ReadFailed):
                _begin_snapshot(bulk)
                cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_FETCH_BYTES)})
                cursor.execute(statement)
                raw = cursor.fetch_record_batch()
            schema = pa.schema([pa.field(column.name, column.kind or raw.schema.field(column.name).type) for column in selected])
            with read_ahead(_restored(bulk, raw, selected, schema, doing, rows), cancel=cursor.adbc_cancel) as batches:
                yield pa.RecordBatchReader.from_batches(schema, batches)
        # Arrow's pool keeps what was freed: 30 to 60 MB that whoever comes next would add to.
        pa.default_memory_pool().release_unused()

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        """Raise the unit's generation, in a transaction of its own."""
        with self._sessions.sql() as connection, translated(f"claiming {unit} in {target.table}", WriteFailed):
            self._require_ledger(connection, target)
            with connection.transaction():
                fetch(connection, ledger.claim_unit(POSTGRES, target, unit, attempt=attempt))
                (row,) = fetch(connection, ledger.fetch_unit(POSTGRES, target, unit))
        return ledger.claimed(ledger.ledger_row(row), unit)

    def _require_ledger(self, connection: psycopg.Connection[Any], target: Target) -> None:
        """Create schema and ledger where they are missing; CREATE IF NOT EXISTS fails when two do it at once, hence the lock."""
        table = ledger.ledger_table(target.table)
        if table in self._ledgers and _exists(connection, table):
            return
        if not _exists(connection, table):
            with connection.transaction():
                fetch(connection, Statement("SELECT pg_advisory_xact_lock($1)", (_postgres_publish.lock_key("ledger", str(table)),)))
                if not fetch(connection, Statement("SELECT 1 FROM pg_namespace WHERE nspname = $1", (table.schema,))):
                    fetch(connection, Statement(f"CREATE SCHEMA {POSTGRES.quote(table.schema or 'public')}"))
                fetch(connection, ledger.create_ledger(POSTGRES, table))
        self._ledgers.add(table)

    def publish(self, request: PublishRequest) -> Published:
        """Write the window and its ledger row in one transaction."""
        seconds = parse_duration(self._options.lock_timeout).total_seconds()
        try:
            with self._sessions.bulk() as bulk:
                return _postgres_publish.publish(bulk, request, lock_seconds=seconds)
        except _postgres_publish.CommitUnknown:
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
            fetch(connection, Statement("SELECT pg_advisory_xact_lock($1)", (_postgres_publish.unit_lock(target, claim.unit),)))
            rows = fetch(connection, ledger.fetch_unit(POSTGRES, target, claim.unit))
        return ledger.recorded(ledger.ledger_row(rows[0]) if rows else None, claim)

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        """The published units of a step."""
        with self._sessions.sql() as connection, translated(f"reading the ledger of {target.table}", ReadFailed):
            if not _exists(connection, ledger.ledger_table(target.table)):
                return []
            return ledger.published_entries(fetch(connection, ledger.fetch_step(POSTGRES, target, pipeline=pipeline, step=step)))


def _from_table(table: TableName) -> Callable[[psycopg.Connection[Any]], str]:
    return lambda _: POSTGRES.table(table)


def _exists(connection: psycopg.Connection[Any], table: TableName) -> bool:
    return bool(fetch(connection, Statement("SELECT 1 WHERE to_regclass($1) IS NOT NULL", (POSTGRES.table(table),))))


def _describe(connection: psycopg.Connection[Any], source: str) -> dict[str, ReadColumn]:
    """The columns of a source in their order. Raises ValueRefused when two share a name."""
    cursor = connection.execute((sql.select(POSTGRES, None, source) + " LIMIT 0").encode())
    result = cursor.pgresult
    if result is None:
        raise ReadFailed("the query returns no rows")
    fields = [((result.fname(i) or b"").decode(), result.ftype(i), result.fmod(i)) for i in range(result.nfields)]
    names = [name for name, _, _ in fields]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueRefused(f"the query returns column {twice[0]!r} more than once", hint="give each column a name of its own with AS")
    arrays = {
        oid
        for (oid,) in fetch(
            connection,
            Statement("SELECT oid::int8 FROM pg_type WHERE typcategory = 'A' AND oid = ANY ($1)", ([oid for _, oid, _ in fields],)),
        )
    }
    return {
        name: read_column(name, POSTGRES.quote(name), oid=oid, modifier=modifier, is_array=oid in arrays) for name, oid, modifier in fields
    }


def _select(described: Mapping[str, ReadColumn], columns: Sequence[str] | None, *, doing: str) -> list[ReadColumn]:
    if missing := [name for name in columns or () if name not in described]:
        raise ReadFailed(f"{doing}: there is no column {missing[0]!r}", hint=f"the columns are {', '.join(described)}")
    return [described[name] for name in columns or described]


def _predicate(described: Mapping[str, ReadColumn], window: WindowFilter, connection: psycopg.Connection[Any]) -> Statement:
    """The window as SQL with the driver's literals."""
    column = described.get(window.column)
    if column is None:
        raise ReadFailed(f"there is no event_time_column {window.column!r}", hint=f"the columns are {', '.join(described)}")
    bounds = window.bounds(column.bounds or pa.string())
    dialect = literals([literal(bound, connection) for bound in bounds])
    return Statement(sql.window_predicate(dialect, window.column, bounds).text)


def _with_literals(query: Query, connection: psycopg.Connection[Any]) -> str:
    values = [literal(part.value, connection) for part in query.parts if isinstance(part, Bind)]
    return sql.derived_table(literals(values), query)[0]


def _begin_snapshot(bulk: Any) -> None:
    run(bulk, Statement("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    settings = {"TimeZone": "UTC", "IntervalStyle": "iso_8601", "DateStyle": "ISO"}
    run(bulk, Statement("SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())))


def _restored(
    bulk: Any, raw: pa.RecordBatchReader, columns: Sequence[ReadColumn], schema: pa.Schema, doing: str, rows: int
) -> Iterator[pa.RecordBatch]:
    try:
        for batch in resize(raw, rows=rows):
            yield pa.RecordBatch.from_arrays([column.restore(batch.column(i)) for i, column in enumerate(columns)], schema=schema)
    except OSError as error:
        raise stream_failure(bulk, error, doing) from error
