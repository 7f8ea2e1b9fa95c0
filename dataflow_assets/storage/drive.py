"""The drive table: one row per attempt at a window, with what became of each of its phases.

Here: its columns, its statements, and a row as data (`DriveRow`). Not here: what is written when (`execution.drive`,
`execution.journal`), running statements (each connector's `KeepsRecords`).

Names and meaning are those of the Drive system, whose queries find what they ask for; ours stand beside them.
"""

# ruff: noqa: S608 - identifiers pass Dialect.quote, values are placeholders

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from typing import Any

from dataflow_assets.storage.records import Asked, Kind, RecordForms, RecordTable
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import TableName

TABLE = "pipeline_execution_drive"
PHASES = (
    "stale_pipeline_handling",
    "pre_validation",
    "source_to_stage_transfer",
    "stage_to_target_transfer",
    "audit",
    "stage_cleaning",
    "target_cleaning",
)
RUNNING, SUCCESS, FAILED, SKIPPED, GAP_DETECTED = "RUNNING", "SUCCESS", "FAILED", "SKIPPED", "GAP_DETECTED"
STATUSES = (RUNNING, SUCCESS, FAILED, SKIPPED, GAP_DETECTED)
KEY = "pipeline_id"
NEWEST = ("created_at", KEY)
_COLUMN_OF = {name: f"{name}_phase" for name in PHASES}
_ROWS = "row_count"  # ROWS alone is a word of MySQL's own
_LONGEST_TEXT = 8_000
COLUMNS: Mapping[str, Kind] = {
    KEY: "name",
    "pipeline_name": "name",
    "pipeline_status": "name",
    "pipeline_retry_number": "integer",
    "pipeline_start_timestamp": "instant",
    "pipeline_end_timestamp": "instant",
    "pipeline_run_duration": "name",
    "query_window_start": "instant",
    "query_window_end": "instant",
    "query_window_duration": "name",
    "target_date": "date",
    **dict.fromkeys(_COLUMN_OF.values(), "json"),
    "phases_completed": "list",
    "phases_skipped": "list",
    "phases_pending": "list",
    "phase_failed": "name",
    "created_at": "instant",
    "updated_at": "instant",
    "unit_key": "name",
    "attempt": "name",
    "run_id": "name",
    "host": "name",
    "process_id": "integer",
    "heartbeat_at": "instant",
    "row_count": "integer",
    "error_class": "name",
    "error_message": "text",
}


@dataclass(frozen=True)
class DriveRow:
    """One attempt at one window. Instants are aware, in UTC; `phases` is phase name -> what became of it, as JSON knows it."""

    pipeline_id: str
    pipeline_name: str
    pipeline_status: str = RUNNING
    pipeline_retry_number: int = 0
    """How many attempts at this window failed since the last one that succeeded."""
    pipeline_start_timestamp: datetime | None = None
    pipeline_end_timestamp: datetime | None = None
    pipeline_run_duration: str | None = None
    """As `1h 30m 45s`."""
    query_window_start: datetime | None = None
    query_window_end: datetime | None = None
    query_window_duration: str | None = None
    target_date: date | None = None
    """The day on which the window begins, in the time zone of the windows."""
    phases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    phases_completed: tuple[str, ...] = ()
    phases_skipped: tuple[str, ...] = ()
    phases_pending: tuple[str, ...] = ()
    phase_failed: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    unit_key: str = "all"
    attempt: str = ""
    run_id: str | None = None
    host: str | None = None
    process_id: int | None = None
    heartbeat_at: datetime | None = None
    rows: int | None = None
    """Rows that the endpoints have published."""
    error_class: str | None = None
    error_message: str | None = None


FIELDS = tuple(item.name for item in fields(DriveRow))


def drive_table(name: TableName) -> RecordTable:
    """The table as `storage.records` knows tables."""
    others = (("pipeline_status", "created_at"), NEWEST)
    return RecordTable(name, COLUMNS, KEY, searched=("pipeline_name", "created_at"), also_searched=others)


