"""Connections to Snowflake: logging in, keeping sessions, running statements in them, and what a driver's error means.

Here: the driver. Not here: what is said over it (`snowflake`, `_snowflake_read`, `_snowflake_publish`).

Sessions do not commit by themselves. Snowflake ends a transaction whose client has been silent for minutes while others wait for its
locks; a client that goes on afterwards would, with autocommit, write rows without their ledger row.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow_assets.error_kinds import Codes, stream_kind
from dataflow_assets.errors import ConnectionFailed, DataflowError, MissingDriver, ValueRefused, WriteFailed
from dataflow_assets.storage.records import RecordForms
from dataflow_assets.storage.sql import Dialect, Statement
from dataflow_assets.tables import TableName

if TYPE_CHECKING:
    import pyarrow as pa

SNOWFLAKE = Dialect(
    "Snowflake",
    placeholder=lambda _: "?",
    max_identifier_bytes=255,
    integer_type="NUMBER(19,0)",
    instant_type="TIMESTAMP_LTZ",
    conflict=lambda *_: "",  # there is no such form; who inserts holds the ledger
)


class UnquotedDialect(Dialect):
    """Names as Snowflake reads them without quotes, in upper case, so that whoever asks need not quote them."""

    def quote(self, name: str) -> str:
        """The name in upper case and quotes."""
        return super().quote(name.upper())


RECORDS = RecordForms(
    UnquotedDialect(**{item.name: getattr(SNOWFLAKE, item.name) for item in fields(Dialect)}),
    types={"json": "VARIANT", "list": "ARRAY"},
    around={"json": "PARSE_JSON({})", "list": "PARSE_JSON({})::ARRAY"},
    row="SELECT {}",  # VALUES takes no functions
    indexes=False,
)
_MISSING = 2003
_IDLE_SECONDS = 30
_LOCK_WAIT, _NO_WAREHOUSE = 625, 606
_SESSION_GONE = {390108, 390111, 390112, 390114, 390115, 390195}
_OUT_OF_REACH = (
    *(range(250_000, 251_000), range(251_010, 251_013), range(254_000, 255_000)),
    *(range(252_010, 252_011), range(253_003, 253_004)),
)
_LOGIN = (range(390_000, 391_000), range(394_000, 395_000), range(251_000, 252_000), range(290_400, 290_405))
_BAD_VALUE = range(100_000, 101_000)
ERROR_CODES = Codes(
    "errno",
    transient=(_LOCK_WAIT, 610, *sorted(_SESSION_GONE), *_OUT_OF_REACH),  # 610: the service could not complete the query now
    configuration=(_MISSING, _NO_WAREHOUSE, 2043, 3001, 90105, 90106, *_LOGIN),
    transient_also="HTTP that failed",
    configuration_also="a private key that cannot be read",
)
_HINTS = {
    _MISSING: "check database, schema and table, their upper and lower case, and the rights of the role",
    _NO_WAREHOUSE: "set warehouse on the connection, or give the user a default one",
    904: "check the column names of the query; what is not quoted there is upper case",
    1003: "run the query in a worksheet to see where it breaks off",
    3001: "the role lacks a right: see GRANT, or set another role on the connection",
    90105: "set database on the connection",
    90106: "set schema on the connection, or table_schema on the step",
    _LOCK_WAIT: "another transaction holds the table: SHOW LOCKS; it is tried again",
}


class CommitUnknown(ConnectionFailed):
    """The connection broke while COMMIT was under way: only the ledger knows whether it happened."""


def is_missing(error: Exception) -> bool:
    """Whether an object does not exist, or is hidden from the role: Snowflake does not tell these apart."""
    return getattr(error, "errno", None) == _MISSING


@contextmanager
def translated(doing: str, kind: type[DataflowError]) -> Iterator[None]:
    """Turn the driver's errors, raised inside, into `kind` or a closer relative."""
    import pyarrow as pa

    errors = driver_errors()
    try:
        yield
    except errors as error:
        raise failure(error, doing, kind) from error
    except (pa.ArrowException, OSError) as error:
        raise kind(f"{doing}: {error}", kind=stream_kind(error)) from error


def driver_errors() -> tuple[type[Exception], ...]:
    """The driver's errors. Raises MissingDriver when it is not installed."""
    try:
        from snowflake.connector import errors
    except ModuleNotFoundError as error:
        raise MissingDriver(kind="snowflake", module="snowflake.connector") from error
    return (errors.Error,)


def failure(error: Exception, doing: str, kind: type[DataflowError]) -> DataflowError:
    """A driver's error as one of ours, told apart by its number, and by its class where it has none."""
    number = abs(getattr(error, "errno", None) or 0)
    text = f"{doing}: {str(error).strip()}"
    told = ERROR_CODES.kind(number)
    if told == "configuration" and _is_one_of(number, _LOGIN):
        return ConnectionFailed(text, hint="check account, user, password or key, authenticator and role", transient=False)
    if number in _SESSION_GONE or _is_one_of(number, _OUT_OF_REACH) or _is_transport(error):
        return ConnectionFailed(text, hint="check account, host and the network; https://status.snowflake.com tells of outages")
    if kind is WriteFailed and number in _BAD_VALUE:
        return ValueRefused(text, hint="change the value in the query, or the type of the target column")
    return kind(text, hint=_HINTS.get(number, ""), kind=told)


