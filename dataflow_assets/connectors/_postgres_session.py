"""Connections to Postgres: opening, keeping and giving them back, and what a driver's error means.

Here: the two drivers side by side. psycopg serves short statements (ledger, descriptions of columns), ADBC moves rows. Not here:
what is said over them (`postgres`, `_postgres_publish`).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow_assets.connectors._postgres_login import WELCOME, login_state
from dataflow_assets.connectors._postgres_tls import verdict
from dataflow_assets.error_kinds import Codes, stream_kind
from dataflow_assets.errors import ConnectionFailed, DataflowError, ErrorKind, MissingDriver, ReadFailed, ValueRefused, WriteFailed
from dataflow_assets.storage.records import RecordForms
from dataflow_assets.storage.sql import Dialect, Statement
from dataflow_assets.tables import Target, Unit

if TYPE_CHECKING:
    import psycopg


_T = TypeVar("_T")
POSTGRES = Dialect("Postgres", max_identifier_bytes=63, instant_type="TIMESTAMPTZ")
_JSON = "CAST({} AS JSONB)"
RECORDS = RecordForms(POSTGRES, types={"json": "JSONB", "list": "JSONB"}, around={"json": _JSON, "list": _JSON})

_LOST = ("08", "57P01", "57P02", "57P03", "57P05", "53300")
_NOT_ALLOWED = ("28", "3D000")
ERROR_CODES = Codes(
    "SQLSTATE",
    transient=(*_LOST, "25P03", "25P04", "40001", "40003", "40P01", "53", "55006", "55P03"),
    configuration=(*_NOT_ALLOWED, "3F000", "42501", "42P01", "53400", "57P04"),
    prefixes=True,
    transient_also="a connection that broke, or was refused before the server gave a code",
    configuration_also="a TLS mode that the server does not speak",
)
"""libpq hands on no code of a failed login: `_postgres_login` asks for it."""
_UNREACHABLE = "check host, port, database, user and password, and whether the server is up"
_REFUSED = "check user, password, database and their rights"
_AT_ITS_LIMIT = "every connection of the server, the role or the database is in use: run less at a time, or raise the limit"
_BAD_VALUE = "22"
_HINTS = {
    "42P01": "list the tables with \\dt *.* in psql, and check pg_schema",
    "42703": "check the column names of the query",
    "42501": "the user lacks a right: see GRANT",
    "42601": "run the query in psql to see where it breaks off",
    "55P03": "another session holds the lock: SELECT pid, query FROM pg_stat_activity WHERE application_name = 'dataflow'",
}


class CommitUnknown(ConnectionFailed):
    """The connection broke while COMMIT was under way: only the ledger knows whether it happened."""


def lock_key(*parts: str) -> int:
    """The number of an advisory lock, signed 64 bits, from what it protects."""
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), signed=True)


def unit_lock(target: Target, unit: Unit) -> int:
    """The lock that two publishes of one unit share."""
    return lock_key("unit", str(target.table), unit.pipeline, unit.step, unit.key)


def require_drivers() -> None:
    """Raise MissingDriver unless both drivers are installed."""
    from importlib.util import find_spec

    for module in ("psycopg", "adbc_driver_postgresql"):
        if find_spec(module) is None:
            raise MissingDriver(kind="postgres", module=module)


def failure(error: Exception, doing: str, kind: type[DataflowError]) -> DataflowError:
    """A driver's error as one of ours, told apart by SQLSTATE; an error without one is a lost or refused connection."""
    state = str(getattr(error, "sqlstate", None) or "").strip("\0")
    text = f"{doing}: {str(error).strip()}"
    if state.startswith(_NOT_ALLOWED) or (not state and _is_login_refused(error)):
        return ConnectionFailed(text, hint=_REFUSED, transient=False)
    if state.startswith(_LOST) or (not state and _is_connection_error(error)):
        return ConnectionFailed(text, hint=_UNREACHABLE)
    if kind is WriteFailed and state.startswith(_BAD_VALUE):
        return ValueRefused(text, hint="change the value in the query, or the type of the target column")
    return kind(text, hint=_HINTS.get(state, ""), kind=ERROR_CODES.kind(state))


def _is_connection_error(error: Exception) -> bool:
    import adbc_driver_manager
    import psycopg

    if isinstance(error, adbc_driver_manager.Error):
        return error.status_code in {adbc_driver_manager.AdbcStatusCode.IO, adbc_driver_manager.AdbcStatusCode.INVALID_STATE}
    return isinstance(error, psycopg.OperationalError)


def _is_login_refused(error: Exception) -> bool:
    """Whether the server asked for a password and then closed the door: libpq hands on no SQLSTATE, but knows how far it came."""
    import psycopg

    refused = getattr(error, "pgconn", None) if isinstance(error, psycopg.OperationalError) else None
    return refused is not None and (refused.used_password or refused.needs_password)


@contextmanager
def translated(doing: str, kind: type[DataflowError]) -> Iterator[None]:
    """Turn the errors of both drivers, raised inside, into `kind` or ConnectionFailed."""
    import adbc_driver_manager
    import psycopg
    import pyarrow as pa

    try:
        yield
    except (psycopg.Error, adbc_driver_manager.Error) as error:
        raise failure(error, doing, kind) from error
    except (pa.ArrowException, OSError) as error:
        raise kind(f"{doing}: {error}", kind=stream_kind(error)) from error


def stream_failure(connection: Any, error: OSError, doing: str) -> DataflowError:
    """What broke a stream off in its middle: ADBC gives no SQLSTATE there, so the connection is asked whether it still lives."""
    import adbc_driver_manager

    try:
        connection.rollback()
        _ping(connection)
    except adbc_driver_manager.Error:
        return ConnectionFailed(f"{doing}: {error}")
    return ReadFailed(f"{doing}: {str(error).strip()}", hint="run the query in psql to see where it fails")


