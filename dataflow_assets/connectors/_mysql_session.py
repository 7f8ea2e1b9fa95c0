"""Connections to MySQL and MariaDB: opening, keeping and giving them back, statements over them, and what an error means.

Here: the dialect, values as literals, the settings of a session. Not here: rows in bulk (`_mysql_wire`), what is said (`mysql`,
`_mysql_read`, `_mysql_publish`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dataflow_assets.error_kinds import Codes, stream_kind
from dataflow_assets.errors import ConnectionFailed, DataflowError, MissingDriver, ValueRefused, WriteFailed
from dataflow_assets.storage.records import RecordForms
from dataflow_assets.storage.sql import Dialect, Statement, on_duplicate_key

if TYPE_CHECKING:
    import pymysql

    from dataflow_assets.connectors._mysql_wire import Outcome

_MARK = re.compile(r"\0(\d+)\0")


# Names longer than 64 characters are refused by the server itself.
MYSQL = Dialect(
    "MySQL",
    placeholder=lambda position: f"\0{position}\0",  # nothing else can hold it; PyMySQL's %s would meet the % of names and queries
    quotes=("`", "`"),
    basic_plane=True,
    text_type="LONGTEXT",
    key_text_type="VARCHAR(191)",  # four of them fit the 3072 bytes of an InnoDB key
    instant_type="DATETIME(6)",
    instant=lambda moment: moment.astimezone(UTC).replace(tzinfo=None),
    conflict=on_duplicate_key,
    incoming=lambda quoted: f"VALUES({quoted})",  # the only form that MySQL and MariaDB share
    folds_case=True,
    adding="ADD COLUMN",
    retyping="MODIFY COLUMN {column} {kind} {null}",
)
RECORDS = RecordForms(MYSQL, types={"json": "JSON", "list": "JSON"})

STRICT = "STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
_ZONE = "time_zone = '+00:00', autocommit = 1"
READING = f"SET SESSION {_ZONE}, sql_mode = @@GLOBAL.sql_mode, net_write_timeout = 86400"
"""A slow consumer may leave the server waiting for as long as a day; 60 s by default."""

NO_TABLE, NO_DATABASE, LOCAL_OFF = 1146, 1049, frozenset({1148, 3948, 4166})
_LOST = {0, 1040, 1047, 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1317, 1927, 2002, 2003, 2006, 2013, 2055, 4031, 1226}
_NOT_ALLOWED = {1044, 1045, NO_DATABASE, 1130, 1251, 1698, 1820, 2026, 2058, 2059, 2061, 3118, 3159, 4151}
_RETRY = {1021, 1037, 1041, 1114, 1135, 1205, 1213, 1412, 1637, 1684, 3572}
ERROR_CODES = Codes(
    "error number",
    transient=tuple(sorted((_LOST | _RETRY) - {0})),
    configuration=tuple(sorted({*_NOT_ALLOWED, *LOCAL_OFF, NO_TABLE, 1046, 1142, 1143, 1227, 1290, 1370, 1665, 1792, 1836})),
    transient_also="a connection that broke",
    configuration_also="certificates that do not fit",
)
_BAD_VALUE = {1048, 1263, 1264, 1265, 1292, 1364, 1366, 1367, 1406, 1411, 1416, 1425, 1426, 1427, 1439, 1441, 1690, 3140, 3819, 4025}
_UNREACHABLE = "check host, port, database, user and password, and whether the server is up"
_HINTS = {
    1046: "name a database: in `database` of the connection, or in `table_schema` of the step",
    1054: "check the column names of the query",
    1060: "give each column a name of its own with AS",
    1062: "a unique index of the table does not allow such rows: use upsert with its columns as upsert_keys, or drop the index",
    1064: "run the query in the mysql client to see where it breaks off",
    1227: "the user lacks a right: GRANT PROCESS; or say delay: of the sensor, if no transaction stays open for longer",
    1142: "the user lacks a right: see GRANT",
    1143: "the user lacks a right: see GRANT",
    1021: "make room on the disk of the server",
    1114: "make room on the disk of the server, or raise the limit of the table",
    1205: "another session holds the lock: SHOW FULL PROCESSLIST tells which; lock_timeout of the connection says how long to wait",
    1665: "set binlog_format to ROW or MIXED: with STATEMENT, rows cannot be published side by side",
    NO_TABLE: "list the tables with SHOW TABLES, and check table_schema",
}
# What is no loss: VALUES() and names of character sets that newer servers call deprecated.
_HARMLESS = {1287, 1681, 3719, 3778}


class CommitUnknown(ConnectionFailed):
    """The connection broke while COMMIT was under way: only the ledger knows whether it happened."""


def require_driver() -> None:
    """Raise MissingDriver unless the driver is installed."""
    from importlib.util import find_spec

    if find_spec("pymysql") is None:
        raise MissingDriver(kind="mysql", module="pymysql")


def code_of(error: Exception) -> int | None:
    """The server's or driver's number of an error."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else None


