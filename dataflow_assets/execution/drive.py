"""The drive: the one record of attempts, in a database that all workers share.

Here: opening it, adding, changing and finding rows, and what is done while its database cannot be reached. Not here: the table
(`storage.drive`), what is written of a run (`execution.journal`).

A drive that cannot be reached never stops a load: it is said once in the log, what was to be written waits in `.dataflow/drive-spool`,
and the next drive that is opened, or this one after a while, sends it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

from dataflow_assets.errors import ConnectionFailed, DataflowError
from dataflow_assets.execution.connections import open_block
from dataflow_assets.protocols import Connector, KeepsRecords
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project
from dataflow_assets.spec.templates import TemplateContext
from dataflow_assets.storage.drive import (
    COLUMNS,
    FAILED,
    FIELDS,
    GAP_DETECTED,
    KEY,
    NEWEST,
    PHASES,
    RUNNING,
    SKIPPED,
    STATUSES,
    SUCCESS,
    DriveRow,
    asked,
    column_values,
    drive_row,
    drive_table,
    failures_since_success,
)
from dataflow_assets.storage.records import (
    Asked,
    RecordForms,
    RecordTable,
    add_missing,
    delete_records,
    insert_record,
    make_table,
    probe_columns,
    select_records,
    update_records,
)
from dataflow_assets.storage.spool import Line, Spool, waiting
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import TableName, utc_now

__all__ = ["FAILED", "GAP_DETECTED", "PHASES", "RUNNING", "SKIPPED", "STATUSES", "SUCCESS", "Drive", "DriveRow", "open_drive"]

FILE = Path(".dataflow") / "drive.sqlite"
SPOOL = Path(".dataflow") / "drive-spool"
_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 30.0
"""How long a drive that could not be reached is left alone: a connection that times out would hold up every window."""
_MOST_KEYS = 500
"""How many values one statement names."""


def open_drive(project: Project, *, warn: Callable[[str], object] | None = None) -> Drive:
    """The project's drive: `drive: {connection, schema, table}` of the project file, else SQLite in `.dataflow/`.

    Nothing is reached yet; the table is made by the first row that is written. `warn` hears, once, that it cannot be reached.
    """
    options = project.model.drive
    table = TableName(options.table, options.table_schema)
    return Drive(lambda: open_drive_connector(project), table, spool=project.root / SPOOL, warn=warn or _log.warning)


def open_drive_connector(project: Project) -> Connector:
    """The connector of the drive's database, for what else all workers must know. Nothing is reached yet.

    Raises DataflowError when its connection is written wrong.
    """
    named = project.model.drive.connection
    block: Mapping[str, Any] = {"type": "sqlite", "database": str(FILE), "lock_timeout": "5s"}
    if named is not None:
        block = project.model.connections[named]
    context = TemplateContext(
        project_variables=project.model.vars,
        overrides=project.overrides,
        environment=project.environment,
        timezone=project.model.timezone,
    )
    return open_block(project, block, name=named or "drive", kind=str(block.get("type", "")), context=context)


def where_kept(project: Project) -> str:
    """Where the drive is, and what waits to be sent there, in words; nothing is reached."""
    options = project.model.drive
    name = TableName(options.table, options.table_schema)
    place = f"{name} of connection {options.connection}" if options.connection else f"{name} in {FILE}"
    rows = waiting(project.root / SPOOL)
    return f"{place}; {rows:,} changes wait to be sent, by the next run that reaches it" if rows else place


class Drive:
    """The rows of all attempts. Writing never raises for the sake of the database; reading and deleting do. Safe between threads."""

    def __init__(
        self, opening: Callable[[], Connector], table: TableName, *, spool: Path, warn: Callable[[str], object] = _log.warning
    ) -> None:
        self._opening, self._name, self._warn = opening, table, warn
        self._spool = Spool(spool)
        self._connector: Connector | None = None
        self._lock = threading.RLock()  # of the connection
        self._keeping = threading.RLock()  # of the spool, taken within the other one or alone
        self._known: tuple[RecordForms, RecordTable] | None = None
        self._ready = self._readable = False
        self._away_since: float | None = None
        self._said = False

    # -- writing

    def begin(self, row: DriveRow) -> None:
        """Record that an attempt begins, or anything else that is a row of its own."""
        now = utc_now()
        row = replace(row, created_at=row.created_at or now, updated_at=row.updated_at or now)
        values = {name: value for name in FIELDS if (value := getattr(row, name)) is not None}
        self._write(row.pipeline_id, values, new=True)

    def update(self, pipeline_id: str, *, only_if: str | None = None, **changes: Any) -> None:
        """Change fields of a row; of `phases` those that are named. `only_if`: only while the row has this status."""
        self._write(pipeline_id, {"updated_at": utc_now(), **changes}, only_if=only_if)

    def beat(self, pipeline_ids: Sequence[str], *, at: datetime) -> None:
        """Note that the workers of these attempts are alive. One that cannot be noted is not kept: it is worth nothing later.

        It is tried also while the drive is left alone: a worker that is not heard of as soon as it could be would be taken for dead.
        """
        if not pipeline_ids:
            return
        with self._lock:
            if (error := _error_of(lambda: self._beat(pipeline_ids, at))) is not None:
                self._gone(error)

    def _beat(self, pipeline_ids: Sequence[str], at: datetime) -> None:
        forms, table = self._open()
        changed = {"heartbeat_at": at, "updated_at": at}
        found = [Asked({KEY: part}) for part in _parts(pipeline_ids)]
        self._keeper.write_records([update_records(forms, table, changed, part) for part in found])

    def _write(self, pipeline_id: str, changes: Mapping[str, Any], *, new: bool = False, only_if: str | None = None) -> None:
        values = column_values(changes)
        line = {"key": pipeline_id, "new": new, "only_if": only_if, "values": values}
        if self._kept_while_away(line):
            return
        with self._lock:
            if (error := _error_of(lambda: self._change(line))) is not None:
                self._gone(error)
                self._keep(line)

    def _change(self, line: Line) -> None:
        """Write one change. A row that is there already, from the same attempt told twice, is replaced."""
        forms, table = self._open()
        try:
            self._keeper.write_records(_statements(forms, table, line, replacing=False))
        except DataflowError as error:
            if not line["new"] or error.transient or isinstance(error, ConnectionFailed):
                raise
            self._keeper.write_records(_statements(forms, table, line, replacing=True))

    # -- reading

    def rows(
        self,
        *,
        pipeline: str | Sequence[str] | None = None,
        statuses: Sequence[str] = (),
        since: datetime | None = None,
        before: datetime | None = None,
        keys: Sequence[str] | None = None,
        limit: int | None = None,
        newest: Sequence[str] = NEWEST,
    ) -> list[DriveRow]:
        """The rows that fit, the newest first; `since` and `before` are about when they were made, as is `newest` unless it names other
        columns. Empty when there is no table yet.

        Raises ConnectionFailed or ReadFailed.
        """
        with self._lock:
            forms, table = self._forms()
            if not self._can_be_read(forms, table):
                return []
            parts: list[Sequence[str] | None] = [None] if keys is None else list(_parts(keys))
            found: list[tuple[Any, ...]] = []
            for part in parts:
                wanted = asked(pipeline=pipeline, statuses=statuses, since=since, before=before, keys=part)
                found += self._read(select_records(forms, table, tuple(COLUMNS), wanted, newest=newest, limit=limit))
        rows = [drive_row(values) for values in found]
        if len(parts) > 1:
            rows.sort(key=lambda row: (row.created_at or datetime.min.replace(tzinfo=UTC), row.pipeline_id), reverse=True)
        return rows[:limit]

    def outlines(self, *, pipeline: Sequence[str] | None = None, before: datetime) -> list[DriveRow]:
        """The rows made before an instant, without their phases and errors, however many. Raises as `rows` does."""
        columns = (KEY, "pipeline_name", "pipeline_status", "created_at", "heartbeat_at", "run_id", "unit_key")
        with self._lock:
            forms, table = self._forms()
            if not self._can_be_read(forms, table):
                return []
            wanted = asked(pipeline=pipeline, before=before)
            return [drive_row(values, columns) for values in self._read(select_records(forms, table, columns, wanted, newest=NEWEST))]

    def by_id(self, pipeline_id: str) -> DriveRow | None:
        """One row, None when there is none. Raises as `rows` does."""
        with self._lock:
            forms, table = self._forms()
            if not self._can_be_read(forms, table):
                return None
            found = self._read(select_records(forms, table, tuple(COLUMNS), Asked({KEY: (pipeline_id,)})))
        return drive_row(found[0]) if found else None

    def failures(self, pipeline: str) -> dict[str, int]:
        """Window key -> how many attempts at it have failed since its last success. Raises as `rows` does."""
        with self._lock:
            forms, table = self._forms()
            if not self._can_be_read(forms, table):
                return {}
            return {str(key): int(count) for key, count in self._read(failures_since_success(forms, table, pipeline))}

    def delete(self, pipeline_ids: Sequence[str]) -> int:
        """Remove rows; how many there were. Raises ConnectionFailed or WriteFailed."""
        with self._lock:
            forms, table = self._forms()
            if not pipeline_ids or not self._can_be_read(forms, table):
                return 0
            removed = 0
            for part in _parts(pipeline_ids):
                there = self._read(select_records(forms, table, (KEY,), Asked({KEY: part})))
                self._keeper.write_records([delete_records(forms, table, Asked({KEY: part}))])
                removed += len(there)
            return removed

    def close(self) -> None:
        """Let go of the connection; what is still to be sent waits for the next drive."""
        with self._lock, self._keeping:
            self._spool.close()
            if self._connector is not None:
                self._connector.close()

    # -- the table

    @property
    def _keeper(self) -> KeepsRecords:
        """The connector, opened when it is first used: a connection that is written wrong is a drive that cannot be reached."""
        if self._connector is None:
            self._connector = self._opening()
        if not isinstance(self._connector, KeepsRecords):
            raise DataflowError(f"a connection of kind {self._connector.kind!r} cannot hold the drive table")
        return self._connector

    def _forms(self) -> tuple[RecordForms, RecordTable]:
        if self._known is None:
            self._known = (self._keeper.record_forms(), drive_table(self._name))
        return self._known

    def _read(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of a query. An error that its connector does not know is one of ours all the same, for it may show a password."""
        try:
            return self._keeper.read_records(statement)
        except DataflowError:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            message = f"the drive table {self._name} cannot be read: {type(error).__name__}: {error}"
            raise ConnectionFailed(message, hint="check the connection of the drive", transient=False) from None

    def _open(self) -> tuple[RecordForms, RecordTable]:
        """Forms and table, the table made when it is missing and what waits to be sent sent."""
        forms, table = self._forms()
        if not self._ready:
            self._require_table(forms, table)
            with self._keeping:  # whoever keeps a line now finds the drive away, and his line sent, or the drive back
                self._spool.send(lambda lines: self._send(forms, table, lines))
                self._ready, self._away_since, self._said = True, None, False
        return forms, table

    def _is_there(self, forms: RecordForms, table: RecordTable, columns: Sequence[str] = tuple(COLUMNS)) -> bool:
        """Whether the table has these columns; raises when its database cannot be asked at all."""
        try:
            self._read(probe_columns(forms, table, columns))
        except DataflowError as error:
            if error.transient or isinstance(error, ConnectionFailed):
                raise
            return False
        return True

    def _can_be_read(self, forms: RecordForms, table: RecordTable) -> bool:
        """Whether there is a table; one of an older version is given the columns that it lacks."""
        if not (self._ready or self._readable):
            if not self._is_there(forms, table):
                if not self._is_there(forms, table, (KEY,)):
                    return False
                self._require_table(forms, table)
            self._readable = True
        return True

    def _require_table(self, forms: RecordForms, table: RecordTable) -> None:
        """Make the table, or the columns that a table of an older version lacks. What is there is never dropped."""
        if self._readable or self._is_there(forms, table):
            return
        for statement in make_table(forms, table) if not self._is_there(forms, table, (KEY,)) else ():
            try:
                self._keeper.write_records([statement])
            except DataflowError:
                if not self._is_there(forms, table, (KEY,)):  # somebody else may have been quicker
                    raise
        missing = [name for name in COLUMNS if not self._is_there(forms, table, (name,))] if not self._is_there(forms, table) else []
        for name in missing:
            self._keeper.write_records([add_missing(forms, table, name)])

    # -- while it cannot be reached

    def _kept_while_away(self, line: Line) -> bool:
        """Keep a line while the drive is left alone, without waiting for a heartbeat that tries whether it is back."""
        with self._keeping:
            away = self._away_since is not None and time.monotonic() - self._away_since < _PAUSE_SECONDS
            if away:
                self._keep(line)
            return away

    def _gone(self, error: Exception) -> None:
        self._ready = self._readable = False
        self._away_since = time.monotonic()
        if not self._said:
            self._said = True
            message = f"the drive table {self._name} cannot be written; the load goes on, and its record is kept for later: {error}"
            self._warn(mask(message))

    def _keep(self, line: Line) -> None:
        plain = {**line, "values": {name: _plain(value) for name, value in line["values"].items()}}
        with self._keeping:
            error = _error_of(lambda: self._spool.keep(plain))
        if error is not None:
            self._warn(mask(f"the record of {line['key']} is lost, for it could not be kept either: {error}"))

    def _send(self, forms: RecordForms, table: RecordTable, lines: Sequence[Line]) -> None:
        for line in lines:
            values = {name: _typed(name, value) for name, value in line["values"].items() if name in COLUMNS}
            statements = _statements(forms, table, {**line, "values": values}, replacing=True)
            if (error := _error_of(partial(self._keeper.write_records, statements))) is None:
                continue
            if not isinstance(error, DataflowError) or error.transient or isinstance(error, ConnectionFailed):
                raise error
            self._warn(mask(f"the record of {line['key']} is refused by the drive table {self._name}: {error}"))


def _error_of(action: Callable[[], object]) -> Exception | None:
    """What an action raised, if anything: whatever its database does, the load goes on.

    What is said of it is said after its handler has ended. Within one, Dagster's log would write down the driver's error too, unmasked.
    """
    try:
        action()
    except Exception as error:  # noqa: BLE001 - see above
        return error
    return None


def _statements(forms: RecordForms, table: RecordTable, line: Line, *, replacing: bool) -> list[Statement]:
    """What a change says to the database; a row that is sent a second time replaces the first."""
    mine = Asked({KEY: (line["key"],)})
    if line["new"]:
        before = [delete_records(forms, table, mine)] if replacing else []
        return [*before, insert_record(forms, table, line["values"])]
    if line["only_if"] is not None:
        mine = Asked({**mine.among, "pipeline_status": (line["only_if"],)})
    return [update_records(forms, table, line["values"], mine)]


def _parts(values: Sequence[str]) -> list[Sequence[str]]:
    return [values[start : start + _MOST_KEYS] for start in range(0, len(values), _MOST_KEYS)] or [()]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _typed(column: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    kind = COLUMNS[column]
    return datetime.fromisoformat(value) if kind == "instant" else date.fromisoformat(value) if kind == "date" else value
