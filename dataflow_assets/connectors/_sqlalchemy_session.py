"""An engine for a URL: how its dialect writes SQL, its transactions, and what an error of its driver means.

Here: connections and the text on its way to a driver. Not here: types (`_sqlalchemy_types`), what is said (`sqlalchemy`,
`_sqlalchemy_read`, `_sqlalchemy_publish`).

Statements are handed to the driver as they are, with the driver's own values: SQLAlchemy's conversions round decimals and parse dates
in ways that depend on the dialect. What is taken from it is the dialect: quotes, types, reflection, pooling, streaming.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow_assets.error_kinds import Codes, stream_kind
from dataflow_assets.errors import ConnectionFailed, DataflowError, ErrorKind, MissingDriver, ValueRefused, WriteFailed
from dataflow_assets.secrets import register_secret
from dataflow_assets.storage.records import RecordForms
from dataflow_assets.storage.sql import Dialect, Statement, on_conflict, on_duplicate_key

if TYPE_CHECKING:
    import sqlalchemy as sa

_MARK = re.compile(r"\0(\d+)\0")
_ZERO_BYTE = "\0"
_PACKAGES = {"MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]", "mysql": "mysql-connector-python"}
"""Driver module -> package, where they differ."""
_DIALECT_PACKAGES = {
    "bigquery": "sqlalchemy-bigquery",
    "clickhousedb": "clickhouse-connect",
    "cockroachdb": "sqlalchemy-cockroachdb",
    "databricks": "databricks-sqlalchemy",
    "duckdb": "duckdb-engine",
    "db2": "ibm-db-sa",
    "redshift": "sqlalchemy-redshift",
    "snowflake": "snowflake-sqlalchemy",
    "teradatasql": "teradatasqlalchemy",
    "trino": "trino[sqlalchemy]",
}
_UTC = {
    "postgresql": "SET TIME ZONE 'UTC'",
    "mysql": "SET time_zone = '+00:00'",
    "mariadb": "SET time_zone = '+00:00'",
    "oracle": "ALTER SESSION SET TIME_ZONE = 'UTC'",
}
_PATIENCE = {
    "postgresql": "SET LOCAL lock_timeout = '{seconds}s'",
    "mysql": "SET SESSION innodb_lock_wait_timeout = {seconds}",
    "mariadb": "SET SESSION innodb_lock_wait_timeout = {seconds}",
}
_WRITING = dict.fromkeys(("mysql", "mariadb"), "READ COMMITTED")
"""Above it InnoDB locks gaps between rows, and windows side by side run into deadlocks."""
_LOST = ("08", "57P01", "57P02", "57P03", "57P05", "53300")
_NOT_ALLOWED = ("28", "3D")
_RETRY = ("40", "55006", "55P03", "53")
_UNSET = ("3F", "42501", "42P01", "42S02", "53400")
_BAD_VALUE = "22"
_NUMBERED = {5: "busy", 6: "busy", 1205: "retry", 1213: "retry", 2002: "lost", 2003: "lost", 2006: "lost", 2013: "lost"}
_NUMBERED |= {1044: "not allowed", 1045: "not allowed", 1049: "not allowed", 1142: "unset", 1143: "unset", 1146: "unset"}
_NUMBERED |= {13: "retry", 10: "retry", 1021: "retry", 1114: "retry", 1040: "lost", 1053: "lost", 1317: "lost"}
_NUMBERED |= {8: "unset", 14: "unset", 23: "unset", 26: "unset"}
ERROR_CODES = Codes(
    "SQLSTATE, or the number of SQLite and MySQL",
    transient=(*_LOST, *_RETRY, *(number for number, meaning in sorted(_NUMBERED.items()) if meaning in {"busy", "retry", "lost"})),
    configuration=(
        *_NOT_ALLOWED,
        *_UNSET,
        *(number for number, meaning in sorted(_NUMBERED.items()) if meaning in {"not allowed", "unset"}),
    ),
    prefixes=True,
    transient_also="a connection that SQLAlchemy calls invalidated",
    configuration_also="a database or driver that SQLAlchemy does not know",
)
_HINT = "try the statement in the database's own client"


def no_upsert(_: Dialect, keys: Sequence[str], assignments: Mapping[str, str]) -> str:
    """Nothing to append: the insert of a row that is there fails."""
    return ""


_CONFLICTS = dict.fromkeys(("sqlite", "postgresql", "cockroachdb"), on_conflict) | dict.fromkeys(("mysql", "mariadb"), on_duplicate_key)
_KEY_CHARACTERS = 190  # four such columns are the longest key that InnoDB takes


def sql_dialect(given: sa.Dialect) -> Dialect:
    """How the dialect writes SQL. Placeholders are marks, which `for_driver` turns into the driver's own."""
    import sqlalchemy as sa

    from dataflow_assets.connectors._sqlalchemy_types import compiled, plain_types

    types = plain_types()
    preparer = given.identifier_preparer
    limits = {"postgresql": 63, "mysql": 64, "mariadb": 64}
    unlimited = given.max_identifier_length > 1_000
    made = Dialect(
        given.name,
        placeholder=lambda position: f"{_ZERO_BYTE}{position}{_ZERO_BYTE}",
        quotes=(preparer.initial_quote, preparer.final_quote),
        max_identifier_bytes=limits.get(given.name, None if unlimited else given.max_identifier_length),
        text_type=compiled(types.text, given),
        key_text_type=compiled(types.text if given.name in {"sqlite", "postgresql"} else sa.String(_KEY_CHARACTERS), given),
        integer_type=compiled(sa.BigInteger(), given),
        instant_type=compiled(sa.String(40), given),
        instant=lambda moment: moment.isoformat(),
        conflict=_CONFLICTS.get(given.name, no_upsert),
        incoming=(lambda quoted: f"VALUES({quoted})") if given.name in {"mysql", "mariadb"} else (lambda quoted: f"excluded.{quoted}"),
    )
    if given.name != "postgresql":
        return replace(made, folds_case=True, adding="ADD")  # without COLUMN, which not every dialect has there
    return replace(made, instant_type="TIMESTAMP WITH TIME ZONE", instant=lambda moment: moment)


