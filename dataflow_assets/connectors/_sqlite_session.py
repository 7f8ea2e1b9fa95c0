"""Opening a SQLite file for one reader or one writer, and what an error of the library means.

Here: connections, which cost 0.1 ms and are therefore opened for each use. Not here: what is said over them (`sqlite`,
`_sqlite_read`, `_sqlite_publish`).

Python's own module both reads and writes. ADBC's driver reads 2.4 and writes 1.5 times as fast (measured), but it takes the type of a
column from its first rows, and it brings a second copy of the library: two copies in one process drop each other's locks on a
file (https://sqlite.org/howtocorrupt.html, section 2.2.1).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataflow_assets.connectors._sqlite_codes import ERROR_CODES
from dataflow_assets.error_kinds import stream_kind
from dataflow_assets.errors import ConnectionFailed, DataflowError, ReadFailed, ValueRefused, WriteFailed
from dataflow_assets.storage.records import RecordForms
from dataflow_assets.storage.sql import Dialect, Statement

SQLITE = Dialect(
    "SQLite",
    placeholder=lambda position: f"?{position}",
    integer_type="INTEGER",
    instant_type="TEXT",
    instant=lambda moment: moment.isoformat(),
    folds_case=True,
    adding="ADD COLUMN",
)
RECORDS = RecordForms(SQLITE, types={"date": "TEXT"}, date=lambda day: day.isoformat(), make_schema="")
_POLL_SECONDS = 0.02
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNUSABLE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH}
_NAMES = {getattr(sqlite3, str(name)): str(name) for name in (*ERROR_CODES.transient, *ERROR_CODES.configuration)}
_DATATYPE = sqlite3.SQLITE_CONSTRAINT | 12 << 8
"""A value that a STRICT table refuses; newer than the names that Python 3.11 knows."""
_HINTS = {
    sqlite3.SQLITE_ERROR: "try the statement in the sqlite3 shell; .tables lists the tables",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: try .recover in the sqlite3 shell",
    sqlite3.SQLITE_FULL: "make room on the disk",
    sqlite3.SQLITE_CONSTRAINT: "make the rows keep the table's constraints, in the query or a transform",
}


@dataclass(frozen=True)
class Settings:
    """How a connector opens its file."""

    name: str
    path: Path
    wait_seconds: float
    wal: bool


@contextmanager
def translated(doing: str, kind: type[DataflowError]) -> Iterator[None]:
    """Turn the library's errors, raised inside, into `kind` or a closer relative."""
    import pyarrow as pa

    try:
        yield
    except sqlite3.Error as error:
        raise _failure(error, doing, kind) from error
    except (pa.ArrowException, OSError) as error:
        raise kind(f"{doing}: {error}", kind=stream_kind(error)) from error


def _failure(error: sqlite3.Error, doing: str, kind: type[DataflowError]) -> DataflowError:
    """One of ours, told apart by SQLite's result code; the low byte of an extended code is the primary one."""
    extended = getattr(error, "sqlite_errorcode", None)
    code = None if extended is None else extended & 0xFF
    text = f"{doing}: {error}"
    if code in _BUSY:
        return ConnectionFailed(text, hint="another process is writing: it is tried again, or raise lock_timeout on the connection")
    if code in _UNUSABLE:
        return ConnectionFailed(text, hint="check `database` of the connection, and who may read and write there", transient=False)
    if kind is WriteFailed and (code in {sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH} or extended == _DATATYPE):
        return ValueRefused(text, hint="change the value in the query, or the type of the target column")
    if code is None and kind is ReadFailed and isinstance(error, sqlite3.OperationalError):
        # Python's own error, about text that is no UTF-8
        return ValueRefused(text, hint="read the column as bytes, with CAST(... AS BLOB) in a query")
    return kind(text, hint=_HINTS.get(code or 0, ""), kind=ERROR_CODES.kind(_NAMES.get(code or 0)))


@contextmanager
def reading(settings: Settings) -> Iterator[sqlite3.Connection]:
    """A connection inside a read transaction: its first SELECT fixes what all of them see."""
    with _open(settings, "ro") as connection:
        connection.execute("BEGIN")
        yield connection


def is_written(settings: Settings) -> bool:
    """Whether somebody writes at present: whoever does holds a lock that is asked for here, and given back at once."""
    with _open(replace(settings, wait_seconds=0.0), "rw") as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in _BUSY:
                return True
            raise
        connection.execute("ROLLBACK")
        return False


@contextmanager
def writing(settings: Settings) -> Iterator[sqlite3.Connection]:
    """A connection inside a transaction of the only writer; commit it, or all is undone. The file is made when it is missing."""
    settings.path.parent.mkdir(parents=True, exist_ok=True)
    with _open(settings, "rwc") as connection:
        if settings.wal:
            _use_wal(connection, settings.wait_seconds)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        finally:
            if connection.in_transaction:
                with suppress(sqlite3.Error):  # closing undoes it as well
                    connection.execute("ROLLBACK")


@contextmanager
def _open(settings: Settings, mode: str) -> Iterator[sqlite3.Connection]:
    address = f"{settings.path.as_uri()}?mode={mode}"
    # the reader's thread uses it too, never both at once
    connection = sqlite3.connect(address, uri=True, timeout=settings.wait_seconds, isolation_level=None, check_same_thread=False)
    try:
        yield connection
    finally:
        connection.close()


def _use_wal(connection: sqlite3.Connection, seconds: float) -> None:
    """Let readers and the writer go on beside each other; stays so in the file. SQLite does not wait for the lock by itself here."""
    deadline = time.monotonic() + seconds
    while rows(connection, Statement("PRAGMA journal_mode")) != [("wal",)]:
        try:
            connection.execute("PRAGMA journal_mode = wal")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return  # where the file system allows no WAL, SQLite leaves the mode as it was


def rows(connection: sqlite3.Connection, statement: Statement) -> list[tuple[Any, ...]]:
    """Run a statement; its rows."""
    return connection.execute(statement.text, statement.values).fetchall()


class Records:
    """A connection that stays open for small changes: closing the last one to a file folds its log into it, which costs milliseconds.

    It does not wait for the disk at each commit. After a crash of the machine the last rows may be missing; the file stays sound.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def read(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of a query. Raises ReadFailed when there is no file yet."""
        doing = f"reading records of connection {self._settings.name!r}"
        if not self._settings.path.exists():
            raise ReadFailed(f"{doing}: {self._settings.path} does not exist")
        with translated(doing, ReadFailed), self._used() as connection:
            return rows(connection, statement)

    def write(self, statements: Sequence[Statement]) -> None:
        """Run the statements in one transaction."""
        with translated(f"writing records of connection {self._settings.name!r}", WriteFailed), self._used() as connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                rows(connection, statement)
            connection.execute("COMMIT")

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        """The connection, closed after an error."""
        with self._lock:
            try:
                connection = self._connection = self._connection or self._open()
                yield connection
            except BaseException:
                self._close()
                raise

    def _open(self) -> sqlite3.Connection:
        settings = self._settings
        settings.path.parent.mkdir(parents=True, exist_ok=True)
        address = f"{settings.path.as_uri()}?mode=rwc"
        connection = sqlite3.connect(address, uri=True, timeout=settings.wait_seconds, isolation_level=None, check_same_thread=False)
        try:
            if settings.wal:
                _use_wal(connection, settings.wait_seconds)
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with self._lock:
            self._close()
