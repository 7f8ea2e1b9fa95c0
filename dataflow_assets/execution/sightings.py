"""Sightings: what the sources of published windows held when they were last looked at, in the drive's database, which all hosts share.

Here: a sighting as data, reading and writing them. Not here: looking (`execution.late_data`), what follows (`execution.reopening`).

A sighting is no flag. It says what was seen, and which publish it was held against; whether a window is reopened follows from it and from
the ledger, each time anew. So nothing has to be cleared, and nothing is lost when a rerun fails.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dataflow_assets.errors import ConnectionFailed, DataflowError
from dataflow_assets.execution.drive import open_drive_connector
from dataflow_assets.execution.fingerprints import Fingerprint
from dataflow_assets.protocols import KeepsRecords
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project
from dataflow_assets.storage.records import (
    Asked,
    Kind,
    RecordForms,
    RecordTable,
    delete_records,
    insert_record,
    make_table,
    probe_columns,
    select_records,
)
from dataflow_assets.tables import TableName

_COLUMNS: Mapping[str, Kind] = {
    "sighting_id": "name",
    "pipeline_name": "name",
    "unit_key": "name",
    "step": "name",
    "seen_at": "instant",
    "seen": "text",
}
_SUFFIX = "_sightings"
_MOST = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sighting:
    """What one source held for one window. `compared`: endpoint -> the generation of the publish that it was held against."""

    key: str
    step: str
    at: datetime
    """A moment before the source was asked."""
    seen: Fingerprint
    compared: Mapping[str, int] = field(default_factory=dict)
    baseline: Fingerprint | None = None
    """What the first look saw, at a window that was published without a fingerprint."""
    sentence: str = ""
    """What has changed, in words; empty where nothing has."""
    changes: Mapping[str, Any] | None = None
    """How many rows, as far as that could be told."""
    id: str = ""

    def data(self) -> dict[str, Any]:
        """The part that is kept as JSON."""
        return {
            "seen": self.seen.data(),
            "compared": dict(self.compared),
            "baseline": self.baseline.data() if self.baseline else None,
            "sentence": self.sentence,
            "changes": self.changes,
        }


Sightings = Mapping[tuple[str, str], Sighting]
"""(window key, source step) -> the newest sighting."""


def read_sightings(project: Project, pipeline: str) -> dict[tuple[str, str], Sighting]:
    """The newest sighting of each window and source; empty when there is none yet. Raises ConnectionFailed or ReadFailed."""
    with _Book(project) as book:
        found: dict[tuple[str, str], Sighting] = {}
        for sighting in sorted(book.read(pipeline), key=lambda item: (item.at, item.id)):
            found[sighting.key, sighting.step] = sighting
        return found


def known_sightings(project: Project, pipeline: str) -> Sightings:
    """As `read_sightings`, but a database that cannot be asked stops nobody: then it is said in the log, and nothing counts as reopened."""
    try:
        return read_sightings(project, pipeline)
    except DataflowError as error:
        _log.warning("what was seen at the sources of %s cannot be read, so no window counts as reopened: %s", pipeline, mask(str(error)))
        return {}


def write_sightings(project: Project, pipeline: str, sightings: Sequence[Sighting], *, replacing: Iterable[Sighting] = ()) -> None:
    """Keep these, and forget those that they replace. Two who write at once leave both, of which the newest counts.

    Raises ConnectionFailed or WriteFailed.
    """
    if sightings:
        with _Book(project) as book:
            book.write(pipeline, sightings, [old.id for old in replacing if old.id])


class _Book:
    """The table, opened."""

    def __init__(self, project: Project) -> None:
        connector = open_drive_connector(project)
        if not isinstance(connector, KeepsRecords):
            raise DataflowError(f"a connection of kind {connector.kind!r} cannot hold the drive table")
        options = project.model.drive
        self._keeper: KeepsRecords = connector
        self._closing = closing(connector)
        self._table = RecordTable(TableName(options.table + _SUFFIX, options.table_schema), _COLUMNS, "sighting_id", ("pipeline_name",))

    def __enter__(self) -> _Book:
        self._forms: RecordForms = self._keeper.record_forms()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.__exit__()

    def read(self, pipeline: str) -> list[Sighting]:
        if not self._is_there():
            return []
        wanted = Asked({"pipeline_name": (pipeline,)})
        found = self._keeper.read_records(select_records(self._forms, self._table, tuple(_COLUMNS), wanted))
        return [_sighting(dict(zip(_COLUMNS, values, strict=True))) for values in found]

    def write(self, pipeline: str, sightings: Sequence[Sighting], replaced: Sequence[str]) -> None:
        self._require()
        for start in range(0, len(sightings), _MOST):
            rows = [_row(pipeline, item) for item in sightings[start : start + _MOST]]
            self._keeper.write_records([insert_record(self._forms, self._table, row) for row in rows])
        for start in range(0, len(replaced), _MOST):
            gone = Asked({"sighting_id": tuple(replaced[start : start + _MOST])})
            self._keeper.write_records([delete_records(self._forms, self._table, gone)])

    def _require(self) -> None:
        for statement in () if self._is_there() else make_table(self._forms, self._table):
            try:
                self._keeper.write_records([statement])
            except DataflowError:
                if not self._is_there():  # somebody else may have been quicker
                    raise

    def _is_there(self) -> bool:
        try:
            self._keeper.read_records(probe_columns(self._forms, self._table, tuple(_COLUMNS)))
        except DataflowError as error:
            if error.transient or isinstance(error, ConnectionFailed):
                raise
            return False
        return True


def _row(pipeline: str, sighting: Sighting) -> dict[str, Any]:
    text = json.dumps(sighting.data())
    name = json.dumps([pipeline, sighting.key, sighting.step, sighting.at.isoformat(), text])
    return {
        "sighting_id": hashlib.sha256(name.encode()).hexdigest()[:32],
        "pipeline_name": pipeline,
        "unit_key": sighting.key,
        "step": sighting.step,
        "seen_at": sighting.at,
        "seen": text,
    }


def _sighting(row: Mapping[str, Any]) -> Sighting:
    moment = datetime.fromisoformat(row["seen_at"]) if isinstance(row["seen_at"], str) else row["seen_at"]
    data = json.loads(row["seen"])
    return Sighting(
        row["unit_key"],
        row["step"],
        moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC),
        Fingerprint.of_data(data["seen"]),
        data["compared"],
        Fingerprint.of_data(data["baseline"]) if data["baseline"] else None,
        data["sentence"],
        data.get("changes"),
        row["sighting_id"],
    )