def records(dialect: Dialect) -> RecordForms:
    """How records are written: JSON and days as text, for not every dialect has types of their own for them."""
    schemas = dialect.name in {"postgresql", "cockroachdb", "mysql", "mariadb"}
    return RecordForms(
        dialect,
        types={"date": dialect.key_text_type},
        date=lambda day: day.isoformat(),
        first_rows=" OFFSET 0 ROWS FETCH NEXT {} ROWS ONLY" if dialect.name in {"oracle", "mssql", "db2"} else " LIMIT {}",
        make_schema="CREATE SCHEMA IF NOT EXISTS {}" if schemas else "",
        indexes=schemas or dialect.name == "sqlite",
    )


def for_driver(statement: Statement, paramstyle: str) -> tuple[str, tuple[Any, ...] | dict[str, Any]]:
    """The text with the driver's placeholders, and the values as the driver takes them."""
    text = statement.text
    positions = [int(number) for number in _MARK.findall(text)]
    values = tuple(statement.values[position - 1] for position in positions)
    if paramstyle in {"format", "pyformat"}:
        return _MARK.sub("%s", text.replace("%", "%%")), values
    if paramstyle == "named":
        return _MARK.sub(r":v\1", text), {f"v{number}": value for number, value in enumerate(statement.values, start=1)}
    if paramstyle in {"numeric", "numeric_dollar"}:
        return _MARK.sub(":" + r"\1" if paramstyle == "numeric" else r"$\1", text), tuple(statement.values)
    return _MARK.sub("?", text), values


