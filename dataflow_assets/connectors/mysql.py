"""MySQL and MariaDB as source and target: `kind: mysql`, or `mariadb`.

Here: its options, and the connector that reads snapshots and publishes windows. Not here: connections (`_mysql_session`), the read
stream (`_mysql_read`), the publish transaction (`_mysql_publish`); both are imported when used, since they load Arrow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from dataflow_assets.connectors._mysql_session import (
    ERROR_CODES,
    MYSQL,
    NO_DATABASE,
    NO_TABLE,
    RECORDS,
    CommitUnknown,
    Sessions,
    code_of,
    fetch,
    translated,
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
    import pyarrow as pa
    import pymysql

    from dataflow_assets.storage.digests import SqlRows
    from dataflow_assets.storage.records import RecordForms

_SCHEMA = AliasChoices("table_schema", "table_database")
_URL = re.compile(r"^(mysql|mariadb)(\+\w+)?://")
_IN_URL = {"charset", "ssl_mode", "ssl_ca"}
_UTF8 = {"utf8mb4", "utf8", "utf8mb3"}
_CLAIMS, _DEADLOCK = 5, 1213
SslMode = Literal["disabled", "preferred", "required", "verify_ca", "verify_identity"]


class MySQLConnection(Model):
    """The keys of a MySQL connection: a `dsn`, or its parts."""

    host: str = Field("localhost", description="the server")
    port: int = Field(3306, description="its port")
    database: str | None = Field(None, validation_alias=AliasChoices("database", "db", "dbname"), description="the database")
    user: str | None = Field(None, validation_alias=AliasChoices("user", "username"), description="the user; default: the system's")
    password: SecretStr | None = Field(None, description="best taken from the environment, with env_var")
    unix_socket: str | None = Field(None, description="a socket file, in place of host and port")
    charset: str = Field("utf8mb4", description="for older files: rows travel as utf8mb4, whatever the character sets of the tables")
    ssl_mode: SslMode = Field("preferred", description="disabled, preferred, required, verify_ca or verify_identity")
    ssl_ca: str | None = Field(
        None, description="file with the certificates to trust, for verify_ca and verify_identity; a relative path starts at the project"
    )
    dsn: SecretStr | None = Field(
        None, validation_alias=AliasChoices("dsn", "url"), description="mysql://user:password@host:port/database?ssl_mode=required"
    )
    tinyint1: Literal["boolean", "integer"] = Field("boolean", description="what TINYINT(1), which BOOLEAN makes, is read as")
    lock_timeout: str = Field("10min", description="how long a publish waits for another one's locks")

    @field_validator("dsn")
    @classmethod
    def _dsn_is_mysql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return value
        text = value.get_secret_value()
        if not _URL.match(text):
            raise ValueError("a dsn starts with mysql:// or mariadb://")
        if unknown := [key for key, _ in parse_qsl(urlsplit(text).query) if key not in _IN_URL]:
            raise ValueError(f"{unknown[0]!r} cannot stand in a dsn; {', '.join(sorted(_IN_URL))} can")
        return value

    @field_validator("charset")
    @classmethod
    def _charset_is_utf8(cls, value: str) -> str:
        if value.lower() not in _UTF8:
            raise ValueError("rows travel as utf8mb4, whatever the character sets of the tables: leave charset out")
        return value

    @field_validator("lock_timeout")
    @classmethod
    def _lock_timeout_is_a_duration(cls, value: str) -> str:
        parse_duration(value)
        return value

    @model_validator(mode="after")
    def _dsn_or_parts(self) -> Self:
        if self.dsn is not None and self.model_fields_set & {"host", "port", "database", "user", "password", "unix_socket"}:
            raise ValueError("write either dsn, or host, port, database, user and password")
        return self

    def parts(self) -> dict[str, Any]:
        """Host, port, database, user, password and TLS, from the dsn or the keys. Raises ValueError for a port that is no number."""
        if self.dsn is None:
            password = self.password.get_secret_value() if self.password else None
            names = ("host", "port", "database", "user", "unix_socket", "ssl_mode", "ssl_ca")
            return {**{name: getattr(self, name) for name in names}, "password": password}
        url = urlsplit(self.dsn.get_secret_value())
        options = {"ssl_mode": self.ssl_mode, "ssl_ca": self.ssl_ca, **dict(parse_qsl(url.query))}
        login = {name: unquote(value) if value else None for name, value in (("user", url.username), ("password", url.password))}
        place = {"host": unquote(url.hostname or "localhost"), "port": url.port or 3306, "database": unquote(url.path.strip("/")) or None}
        return {**place, **login, "unix_socket": None, **{name: options[name] for name in ("ssl_mode", "ssl_ca")}}


class MySQLSource(SqlSourceOptions):
    """A query, or a table of a database."""

    table_schema: str | None = Field(None, validation_alias=_SCHEMA, description="the table's database; default: the connection's")


class MySQLEndpoint(EndpointOptions):
    """A table of a database, which is made when it is missing."""

    table: str = Field(description="the table")
    table_schema: str | None = Field(
        None, validation_alias=_SCHEMA, description="its database, made when it is missing; default: the connection's"
    )


class Connector(ComparingConnector):
    """Reads inside one read-only snapshot; publishes InnoDB tables in one transaction with the ledger."""

    kind: ClassVar[str] = "mysql"
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset(WriteMode), dialect="mysql")
    error_codes: ClassVar[Codes] = ERROR_CODES
    Connection: ClassVar[type[MySQLConnection]] = MySQLConnection
    Source: ClassVar[type[MySQLSource]] = MySQLSource
    Endpoint: ClassVar[type[MySQLEndpoint]] = MySQLEndpoint
    example: ClassVar[str] = """\