def column_values(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Field -> value as column -> value; raises TypeError for what is no field of a row."""
    if unknown := [name for name in changes if name not in FIELDS]:
        raise TypeError(f"a row of the drive table has no {unknown[0]!r}")
    values: dict[str, Any] = {}
    for name, value in changes.items():
        if name == "phases":
            values |= {_COLUMN_OF[phase]: json.dumps(clean(found), default=str) for phase, found in value.items()}
        elif isinstance(value, tuple | list):
            values[name] = json.dumps(clean(list(value)))
        else:
            values[_ROWS if name == "rows" else name] = clean(value)
    return values


def clean(value: Any) -> Any:
    """Text that every database takes: no zero bytes, no halves of characters, no more than 8,000 characters; also within JSON."""
    if isinstance(value, str):
        text = value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def drive_row(values: Sequence[Any], columns: Sequence[str] = tuple(COLUMNS)) -> DriveRow:
    """A row of these columns as data; instants may come as datetimes or ISO text, JSON as text or as what it says."""
    found = dict(zip(columns, values, strict=True))
    phases = {name: parsed for name, column in _COLUMN_OF.items() if isinstance(parsed := _parsed(found.pop(column, None)), dict)}
    given: dict[str, Any] = {
        "rows" if name == _ROWS else name: _value(COLUMNS[name], value) for name, value in found.items() if value is not None
    }
    return DriveRow(**given, phases=phases)


def _value(kind: Kind, value: Any) -> Any:
    if kind == "instant":
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if kind == "date":
        return date.fromisoformat(value) if isinstance(value, str) else value
    if kind == "list":
        parsed = _parsed(value)
        return tuple(map(str, parsed)) if isinstance(parsed, list) else ()
    return int(value) if kind == "integer" else str(value)


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str | bytes) and value else value


def asked(
    *,
    pipeline: str | Sequence[str] | None = None,
    statuses: Sequence[str] = (),
    since: datetime | None = None,
    before: datetime | None = None,
    keys: Sequence[str] | None = None,
) -> Asked:
    """The rows of a pipeline, or of some, of some statuses, made since or before an instant, of some windows."""
    among: dict[str, Sequence[Any]] = {}
    if pipeline is not None:
        among["pipeline_name"] = (pipeline,) if isinstance(pipeline, str) else tuple(pipeline)
    if statuses:
        among["pipeline_status"] = tuple(statuses)
    if keys is not None:
        among["unit_key"] = tuple(keys)
    return Asked(among, ("created_at", since) if since else None, ("created_at", before) if before else None)


def failures_since_success(forms: RecordForms, table: RecordTable, pipeline: str) -> Statement:
    """Window key -> how many attempts at it ended badly, or never ended, since its last success; windows without any are left out."""
    dialect, name = forms.dialect, forms.dialect.table(table.name)
    quoted = {column: dialect.quote(column) for column in ("pipeline_name", "pipeline_status", "unit_key", "created_at")}
    of_pipeline = f"{quoted['pipeline_name']} = {{}}"
    succeeded = (
        f"SELECT {quoted['unit_key']} AS succeeded_key, max({quoted['created_at']}) AS succeeded_at FROM {name}"
        f" WHERE {of_pipeline.format(dialect.placeholder(1))} AND {quoted['pipeline_status']} = '{SUCCESS}' GROUP BY {quoted['unit_key']}"
    )
    text = (
        f"SELECT drive.{quoted['unit_key']}, count(*) FROM {name} drive LEFT JOIN ({succeeded}) last_success"
        f" ON last_success.succeeded_key = drive.{quoted['unit_key']}"
        f" WHERE drive.{of_pipeline.format(dialect.placeholder(2))} AND drive.{quoted['pipeline_status']} IN ('{FAILED}', '{RUNNING}')"
        f" AND (last_success.succeeded_at IS NULL OR drive.{quoted['created_at']} > last_success.succeeded_at)"
        f" GROUP BY drive.{quoted['unit_key']}"
    )
    return Statement(text, (pipeline, pipeline))
