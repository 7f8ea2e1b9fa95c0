"""ClickHouse as source and target, over HTTP: `kind: clickhouse`.

Here: its options, and the connector. Not here: talking to the server (`_clickhouse_session`), the read stream (`_clickhouse_read`),
publishing (`_clickhouse_publish`); the last two are imported when used, since they load Arrow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import unquote, urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from dataflow_assets.connectors._clickhouse_session import CLICKHOUSE, ERROR_CODES, NATIVE_PORTS, Options, Server, translated
from dataflow_assets.connectors._sql import ComparingConnector, Wanted
from dataflow_assets.error_kinds import Codes
from dataflow_assets.errors import ConnectionFailed, ReadFailed, WriteFailed
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.secrets import register_secret
from dataflow_assets.spec.base import Model, Names
from dataflow_assets.spec.models import EndpointOptions, SqlSourceOptions
from dataflow_assets.storage import registry
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

    from dataflow_assets.storage.digests import SqlRows

_SECURE = {"http": False, "clickhouse": False, "clickhousedb": False, "clickhouse+http": False, "https": True, "clickhouses": True}
_NATIVE = "port {} speaks ClickHouse's native protocol, and this connector HTTP: write 8123, or 8443 with secure: true"
_ENGINE = re.compile(r"^(Replacing)?MergeTree(\(.*\))?$", re.DOTALL)
_DATABASE = AliasChoices("table_database", "database")


class ClickHouseConnection(Model):
    """The keys of a ClickHouse connection: a `dsn`, or its parts."""

    host: str = Field("localhost", description="the server")
    port: int | None = Field(None, description="its HTTP port; default: 8123, with secure 8443")
    database: str = Field("default", validation_alias=AliasChoices("database", "dbname"), description="where tables without a database are")
    user: str = Field("default", validation_alias=AliasChoices("user", "username"), description="the user")
    password: SecretStr | None = Field(None, description="best taken from the environment, with env_var")
    secure: bool = Field(False, description="speak HTTPS")
    verify: bool = Field(True, description="with secure: check the server's certificate")
    dsn: SecretStr | None = Field(
        None, validation_alias=AliasChoices("dsn", "url"), description="https://user:password@host:port/database, or http://"
    )
    lock_timeout: str = Field("10min", description="how long a publish waits for others into the same table")
    statement_timeout: str = Field("1h", description="how long the server may be silent during one statement")

    @field_validator("dsn")
    @classmethod
    def _dsn_is_http(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return value
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in _SECURE:
            raise ValueError("a dsn starts with http:// or https://")
        if parts.port in NATIVE_PORTS and not parts.scheme.startswith("http"):
            raise ValueError(_NATIVE.format(parts.port))
        return value

    @field_validator("port")
    @classmethod
    def _port_is_http(cls, value: int | None) -> int | None:
        if value in NATIVE_PORTS:
            raise ValueError(_NATIVE.format(value))
        return value

    @field_validator("lock_timeout", "statement_timeout")
    @classmethod
    def _is_a_duration(cls, value: str) -> str:
        parse_duration(value)
        return value

    @model_validator(mode="after")
    def _dsn_or_parts(self) -> Self:
        if self.dsn is not None and self.model_fields_set & {"host", "port", "database", "user", "password", "secure"}:
            raise ValueError("write either dsn, or host, port, database, user, password and secure")
        return self


class ClickHouseSource(SqlSourceOptions):
    """A query, or a table with its database."""

    table_database: str | None = Field(None, validation_alias=_DATABASE, description="the table's database; default: the connection's")
    final: bool = Field(False, description="read a table with FINAL: only the newest row of each key of a ReplacingMergeTree")


class ClickHouseEndpoint(EndpointOptions):
    """A table with its database, and how it is made when it is missing."""

    table: str = Field(description="the table")
    table_database: str | None = Field(
        None, validation_alias=_DATABASE, description="its database, made when it is missing; default: the connection's"
    )
    engine: str = Field("MergeTree()", description="the engine of a table that is made: MergeTree or ReplacingMergeTree")
    order_by: Names = Field(
        default_factory=list, description="its sorting key; default: the upsert keys, the event time, or tuple() by mode"
    )
    partition_by: str | None = Field(None, description="its partition key, such as toYYYYMM(ordered_at)")

    @field_validator("engine")
    @classmethod
    def _engine_has_parts(cls, value: str) -> str:
        if not _ENGINE.match(value.strip()):
            raise ValueError("the engine must be MergeTree() or ReplacingMergeTree(...): others change or share what is published")
        return value.strip()


class Connector(ComparingConnector):
    """Reads with one streamed query; publishes by swapping partitions or tables."""

    kind: ClassVar[str] = "clickhouse"
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset(WriteMode), dialect="clickhouse", publishes_early=True)
    error_codes: ClassVar[Codes] = ERROR_CODES
    Connection: ClassVar[type[ClickHouseConnection]] = ClickHouseConnection
    Source: ClassVar[type[ClickHouseSource]] = ClickHouseSource
    Endpoint: ClassVar[type[ClickHouseEndpoint]] = ClickHouseEndpoint
    example: ClassVar[str] = """\
