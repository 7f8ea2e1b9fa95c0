"""Which rows of the drive table may go, by pipeline and age.

Here: the choice. Not here: removing them (`execution.drive`), Dagster's own records of the same runs (`assets.pruning`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dataflow_assets.execution.drive import RUNNING, Drive, DriveRow

_ALIVE = timedelta(hours=1)


@dataclass(frozen=True)
class OldAttempts:
    """The rows made before an instant: those that go, and those of attempts that are still under way."""

    gone: tuple[DriveRow, ...]
    running: tuple[DriveRow, ...]


def old_attempts(drive: Drive, *, pipelines: Sequence[str] | None, before: datetime, now: datetime) -> OldAttempts:
    """The rows of these pipelines, or of all, by when they were made: a row that never started, such as a gap, has an age too.

    An attempt counts as under way while its row says RUNNING and its worker was heard of in the last hour. Raises as `Drive.rows` does.
    """
    rows = drive.outlines(pipeline=pipelines, before=before)
    running = tuple(row for row in rows if row.pipeline_status == RUNNING and (row.heartbeat_at or row.created_at or now) > now - _ALIVE)
    alive = {row.pipeline_id for row in running}
    return OldAttempts(tuple(row for row in rows if row.pipeline_id not in alive), running)
