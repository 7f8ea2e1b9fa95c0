"""Opening a DuckDB file: one writer at a time among processes, threads and connectors, and each hold as short as it can be.

Here: the lock file, waiting, the handle that lingers for a moment, and what a driver's error means. Not here: what is said over a
connection (`duckdb`, `_duckdb_publish`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow_assets.error_kinds import Codes, stream_kind
from dataflow_assets.errors import ConnectionFailed, DataflowError, ErrorKind, ValueRefused, WriteFailed
from dataflow_assets.storage.records import RecordForms
from dataflow_assets.storage.sql import Dialect, Statement

if TYPE_CHECKING:
    import duckdb

DUCKDB = Dialect("DuckDB", folds_case=True)
RECORDS = RecordForms(DUCKDB, types={"json": "JSON", "list": "JSON"}, indexes=False)
ERROR_CODES = Codes(
    "class of the error",
    transient=("IOException", "TransactionException", "InterruptException", "HTTPException"),
    configuration=("CatalogException", "OutOfMemoryException", "PermissionException"),
    transient_also="a file that another process keeps open longer than lock_timeout",
    configuration_also="a file that is no database, or that cannot be written",
)
_LINGER_SECONDS = 0.25
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Settings:
    """How a connector opens its file."""

    name: str
    memory_limit: str
    threads: int
    wait_seconds: float


@contextmanager
def translated(doing: str, kind: type[DataflowError]) -> Iterator[None]:
    """Turn the driver's errors, raised inside, into `kind` or a closer relative."""
    import duckdb
    import pyarrow as pa

    try:
        yield
    except duckdb.Error as error:
        raise _failure(error, doing, kind) from error
    except (pa.ArrowException, OSError) as error:
        raise kind(f"{doing}: {error}", kind=stream_kind(error)) from error


def _failure(error: duckdb.Error, doing: str, kind: type[DataflowError]) -> DataflowError:
    import duckdb

    text = f"{doing}: {error}"
    told = _kind(error)
    if isinstance(error, duckdb.OutOfMemoryException):
        return kind(text, hint="raise memory_limit on the connection, or give the disk of its temporary files more room", kind=told)
    if isinstance(error, duckdb.CatalogException):
        return kind(text, hint="list the tables with SHOW ALL TABLES in the duckdb shell, and check table_schema", kind=told)
    if isinstance(error, duckdb.BinderException | duckdb.ParserException):
        return kind(text, hint="try the query in the duckdb shell")
    if kind is WriteFailed and isinstance(error, duckdb.DataError):
        return ValueRefused(text, hint="change the value in the query, or the type of the target column")
    return kind(text, kind=told)


def _kind(error: Exception) -> ErrorKind:
    """By the name of the error's class, or of the nearest one above it that is known."""
    kinds = [ERROR_CODES.kind(found.__name__) for found in type(error).__mro__]
    return next((kind for kind in kinds if kind != "permanent"), "permanent")