pipeline_name: visits_per_day
windows: {every: day, begin: 2024-01-01}
event_time_column: visited_at
steps:
  - id: visits
    type: source
    source_type: clickhouse
    connection: events
    config:
      query: SELECT visited_at, page, user_id FROM visits
  - id: visits_table
    type: endpoint
    endpoint_type: clickhouse
    connection: events
    depends_on: [visits]
    config:
      table: visits
      table_database: mart
      partition_by: toYYYYMM(visited_at)
      order_by: [page, visited_at]
"""

    def __init__(self, connection: ClickHouseConnection, context: ConnectionContext) -> None:
        self._name = context.name
        self._lock_seconds = parse_duration(connection.lock_timeout).total_seconds()
        options = _options(connection, context.name)
        if options.password:
            register_secret(options.password)
        if connection.dsn is not None:
            register_secret(connection.dsn.get_secret_value())
        self._server, self._registry = Server(options), registry.Registry()

    def probe(self) -> str:
        """Reach the server."""
        with translated(f"connection {self._name!r}", ConnectionFailed, port=self._server.options.port):
            ((version,),) = self._server.rows("SELECT version()")
        return f"ClickHouse {version}"

    def close(self) -> None:
        """Close the idle connections."""
        self._server.close()

    def _table(self, options: Any) -> TableName:
        return TableName(options.table, options.table_database or self._server.options.database)

    @contextmanager
    def _stream(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> Iterator[pa.RecordBatchReader]:
        from dataflow_assets.connectors import _clickhouse_read

        with _clickhouse_read.stream(self._server, source, doing, wanted, final=self._final(source, doing, options)) as reader:
            yield reader

    def _final(self, source: TableName | Query, doing: str, options: Any) -> bool:
        return bool(options.final) if options else isinstance(source, TableName) and self._merges(source, doing)

    def _merges(self, table: TableName, doing: str) -> bool:
        """Whether the table is a ReplacingMergeTree: of such a target, what it will hold once it has merged is read."""
        from dataflow_assets.connectors import _clickhouse_tables

        with translated(doing, ReadFailed, port=self._server.options.port):
            found = _clickhouse_tables.describe(self._server, table)
        return found is not None and found.engine == "ReplacingMergeTree"

    @contextmanager
    def _compare(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> Iterator[SqlRows]:
        from dataflow_assets.connectors import _clickhouse_compare

        with _clickhouse_compare.compare(self._server, source, doing, wanted, final=self._final(source, doing, options)) as rows:
            yield rows

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        """Take the unit's next generation in the ledger."""
        from dataflow_assets.connectors import _clickhouse_ledger, _clickhouse_registry, _clickhouse_tables

        with translated(f"claiming {unit} in {target.table}", WriteFailed, port=self._server.options.port):
            log = _clickhouse_ledger.Ledger(self._server, target)
            schemas = registry.registry_table(target.table)
            if not _clickhouse_tables.exists(self._server, log.table, schemas):
                self._server.run(f"CREATE DATABASE IF NOT EXISTS {CLICKHOUSE.quote(target.table.schema or 'default')}")
                self._server.run(_clickhouse_ledger.create_ledger(log.table))
                self._server.run(_clickhouse_registry.create_registry(schemas))
            claim = log.claim(unit, attempt=attempt)
            if claim.published and not _clickhouse_tables.exists(self._server, target.table):
                return Claim(unit, claim.generation, attempt)
            return claim

    def publish(self, request: PublishRequest) -> Published:
        """Fill a staging table, and swap it in."""
        from dataflow_assets.connectors import _clickhouse_publish

        return _clickhouse_publish.publish(self._server, request, lock_seconds=self._lock_seconds, known=self._registry)

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        """The published units of a step; none when the table is gone, whatever was published into it."""
        from dataflow_assets.connectors import _clickhouse_ledger, _clickhouse_tables

        with translated(f"reading the ledger of {target.table}", ReadFailed, port=self._server.options.port):
            log = _clickhouse_ledger.Ledger(self._server, target)
            if not _clickhouse_tables.exists(self._server, log.table, target.table):
                return []
            return log.entries(pipeline=pipeline, step=step)

    def schemas(self, target: Target) -> list[SchemaVersion]:
        """The versions of the target's columns."""
        from dataflow_assets.connectors import _clickhouse_registry, _clickhouse_tables

        with translated(f"reading the schemas of {target.table}", ReadFailed, port=self._server.options.port):
            if not _clickhouse_tables.exists(self._server, registry.registry_table(target.table)):
                return []
            return _clickhouse_registry.versions(self._server, target.table)


def _options(connection: ClickHouseConnection, name: str) -> Options:
    """The parts of a connection, from its dsn when it has one."""
    seconds = int(parse_duration(connection.statement_timeout).total_seconds())
    if connection.dsn is None:
        password = connection.password.get_secret_value() if connection.password else ""
        port = connection.port or (8443 if connection.secure else 8123)
        login = (connection.user, password, connection.database)
        return Options(name, connection.host, port, *login, connection.secure, connection.verify, seconds)
    parts = urlsplit(connection.dsn.get_secret_value())
    secure = _SECURE[parts.scheme]
    login = (unquote(parts.username or "default"), unquote(parts.password or ""), unquote(parts.path.strip("/")) or "default")
    return Options(
        name, parts.hostname or "localhost", parts.port or (8443 if secure else 8123), *login, secure, connection.verify, seconds
    )