def failure(error: Exception, doing: str, kind: type[DataflowError]) -> DataflowError:
    """A driver's error as one of ours, told apart by its number."""
    code = code_of(error)
    text = f"{doing}: {error.args[1] if len(error.args) > 1 else error}" + (f" (error {code})" if code else "")
    if code in _NOT_ALLOWED:
        return ConnectionFailed(text, hint="check user, password, database and their rights", transient=False)
    if code in _LOST:
        return ConnectionFailed(text, hint=_UNREACHABLE)
    if kind is WriteFailed and code in _BAD_VALUE:
        return ValueRefused(text, hint="change the value in the query, or the type of the target column")
    return kind(text, hint=_HINTS.get(code or 0, ""), kind=ERROR_CODES.kind(code))


@contextmanager
def translated(doing: str, kind: type[DataflowError]) -> Iterator[None]:
    """Turn the driver's errors, raised inside, into `kind`, ValueRefused or ConnectionFailed."""
    import pymysql

    try:
        yield
    except pymysql.MySQLError as error:
        raise failure(error, doing, kind) from error
    except OSError as error:
        raise kind(f"{doing}: {error}", kind=stream_kind(error)) from error


class Sessions:
    """Idle connections of one connector, handed to one user at a time. Safe to share between threads."""

    def __init__(self, parameters: Callable[[], dict[str, Any]], name: str, lock_seconds: int) -> None:
        self._parameters, self._name = parameters, name
        # A client that vanished without a word holds its locks no longer than five minutes.
        waits = f"innodb_lock_wait_timeout = {lock_seconds}, lock_wait_timeout = {lock_seconds}, wait_timeout = 300, net_read_timeout = 300"
        self._writing = f"SET SESSION {_ZONE}, sql_mode = '{STRICT}', {waits}"
        self._idle: list[pymysql.Connection[Any]] = []
        self._lock = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[pymysql.Connection[Any]]:
        """A connection with the server's own sql_mode, in which users wrote their queries."""
        with self._session(READING) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[pymysql.Connection[Any]]:
        """A connection in strict mode that commits each statement."""
        with self._session(self._writing) as connection:
            yield connection

    @contextmanager
    def _session(self, settings: str) -> Iterator[pymysql.Connection[Any]]:
        require_driver()
        import pymysql

        connection = self._take(settings) or self._connect(settings)
        try:
            yield connection
        except BaseException:
            _discard(connection)
            raise
        # An open snapshot would keep others from altering its tables. That the connection broke since the user left is no failure.
        try:
            connection.rollback()
        except (pymysql.MySQLError, OSError):
            _discard(connection)
            return
        with self._lock:
            self._idle.append(connection)

    def _take(self, settings: str) -> pymysql.Connection[Any] | None:
        """The newest idle connection that still answers; the server may have dropped some meanwhile."""
        import pymysql

        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            try:
                connection.query(settings)
            except (pymysql.MySQLError, OSError):
                _discard(connection)
                continue
            return connection

    def _connect(self, settings: str) -> pymysql.Connection[Any]:
        from ssl import SSLError

        import pymysql
        from pymysql.constants import CLIENT

        from dataflow_assets.connectors._mysql_wire import keep_alive

        doing = f"connection {self._name!r}"
        with translated(doing, ConnectionFailed):
            try:
                # LOCAL_FILES without local_infile: the server may take the rows we send, and cannot ask for a file
                connection = pymysql.connect(**self._parameters(), client_flag=CLIENT.LOCAL_FILES)
            except (RuntimeError, ValueError, OSError) as error:  # a way to log in that needs another module; a file that is not there
                raise ConnectionFailed(
                    f"{doing}: {error}", hint="check ssl_ca and the other keys of the connection", transient=False
                ) from error
            except pymysql.OperationalError as error:
                if isinstance(getattr(error, "original_exception", None), SSLError):
                    raise ConnectionFailed(f"{doing}: {error.args[1]}", hint="check ssl_mode, ssl_ca and host", transient=False) from error
                raise
            connection.query(settings)
            keep_alive(connection)
        return connection

    def end(self, connection: pymysql.Connection[Any]) -> None:
        """Stop what another thread waits for on `connection`: on the server, which would go on sorting, and here."""
        from dataflow_assets.connectors._mysql_wire import break_off

        with suppress(Exception), self.reading() as other:
            other.query(f"KILL CONNECTION {connection.thread_id()}")
        break_off(connection)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            _discard(connection)


