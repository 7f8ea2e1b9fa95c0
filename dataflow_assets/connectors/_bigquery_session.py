"""Clients of BigQuery: keeping them, running jobs with them, and looking at tables.

Here: the driver. Not here: what is said over it (`bigquery`, `_bigquery_read`, `_bigquery_publish`) and how it is written
(`_bigquery_sql`), what its errors mean (`_bigquery_errors`).

A job is named before it is sent. When the reply is lost, it is asked for by that name; sent again, it would run twice.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

from dataflow_assets.connectors._bigquery_errors import driver_errors, is_conflict, is_known, is_missing, translated
from dataflow_assets.connectors._bigquery_login import BigQueryConnection, Login
from dataflow_assets.connectors._bigquery_sql import dialect, parameter
from dataflow_assets.errors import ConnectionFailed
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import TableName

if TYPE_CHECKING:
    from dataflow_assets.connectors._bigquery_types import Column

_REQUEST_SECONDS = 120
_UPLOAD_RETRIES = 3
_LOOKS = 5
"""How often a job is looked for that BigQuery says it has: it may take a moment to be found."""


def configured(connection: BigQueryConnection, values: Mapping[str, Any], *, dry_run: bool = False) -> Any:
    """What every query is sent with."""
    from google.cloud import bigquery

    config = bigquery.QueryJobConfig(dry_run=dry_run, labels=connection.labels)
    config.query_parameters = [parameter(name, value) for name, value in values.items()]
    if connection.maximum_bytes_billed is not None:
        config.maximum_bytes_billed = connection.maximum_bytes_billed
    if not dry_run:
        config.job_timeout_ms = int(connection.seconds("statement_timeout") * 1000)
    return config


@dataclass(frozen=True)
class Result:
    """What a finished query returned: the driver's iterator over its rows, and the table in which BigQuery keeps them."""

    rows: Any
    table: Any