class Database:
    """One file, shared by every connector of the process.

    A process that has only read opens the file read-only, so that others may read it too; once it has written, it reads through
    the same handle, because DuckDB refuses two kinds of handle in one process. Opening costs 11 ms and closing 2 (measured), so
    the handle stays open for a quarter of a second after its last use: a run of many windows opens once, and others get their turn.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = threading.Lock()
        self._changed = threading.Condition()
        self._handle: duckdb.DuckDBPyConnection | None = None
        self._read_only = False
        self._users = 0
        self._writes = False
        self._timer: threading.Timer | None = None

    @contextmanager
    def writing(self, settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of the only writer."""
        from filelock import FileLock, Timeout

        self._require_place(settings)
        lock = FileLock(f"{self.path}.lock", timeout=settings.wait_seconds, poll_interval=_POLL_SECONDS)
        with self._only_writer(settings):
            try:
                lock.acquire()
            except Timeout as error:
                raise self._busy(settings, "another process is publishing into it") from error
            try:
                with self._connection(settings, write=True) as connection:
                    yield connection
            finally:
                lock.release()

    def _require_place(self, settings: Settings) -> None:
        """The folder is there and can be written to; otherwise waiting for a lock would never end well."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(f"{self.path}.lock", "ab"):  # noqa: PTH123 - the name is that of the database with an ending
                pass
        except OSError as error:
            hint = "check `database` of the connection, and who may write there"
            raise ConnectionFailed(
                f"connection {settings.name!r}: {self.path} cannot be written: {error}", hint=hint, transient=False
            ) from error

    @property
    def is_written(self) -> bool:
        """Whether a thread of this process writes at present."""
        return self._writer.locked()

    @contextmanager
    def _only_writer(self, settings: Settings) -> Iterator[None]:
        if not self._writer.acquire(timeout=settings.wait_seconds):
            raise self._busy(settings, "another thread of this process is publishing into it")
        try:
            yield
        finally:
            self._writer.release()

    @contextmanager
    def reading(self, settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that sees one snapshot per statement."""
        with self._connection(settings, write=False) as connection:
            yield connection

    @contextmanager
    def _connection(self, settings: Settings, *, write: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        connection = self._acquire(settings, write=write)
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        finally:
            with suppress(Exception):
                connection.close()
            self._release()

    def _acquire(self, settings: Settings, *, write: bool) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + settings.wait_seconds
        with self._changed:
            self._writes = self._writes or write
            while self._handle is not None and write and self._read_only:
                if self._users == 0:
                    self._close_handle()
                elif not self._changed.wait(max(deadline - time.monotonic(), 0)):
                    raise self._busy(settings, "this process is still reading from it")
            if self._handle is None:
                self._handle, self._read_only = self._open(settings, deadline), not self._writes
            self._users += 1
            return self._handle.cursor()

    def _open(self, settings: Settings, deadline: float) -> duckdb.DuckDBPyConnection:
        """Connect, waiting for a process that has the file open."""
        import duckdb

        while True:
            try:
                handle = duckdb.connect(str(self.path), read_only=not self._writes)
            except (duckdb.IOException, duckdb.ConnectionException) as error:
                if isinstance(error, duckdb.IOException) and not self._is_database():
                    raise ConnectionFailed(f"connection {settings.name!r}: {error}", hint="check `database`", transient=False) from error
                if time.monotonic() > deadline:
                    raise self._busy(settings, str(error)) from error
                time.sleep(_POLL_SECONDS)
            else:
                # a stage is read once: keeping its files took a tenth of the insert's processor time, and memory (measured)
                handle.execute("SET enable_external_file_cache = false")
                handle.execute(f"SET threads = {settings.threads}")
                handle.execute("SET memory_limit = $1", [settings.memory_limit])
                return handle

    def _is_database(self) -> bool:
        """Whether waiting can help: the file has DuckDB's mark, so it is a lock that keeps it closed."""
        try:
            with self.path.open("rb") as file:
                return file.read(12)[8:] == b"DUCK"
        except OSError:
            return False

    def _busy(self, settings: Settings, reason: str) -> ConnectionFailed:
        return ConnectionFailed(
            f"connection {settings.name!r}: {self.path} stayed busy for {settings.wait_seconds:g} s: {reason}",
            hint="close the program that has the file open, such as a shell or notebook, or raise lock_timeout on the connection",
        )

    def _release(self) -> None:
        with self._changed:
            self._users -= 1
            self._changed.notify_all()
            if self._timer is not None:
                self._timer.cancel()
            if self._users == 0:
                self._timer = threading.Timer(_LINGER_SECONDS, self.close)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Close the handle unless somebody uses it."""
        with self._changed:
            if self._users == 0:
                self._close_handle()

    def _close_handle(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None


_databases: dict[Path, Database] = {}
_databases_lock = threading.Lock()


def database(path: Path) -> Database:
    """The one `Database` of this file in this process."""
    with _databases_lock:
        return _databases.setdefault(path, Database(path))


def rows(connection: duckdb.DuckDBPyConnection, statement: Statement) -> list[tuple[Any, ...]]:
    """Run a statement; its rows."""
    return connection.execute(statement.text, list(statement.values) or None).fetchall()


def affected(connection: duckdb.DuckDBPyConnection, statement: Statement) -> int:
    """Run an INSERT or DELETE; how many rows it touched."""
    ((count,),) = rows(connection, statement)
    return int(count)