def _discard(connection: pymysql.Connection[Any]) -> None:
    with suppress(Exception):
        connection.close()


def literal(connection: pymysql.Connection[Any], value: Any) -> str:
    """The value as the driver writes it into SQL for this connection. Raises ValueRefused for what MySQL has no literal for."""
    import pymysql

    if isinstance(value, datetime) and value.tzinfo is not None:
        value = MYSQL.instant(value)
    if isinstance(value, list | tuple | set | dict):
        raise ValueRefused(f"{value!r} cannot be a value in a MySQL query", hint="write its parts as values of their own")
    try:
        return str(connection.escape(value))
    except pymysql.ProgrammingError as error:
        raise ValueRefused(f"{value!r} cannot be a value in a MySQL query: {error}") from error


def with_literals(connection: pymysql.Connection[Any], statement: Statement) -> str:
    """The statement with its values in the places of the dialect's placeholders."""
    return _MARK.sub(lambda match: literal(connection, statement.values[int(match[1]) - 1]), statement.text)


def fetch(connection: pymysql.Connection[Any], statement: Statement) -> list[tuple[Any, ...]]:
    """Run a statement; its rows, none when it returns none."""
    with connection.cursor() as cursor:
        cursor.execute(with_literals(connection, statement))
        return list(cursor.fetchall()) if cursor.description else []


def run(connection: pymysql.Connection[Any], statement: Statement) -> int:
    """Run a statement that returns no rows; how many it touched."""
    from dataflow_assets.connectors._mysql_wire import execute

    return execute(connection, with_literals(connection, statement)).rows


def refuse_warnings(connection: pymysql.Connection[Any], outcome: Outcome, doing: str) -> None:
    """Raise what the server only warned of: in LOAD DATA LOCAL it changes values and drops rows also in strict mode."""
    if not outcome.warnings:
        return
    import pymysql

    shown = fetch(connection, Statement("SHOW WARNINGS"))
    for _, code, message in shown:
        if code not in _HARMLESS:
            raise failure(pymysql.DataError(code, message), doing, WriteFailed)
    if len(shown) < outcome.warnings:
        raise WriteFailed(f"{doing}: the server gave {outcome.warnings} warnings and shows {len(shown)}", hint="raise max_error_count")
