"""A thin connection over ADBC's own bindings, for statements, streams of batches and COPY into a table.

Here: what Postgres publishing and reading need of ADBC, and no more. Not here: sessions and errors (`_postgres_session`), what is
said. The driver's DB-API module is not used because importing it loads polars and pyarrow.dataset: 0.35 s and 27 MB (measured).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pyarrow as pa

_T = TypeVar("_T")


def interruptible(call: Callable[[], _T], cancel: Callable[[], None]) -> _T:
    """Wait for the driver so that Ctrl-C cancels the statement; a signal handler could not run inside the call."""
    from adbc_driver_manager import _lib

    waiting: Any = getattr(_lib, "_blocking_call", None)
    return call() if waiting is None else waiting(call, (), {}, cancel)


class BulkConnection:
    """One connection that is always inside a transaction, as libpq understands `conninfo`. Raises adbc_driver_manager.Error."""

    def __init__(self, conninfo: str) -> None:
        import adbc_driver_manager
        import adbc_driver_postgresql

        self._database = adbc_driver_postgresql.connect(conninfo)
        try:
            self._connection = adbc_driver_manager.AdbcConnection(self._database)
            self._connection.set_autocommit(False)
        except BaseException:
            self._database.close()
            raise

    def cursor(self) -> BulkCursor:
        """A statement, to be entered and left."""
        import adbc_driver_manager

        return BulkCursor(adbc_driver_manager.AdbcStatement(self._connection))

    def commit(self) -> None:
        """Commit, and begin anew."""
        interruptible(self._connection.commit, self._connection.cancel)

    def rollback(self) -> None:
        """Roll back, and begin anew."""
        interruptible(self._connection.rollback, self._connection.cancel)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self._database.close()


class BulkCursor:
    """One statement with its result."""

    def __init__(self, statement: Any) -> None:
        self.adbc_statement = statement
        self._reader: pa.RecordBatchReader | None = None
        self.rowcount = -1

    def __enter__(self) -> BulkCursor:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()
        self.adbc_statement.close()

    def adbc_cancel(self) -> None:
        """Stop what the statement is doing; may be called from another thread."""
        self.adbc_statement.cancel()

    def execute(self, text: str, values: Sequence[Any] | None = None) -> None:
        """Run a statement; bound `values` keep ADBC from streaming with COPY and from counting rows."""
        statement = self.adbc_statement
        statement.set_sql_query(text)
        interruptible(statement.prepare, statement.cancel)
        if values:
            columns = [pa.array([value]) for value in values]
            statement.bind(pa.record_batch(columns, names=[str(number) for number in range(len(columns))]))
        handle, self.rowcount = interruptible(statement.execute_query, statement.cancel)
        self._reader = pa.RecordBatchReader.from_stream(handle)

    @property
    def description(self) -> list[str]:
        """The names of the result's columns; empty when there is no result."""
        return [] if self._reader is None else list(self._reader.schema.names)

    def fetch_record_batch(self) -> pa.RecordBatchReader:
        """The result as a stream."""
        assert self._reader is not None, "nothing was executed"
        return self._reader

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The whole result, as rows."""
        table = interruptible(self.fetch_record_batch().read_all, self.adbc_cancel)
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def adbc_ingest(
        self, table: str, reader: pa.RecordBatchReader, *, mode: str, db_schema_name: str | None = None, temporary: bool = False
    ) -> int:
        """COPY a stream into a table; the number of rows."""
        statement = self.adbc_statement
        statement.set_options(**{"adbc.ingest.target_table": table, "adbc.ingest.mode": f"adbc.ingest.mode.{mode}"})
        if db_schema_name is not None:
            statement.set_options(**{"adbc.ingest.target_db_schema": db_schema_name})
        statement.set_options(**{"adbc.ingest.temporary": "true" if temporary else "false"})
        statement.bind_stream(reader)
        return int(interruptible(statement.execute_update, statement.cancel))