@contextmanager
def translated(doing: str, kind: type[DataflowError]) -> Iterator[None]:
    """Turn the errors of SQLAlchemy and the driver, raised inside, into `kind` or a closer relative."""
    import pyarrow as pa
    import sqlalchemy as sa

    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise failure(error, doing, kind) from error
    except (pa.ArrowException, OSError) as error:
        raise kind(f"{doing}: {error}", kind=stream_kind(error)) from error


def failure(error: sa.exc.SQLAlchemyError, doing: str, kind: type[DataflowError]) -> DataflowError:
    """One of ours: by SQLSTATE or the driver's number where there is one, else by the class of the error."""
    import sqlalchemy as sa

    original = getattr(error, "orig", None)
    text = f"{doing}: {str(original or error).strip()}"
    meaning = _meaning(original)
    if getattr(error, "connection_invalidated", False) or meaning == "lost":
        return ConnectionFailed(text, hint="check the url, and whether the server is up")
    if meaning == "busy":
        return ConnectionFailed(text, hint="another process is writing: it is tried again, or raise lock_timeout on the connection")
    if meaning == "not allowed":
        return ConnectionFailed(text, hint="check user, password and database of the url", transient=False)
    if kind is WriteFailed and (meaning == "bad value" or isinstance(error, sa.exc.DataError)):
        return ValueRefused(text, hint="change the value in the query, or the type of the target column")
    if kind is ConnectionFailed:
        return ConnectionFailed(text, hint="check the url, and whether the server is up")
    told: ErrorKind = "transient" if meaning == "retry" else "configuration" if meaning == "unset" else "permanent"
    return kind(text, hint=_HINT, kind=told)


def is_deadlock(error: sa.exc.SQLAlchemyError) -> bool:
    """Whether the database gave up this transaction for another one."""
    return _meaning(getattr(error, "orig", None)) == "retry"


def _meaning(original: Any) -> str:
    state = str(getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or "")
    known = {"lost": _LOST, "not allowed": _NOT_ALLOWED, "unset": _UNSET, "retry": _RETRY, "bad value": (_BAD_VALUE,)}
    for meaning, states in known.items():
        if state and state.startswith(states):
            return meaning
    number = getattr(original, "sqlite_errorcode", None)
    if number is not None:
        return _NUMBERED.get(number & 0xFF, "")
    first = next(iter(getattr(original, "args", ())), None)
    return _NUMBERED.get(first, "") if isinstance(first, int) and first > 1_000 else ""