def _is_one_of(number: int, ranges: tuple[range, ...]) -> bool:
    return any(number in numbers for numbers in ranges)


def _is_transport(error: Exception) -> bool:
    """Whether HTTP itself failed: such errors stand beside those of the database in the driver's family."""
    from snowflake.connector import errors

    return not isinstance(error, errors.DatabaseError | errors.InterfaceError) or type(error) is errors.OperationalError


def bound(value: Any) -> Any:
    """The value for the driver, which would take the offset off a datetime unless told its type."""
    if isinstance(value, datetime):
        return ("TIMESTAMP_NTZ" if value.tzinfo is None else "TIMESTAMP_TZ", value)
    return value


@dataclass(frozen=True)
class Described:
    """One column of a result: its name, and its type as the driver tells it."""

    name: str
    family: str
    precision: int | None
    scale: int | None


@dataclass(frozen=True)
class TargetColumn:
    """One column of a table; `declared` is its type as DESCRIBE TABLE writes it."""

    name: str
    declared: str
    required: bool
    """Nothing fills it where the data lacks it."""
    writable: bool
    nullable: bool = True


class Session:
    """One open connection. Statements belong to a transaction that `commit` or `rollback` ends; DDL commits what is open."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._used = time.monotonic()

    def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        """Run a statement; its rows."""
        with self._cursor(statement) as cursor:
            return [tuple(row) for row in cursor.fetchall()]

    def affected(self, statement: Statement) -> int:
        """Run a statement; how many rows it touched."""
        with self._cursor(statement) as cursor:
            return int(cursor.rowcount or 0)

    def describe(self, statement: Statement) -> list[Described]:
        """The columns that a query would return, without running it."""
        from snowflake.connector.constants import FIELD_ID_TO_NAME

        with self._connection.cursor() as cursor:
            found = cursor.describe(statement.text, [bound(value) for value in statement.values] or None)
        return [Described(item.name, FIELD_ID_TO_NAME.get(item.type_code, "UNKNOWN"), item.precision, item.scale) for item in found]

    @contextmanager
    def stream(self, statement: Statement) -> Iterator[Iterator[pa.Table]]:
        """Run a query; its result chunk by chunk, fetched as they are asked for."""
        with self._cursor(statement) as cursor:
            yield cursor.fetch_arrow_batches()

    @contextmanager
    def _cursor(self, statement: Statement) -> Iterator[Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement.text, [bound(value) for value in statement.values] or None)
            yield cursor
        self._used = time.monotonic()

    def columns(self, table: TableName) -> dict[str, TargetColumn]:
        """Name -> column; empty when there is no such table."""
        try:
            rows = self.fetch(Statement(f"DESCRIBE TABLE {SNOWFLAKE.table(table)}"))
        except driver_errors() as error:
            if is_missing(error):
                return {}
            raise
        return {row[0]: TargetColumn(row[0], row[1], row[4] is None, row[2] == "COLUMN", row[3] == "Y") for row in rows}

    def upload(self, path: Path, stage: TableName) -> None:
        """Put a local file into a stage."""
        quoted = path.as_posix().replace("\\", "\\\\").replace("'", "\\'")
        self.fetch(Statement(f"PUT 'file://{quoted}' @{SNOWFLAKE.table(stage)} AUTO_COMPRESS = FALSE"))

    def begin(self) -> str:
        """Begin a transaction; its name."""
        self.fetch(Statement("BEGIN"))
        ((name,),) = self.fetch(Statement("SELECT CURRENT_TRANSACTION()"))
        return str(name)

    def commit(self) -> None:
        """Make what was written visible."""
        self.fetch(Statement("COMMIT"))

    def rollback(self) -> None:
        """Undo what was written since the last commit."""
        self.fetch(Statement("ROLLBACK"))

    def is_alive(self) -> bool:
        """Whether it still answers; one used a moment ago is not asked."""
        if time.monotonic() - self._used > _IDLE_SECONDS:
            self.fetch(Statement("SELECT 1"))
        return not self._connection.is_closed()

    def close(self) -> None:
        """End the session; its temporary tables and stages go with it."""
        with suppress(Exception):
            self._connection.close(retry=False)


class Sessions:
    """Idle sessions of one connector, handed to one user at a time. Safe to share between threads."""

    def __init__(self, keys: Callable[[], Mapping[str, Any]], name: str) -> None:
        self._keys, self._name = keys, name
        self._idle: list[Session] = []
        self._lock = threading.Lock()

    @contextmanager
    def use(self) -> Iterator[Session]:
        """A session outside any transaction; closed after an error."""
        session = self._take() or self._connect()
        try:
            yield session
        except BaseException:
            session.close()
            raise
        with self._lock:
            self._idle.append(session)

    @contextmanager
    def once(self) -> Iterator[Session]:
        """A session for a statement that changes it, such as CREATE SCHEMA, after which another schema is current."""
        session = self._connect()
        try:
            yield session
        finally:
            session.close()

    def _take(self) -> Session | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                session = self._idle.pop()
            with suppress(Exception):  # whatever is wrong with it, a fresh one will tell
                if session.is_alive():
                    return session
            session.close()

    def _connect(self) -> Session:
        with translated(f"connection {self._name!r}", ConnectionFailed):
            import snowflake.connector

            return Session(snowflake.connector.connect(**self._keys()))

    def close(self) -> None:
        """End the idle sessions."""
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()