pipeline_name: copy_customers
windows: {every: day, begin: 2024-01-01}
event_time_column: changed_at
steps:
  - id: customers
    type: source
    source_type: mysql
    connection: crm
    config:
      query: SELECT id, changed_at, name, email FROM customers
  - id: customers_copy
    type: endpoint
    endpoint_type: mysql
    connection: reporting
    depends_on: [customers]
    config:
      table: customers
      mode: upsert
      upsert_keys: [id]
"""

    def __init__(self, connection: MySQLConnection, context: ConnectionContext) -> None:
        self._options, self._context, self._name = connection, context, context.name
        for secret in (connection.password, connection.dsn):
            if secret is not None:
                register_secret(secret.get_secret_value())
        self._seconds = max(int(parse_duration(connection.lock_timeout).total_seconds()), 1)
        self._registry = registry.Registry()
        self._sessions = Sessions(self._parameters, context.name, self._seconds)

    def _parameters(self) -> dict[str, Any]:
        """What the driver takes to connect."""
        given = self._options.parts()
        if password := given["password"]:
            register_secret(password)
            given["password"] = password.encode()
        mode, authority = given.pop("ssl_mode"), given.pop("ssl_ca")
        tls: dict[str, Any] = {"ssl_disabled": True} if mode == "disabled" else {}
        if mode in {"required", "verify_ca", "verify_identity"}:
            place = str(self._context.project_dir / Path(authority).expanduser()) if authority else None
            tls = {"ssl": {"ca": place, "check_hostname": mode == "verify_identity", "verify_mode": mode != "required"}}
        return {**{name: value for name, value in given.items() if value is not None}, **tls, "charset": "utf8mb4", "connect_timeout": 10}

    def probe(self) -> str:
        """Reach the server."""
        with self._sessions.reading() as connection, translated(f"connection {self._name!r}", ConnectionFailed):
            version = str(connection.get_server_info())
        return f"MariaDB {version.partition('-MariaDB')[0]}" if "MariaDB" in version else f"MySQL {version}"

    def close(self) -> None:
        """Close the idle connections."""
        self._sessions.close()

    def horizon(self) -> Horizon:
        """The oldest open transaction of the server."""
        from dataflow_assets.connectors import _mysql_horizon

        return _mysql_horizon.horizon(self._sessions, self._name)

    def _table(self, options: Any) -> TableName:
        """None for the connection's own database, said or not: one table has one name in the ledger."""
        given: str | None = options.table_schema
        return TableName(options.table, None if given == self._options.parts()["database"] else given)

    @contextmanager
    def _stream(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> Iterator[pa.RecordBatchReader]:
        from dataflow_assets.connectors import _mysql_read

        tinyint_is_bool = self._options.tinyint1 == "boolean"
        with _mysql_read.stream(self._sessions, source, doing, wanted, tinyint_is_bool=tinyint_is_bool) as reader:
            yield reader

    @contextmanager
    def _compare(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> Iterator[SqlRows]:
        from dataflow_assets.connectors import _mysql_compare

        tinyint_is_bool = self._options.tinyint1 == "boolean"
        with _mysql_compare.compare(self._sessions, source, doing, wanted, tinyint_is_bool=tinyint_is_bool) as rows:
            yield rows

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        """Raise the unit's generation, in a transaction of its own."""
        from dataflow_assets.connectors import _mysql_target

        with self._sessions.writing() as connection, translated(f"claiming {unit} in {target.table}", WriteFailed):
            import pymysql

            _mysql_target.require_registry(connection, target, self._registry)
            for tries in range(_CLAIMS):
                try:
                    return self._claim(connection, target, unit, attempt)
                except pymysql.MySQLError as error:
                    connection.rollback()
                    if tries == _CLAIMS - 1 or code_of(error) not in {NO_TABLE, NO_DATABASE, _DEADLOCK}:
                        raise
                    if code_of(error) != _DEADLOCK:
                        _mysql_target.require_ledger(connection, target, self._registry)
        raise AssertionError("the last try returns or raises")

    @staticmethod
    def _claim(connection: pymysql.Connection[Any], target: Target, unit: Unit, attempt: str) -> Claim:
        fetch(connection, Statement("START TRANSACTION"))
        fetch(connection, ledger.claim_unit(MYSQL, target, unit, attempt=attempt))
        (row,) = fetch(connection, ledger.fetch_unit(MYSQL, target, unit))
        connection.commit()
        return ledger.claimed(ledger.ledger_row(row), unit)

    def publish(self, request: PublishRequest) -> Published:
        """Write the window and its ledger row in one transaction."""
        from dataflow_assets.connectors import _mysql_publish

        try:
            with self._sessions.writing() as connection:
                return _mysql_publish.publish(connection, request, self._registry)
        except CommitUnknown:
            if not self._committed(request):
                raise
            return Published(request.rows, request.claim.generation, note="the reply to COMMIT was lost; the ledger shows that it happened")

    def _committed(self, request: PublishRequest) -> bool:
        """Whether the ledger shows the publish, asked once the broken session has let go of the unit's row."""
        claim, target = request.claim, request.target
        statement = ledger.fetch_unit(MYSQL, target, claim.unit)
        with self._sessions.writing() as connection, translated(f"asking the ledger about {claim.unit}", ConnectionFailed):
            rows = fetch(connection, Statement(f"{statement.text} FOR UPDATE", statement.values))
        return ledger.recorded(ledger.ledger_row(rows[0]) if rows else None, claim)

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        """The published units of a step; none when the table is gone, whatever was published into it."""
        from dataflow_assets.connectors import _mysql_target

        with self._sessions.reading() as connection, translated(f"reading the ledger of {target.table}", ReadFailed):
            if not all(_mysql_target.exists(connection, table) for table in (ledger.ledger_table(target.table), target.table)):
                return []
            return ledger.published_entries(fetch(connection, ledger.fetch_step(MYSQL, target, pipeline=pipeline, step=step)))

    def schemas(self, target: Target) -> list[SchemaVersion]:
        """The versions of the target's columns."""
        from dataflow_assets.connectors import _mysql_target

        with self._sessions.reading() as connection, translated(f"reading the schemas of {target.table}", ReadFailed):
            if not _mysql_target.exists(connection, registry.registry_table(target.table)):
                return []
            return [registry.schema_version(row) for row in fetch(connection, registry.fetch_versions(MYSQL, target.table))]

    def record_forms(self) -> RecordForms:
        """How records are written."""
        return RECORDS

    def read_records(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self._sessions.reading() as connection, translated(f"reading records of connection {self._name!r}", ReadFailed):
            return fetch(connection, statement)

    def write_records(self, statements: Sequence[Statement]) -> None:
        """Run the statements in one transaction."""
        with self._sessions.writing() as connection, translated(f"writing records of connection {self._name!r}", WriteFailed):
            fetch(connection, Statement("START TRANSACTION"))
            for statement in statements:
                fetch(connection, statement)
            connection.commit()