class Sessions:
    """Idle connections of one connector, handed to one user at a time. Safe to share between threads."""

    def __init__(self, conninfo: Callable[[], str], name: str) -> None:
        self._conninfo, self._name = conninfo, name
        self._bulk: list[Any] = []
        self._sql: list[psycopg.Connection[Any]] = []
        self._lock = threading.Lock()

    @contextmanager
    def sql(self) -> Iterator[psycopg.Connection[Any]]:
        """An autocommitting psycopg connection whose placeholders are `$1`, `$2`."""
        require_drivers()
        connection = self._take(self._sql, lambda kept: kept.execute(b"SELECT 1")) or self._connect_sql()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._sql.append(connection)

    @contextmanager
    def bulk(self) -> Iterator[Any]:
        """An ADBC connection outside any transaction; rolled back when given back, closed after an error."""
        require_drivers()
        connection = self._take(self._bulk, _ping) or self._connect_bulk()
        try:
            yield connection
        except BaseException:
            with suppress(Exception):
                connection.close()
            raise
        # The user has what it came for: a connection that broke since is no failure, it is just not kept.
        with suppress(Exception):
            connection.rollback()
            with self._lock:
                self._bulk.append(connection)

    def _take(self, idle: list[_T], check: Callable[[_T], object]) -> _T | None:
        """The newest idle connection that still answers; the server may have dropped some meanwhile."""
        while True:
            with self._lock:
                if not idle:
                    return None
                connection = idle.pop()
            try:
                check(connection)
            except Exception:  # noqa: BLE001 - whatever is wrong with it, a fresh one will tell
                with suppress(Exception):
                    connection.close()  # type: ignore[attr-defined]
                continue
            return connection

    @contextmanager
    def _connecting(self) -> Iterator[str]:
        """The parameters of a connection; where it is refused for the sake of TLS, the error says so."""
        from psycopg.conninfo import conninfo_to_dict

        conninfo = self._conninfo()
        try:
            with translated(f"connection {self._name!r}", ConnectionFailed):
                yield conninfo
        except ConnectionFailed as error:
            told = _told_by_the_server(conninfo, error)
            found = verdict(conninfo_to_dict(conninfo)) if (told is None and error.transient) or (told and told.may_be_tls) else None
            if told is None and found is None:
                raise
            kind = told.kind if told else "transient" if found and found.transient else "configuration"
            hint = found.hint if found else told.hint if told else ""
            raise ConnectionFailed(error.message, hint=hint, kind=kind) from error.__cause__

    def _connect_sql(self) -> psycopg.Connection[Any]:
        import psycopg

        with self._connecting() as conninfo:
            connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None, cursor_factory=psycopg.RawCursor)
            try:
                connection.execute(b"SELECT set_config('TimeZone', 'UTC', false), set_config('client_encoding', 'UTF8', false)")
            except BaseException:
                connection.close()
                raise
        return connection

    def _connect_bulk(self) -> Any:
        from dataflow_assets.connectors._postgres_bulk import BulkConnection

        with self._connecting() as conninfo:
            return BulkConnection(conninfo)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle: list[Any] = [*self._bulk, *self._sql]
            self._bulk, self._sql = [], []
        for connection in idle:
            with suppress(Exception):
                connection.close()


@dataclass(frozen=True)
class _Refusal:
    """What the server says of a login that it refuses."""

    state: str

    @property
    def kind(self) -> ErrorKind:
        return "transient" if self.state == WELCOME else ERROR_CODES.kind(self.state)

    @property
    def hint(self) -> str:
        return _AT_ITS_LIMIT if self.state == "53300" else _REFUSED if self.kind == "configuration" else _UNREACHABLE

    @property
    def may_be_tls(self) -> bool:
        """Whether it may be that no rule lets in a connection without, or with, encryption."""
        return self.state == "28000"


def _told_by_the_server(conninfo: str, error: ConnectionFailed) -> _Refusal | None:
    """The refusal by the code that the server gives for it; None where it gives none, or the drivers have told it."""
    if getattr(error.__cause__, "sqlstate", None):
        return None
    state = login_state(conninfo)
    return _Refusal(state) if state else None


def _ping(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchall()
    connection.rollback()


def fetch(connection: psycopg.Connection[Any], statement: Statement) -> list[tuple[Any, ...]]:
    """Run a statement over psycopg; its rows, none when it returns none."""
    cursor = connection.execute(statement.text.encode(), statement.values or None)
    return cursor.fetchall() if cursor.description else []


def run(connection: Any, statement: Statement) -> list[tuple[Any, ...]]:
    """Run a statement over ADBC inside the open transaction; its rows, none when it returns none."""
    with connection.cursor() as cursor:
        cursor.execute(statement.text, statement.values or None)
        return list(cursor.fetchall()) if cursor.description else []


def count_affected(connection: Any, text: str) -> int:
    """Run a statement without values over ADBC; how many rows it touched."""
    with connection.cursor() as cursor:
        cursor.execute(text)
        return int(cursor.rowcount)


def literal(value: Any, connection: psycopg.Connection[Any] | None = None) -> str:
    """The value as psycopg writes it into SQL.

    COPY takes no parameters, and ADBC reads with COPY and counts affected rows only without them: so values become literals,
    quoted by the driver for this very connection and never by us.
    """
    from psycopg import sql

    return sql.Literal(value).as_string(connection)


def literals(written: Sequence[str]) -> Dialect:
    """The dialect in which the n-th placeholder is the n-th of these literals."""
    return replace(POSTGRES, placeholder=lambda position: written[position - 1])