class Sessions:
    """The engine of one connector, made when it is first used. Safe to share between threads."""

    def __init__(self, name: str, url: str, project_dir: Path, lock_seconds: float) -> None:
        self._name, self._url, self._project_dir, self._lock_seconds = name, url, project_dir, lock_seconds
        self._making = threading.Lock()
        self._engine: sa.Engine | None = None

    @property
    def engine(self) -> sa.Engine:
        """The engine. Raises MissingDriver naming the package to install, ConnectionFailed for a URL that is none."""
        with self._making:
            if self._engine is None:
                self._engine = self._make()
            return self._engine

    def _make(self) -> sa.Engine:
        import sqlalchemy as sa

        try:
            url = self._anchored(sa.make_url(self._url))
            more = {"connect_args": {"timeout": self._lock_seconds}} if url.get_backend_name() == "sqlite" else {}
            engine = sa.create_engine(url, hide_parameters=True, pool_pre_ping=True, **more)
        except ModuleNotFoundError as error:
            module = error.name or str(error)
            raise MissingDriver(kind="sqlalchemy", module=module, package=_PACKAGES.get(module.split(".")[0], module)) from error
        except sa.exc.NoSuchModuleError as error:
            name = sa.make_url(self._url).drivername.split("+")[0]
            package = _DIALECT_PACKAGES.get(name, f"the package of the SQLAlchemy dialect {name}")
            raise MissingDriver(kind="sqlalchemy", module=f"dialect {name}", package=package) from error
        except (sa.exc.ArgumentError, ValueError) as error:
            raise ConnectionFailed(f"connection {self._name!r}: {error}", hint="check the url", transient=False) from error
        _listen(engine)
        return engine

    def _anchored(self, url: sa.URL) -> sa.URL:
        """A relative SQLite path starts at the project."""
        if url.password:
            register_secret(str(url.password))
        if url.get_backend_name() != "sqlite":
            return url
        if not url.database or ":memory:" in url.database:
            raise ValueError("a database in memory ends with its connection: name a file")
        if url.database.startswith("file:"):
            return url
        return url.set(database=str((self._project_dir / url.database).resolve()))

    @cached_property
    def dialect(self) -> Dialect:
        """How the database writes SQL."""
        return sql_dialect(self.engine.dialect)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A connection in a transaction that is rolled back."""
        with self._connect(streams=True) as connection:
            yield Session(connection, self.dialect)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A connection in a transaction, which the user commits, or all is undone."""
        with self._connect(writes=True) as connection:
            session = Session(connection, self.dialect)
            if text := _PATIENCE.get(self.engine.dialect.name):
                session.affected(Statement(text.format(seconds=max(int(self._lock_seconds), 1))))
            yield session

    @contextmanager
    def _connect(self, *, writes: bool = False, streams: bool = False) -> Iterator[sa.Connection]:
        with translated(f"connection {self._name!r}", ConnectionFailed):
            opened = self.engine.connect()
        level = _WRITING.get(self.engine.dialect.name) if writes else None
        with opened as connection:
            more = {"isolation_level": level} if level else {}
            yield connection.execution_options(dataflow_writes=writes, stream_results=streams, **more)

    def close(self) -> None:
        """Close the idle connections."""
        if self._engine is not None:
            self._engine.dispose()


def _listen(engine: sa.Engine) -> None:
    """Fix what a fresh connection of some dialects would leave to chance: the timezone of the session, and where a transaction begins."""
    import sqlalchemy as sa

    name = engine.dialect.name
    if text := _UTC.get(name):
        sa.event.listen(engine, "connect", _runs(text))
    if name == "sqlite":
        # Python's module begins late and never for a SELECT; SQLAlchemy's documentation gives this way out
        sa.event.listen(engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
        sa.event.listen(engine, "begin", _begin_sqlite)


def _runs(text: str) -> Callable[[Any, Any], None]:
    def run(raw: Any, _: Any) -> None:
        cursor = raw.cursor()
        cursor.execute(text)
        cursor.close()
        raw.commit()

    return run


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("dataflow_writes") else "BEGIN")


@dataclass(frozen=True)
class Session:
    """One open connection, and its dialect."""

    connection: sa.Connection
    dialect: Dialect

    @property
    def paramstyle(self) -> str:
        """The driver's placeholders."""
        return self.connection.dialect.paramstyle

    def run(self, statement: Statement) -> sa.CursorResult[Any]:
        """Run a statement."""
        text, values = for_driver(statement, self.paramstyle)
        return self.connection.exec_driver_sql(text, values or None)

    def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        """Run a statement; its rows, none when it returns none."""
        result = self.run(statement)
        return [tuple(row) for row in result] if result.returns_rows else []

    def affected(self, statement: Statement) -> int:
        """Run a statement; how many rows it touched, negative when the driver does not tell."""
        result = self.run(statement)
        try:
            return int(result.rowcount)
        finally:
            result.close()

    def run_many(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once per row, in one call of the driver."""
        prepared = [for_driver(Statement(text, tuple(row)), self.paramstyle) for row in rows]
        self.connection.exec_driver_sql(prepared[0][0], [values for _, values in prepared])

    def commit(self) -> None:
        """Commit."""
        self.connection.commit()

    def rollback(self) -> None:
        """Roll back; a further statement begins anew."""
        self.connection.rollback()