class Session:
    """One client, used by one thread at a time."""

    def __init__(self, client: Any, login: Login) -> None:
        self._client, self._login = client, login
        self._storage: Any | None = None
        self.connection = login.connection
        self.dialect = dialect(login.connection)

    # -- jobs

    def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        """Run a statement; its rows."""
        return [tuple(row) for row in self.result(statement).rows]

    def result(self, statement: Statement, *, page_rows: int | None = None) -> Result:
        """Run a statement; its result, which stays as it is whatever happens to the tables that it read."""
        values = {f"p{position}": value for position, value in enumerate(statement.values, start=1)}
        job = self._begin(statement.text, values, f"dataflow_read_{uuid.uuid4().hex}")
        return Result(self._result(job, page_rows=page_rows), job.destination)

    def describe(self, statement: Statement) -> list[Column]:
        """The columns that a query would return, without running it."""
        from dataflow_assets.connectors._bigquery_types import Column

        values = {f"p{position}": value for position, value in enumerate(statement.values, start=1)}
        job = self._client.query(
            statement.text,
            job_config=configured(self.connection, values, dry_run=True),
            job_retry=None,
            retry=self._retry(),
            timeout=_REQUEST_SECONDS,
        )
        return [Column.of(item) for item in job.schema or ()]

    def run(self, text: str, values: Mapping[str, Any], *, name: str) -> list[tuple[Any, ...]]:
        """Run a script, again and again while BigQuery gives it up in favour of another one; the rows of its last statement."""
        deadline, pause, number = time.monotonic() + self.connection.seconds("lock_timeout"), 0.25, 0
        while True:
            try:
                return [tuple(row) for row in self._result(self._begin(text, values, f"dataflow_{name}_{number}"))]
            except driver_errors() as error:
                if not is_conflict(error) or time.monotonic() + pause > deadline:
                    raise
            number += 1
            time.sleep(pause * random.uniform(0.5, 1.5))  # so that two do not meet again
            pause = min(pause * 2, 8.0)

    def _begin(self, text: str, values: Mapping[str, Any], job_id: str) -> Any:
        """Send a job, or find the one of this id that was sent before."""
        try:
            config = configured(self.connection, values)
            return self._client.query(
                text,
                job_config=config,
                job_id=job_id,
                job_retry=None,
                retry=self._retry(),
                timeout=_REQUEST_SECONDS,
            )
        except driver_errors() as error:
            if not is_known(error):
                raise
            for _ in range(_LOOKS):
                if (job := self._sent(job_id)) is not None:
                    return job
                time.sleep(0.5)
            raise

    def _sent(self, job_id: str) -> Any | None:
        """The job of this id, None when there is none. Jobs are looked for in one place, that of their data."""
        home = TableName("any") if self.dialect.dataset else None
        location = self.connection.location or (self.dataset_location(home) if home else None)
        try:
            return self._client.get_job(job_id, location=location, retry=self._retry(), timeout=_REQUEST_SECONDS)
        except driver_errors() as error:
            if is_missing(error):
                return None
            raise

    def _result(self, job: Any, *, page_rows: int | None = None) -> Any:
        seconds = self.connection.seconds("statement_timeout")
        try:
            return job.result(page_size=page_rows, retry=self._retry(), timeout=seconds + 5, job_retry=None)
        except TimeoutError:
            with suppress(*driver_errors()):
                job.cancel(retry=None, timeout=_REQUEST_SECONDS)
            raise

    def load(self, file: IO[bytes], table: TableName, *, name: str) -> int:
        """Append a Parquet file to a table; how many rows BigQuery says it took."""
        from google.cloud import bigquery

        config = bigquery.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_APPEND", create_disposition="CREATE_NEVER")
        options = bigquery.ParquetOptions()
        options.enable_list_inference = True
        config.parquet_options = options
        config.labels = self.connection.labels
        job_id = f"dataflow_{name}"
        try:
            job = self._client.load_table_from_file(
                file, self._reference(table), job_id=job_id, job_config=config, num_retries=_UPLOAD_RETRIES, timeout=_REQUEST_SECONDS
            )
        except driver_errors():
            if (job := self._sent(job_id)) is None:  # else the file arrived whole, and only the reply was lost
                raise
        job.result(retry=self._retry(), timeout=self.connection.seconds("statement_timeout"))
        return int(job.output_rows or 0)

    def _retry(self) -> Any:
        from google.cloud.bigquery import DEFAULT_RETRY

        return DEFAULT_RETRY.with_timeout(self.connection.seconds("retry_timeout"))

    def storage_client(self) -> Any | None:
        """A client of the Storage Read API, None where results are read over REST."""
        if self._storage is None:
            self._storage = self._login.storage_client()
        return self._storage

    # -- tables

    def columns(self, table: TableName) -> dict[str, Column]:
        """Name -> column; empty when there is no such table."""
        from dataflow_assets.connectors._bigquery_types import Column

        try:
            found = self._client.get_table(self._reference(table), retry=self._retry(), timeout=_REQUEST_SECONDS)
        except driver_errors() as error:
            if is_missing(error):
                return {}
            raise
        return {column.name: column for column in map(Column.of, found.schema)}

    def make_table(self, table: TableName, columns: Mapping[str, str], *, expires: datetime) -> None:
        """Make a table that BigQuery drops by itself at that time; `columns` is name -> type, plain or in ARRAY<>."""
        from google.cloud import bigquery

        fields = []
        for name, kind in columns.items():
            element = kind.removeprefix("ARRAY<").removesuffix(">")
            fields.append(bigquery.SchemaField(name, element, mode="REPEATED" if element != kind else "NULLABLE"))
        made = bigquery.Table(self._reference(table), schema=fields)
        made.expires = expires
        self._client.create_table(made, exists_ok=True, retry=self._retry(), timeout=_REQUEST_SECONDS)

    def drop_table(self, table: TableName) -> None:
        """Drop a table, if it is there."""
        self._client.delete_table(self._reference(table), not_found_ok=True, retry=self._retry(), timeout=_REQUEST_SECONDS)

    def make_dataset(self, table: TableName) -> None:
        """Make the dataset of a table, unless it is there: whoever may not make one may still use it."""
        if self.dataset_location(table) is not None:
            return
        from google.cloud import bigquery

        made = bigquery.Dataset(self._dataset(table))
        if self.connection.location is not None:
            made.location = self.connection.location
        self._client.create_dataset(made, exists_ok=True, retry=self._retry(), timeout=_REQUEST_SECONDS)

    def dataset_location(self, table: TableName) -> str | None:
        """Where the dataset of a table lies; None when it does not exist."""
        try:
            found = self._client.get_dataset(self._dataset(table), retry=self._retry(), timeout=_REQUEST_SECONDS)
        except driver_errors() as error:
            if is_missing(error):
                return None
            raise
        return str(found.location)

    def _dataset(self, table: TableName) -> Any:
        from google.cloud import bigquery

        project, dataset, _ = self.dialect.path(table)
        return bigquery.DatasetReference(project, dataset)

    def _reference(self, table: TableName) -> Any:
        return self._dataset(table).table(table.name)

    def close(self) -> None:
        """Close the client's connections."""
        with suppress(Exception):
            self._client.close()
        if self._storage is not None:
            with suppress(Exception):
                self._storage.transport.close()


class Sessions:
    """Idle clients of one connector, handed to one user at a time. Safe to share between threads."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._idle: list[Session] = []
        self._lock = threading.Lock()

    @contextmanager
    def use(self) -> Iterator[Session]:
        """A client; closed after an error."""
        with self._lock:
            session = self._idle.pop() if self._idle else None
        if session is None:
            with translated(f"connection {self._login.name!r}", ConnectionFailed):
                session = Session(self._login.client(), self._login)
        try:
            yield session
        except BaseException:
            session.close()
            raise
        with self._lock:
            self._idle.append(session)

    def close(self) -> None:
        """Close the idle clients."""
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()
